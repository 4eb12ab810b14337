"""Images in the rows of Parquet files, read in the order of the rows, a few rows at a time.

A row group, which may be as large as the file, can be decompressed from its beginning only. So each is read by a cursor
that goes on from where it is, and what was read last stays in memory, since threads read in several places at a time.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from transmiter_cli.errors import UsageError, first_line
from transmiter_cli.files import file_state

ROWS = 32
"""Images that are read at a time."""
BUFFER = 2**20
"""Bytes of the file that are in memory for each cursor."""
KEPT_BYTES = 2**29
"""Images that are kept in memory, of all files together."""
FEWEST_KEPT = 2
"""How many times ROWS images are kept, however large they are: a thread goes from the end of some to the next."""


class RowGroup(NamedTuple):
    """Where images lie.

    Attributes:
        file: the Parquet file.
        identity: its `file_identity` when it was listed: another file of that name is read anew.
        column: the column, or the field of one, that holds encoded images.
        number: of the row group.
    """

    file: Path
    identity: str
    column: str
    number: int


class Window(NamedTuple):
    """Images that are in memory.

    Attributes:
        start: the row of the first one in its row group.
        images: an array of pyarrow's.
        size: in bytes.
    """

    start: int
    images: Any
    size: int


class Cursor:
    """A row group that is read from its beginning.

    Attributes:
        windows: what was read last.
        end: the first row that was not read yet.
    """

    def __init__(self, group: RowGroup) -> None:
        file = parquet_file(group.file, group.identity)
        self.rows = file.metadata.row_group(group.number).num_rows
        self.batches = file.iter_batches(ROWS, [group.number], [group.column], use_threads=False)
        self.windows: deque[Window] = deque()
        self.end = 0

    def advance(self) -> Window:
        """Read the next images; after the last ones the file is closed."""
        from pyarrow import types

        images: Any = next(self.batches).column(0)
        if types.is_struct(images.type):  # a column with fields, of which one was read
            (images,) = images.flatten()
        window = Window(self.end, images, images.nbytes)
        self.windows.append(window)
        self.end += len(images)
        if self.end >= self.rows:
            self.batches = iter(())
        return window

    def content(self, row: int) -> bytes | None:
        """One of the images that are in memory."""
        window = next(one for one in reversed(self.windows) if one.start <= row)
        return window.images[row - window.start].as_py()


class ImageRows:
    """The images of row groups; those that were read last are in memory.

    Attributes:
        cursors: by row group, the longest unused first.
        kept, held: how many windows are in memory, and their bytes.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.cursors: OrderedDict[RowGroup, Cursor] = OrderedDict()
        self.kept = self.held = 0

    def read(self, group: RowGroup, row: int) -> bytes | None:
        """An image by its row in its group; None if there is none. Threads wait for one another.

        Raises:
            OSError: if the file is damaged there, gone, or another one than was listed.
        """
        with self.lock:
            try:
                return self.cursor_at(group, row).content(row)
            except Exception as error:  # pyarrow has no common type for what damage does
                self.drop(group)
                raise OSError(f"its Parquet file cannot be read there: {first_line(error)}") from error

    def cursor_at(self, group: RowGroup, row: int) -> Cursor:
        """The cursor of a row group, moved to where it has a row in memory."""
        cursor = self.cursors.get(group)
        if cursor is None or row < cursor.windows[0].start:
            self.drop(group)
            cursor = Cursor(group)
        while row >= cursor.end:
            window = cursor.advance()
            self.kept, self.held = self.kept + 1, self.held + window.size
            self.cursors[group] = cursor
            self.cursors.move_to_end(group)
            self.forget()
        self.cursors.move_to_end(group)
        return cursor

    def forget(self) -> None:
        """Leave in memory what fits, the latest first; a process that decodes beside others reads in one place."""
        most = KEPT_BYTES if parent_process() is None else 0
        while self.kept > FEWEST_KEPT and self.held > most:
            group, cursor = next(iter(self.cursors.items()))
            self.kept, self.held = self.kept - 1, self.held - cursor.windows.popleft().size
            if not cursor.windows:
                del self.cursors[group]

    def drop(self, group: RowGroup) -> None:
        """Forget all of a row group."""
        cursor = self.cursors.pop(group, None)
        if cursor is not None:
            self.kept -= len(cursor.windows)
            self.held -= sum(window.size for window in cursor.windows)


IMAGE_ROWS = ImageRows()
"""Those of all files: what is in memory is of this process."""


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
