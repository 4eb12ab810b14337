"""Parquet files, as data sets of Hugging Face are kept in: a column of encoded images, and perhaps one of classes."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import parent_process
from pathlib import Path
from threading import Lock
from typing import Any

from transmiter_cli.embedding.sources.folder import is_folder, is_image, split_folders
from transmiter_cli.embedding.sources.manifest import SPELLINGS
from transmiter_cli.embedding.sources.record import ImageSet, require_all_or_none
from transmiter_cli.embedding.sources.shards import numbers_first
from transmiter_cli.embedding.sources.splits import canonical, is_usual
from transmiter_cli.errors import TransmiterError, UsageError, first_line
from transmiter_cli.files import file_identity, file_state

SUFFIX = ".parquet"
DATA_FOLDER = "data"
"""Where the files of a data set lie below its folder, if not in it."""
NUMBERED = re.compile(r"(.+)-\d{5}-of-\d{5}(-[0-9a-f]{16})?")
"""train-00000-of-00003: a part of a split, as Hugging Face calls it."""
CONTENT = "bytes"
"""The field that holds an image's file, where a column has several."""
KEPT_BYTES = 2**30
"""Row groups that are kept in memory, since threads read images in several places at a time."""
FEWEST_KEPT = 2
"""How many are kept however large they are: a thread may go from the end of one to the beginning of the next."""


@dataclass(frozen=True)
class Columns:
    """Where a file has its images and their classes.

    Attributes:
        images: the column, or the field of one, that holds encoded images.
        labels: the column of classes; None if there is none.
        names: what classes are called that are numbers; empty where they are their own names.
    """

    images: str
    labels: str | None
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """An image in a row of a Parquet file, which is read with all others of its row group.

    Attributes:
        file: the Parquet file.
        identity: its `file_identity` when it was listed.
        column: see `Columns`.
        group: its row group.
        row: its row there.
        number: its row in the file.
        id: what the file is called among those of the data, and the number.
    """

    file: Path
    identity: str
    column: str
    group: int
    row: int
    number: int
    id: str
    label: str | None = None

    @property
    def name(self) -> str:
        """See ImageRecord."""
        return f"{self.file}/{self.number}"

    def place(self) -> str:
        """See ImageRecord.

        Raises:
            OSError: if the file is gone, or another one than was listed.
        """
        if not self.identity.endswith(f"|{file_state(self.file.stat())}"):
            raise OSError("its Parquet file changed since it was listed")
        return f"{self.identity}|{self.number}"

    def open(self) -> io.BytesIO:
        """See ImageRecord.

        Raises:
            OSError: if the row holds no image.
        """
        content = ROW_GROUPS.read(self.file, self.identity, self.column, self.group)[self.row].as_py()
        if content is None:
            raise OSError("its row holds no image")
        return io.BytesIO(content)


def accepts(path: Path) -> bool:
    """Whether a --data value is a Parquet file, or a folder that holds some, in place of images or folders of them."""
    if not path.is_dir():
        return path.suffix == SUFFIX
    return any(files_of(place) for place in (path, path / DATA_FOLDER, *split_folders(path).values()))


def files_of(folder: Path) -> list[Path]:
    """The Parquet files in a folder; none if it is not there, or holds images or other folders beside them."""
    if not folder.is_dir():
        return []
    found: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if is_folder(entry) or is_image(entry):
                return []
            found += [Path(entry.path)] if entry.name.endswith(SUFFIX) else []
    return sorted(found)


class ParquetReader:
    """Images in Parquet files, in the order of the files and of their rows.

    Args:
        path: a file, or a folder of files: those of one split each, as their names say, or in folders train/val/test.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """See Reader."""
        return str(self.path)

    @cached_property
    def parts(self) -> Mapping[str | None, Sequence[Path]]:
        """The files of each split; those of None where there are no splits."""
        if not self.path.is_dir():
            return {None: [self.path]}
        folders = {split: files_of(folder) for split, folder in split_folders(self.path).items()}
        if any(folders.values()):
            return {split: files for split, files in folders.items() if files}
        files = files_of(self.path) or files_of(self.path / DATA_FOLDER)
        splits = [split_of(file) for file in files]
        if None in splits:
            return {None: files}
        return {one: [file for file, split in zip(files, splits, strict=True) if split == one] for one in splits}

    def splits(self) -> tuple[str, ...]:
        """See Reader."""
        return tuple(split for split in self.parts if split is not None)

    def read(self, split: str | None) -> ImageSet:
        """See Reader."""
        top = self.path if self.path.is_dir() else self.path.parent
        tables = [Table(path, path.relative_to(top).as_posix()) for path in self.parts[split]]
        images = [image for table in tables for image in table.images()]
        if not images:
            raise TransmiterError(f"{self.path} holds no images: its tables have no rows.")
        require_all_or_none([image.name for image in images if image.label is None], len(images), str(self.path))
        labels = {image.label for image in images if image.label is not None}
        names = tables[0].columns.names or tuple(sorted(labels, key=numbers_first))
        return ImageSet(tuple(images), names, split)


def split_of(path: Path) -> str | None:
    """The split that a file's name says it is of; None if it says none."""
    numbered = NUMBERED.fullmatch(path.stem)
    name = numbered[1] if numbered else path.stem
    return canonical(name) if numbered or is_usual(name) else None


@dataclass(frozen=True)
class Table:
    """One Parquet file.

    Attributes:
        id: what it is called among the files.
    """

    path: Path
    id: str

    @cached_property
    def identity(self) -> str:
        """Its `file_identity`."""
        return file_identity(str(self.path))

    @cached_property
    def file(self) -> Any:
        """The file, of which the footer alone has been read.

        Raises:
            TransmiterError: if it is no Parquet file, or a damaged one.
        """
        return opened(self.path)

    @cached_property
    def columns(self) -> Columns:
        """Where its images and classes are.

        Raises:
            TransmiterError: if no column, or none of several, is that of the images, or of the classes.
        """
        return find_columns(self.file.schema_arrow, self.path)

    def images(self) -> Iterator[ParquetImage]:
        """Its images, in the order of its rows."""
        columns, metadata = self.columns, self.file.metadata
        labels = self.labels(columns)
        number = 0
        for group in range(metadata.num_row_groups):
            for row in range(metadata.row_group(group).num_rows):
                label = None if labels is None else labels[number]
                about = (self.path, self.identity, columns.images, group, row, number)
                yield ParquetImage(*about, f"{self.id}/{number}", label)
                number += 1

    def labels(self, columns: Columns) -> list[str | None] | None:
        """The class of each row; None for one without, which a negative number stands for, too.

        Raises:
            TransmiterError: if a number has no name.
        """
        if columns.labels is None:
            return None
        values: list[Any] = self.file.read([columns.labels]).column(0).to_pylist()
        if not columns.names:
            return [None if value is None or value == "" else str(value) for value in values]
        highest = max((value for value in values if value is not None), default=0)
        if highest >= len(columns.names):
            raise TransmiterError(
                f"{self.path} has names for {len(columns.names)} classes, but a row has the class {highest}, counted "
                "from 0."
            )
        return [None if value is None or value < 0 else columns.names[value] for value in values]


def find_columns(schema: Any, path: Path) -> Columns:
    """The columns of images and classes: those that Hugging Face's own description, or their names, say it of.

    Raises:
        TransmiterError: if none says so of the images, or several do.
    """
    features = described(schema)
    images = [name for name in schema.names if kind_of(features, name) == "Image"]
    images = images or [name for name in schema.names if holds_content(schema.field(name).type)]
    if len(images) != 1:
        which = f"has the images in one of {', '.join(images)}" if images else "has no column of encoded images"
        raise TransmiterError(
            f"{path} {which}; its columns are {', '.join(schema.names)}.",
            "keep one column of images: their files, as bytes",
        )
    (column,) = images
    fields = schema.field(column).type
    named = next((name for name in SPELLINGS["label"] if name in schema.names), None)
    classes = [name for name in schema.names if kind_of(features, name) == "ClassLabel"]
    if named is None and len(classes) > 1:
        raise TransmiterError(
            f"{path} has several columns of classes: {', '.join(classes)}.", "call the one that is meant 'label'"
        )
    labels = named or next(iter(classes), None)
    names = features[labels].get("names", ()) if labels is not None and labels in classes else ()
    return Columns(f"{column}.{CONTENT}" if holds_fields(fields) else column, labels, tuple(names))


def described(schema: Any) -> dict[str, Any]:
    """What Hugging Face says of the columns; nothing where it did not write them."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(about["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return {}


def kind_of(features: Mapping[str, Any], column: str) -> str | None:
    """The kind of a column by its description."""
    about = features.get(column)
    return about.get("_type") if isinstance(about, dict) else None


def holds_fields(kind: Any) -> bool:
    """Whether a column has fields, one of which holds an image's file."""
    from pyarrow import types

    return types.is_struct(kind) and kind.get_field_index(CONTENT) >= 0


def holds_content(kind: Any) -> bool:
    """Whether a column holds bytes, or has a field that does."""
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or holds_fields(kind)


def opened(path: Path) -> Any:
    """A Parquet file.

    Raises:
        UsageError: if the library is not installed.
        TransmiterError: if it is no Parquet file, or a damaged one.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError("Reading Parquet needs the pyarrow library.", "pip install 'transmiter[parquet]'") from error
    try:
        return ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise TransmiterError(
            f"{path} cannot be read as a Parquet file: {first_line(error)}.",
            f"fetch it anew; ls -l {shlex.quote(str(path))}",
        ) from error


class RowGroups:
    """The images of row groups, those that were read last kept in memory."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def read(self, path: Path, identity: str, column: str, group: int) -> Any:
        """The images of one row group; threads that ask for the same one wait until one of them has read it.

        Args:
            path: the Parquet file.
            identity: its identity: another file of that name is read anew.
            column: see `Columns`.
            group: the number of the row group.
        """
        key = (path, identity, column, group)
        with self.lock:
            if key not in self.kept:
                (found,) = opened(path).read_row_group(group, [column], use_threads=False).flatten().columns
                self.kept[key] = found
                self.forget()
            self.kept.move_to_end(key)
            return self.kept[key]

    def forget(self) -> None:
        """Leave what fits; a process that decodes beside others has one place to read in."""
        most = KEPT_BYTES if parent_process() is None else 0
        while len(self.kept) > FEWEST_KEPT and sum(one.nbytes for one in self.kept.values()) > most:
            self.kept.popitem(last=False)


ROW_GROUPS = RowGroups()
