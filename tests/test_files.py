import errno
import math
import os
import re
import threading
from pathlib import Path

import pytest

from transmiter_cli.files import (
    absolute,
    canonical_json,
    digest,
    file_digest,
    is_address,
    write_all,
    write_atomically,
)


def test_readers_see_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")

    def fails(self: Path, target: Path) -> None:
        raise OSError("killed before the rename")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="killed"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]  # noqa: PTH208


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    def fails(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))) as caught:
        write_atomically(tmp_path / "file", b"content")
    assert caught.value.errno == code
    assert not list(tmp_path.iterdir())


def test_files_have_the_usual_permissions(tmp_path: Path):
    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    link.symlink_to(target)
    for content in (b"first", b"second"):
        write_atomically(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content


def test_fifos_and_devices_are_written_to_and_stay_what_they_are(tmp_path: Path):
    fifo, read = tmp_path / "fifo", list[bytes]()
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    write_atomically(fifo, b"ab", [b"c"])
    reader.join(10)
    assert read == [b"abc"]
    assert fifo.is_fifo()
    ours, theirs = os.openpty()
    terminal = Path(os.ttyname(theirs))
    write_atomically(terminal, b"shown")
    assert os.read(ours, 5) == b"shown"
    assert terminal.is_char_device()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, b"")


def test_absolute_paths_follow_links_only_where_dots_lead_out_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inner")
    monkeypatch.chdir(tmp_path)
    assert absolute("link/file") == tmp_path / "link" / "file"
    assert absolute("real/../file") == tmp_path / "file"
    assert absolute("link/../file") == tmp_path / "real" / "file"
    assert absolute("real/../link/file") == tmp_path / "link" / "file"
    assert absolute("real/../link") == tmp_path / "link"


def test_the_same_value_is_the_same_text():
    assert (
        canonical_json({"b": 1, "a": [1, "é"]})
        == canonical_json({"a": [1, "é"], "b": 1})
        == r'{"a":[1,"\u00e9"],"b":1}'
    )


def test_no_value_is_written_that_other_readers_of_json_refuse():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"gain": math.nan})


def test_digests_keep_their_parts_apart(tmp_path: Path):
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a", b"b") == digest(b"a", "b")
    assert digest("\udcff") != digest("y")
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_must_come_before_the_rename_comes_when_all_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_bytes(b"old")
    seen: list[bytes] = []
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))

    def look() -> None:
        seen.extend(one.read_bytes() for one in tmp_path.iterdir())

    write_atomically(tmp_path / "file", b"new", before=look)
    assert sizes == [3]
    assert sorted(seen) == [b"new", b"old"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_what_a_killed_write_left_is_swept_but_not_what_is_being_written(tmp_path: Path):
    names = (".a[1]-0123abcd.tmp", ".a[1]-89ef4567.tmp", ".a1-0123abcd.tmp", ".a[1]-theirs00.tmp")
    for name in names:
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / names[1]).write_bytes(b"half, and growing")
    write_atomically(tmp_path / "a[1]", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], "a[1]"])


@pytest.mark.parametrize("fails", range(3))
def test_several_files_are_written_or_none(tmp_path: Path, fails: int):
    files = [(tmp_path / name, name.encode()) for name in "abc"]
    for path, _ in files:
        path.write_bytes(b"before")
    seen: list[list[bytes]] = []
    write_all(files, lambda: seen.append([path.read_bytes() for path, _ in files]))
    assert seen == [[b"before"] * 3]
    assert [path.read_bytes() for path, _ in files] == [b"a", b"b", b"c"]
    files[fails] = (tmp_path / "no folder" / "\0", b"")
    with pytest.raises(ValueError, match="null"):
        write_all([(path, b"after") for path, _ in files], lambda: pytest.fail("not all are written"))
    assert [path.read_bytes() for place, (path, _) in enumerate(files) if place != fails] == [
        name.encode() for place, name in enumerate("abc") if place != fails
    ]
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "b", "c", "no folder"}


@pytest.mark.parametrize("text", ["https://x.y/z.png", "s3://bucket/a", str(Path("s3://bucket/a")), "S3:/bucket"])
def test_a_scheme_makes_an_address(text: str):
    assert is_address(text)


@pytest.mark.parametrize("text", ["C:/data", "/a/s3:/b", "a:b", "torchvision:MNIST", "./s3:/b", ""])
def test_what_has_no_scheme_is_no_address(text: str):
    assert not is_address(text)
