import hashlib
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.test_run import TASK
from transmiter_cli.embedding.sources import ImageFile
from transmiter_cli.embedding.sources.torchvision import ArrayImage
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.run import Run
from transmiter_cli.workflow import overlap
from transmiter_cli.workflow.overlap import (
    Use,
    fingerprints,
    forget_unused,
    read_words,
    remember,
    remember_transfer,
    remembered,
    remembering,
)


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


def test_pictures_of_the_same_bytes_and_of_other_sizes_or_modes_are_no_copies():
    kinds = (("L", (4, 2)), ("L", (2, 4)), ("RGBA", (2, 1)), ("CMYK", (2, 1)))
    found = [read_words(ArrayImage([(Image.new(mode, size, 0),)], 0, "", "0")) for mode, size in kinds]
    assert len(set(map(str, found))) == 4


def test_empty_files_are_no_copies_of_each_other(files: list[ImageFile], tmp_path: Path):
    for file in files[1:3]:
        file.path.write_bytes(b"")
    assert len(fingerprints(files, Workspace(cache=tmp_path / "cache"))) == 3


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


def used(use: Use, run: Run, files: list[ImageFile], workspace: Workspace) -> list[int]:
    """The places of the images that a command is remembered to have used."""
    known = remembered(use, run) or set()
    return [place for place, one in enumerate(fingerprints(files, workspace)) if one in known]


def test_images_of_another_strong_models_artefact_are_kept_in_mind(files: list[ImageFile], tmp_path: Path):
    run, workspace = Run(tmp_path / "run"), Workspace(cache=tmp_path / "cache")
    run.begin(TASK)
    run.add([], {}, strong="one", homes={"one": "one", "two": "two"})
    first, second = (run.path / name / "self-trained.safetensors" for name in ("one", "two"))
    for path, rows in ((first, slice(0, 2)), (second, slice(2, 3)), (first, slice(3, 4))):
        path.parent.mkdir(parents=True, exist_ok=True)
        with remembering("self-train", files[rows], run, workspace):
            path.touch()
    assert used("self-train", run, files[:4], workspace) == [0, 1, 2, 3]
    second.unlink()
    with remembering("self-train", files[1:2], run, workspace):
        first.touch()
    assert used("self-train", run, files[:4], workspace) == [1]


def test_another_run_below_this_one_keeps_no_image_in_mind(files: list[ImageFile], tmp_path: Path):
    run, workspace = Run(tmp_path), Workspace(cache=tmp_path / "cache")
    run.begin(TASK)
    run.add([], {}, strong="one", homes={"one": "."})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "refined.safetensors").touch()
    with remembering("refine", files[:2], run, workspace):
        (tmp_path / "refined.safetensors").touch()
    with remembering("refine", files[2:3], run, workspace):
        pass
    assert used("refine", run, files[:4], workspace) == [2]
    (tmp_path / "refined.safetensors").unlink()
    forget_unused(run)
    assert remembered("refine", run) is None


def test_images_of_all_transfers_are_kept_in_mind(files: list[ImageFile], tmp_path: Path):
    run, workspace = Run(tmp_path / "run"), Workspace(cache=tmp_path / "cache")
    run.path.mkdir()
    remember("fit", fingerprints(files[:1], workspace), run)
    for rows in (slice(0, 2), slice(2, 3)):
        remember_transfer(files[rows], run, workspace)
    assert used("transfer", run, files[:4], workspace) == [1, 2]


@pytest.mark.parametrize("damage", [b"\xff", b"0123"])
def test_damaged_fingerprints_are_named_with_what_mends_it(files: list[ImageFile], tmp_path: Path, damage: bytes):
    run, workspace = Run(tmp_path / "run"), Workspace(cache=tmp_path / "cache")
    run.path.mkdir()
    remember("fit", fingerprints(files, workspace), run)
    path = run.path / "seen-by-fit.txt"
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(TransmiterError, match=r"seen-by-fit\.txt is damaged") as caught:
        overlap.overlap(files, run, workspace)
    assert caught.value.fix == f"rm {path}, then fit again"
