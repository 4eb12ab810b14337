import hashlib
import os
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from tests.embedding.conftest import ListReporter
from transmiter_cli.embedding.decoding import Skipped
from transmiter_cli.embedding.sources import ImageFile
from transmiter_cli.embedding.sources.torchvision import ArrayImage
from transmiter_cli.embedding.storage import contents
from transmiter_cli.embedding.storage.contents import ContentStore, KnownFiles, as_text, read_words
from transmiter_cli.embedding.views import with_views


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"content %d" % (number % 4))  # the last is a copy of the first
    return [ImageFile(tmp_path, f"{number}.png") for number in range(5)]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the images whose content was read."""
    ids, real = list[str](), contents.read_words
    monkeypatch.setattr(contents, "read_words", lambda record: (ids.append(record.id), real(record))[1])
    return ids


def opened(tmp_path: Path) -> ContentStore:
    """The store as another command finds it."""
    return ContentStore(tmp_path / "cache", ListReporter())


def texts(files: list[ImageFile], tmp_path: Path) -> list[str | None]:
    """The images' fingerprints as text; None for none."""
    found = opened(tmp_path).of(files)
    return [as_text(one) if one else None for one in found.fingerprints.tolist()]


def expected(files: list[ImageFile]) -> list[str]:
    return [hashlib.sha256(file.path.read_bytes()).hexdigest()[:32] for file in files]


def test_fingerprints_are_of_the_content(files: list[ImageFile], tmp_path: Path):
    assert texts(files, tmp_path) == expected(files)
    assert len(set(expected(files))) == 4


def test_fingerprints_that_end_with_zeros_keep_them(tmp_path: Path):
    ends = next(number for number in range(10**6) if hashlib.sha256(b"%d" % number).digest()[14:16] == b"\0\0")
    (tmp_path / "a.png").write_bytes(b"%d" % ends)
    files = [ImageFile(tmp_path, "a.png")]
    assert texts(files, tmp_path) == expected(files)


def test_pictures_of_the_same_bytes_and_of_other_sizes_or_modes_are_no_copies():
    kinds = (("L", (4, 2)), ("L", (2, 4)), ("RGBA", (2, 1)), ("CMYK", (2, 1)))
    found = [read_words(ArrayImage([(Image.new(mode, size, 0),)], 0, "", "0")) for mode, size in kinds]
    assert len(set(map(str, found))) == 4


def test_empty_files_are_no_copies_of_each_other(files: list[ImageFile], tmp_path: Path):
    for file in files[1:3]:
        file.path.write_bytes(b"")
    assert [one is None for one in texts(files, tmp_path)] == [False, True, True, False, False]


def test_only_files_that_changed_are_read_again(files: list[ImageFile], tmp_path: Path, read: list[str]):
    before = texts(files, tmp_path)
    assert sorted(read) == [file.id for file in files]
    files[1].path.write_bytes(b"edited")
    os.utime(files[1].path, ns=(1, 1))
    files[2].path.unlink()
    assert texts(files, tmp_path) == [before[0], hashlib.sha256(b"edited").hexdigest()[:32], None, *before[3:]]
    assert read[5:] == ["1.png"]


def test_a_file_in_the_place_of_another_of_the_same_size_and_time_is_read(files: list[ImageFile], tmp_path: Path):
    before, time = texts(files, tmp_path), files[1].path.stat().st_mtime_ns
    files[1].path.write_bytes(b"CONTENT 1")
    os.utime(files[1].path, ns=(time, time))
    assert texts(files, tmp_path) == expected(files) != before


def test_folders_that_change_places_are_read(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(name.encode())
    files = [ImageFile(tmp_path, f"{name}/0.png") for name in ("a", "b")]
    before = texts(files, tmp_path)
    for source, target in (("a", "t"), ("b", "a"), ("t", "b")):
        (tmp_path / source).rename(tmp_path / target)
    assert texts(files, tmp_path) == before[::-1]


def test_an_image_that_is_gone_has_no_place_and_is_named(files: list[ImageFile], tmp_path: Path):
    files[1].path.unlink()
    found = opened(tmp_path).of(files)
    assert (found.places != b"").tolist() == (found.fingerprints != b"").tolist() == [True, False, True, True, True]
    assert found.gone == (Skipped(files[1].name, "No such file or directory"),)


def test_views_hold_what_their_image_holds_which_is_read_once(files: list[ImageFile], tmp_path: Path, read: list[str]):
    found = opened(tmp_path).of(with_views(files[:2], 2, seed=0))
    assert found.fingerprints.tolist()[::3] == found.fingerprints.tolist()[2::3]
    assert sorted(read) == ["0.png", "1.png"]


def test_known_files_are_not_looked_for_again(files: list[ImageFile], tmp_path: Path):
    store = opened(tmp_path)
    chosen = np.array([True, False, True, False, False])
    known = KnownFiles([files[0], files[2]], store.of(files).only(chosen))
    for file in files:
        file.path.unlink()
    assert known == (files[0], files[2])
    assert store.of(known) is known.contents


def test_a_pipe_is_not_read(tmp_path: Path, read: list[str]):
    end, other = os.pipe()
    os.write(other, b"a picture")
    os.close(other)
    found = opened(tmp_path).of([ImageFile(Path("/"), f"/dev/fd/{end}")])
    assert (found.places[0] != b"", found.fingerprints[0], read) == (True, b"", [])
    assert os.read(end, 9) == b"a picture"


def test_a_file_that_changes_while_it_is_read_has_no_fingerprint(
    files: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = contents.read_words

    def late(record: ImageFile) -> list[int] | None:
        if record.id == "2.png":
            record.path.write_bytes(b"meanwhile")
        return real(record)

    monkeypatch.setattr(contents, "read_words", late)
    assert texts(files, tmp_path)[2] is None
    monkeypatch.undo()
    assert texts(files, tmp_path) == expected(files)


def test_what_cannot_be_read_has_a_place_and_no_fingerprint(
    files: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refused(_: ImageFile) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ImageFile, "open", refused)
    found = opened(tmp_path).of(files)
    assert (set(found.fingerprints.tolist()), b"" in found.places.tolist()) == ({b""}, False)


def test_what_was_read_before_an_interrupt_is_kept(
    files: list[ImageFile], tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
):
    real = contents.placed_words
    monkeypatch.setattr(contents, "PART", 1)
    monkeypatch.setattr(contents, "CHUNK", 2)

    def interrupted(records: list[ImageFile], positions: range) -> dict[str, list[int]]:
        if positions[0] == 3:
            raise KeyboardInterrupt
        return real(records, positions)

    monkeypatch.setattr(contents, "placed_words", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path).of(files)
    assert opened(tmp_path).of(files[:3]).fingerprints.all()
    monkeypatch.setattr(contents, "placed_words", real)
    before = len(read)
    assert texts(files, tmp_path) == expected(files)
    assert sorted(read[before:]) == ["3.png", "4.png"]


def test_who_has_nothing_to_write_waits_for_nobody(files: list[ImageFile], tmp_path: Path):
    files[0].path.write_bytes(b"")
    opened(tmp_path).of(files)
    with opened(tmp_path).store.writing():
        waiting = Thread(target=opened(tmp_path).of, args=(files,), daemon=True)
        waiting.start()
        waiting.join(20)
        assert not waiting.is_alive()


def test_what_is_gone_is_named_once_and_not_by_the_next_model(files: list[ImageFile], tmp_path: Path):
    files[1].path.unlink()
    found = opened(tmp_path).of(files)
    assert (len(found.gone), found.only(found.places != b"").gone) == (1, ())


def test_a_damaged_shard_of_fingerprints_is_made_anew(files: list[ImageFile], tmp_path: Path, read: list[str]):
    before = texts(files, tmp_path)
    (shard,) = (tmp_path / "cache" / "contents").glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert texts(files, tmp_path) == before
    assert len(read) == 10
