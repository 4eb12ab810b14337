"""A manifest: CSV with the header path[,label][,split], or JSON lines with the same keys; SPELLINGS has other names."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from transmiter_cli.embedding.sources.images import (
    ImageFile,
    ImageSet,
    real_places,
    require_all_or_none,
    require_root,
)
from transmiter_cli.embedding.sources.splits import canonical, is_usual
from transmiter_cli.embedding.sources.text import escaped_byte, not_utf8, parse_json, read_utf8, show_line
from transmiter_cli.errors import TransmiterError

SPELLINGS = {
    "path": ("path", "image_path", "filepath", "file_name", "filename", "file", "image"),
    "label": ("label", "class", "class_name", "category"),
    "split": ("split",),
    "subset": ("set", "subset", "partition", "phase"),
}
"""What a manifest tells, and how others call the same; of several names the first counts. A subset may be a split."""
FORM = "a .csv manifest: the line path,label, then one for each image"
NO_TEXT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
"""NUL, and halves of surrogate pairs, but for those that stand for bytes of file names."""


@dataclass(frozen=True)
class Row:
    """One image of a manifest.

    Attributes:
        line: where it stands, counted from 1.
        path: as written, without "./" and "..".
        subset: what takes the place of a split where no image has one and each subset is called as splits are.
    """

    line: int
    path: str
    label: str | None
    split: str | None
    subset: str | None


def accepts(path: Path) -> bool:
    """Whether a --data value is named like a manifest."""
    return path.suffix.lower() in (".csv", ".jsonl")


class ManifestReader:
    """Images that a manifest lists, in its order.

    Args:
        path: the manifest.
        root: the folder that its relative paths start from; the manifest's own if None.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self.path, self.name = path, str(path)
        self.root = root or path.parent

    @cached_property
    def rows(self) -> list[Row]:
        """All rows.

        Raises:
            TransmiterError: if a row cannot be used, or an image is listed twice.
        """
        read = csv_rows(self.path, self.root) if self.path.suffix.lower() == ".csv" else json_rows(self.path)
        rows = [as_row(line, values, self.path, self.root) for line, values in read]
        if not rows:
            raise TransmiterError(f"{self.path} lists no images.", "list one on each line, or pass another --data")
        first: dict[str, Row] = {}
        for row, place in zip(rows, real_places(self.root, [row.path for row in rows]), strict=True):
            before = first.setdefault(place, row)
            if before is not row:
                also = "" if before.path == row.path else f", as {row.path!r},"
                raise TransmiterError(
                    f"{self.path} lists {before.path!r} twice, in line {before.line} and{also} in line {row.line}.",
                    "list every image once",
                )
        if all(row.split is None for row in rows):
            rows = with_splits(rows, self.path)
        without = [row.line for row in rows if row.split is None]
        if without and len(without) < len(rows):
            raise TransmiterError(
                f"Line {without[0]} of {self.path} names no split, though other lines do.",
                "name a split in all lines, or in none",
            )
        return rows

    def splits(self) -> tuple[str, ...]:
        """See Reader; in the order in which the manifest first names them."""
        return tuple(dict.fromkeys(row.split for row in self.rows if row.split is not None))

    def read(self, split: str | None) -> ImageSet:
        """See Reader; the classes are those of all splits."""
        rows = [row for row in self.rows if row.split == split]
        require_all_or_none([f"line {row.line}" for row in rows if row.label is None], len(rows), str(self.path))
        files = tuple(ImageFile(self.root, row.path, row.label) for row in rows)
        require_root(files, self.path, self.root)
        return ImageSet(files, tuple(sorted({row.label for row in self.rows if row.label is not None})), split)


def with_splits(rows: Sequence[Row], source: Path) -> list[Row]:
    """Rows whose subsets are their splits, if they are called as splits are.

    Raises:
        TransmiterError: if some are, and others not: test images may be among those that are learned from.
    """
    others = [row for row in rows if not is_usual(row.subset or "")]
    if others and len(others) < len(rows):
        raise TransmiterError(
            f"The column {' or '.join(SPELLINGS['subset'])} of {source} has splits, but "
            f"{others[0].subset or 'nothing'!r} in line {others[0].line}.",
            "call the column split, if it is one, and another name if not",
        )
    return list(rows) if others else [replace(row, split=row.subset) for row in rows]


def csv_rows(path: Path, root: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The rows of a CSV file with their line numbers.

    Raises:
        TransmiterError: if it has no path column, or two of a name that is read, a row has more fields than the header,
            or bytes are not UTF-8 and not in the name of a file that is there.
    """
    text = io.StringIO(read_utf8(path, "surrogateescape"), newline="")
    reader = csv.DictReader(text, skipinitialspace=True, strict=True)
    try:
        header = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = columns = in_our_spelling(header)
        require_utf8(dict.fromkeys(header, "".join(header)), 1, path, root)
        for name, column in zip(header, columns, strict=True):
            if column in SPELLINGS and columns.count(column) > 1:
                raise TransmiterError(
                    f"{path} has {columns.count(column)} columns named {name}.", "give all but one another name"
                )
        if "path" not in columns:
            raise TransmiterError(
                f"{path} has no column named path; its first line is {','.join(header)[:80]!r}.",
                f"let its first line be path,label (or {', '.join(SPELLINGS['path'][1:])}); commas part the fields",
            )
        for values in reader:
            if None in values:
                raise TransmiterError(
                    f"Line {reader.line_num} of {path} has more fields than the header.",
                    'put fields with commas in quotes: "a, b.jpg",label',
                )
            require_utf8(values, reader.line_num, path, root)
            yield reader.line_num, values
    except csv.Error as error:
        text.seek(0)
        after = (number for number, line in enumerate(text, 1) if number > reader.line_num and line.strip())
        first = next(after, reader.line_num + 1)  # the reader's number is that of the row before, or of a blank line
        raise TransmiterError(f"Line {first} of {path} is no valid CSV: {error}.", show_line(path, first)) from error


def require_utf8(values: Mapping[str, str | None], line: int, source: Path, root: Path) -> None:
    """Raise TransmiterError if a row has bytes that are not UTF-8, but for a path whose file has them in its name."""
    for column, text in values.items():
        byte = escaped_byte(text or "")
        if byte is not None and not (column == "path" and os.path.lexists(root / path_text(text or "", root))):
            error = not_utf8(source, byte, line)
            if column == "path":
                error.fix = f"--root FOLDER, if a file's name has that byte and {root} lacks the file; or {error.fix}"
            raise error


def json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The objects of a JSON lines file with their line numbers.

    Raises:
        TransmiterError: if a line is no JSON object with the key path.
    """
    for line, text in enumerate(read_utf8(path).split("\n"), 1):
        if not text.strip():
            continue
        values = parse_json(text, path, line=line)
        named = dict(zip(in_our_spelling(list(values)), values.values(), strict=True)) if type(values) is dict else {}
        if "path" not in named:
            raise TransmiterError(
                f'Line {line} of {path} is no object with the key "path".', '{"path": "cat.jpg", "label": "cat"}'
            )
        yield line, named


def in_our_spelling(names: Sequence[str]) -> list[str]:
    """Names of columns or keys, what a manifest tells called as in SPELLINGS."""
    found: dict[str, str] = {}
    for column, known in SPELLINGS.items():
        there = [name for name in known if name in names]
        if there:
            found[there[0]] = column
    return [found.get(name, name) for name in names]


def path_text(text: str, root: Path) -> str:
    """A path without the spaces around it, unless there is a file that is called so with them."""
    return text if text != text.strip() and os.path.lexists(root / text) else text.strip()


def as_row(line: int, values: Mapping[str, object], source: Path, root: Path) -> Row:
    """A row, checked; numbers serve as labels, too.

    Raises:
        TransmiterError: if the path is empty or no text, another value is neither a text nor a number, or one holds
            what no text can.
    """
    texts: dict[str, str | None] = {}
    for column in ("path", "label", "split"):
        value = values.get(column)
        kinds = (str,) if column == "path" else (str, int)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise TransmiterError(
                f"The {column} in line {line} of {source} is no text, but {value!r}.", 'put it in quotes: "..."'
            )
        text = "" if value is None else str(value)
        texts[column] = (path_text(text, root) if column == "path" else text.strip()) or None
        if NO_TEXT.search(texts[column] or ""):
            raise TransmiterError(
                f"The {column} in line {line} of {source} holds a NUL character or half of a surrogate pair.",
                "take it away",
            )
    path, split = texts["path"], texts["split"]
    if path is None:
        raise TransmiterError(f"Line {line} of {source} has no path.", "remove the line, or name its image")
    subset = canonical(str(values.get("subset") or "").strip()) or None
    return Row(line, os.path.normpath(path), texts["label"], canonical(split) if split else None, subset)
