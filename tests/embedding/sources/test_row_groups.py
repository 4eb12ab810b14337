"""Images in the rows of Parquet files: what is read, how often, and what stays in memory."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transmiter_cli.embedding.sources import row_groups
from transmiter_cli.embedding.sources.row_groups import READING, ROWS, Cursor, RowGroup, missing_rows, read_image
from transmiter_cli.files import file_identity

IMAGES = 5 * ROWS
SIZE = 1000


def image(row: int) -> bytes:
    return row.to_bytes(4, "big") * (SIZE // 4)


def groups_of(path: Path, rows: int) -> list[RowGroup]:
    """A file of IMAGES images in groups of so many rows."""
    pq.write_table(pa.table({"image": [image(row) for row in range(IMAGES)]}), path, row_group_size=rows)
    return [RowGroup(path, file_identity(str(path)), "image", number) for number in range(-(-IMAGES // rows))]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, RowGroup]]:
    """The threads that made a cursor, and for which row group."""
    made: list[tuple[int, RowGroup]] = []

    class Counted(Cursor):
        def __init__(self, group: RowGroup) -> None:
            made.append((threading.get_ident(), group))
            super().__init__(group)

    monkeypatch.setattr(row_groups, "Cursor", Counted)
    monkeypatch.setattr(READING, "cursor", None)
    return made


@pytest.mark.parametrize("rows", [IMAGES, ROWS + 1, 7, 1])
def test_one_after_the_other_they_are_read_once(tmp_path: Path, begun: list[tuple[int, RowGroup]], rows: int):
    groups = groups_of(tmp_path / "a.parquet", rows)
    assert [read_image(groups[row // rows], row % rows) for row in range(IMAGES)] == [*map(image, range(IMAGES))]
    assert [group for _, group in begun] == groups


@pytest.mark.parametrize("rows", [IMAGES, ROWS + 1, 7])
def test_each_thread_goes_its_own_way(tmp_path: Path, begun: list[tuple[int, RowGroup]], rows: int):
    groups = groups_of(tmp_path / "a.parquet", rows)
    parts = [range(start, min(start + 6, IMAGES)) for start in range(0, IMAGES, 6)]

    def read(part: range) -> list[bytes | None]:
        return [read_image(groups[row // rows], row % rows) for row in part]

    with ThreadPoolExecutor(4) as threads:
        found = [one for part in threads.map(read, parts) for one in part]
    assert found == [*map(image, range(IMAGES))]
    assert len(begun) == len(set(begun)), "no thread begins a row group twice"


def test_what_lies_behind_is_read_again(tmp_path: Path, begun: list[tuple[int, RowGroup]]):
    (group,) = groups_of(tmp_path / "a.parquet", IMAGES)
    for row in (IMAGES - 1, IMAGES - ROWS, 0, ROWS, 2 * ROWS - 1, ROWS - 1):
        assert read_image(group, row) == image(row)
    assert len(begun) == 3


def test_few_rows_are_in_memory(tmp_path: Path):
    (group,) = groups_of(tmp_path / "a.parquet", IMAGES)
    for row in (0, IMAGES // 2, IMAGES - 1):
        read_image(group, row)
        cursor = READING.cursor
        assert cursor is not None
        assert cursor.start <= row < cursor.end == cursor.start + ROWS
        assert cursor.images.nbytes < 1.1 * ROWS * SIZE


def test_another_file_of_that_name_is_not_taken_for_it(tmp_path: Path):
    path = tmp_path / "a.parquet"
    (group,) = groups_of(path, IMAGES)
    assert read_image(group, 0) == image(0)
    pq.write_table(pa.table({"image": [b"another", b"one"]}), path)
    os.utime(path, ns=(1, 1))
    assert read_image(group._replace(identity=file_identity(str(path))), 0) == b"another"
    with pytest.raises(OSError, match="changed since it was listed"):
        read_image(group, 0)


def test_damage_is_told_as_a_file_that_cannot_be_read(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [os.urandom(SIZE) for _ in range(IMAGES)]}), path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)
    group, told = RowGroup(path, file_identity(str(path)), "image", 0), []
    for _ in range(2):
        with pytest.raises(OSError, match=r"its Parquet file cannot be read there: .") as found:
            read_image(group, IMAGES - 1)
        told.append(str(found.value))
    assert told[0] == told[1], "and the second time why, too"


def test_rows_that_lack_content_are_known(tmp_path: Path):
    rows = [{"bytes": None if row % 3 else b"1", "path": "p"} for row in range(IMAGES)]
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    path = tmp_path / "a.parquet"
    assert missing_rows(RowGroup(path, file_identity(str(path)), "image.bytes", 0)) == [
        bool(row % 3) for row in range(IMAGES)
    ]
