"""Images in the rows of Parquet files: what is read, how often, and what stays in memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transmiter_cli.embedding.sources import row_groups
from transmiter_cli.embedding.sources.row_groups import ROWS, Cursor, ImageRows, RowGroup
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
def advanced(monkeypatch: pytest.MonkeyPatch) -> list[RowGroup]:
    """The row groups that cursors were made for."""
    made: list[RowGroup] = []

    class Counted(Cursor):
        def __init__(self, group: RowGroup) -> None:
            made.append(group)
            super().__init__(group)

    monkeypatch.setattr(row_groups, "Cursor", Counted)
    return made


@pytest.mark.parametrize("rows", [IMAGES, ROWS + 1, 7])
def test_many_threads_read_each_row_group_once(tmp_path: Path, advanced: list[RowGroup], rows: int):
    groups, images = groups_of(tmp_path / "a.parquet", rows), ImageRows()
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(lambda row: images.read(groups[row // rows], row % rows), range(IMAGES))]
    assert found == [image(row) for row in range(IMAGES)]
    assert len(advanced) == len(groups)


def test_what_is_no_longer_in_memory_is_read_again(
    tmp_path: Path, advanced: list[RowGroup], monkeypatch: pytest.MonkeyPatch
):
    (group,), images = groups_of(tmp_path / "a.parquet", IMAGES), ImageRows()
    monkeypatch.setattr(row_groups, "KEPT_BYTES", int(3.1 * ROWS * SIZE))
    for row in (IMAGES - 1, 2 * ROWS, IMAGES - ROWS, ROWS - 1, 0, IMAGES - 1):
        assert images.read(group, row) == image(row)
        windows = [window for cursor in images.cursors.values() for window in cursor.windows]
        assert images.kept == len(windows) <= 3
        assert images.held == sum(window.size for window in windows) <= 3.1 * ROWS * SIZE
    assert len(advanced) == 2, "at first, and where the first rows had gone"


def test_of_several_row_groups_the_longest_unused_goes_first(
    tmp_path: Path, advanced: list[RowGroup], monkeypatch: pytest.MonkeyPatch
):
    groups, images = groups_of(tmp_path / "a.parquet", ROWS), ImageRows()
    monkeypatch.setattr(row_groups, "KEPT_BYTES", 0)
    for number in (0, 1, 0, 2, 0, 2, 1):
        assert images.read(groups[number], 3) == image(number * ROWS + 3)
        assert len(images.cursors) <= 2
    assert [group.number for group in advanced] == [0, 1, 2, 1]


def test_a_process_that_decodes_beside_others_keeps_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    groups, images = groups_of(tmp_path / "a.parquet", ROWS), ImageRows()
    monkeypatch.setattr(row_groups, "parent_process", object)
    for group in groups:
        images.read(group, 0)
    assert images.kept == len(images.cursors) == 2


def test_a_file_is_closed_once_it_is_read(tmp_path: Path):
    groups, images = groups_of(tmp_path / "a.parquet", 1), ImageRows()
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not list a process's open files")
    before = len([*descriptors.iterdir()])
    for number, group in enumerate(groups):
        assert images.read(group, 0) == image(number)
    assert len([*descriptors.iterdir()]) <= before + 1


def test_another_file_of_that_name_is_not_taken_for_it(tmp_path: Path):
    path, images = tmp_path / "a.parquet", ImageRows()
    (group,) = groups_of(path, IMAGES)
    assert images.read(group, 0) == image(0)
    pq.write_table(pa.table({"image": [b"another", b"one"]}), path)
    os.utime(path, ns=(1, 1))
    another = group._replace(identity=file_identity(str(path)))
    assert images.read(another, 0) == b"another"
    with pytest.raises(OSError, match="changed since it was listed"):
        ImageRows().read(group, 0)


def test_damage_is_told_as_a_file_that_cannot_be_read(tmp_path: Path):
    path = tmp_path / "a.parquet"
    groups_of(path, IMAGES)
    content = bytearray(path.read_bytes())
    content[2000:60000] = bytes(58000)
    path.write_bytes(content)
    group = RowGroup(path, file_identity(str(path)), "image", 0)
    images, told = ImageRows(), []
    for _ in range(2):
        with pytest.raises(OSError, match=r"its Parquet file cannot be read there: .") as found:
            images.read(group, IMAGES - 1)
        told.append(str(found.value))
    assert told[0] == told[1], "and the second time why, too"
    assert images.kept == images.held == 0
