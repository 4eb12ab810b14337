"""Parquet files, as data sets of Hugging Face are kept in: a column of encoded images, and perhaps one of classes."""

from __future__ import annotations

import io
import os
import re
import shlex
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transmiter_cli.embedding.sources.folder import TABLES, image_names, split_folders
from transmiter_cli.embedding.sources.images import ImageFile, ImageRecord, ImageSet, image_set
from transmiter_cli.embedding.sources.parquet_columns import PATH, Columns, find_columns, is_text
from transmiter_cli.embedding.sources.row_groups import (
    RowGroup,
    missing_rows,
    parquet_file,
    read_image,
    require_same,
)
from transmiter_cli.embedding.sources.splits import canonical, is_usual
from transmiter_cli.errors import TransmiterError, UsageError, first_line
from transmiter_cli.files import file_identity
from transmiter_cli.names import some

DATA_FOLDER = "data"
"""Where the files of a data set lie below its folder, if not in it."""
NUMBERED = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<files>\d{5})(-[0-9a-f]{16})?")
"""train-00000-of-00003: a part of a split, as Hugging Face calls it."""
PLAIN = re.compile(r"(?P<split>[A-Za-z]+)[-_.]?\d*")
"""train, train-0, test_00001: a file of a split, as others call it."""


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """An image in a row of a Parquet file.

    Attributes:
        group: the row group that it is in.
        row: its row there.
        number: its row in the file.
        id: what the file is called among those of the data, and the number.
        label: the class it is labelled with; None if it has no label.
    """

    group: RowGroup
    row: int
    number: int
    id: str
    label: str | None = None

    @property
    def name(self) -> str:
        """See ImageRecord."""
        return f"{self.group.file}/{self.number}"

    def place(self) -> str:
        """See ImageRecord.

        Raises:
            OSError: if the file is gone, or another one than was listed.
        """
        require_same(self.group.file, self.group.identity)
        return f"{self.group.identity}|{self.number}"

    def open(self) -> io.BytesIO:
        """See ImageRecord.

        Raises:
            OSError: if the row holds no image, or cannot be read.
        """
        content = read_image(self.group, self.row)
        if content is None:
            raise OSError("its row holds no image")
        return io.BytesIO(content)


def accepts(path: Path) -> bool:
    """Whether a --data value is a Parquet file, or a folder of some.

    Raises:
        UsageError: if it is a folder of both images and tables of images.
    """
    if not path.is_dir():
        return is_table(path.name)
    tables = [table for place in table_places(path).values() for tables in place.values() for table in tables]
    image = next(image_names(path), None) if tables else None
    if image is None:
        return bool(tables)
    table = next(filter(has_images, tables), None)
    if table is None:
        return False  # they tell something of the images
    place = table if table.parent == path else table.parent
    raise UsageError(
        f"{path} holds Parquet files, {table.name} for one, and images, {image} for one.",
        f"keep them apart, or name those that are meant: --data {shlex.quote(str(place))}",
    )


def is_table(name: str) -> bool:
    """Whether a file's name says that it is a Parquet file, and none that tells of images beside it."""
    return name.lower().endswith(TABLES) and not name.startswith((".", "metadata."))


def has_images(table: Path) -> bool:
    """Whether a Parquet file has a column of images; not if it, or none, can be read."""
    try:
        return bool(Table(table, table.name).columns)
    except TransmiterError:
        return False


def table_places(path: Path) -> dict[str, dict[str | None, list[Path]]]:
    """The Parquet files of a folder by where they lie, and by the split that this says they are of.

    That is folders train, val and test, or the folder itself; or these in DATA_FOLDER there.
    """
    places: dict[str, dict[str | None, list[Path]]] = {}
    for folder in (path, path / DATA_FOLDER):
        with suppress(TransmiterError, OSError):  # a class folder of that name, which reading it will tell of
            places[str(folder)] = {None: tables_in(folder)}
            within = {split: tables_in(inner) for split, inner in split_folders(folder).items()}
            places[f"the split folders of {folder}"] = {split: tables for split, tables in within.items() if tables}
    return {place: tables for place, tables in places.items() if any(tables.values())}


def split_tables(path: Path) -> dict[str | None, list[Path]]:
    """The Parquet files of a data set, by split; those of None where there are no splits, or names tell them.

    Raises:
        TransmiterError: if they lie in several places.
    """
    places = table_places(path)
    if len(places) > 1:
        raise TransmiterError(
            f"There are Parquet files in {' and '.join(places)}.", "keep those of a data set together, or name a file"
        )
    return next(iter(places.values()))


def tables_in(folder: Path) -> list[Path]:
    """The Parquet files in a folder itself, sorted."""
    with os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if is_table(entry.name)]
    return sorted(path for path in found if path.is_file())


def split_of(path: Path) -> str | None:
    """The split that a file's name says it is of, as train-00000-of-00003 or train_1 do; None if it says none."""
    numbered = NUMBERED.fullmatch(path.stem)
    named = numbered or PLAIN.fullmatch(path.stem)
    split = canonical(named["split"]) if named else ""
    return split if numbered or is_usual(split) else None


class ParquetReader:
    """Images in Parquet files, in the order of the files and of their rows.

    Args:
        path: a file, or a folder of files: those of one split each, as their names say, or in folders train/val/test.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    @cached_property
    def parts(self) -> Mapping[str | None, Sequence[Path]]:
        """The files of each split; those of None where there are no splits.

        Raises:
            TransmiterError: if only some of the files say which split they are of, or one of a split is missing.
        """
        if not self.path.is_dir():
            return {None: [self.path]}
        found = split_tables(self.path)
        for files in found.values():
            require_whole(files)
        if None not in found:
            return {**found}
        parts: dict[str | None, list[Path]] = {}
        for file in found[None]:
            parts.setdefault(split_of(file), []).append(file)
        if None in parts and len(parts) > 1:
            single = next(filter(split_of, found[None]))
            raise TransmiterError(
                f"The names of {some([one.name for one in parts[None]])} in {parts[None][0].parent} do not say which "
                "split they are of, as those of the other files do.",
                f"take them away, or name a single file: --data {shlex.quote(str(single))}",
            )
        return {**parts}

    def splits(self) -> tuple[str, ...]:
        """See Reader."""
        return tuple(split for split in self.parts if split is not None)

    def read(self, split: str | None) -> ImageSet:
        """See Reader; raises TransmiterError, too, if a file is damaged, or files do not fit each other."""
        top = self.path if self.path.is_dir() else self.path.parent
        tables = [Table(path, path.relative_to(top).as_posix()) for path in self.parts[split]]
        names = tables[0].columns.names
        other = next((table for table in tables if table.columns.names != names), None)
        if other is not None:
            raise TransmiterError(
                f"{tables[0].path} and {other.path.name} have different names for their classes.",
                "write them anew together, or name one of them",
            )
        images = [image for table in tables for image in table.images()]
        if not images:
            raise TransmiterError(f"{self.path} holds no images: its tables have no rows.")
        return image_set(images, names, split, str(self.path))


def require_whole(files: Sequence[Path]) -> None:
    """Raise TransmiterError if files of a split are missing, by what their names say, or there more than once."""
    parts: dict[str | None, list[Path]] = {}
    for file in files:
        parts.setdefault(split_of(file), []).append(file)
    for split, there in parts.items():
        matches = [found for file in there if (found := NUMBERED.fullmatch(file.stem))]
        if not matches:
            continue
        numbers, count = [(one["files"], one["number"]) for one in matches], matches[0]["files"]
        if len(numbers) < len(there) or sorted(numbers) != [(count, f"{one:05d}") for one in range(int(count))]:
            told = some([file.name for file in there])
            raise TransmiterError(
                f"The files of {split} in {files[0].parent} are not those of one data set, each once: {told}.",
                "fetch those that are missing, take old ones away, or name a single file",
            )


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
        with readable(self.path):
            return parquet_file(self.path, self.identity)

    @cached_property
    def columns(self) -> Columns:
        """Where its images and classes are.

        Raises:
            TransmiterError: as `find_columns`.
        """
        return find_columns(self.file.schema_arrow, self.path)

    def images(self) -> Iterator[ImageRecord]:
        """Its images, in the order of its rows; where rows have but the paths of images, these files.

        Raises:
            TransmiterError: if it is damaged, or a class has no name.
        """
        labels, paths = self.labels(), self.paths()
        number = 0
        for place in range(self.file.metadata.num_row_groups):
            rows = self.file.metadata.row_group(place)
            group = RowGroup(self.path, self.identity, self.columns.content, place)
            elsewhere = self.without_content(group, rows) if paths is not None else None
            for row in range(rows.num_rows):
                label = None if labels is None else labels[number]
                path = paths[number] if paths is not None and elsewhere is not None and elsewhere[row] else None
                if path and "\0" not in path:
                    yield ImageFile(self.path.parent, path, label)
                else:
                    yield ParquetImage(group, row, number, f"{self.id}/{number}", label)
                number += 1

    def without_content(self, group: RowGroup, rows: Any) -> list[bool] | None:
        """Of each row of a group whether its image is but a path; None where none is, by what the footer says."""
        columns = [rows.column(place) for place in range(rows.num_columns)]
        content = next(one for one in columns if one.path_in_schema == self.columns.content)
        counted = content.statistics
        if counted is not None and counted.has_null_count and counted.null_count in (0, rows.num_rows):
            return [True] * rows.num_rows if counted.null_count else None
        with readable(self.path):
            return missing_rows(group)

    def paths(self) -> list[str | None] | None:
        """The path of each image, where the column has such a field."""
        column = self.file.schema_arrow.field(self.columns.images).type
        place = column.get_field_index(PATH) if self.columns.has_fields else -1
        has_paths = place >= 0 and is_text(column.field(place).type)
        return self.values(f"{self.columns.images}.{PATH}") if has_paths else None

    def labels(self) -> list[str | None] | None:
        """The class of each row; None for one without, which a negative number stands for where classes have names.

        Raises:
            TransmiterError: if it is damaged, or a number has no name.
        """
        columns = self.columns
        if columns.labels is None:
            return None
        values = [whole(value) for value in self.values(columns.labels)]
        broken = next((value for value in values if isinstance(value, float)), None)
        if broken is not None:
            raise TransmiterError(f"A row of {self.path} has the class {broken}; classes are texts or whole numbers.")
        if not columns.names:
            return [None if value is None or value == "" else str(value) for value in values]
        strange = next((value for value in values if not is_place(value, len(columns.names))), None)
        if strange is not None:
            raise TransmiterError(
                f"{self.path} has names for {len(columns.names)} classes, but a row has the class {strange!r}; they "
                "are counted from 0."
            )
        return [None if value is None or value < 0 else columns.names[value] for value in values]

    def values(self, column: str) -> list[Any]:
        """A column's values, as Python has them.

        Raises:
            TransmiterError: if it is damaged.
        """
        file = self.file
        with readable(self.path):
            return file.read([column]).flatten().column(0).to_pylist()


@contextmanager
def readable(path: Path) -> Generator[None]:
    """Say of a Parquet file that cannot be read that it cannot."""
    try:
        yield
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # pyarrow has no common type for what damage does
        raise TransmiterError(
            f"{path} cannot be read as a Parquet file: {first_line(error)}.",
            f"fetch it anew; ls -l {shlex.quote(str(path))}",
        ) from error


def whole(value: Any) -> Any:
    """A number without its point, which integers get where some are missing; None for those."""
    if not isinstance(value, float):
        return value
    return None if value != value else int(value) if value.is_integer() else value


def is_place(value: Any, names: int) -> bool:
    """Whether a value is the number of a class that has a name, or stands for none."""
    return value is None or (isinstance(value, int) and value < names)
