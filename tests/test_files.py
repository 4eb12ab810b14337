import os
from pathlib import Path

import pytest

from transmiter_cli.files import canonical_json, digest, file_digest, write_atomically


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


def test_files_have_the_usual_permissions(tmp_path: Path):
    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_same_value_is_the_same_text():
    assert (
        canonical_json({"b": 1, "a": [1, "é"]})
        == canonical_json({"a": [1, "é"], "b": 1})
        == r'{"a":[1,"\u00e9"],"b":1}'
    )


def test_digests_keep_their_parts_apart(tmp_path: Path):
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a", b"b") == digest(b"a", "b")
    assert digest("\udcff") != digest("y")
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
