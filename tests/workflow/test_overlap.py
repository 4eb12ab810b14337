import hashlib
import os
from pathlib import Path

import pytest

from transmiter_cli.embedding.sources import ImageFile
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.workflow import overlap
from transmiter_cli.workflow.overlap import fingerprints


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"content %d" % (number % 4))  # the last is a copy of the first
    return [ImageFile(tmp_path, f"{number}.png") for number in range(5)]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the images whose content was read."""
    ids, real = list[str](), overlap.read_words
    monkeypatch.setattr(overlap, "read_words", lambda record: (ids.append(record.id), real(record))[1])
    return ids


def test_fingerprints_are_of_the_content(files: list[ImageFile], tmp_path: Path):
    expected = [hashlib.sha256(file.path.read_bytes()).hexdigest()[:32] for file in files]
    assert fingerprints(files, Workspace(cache=tmp_path / "cache")) == expected
    assert expected[0] == expected[4]


def test_only_files_that_changed_are_read_again(files: list[ImageFile], tmp_path: Path, read: list[str]):
    before = fingerprints(files, Workspace(cache=tmp_path / "cache"))
    assert len(read) == 5
    files[1].path.write_bytes(b"edited")
    os.utime(files[1].path, ns=(1, 1))
    files[2].path.unlink()
    after = fingerprints(files, Workspace(cache=tmp_path / "cache"))
    assert read[5:] == ["1.png"]
    assert (after[0], after[2:]) == (before[0], before[3:])
    assert after[1] == hashlib.sha256(b"edited").hexdigest()[:32]


def test_a_damaged_shard_of_fingerprints_is_made_anew(files: list[ImageFile], tmp_path: Path, read: list[str]):
    before = fingerprints(files, Workspace(cache=tmp_path / "cache"))
    (shard,) = (tmp_path / "cache" / "contents").glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert fingerprints(files, Workspace(cache=tmp_path / "cache")) == before
    assert len(read) == 10
