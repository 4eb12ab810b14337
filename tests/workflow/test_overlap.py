from pathlib import Path

import pytest

from tests.test_run import TASK
from transmiter_cli.embedding.sources import ImageFile
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.run import Run
from transmiter_cli.workflow import overlap
from transmiter_cli.workflow.overlap import (
    Use,
    fingerprints,
    forget_unused,
    remember,
    remembered,
    remembering,
)


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"content %d" % (number % 4))  # the last is a copy of the first
    return [ImageFile(tmp_path, f"{number}.png") for number in range(5)]


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


def test_images_of_transfers_are_kept_in_mind_as_long_as_anything_is_left_of_them(
    files: list[ImageFile], tmp_path: Path
):
    run, workspace = Run(tmp_path / "run"), Workspace(cache=tmp_path / "cache")
    run.begin(TASK)
    run.add([], {}, strong="one", homes={"one": "."})
    adapter, ridge = run.path / "strong.safetensors", run.path / "strong-ridge.safetensors"
    remember("fit", fingerprints(files[:1], workspace), run)
    for rows, path in ((slice(0, 2), adapter), (slice(2, 3), ridge)):
        with remembering("transfer", files[rows], run, workspace):
            path.touch()
    assert used("transfer", run, files[:4], workspace) == [1, 2]
    with remembering("transfer", files[3:4], run, workspace, artefacts=2):
        pass
    assert used("transfer", run, files[:4], workspace) == [3]
    with remembering("transfer", files[:1], run, workspace, artefacts=2):
        pass
    assert remembered("transfer", run) is None


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
