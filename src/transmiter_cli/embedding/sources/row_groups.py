"""Images in the rows of Parquet files, a few of which are in memory at a time.

A row group, which may be as large as the file, can be decompressed from its beginning only. So each thread has a cursor
in the row group that it reads, and goes on from there: threads take images that follow each other.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from threading import local
from typing import Any, NamedTuple

from transmiter_cli.errors import UsageError, first_line
from transmiter_cli.files import file_state

ROWS = 8
"""Images that are in memory for each thread."""
BUFFER = 2**20
"""Bytes of the file that are in memory for each thread."""


class RowGroup(NamedTuple):
    """Where images lie.

    Attributes:
        file: the Parquet file.
        identity: its `file_identity` when it was listed: another file of that name is not read.
        column: the column, or the field of one, that holds encoded images.
        number: of the row group.
    """

    file: Path
    identity: str
    column: str
    number: int


class Cursor:
    """A row group that is read from its beginning, once.

    Attributes:
        start, end: the first row that is in memory, and the first after it that is not.
    """

    def __init__(self, group: RowGroup) -> None:
        self.group = group
        file = parquet_file(group.file, group.identity)
        self.batches = file.iter_batches(ROWS, [group.number], [group.column], use_threads=False)
        self.images: Any = ()
        self.start = self.end = 0

    def advance_to(self, row: int) -> None:
        """Read on until a row is in memory, which may not lie before those that are."""
        while row >= self.end:
            batch: Any = next(self.batches, None)
            if batch is None:
                raise OSError("it has fewer rows than it says")
            self.images = field_of(batch.column(0))
            self.start, self.end = self.end, self.end + len(self.images)

    def content(self, row: int) -> bytes | None:
        """An image that is in memory."""
        return self.images[row - self.start].as_py()


class Reading(local):
    """The cursor of each thread."""

    cursor: Cursor | None = None


READING = Reading()


def read_image(group: RowGroup, row: int) -> bytes | None:
    """An image by its row in its group; None if there is none.

    Raises:
        OSError: if the file is damaged there, gone, or another one than was listed.
    """
    cursor, READING.cursor = READING.cursor, None  # where reading fails, the next one begins anew
    try:
        if cursor is None or cursor.group != group or row < cursor.start:
            cursor = Cursor(group)
        cursor.advance_to(row)
        content = cursor.content(row)
    except MemoryError:
        raise
    except Exception as error:  # pyarrow has no common type for what damage does
        raise OSError(f"its Parquet file cannot be read there: {first_line(error)}") from error
    READING.cursor = cursor
    return content


def missing_rows(group: RowGroup) -> list[bool]:
    """Of each row of a group whether it has no content; all of it is read for that.

    Raises:
        OSError: if the file is gone, or another one than was listed.
        ArrowException: if it is damaged.
    """
    file = parquet_file(group.file, group.identity)
    batches = file.iter_batches(ROWS, [group.number], [group.column], use_threads=False)
    return [missing for batch in batches for missing in field_of(batch.column(0)).is_null().to_pylist()]


def field_of(column: Any) -> Any:
    """A column, or the one field of it that was read."""
    from pyarrow import types

    return column.flatten()[0] if types.is_struct(column.type) else column


def parquet_file(path: Path, identity: str) -> Any:
    """An open Parquet file.

    Raises:
        UsageError: if the library is not installed.
        OSError: if it is gone, or another one than was listed.
        ArrowException: if it is no Parquet file, or a damaged one.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError("Reading Parquet needs the pyarrow library.", "pip install 'transmiter[parquet]'") from error
    require_same(path, identity)
    # Without pre_buffer, which would read a whole column at once.
    return ParquetFile(path, metadata=footer(path, identity), buffer_size=BUFFER, pre_buffer=False)


@lru_cache(maxsize=16)
def footer(path: Path, identity: str) -> Any:
    """What a Parquet file says of its row groups; of many, reading it takes longer than reading one of them.

    Args:
        path: the file.
        identity: that it had: another one has another footer.
    """
    from pyarrow.parquet import read_metadata

    return read_metadata(path)


def require_same(path: Path, identity: str) -> None:
    """Raise OSError unless a file is the one that was listed."""
    if not identity.endswith(f"|{file_state(os.stat(path))}"):  # noqa: PTH116  Path.stat takes longer
        raise OSError("its Parquet file changed since it was listed")
