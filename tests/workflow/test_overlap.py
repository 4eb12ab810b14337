from pathlib import Path

import pytest

from tests.test_run import put_fit
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


def used(use: Use, folder: Path, files: list[ImageFile], workspace: Workspace) -> list[int]:
    """The places of the images that a command is remembered to have used."""
    known = remembered(use, folder) or set()
    return [place for place, one in enumerate(fingerprints(files, workspace)) if one in known]


def test_images_of_each_strong_models_artefact_are_kept_in_mind(files: list[ImageFile], tmp_path: Path):
    run, workspace = Run(tmp_path / "run"), Workspace(cache=tmp_path / "cache")
    put_fit(run)
    run.add([], {}, [], strong="one", homes={"one": "one", "two": "two"})
    first, second = (run.path / name for name in ("one", "two"))
    for home, rows in ((first, slice(0, 2)), (second, slice(2, 3)), (first, slice(3, 4))):
        home.mkdir(exist_ok=True)
        with remembering("self-train", files[rows], home, run, workspace):
            (home / "self-trained.safetensors").touch()
    assert used("self-train", first, files[:4], workspace) == [3]
    assert used("self-train", second, files[:4], workspace) == [2]
    (second / "self-trained.safetensors").unlink()
    forget_unused(run)
    assert used("self-train", first, files[:4], workspace) == [3]
    assert remembered("self-train", second) is None


def test_another_run_below_this_one_keeps_no_image_in_mind(files: list[ImageFile], tmp_path: Path):
    run, workspace = Run(tmp_path), Workspace(cache=tmp_path / "cache")
    put_fit(run)
    run.add([], {}, [], strong="one", homes={"one": "."})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "refined.safetensors").touch()
    with remembering("refine", files[:2], tmp_path, run, workspace):
        (tmp_path / "refined.safetensors").touch()
    with remembering("refine", files[2:3], tmp_path, run, workspace):
        pass
    assert used("refine", run.path, files[:4], workspace) == [2]
    (tmp_path / "refined.safetensors").unlink()
    forget_unused(run)
    assert remembered("refine", run.path) is None


def test_images_of_transfers_are_kept_in_mind_as_long_as_anything_is_left_of_them(
    files: list[ImageFile], tmp_path: Path
):
    run, workspace = Run(tmp_path / "run"), Workspace(cache=tmp_path / "cache")
    put_fit(run)
    run.add([], {}, [], strong="one", homes={"one": "."})
    adapter, ridge = run.path / "strong.safetensors", run.path / "strong-ridge.safetensors"
    remember("fit", fingerprints(files[:1], workspace), run.path)
    for rows, path in ((slice(0, 2), adapter), (slice(2, 3), ridge)):
        with remembering("transfer", files[rows], run.path, run, workspace):
            path.touch()
    assert used("transfer", run.path, files[:4], workspace) == [1, 2]
    with remembering("transfer", files[3:4], run.path, run, workspace, artefacts=2):
        pass
    assert used("transfer", run.path, files[:4], workspace) == [3]
    with remembering("transfer", files[:1], run.path, run, workspace, artefacts=2):
        pass
    assert remembered("transfer", run.path) == set()


@pytest.mark.parametrize("damage", [b"\xff", b"0123"])
def test_damaged_fingerprints_are_named_with_what_mends_it(files: list[ImageFile], tmp_path: Path, damage: bytes):
    run, workspace = Run(tmp_path / "run"), Workspace(cache=tmp_path / "cache")
    put_fit(run)
    run.add([], {}, [], strong="one", homes={"one": "."})
    remember("fit", fingerprints(files, workspace), run.path)
    path = run.path / "seen-by-fit.txt"
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(TransmiterError, match=r"seen-by-fit\.txt is damaged") as caught:
        overlap.overlap(files, run, "one", workspace)
    assert caught.value.fix == f"rm {path}, then fit again"
