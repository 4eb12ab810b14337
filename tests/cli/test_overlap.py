"""eval refuses what a run learned from, whatever happened to the run and to the images before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.test_errors import failed
from transmiter_cli import artefact, files, run
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.workflow import overlap

FIT = ("fit", "--weak", "demo-weak", "--finetuned", "probe", "--aux-words", "characters", "--epochs", 1)
TRANSFER = ("transfer", "--strong", "demo-strong", "--method", "discriminant")
RUN = Path("transmiter-run")


class Killed(BaseException):
    """In place of kill -9."""


def digits(folder: Path, start: int, number: int = 2) -> Path:
    """Some train digits of each class, in class folders."""
    by_class: dict[str, list[Path]] = {}
    for file in open_images("demo-digits", "train").files:
        by_class.setdefault(str(file.label), []).append(file.path)
    for label, paths in by_class.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for path in paths[start : start + number]:
            shutil.copyfile(path, folder / label / path.name)
    return folder


def kill_before(moment: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Kill before so many changes of the run's files were made; the list tells those that were asked for."""
    asked: list[str] = []

    def watched(name, change):
        def call(path, *rest, **flags):
            asked.append(f"{name} {path.name}")
            if len(asked) > moment:
                raise Killed
            return change(path, *rest, **flags)

        return call

    for module in (artefact, files, overlap, run):
        patch.setattr(module, "write_atomically", watched("write", module.write_atomically))
    for name in ("unlink", "replace"):
        patch.setattr(run.Path, name, watched(name, getattr(Path, name)))
    return asked


def killed_at_any_moment(cli: Cli, *line: object) -> Iterator[None]:
    """After each kill of a command in a copy of the run that is in `kept`, once for every change that it makes."""
    for moment in range(40):
        shutil.rmtree(RUN)
        shutil.copytree("kept", RUN)
        with pytest.MonkeyPatch.context() as patch:
            asked = kill_before(moment, patch)
            with suppress(Killed):
                assert cli(*line).code == 0
                assert len(asked) == moment > 4, asked
                return
        yield
    pytest.fail(f"{line} never ended")


def test_a_fit_killed_at_any_moment_leaves_the_old_run_or_one_that_refuses(cli: Cli, tmp_path: Path):
    digits(tmp_path / "old", 0), digits(tmp_path / "new", 2)
    assert cli(*FIT, "--data", "old").code == 0
    assert cli(*TRANSFER).code == 0
    shutil.copytree(RUN, "kept")
    before = (RUN / "weak.safetensors").read_bytes()
    for _ in killed_at_any_moment(cli, *FIT, "--data", "new"):
        if cli(*TRANSFER).code == 0 and (RUN / "weak.safetensors").read_bytes() != before:
            failed(cli("eval", "--data", "new"), 1, "fit used 20 of these 20 images")


def test_images_that_only_transfer_saw_are_refused_too(cli: Cli, tmp_path: Path):
    digits(tmp_path / "data", 0)
    assert cli(*FIT, "--data", "data").code == 0
    assert "that fit saw" not in cli(*TRANSFER).err
    assert not (RUN / "seen-by-transfer.txt").read_bytes()
    digits(tmp_path / "data", 2)
    shutil.rmtree(tmp_path / "data" / "one")
    digits(tmp_path / "later", 2)
    assert "not those that fit saw: 18 more, 2 fewer" in cli(*TRANSFER, "-q").err
    failed(cli("eval", "--data", "later"), 1, "transfer used 18 of these 20 images", "--allow-overlap")
    assert "fit used" not in cli("eval", "--data", "later").err
    assert "OVERLAP" in cli("eval", "--data", "later", "--allow-overlap").out
    shutil.rmtree(tmp_path / "data")
    digits(tmp_path / "data", 0)
    other = ("transfer", "--strong", "demo-weak", "--strong", "demo-strong", "--method", "adapter")
    assert cli(*other).code == 0  # the discriminant of the one before is still there
    failed(cli("eval", "--data", "later"), 1, "transfer used 18 of these 20 images")
    assert cli(*FIT, "--data", "data").code == 0
    assert cli(*TRANSFER).code == 0
    assert cli("eval", "--data", "later").code == 0


def test_images_that_transfer_was_told_of_are_refused_until_it_is_told_of_others(cli: Cli, tmp_path: Path):
    digits(tmp_path / "data", 0), digits(tmp_path / "later", 2)
    assert cli(*FIT, "--data", "data").code == 0
    transfer = ("transfer", "--strong", "demo-strong")
    told = cli(*transfer, "--data", "later").err
    assert "The images are not those that fit saw: 20 more, 20 fewer" in told
    assert "Warning: The images" not in told
    failed(cli("eval", "--data", "later"), 1, "transfer used 20 of these 20 images")
    assert "that fit saw" not in cli(*transfer).err
    assert cli("eval", "--data", "later").code == 0


@pytest.fixture
def transferred(cli: Cli, tmp_path: Path) -> Cli:
    """A run of two strong models, and two folders of images that it did not see."""
    digits(tmp_path / "data", 0), digits(tmp_path / "one", 2), digits(tmp_path / "two", 4)
    assert cli(*FIT, "--data", "data").code == 0
    assert cli(*TRANSFER, "--strong", "demo-weak").code == 0
    return cli


def test_what_each_strong_models_artefacts_used_is_its_own_and_remembered_until_they_are_replaced(transferred: Cli):
    assert transferred(*TRANSFER, "--strong", "demo-weak", "--data", "one").code == 0
    for strong, data in (("demo-strong", "one"), ("demo-weak", "two")):
        assert transferred("refine", "--strong", strong, "--data", data).code == 0
    evaluated = {
        (name, data): ("eval", "--strong", f"demo-{name}", "--data", data)
        for name in ("strong", "weak")
        for data in ("one", "two")
    }
    failed(transferred(*evaluated["strong", "one"]), 1, "transfer used 20 of these 20 images and refine used 20")
    failed(transferred(*evaluated["weak", "one"]), 1, "transfer used 20 of these 20 images", "or transfer again with")
    failed(
        transferred(*evaluated["weak", "two"]), 1, "refine used 20 of these 20 images", "or refine again with others"
    )
    assert transferred(*evaluated["strong", "two"]).code == 0
    assert transferred("transfer", "--strong", "demo-strong", "--method", "discriminant").code == 0
    assert transferred(*evaluated["strong", "one"]).code == 0
    failed(transferred(*evaluated["weak", "one"]), 1, "transfer used 20 of these 20 images")


def test_a_refinement_that_is_killed_leaves_no_image_unsaid(transferred: Cli):
    for moment in range(10):
        with pytest.MonkeyPatch.context() as patch:
            kill_before(moment, patch)
            try:
                assert transferred("refine", "--strong", "demo-strong", "--data", "one").code == 0
                break
            except Killed:
                pass
        if any(RUN.rglob("refined.safetensors")):
            asked = ("eval", "--strong", "demo-strong", "--data", "one")
            failed(transferred(*asked), 1, "refine used 20 of these 20 images")
    assert moment > 2


def test_a_redone_transfer_or_self_train_that_is_killed_leaves_nothing_of_what_it_replaced(cli: Cli, tmp_path: Path):
    digits(tmp_path / "data", 0), digits(tmp_path / "one", 2), digits(tmp_path / "two", 4)
    assert cli(*FIT, "--data", "data").code == 0
    assert cli("transfer", "--strong", "demo-strong", "--method", "ridge", "--rho", 1).code == 0
    assert cli("self-train", "--data", "one").code == 0
    assert cli("refine", "--data", "one").code == 0
    redone = {
        "strong-ridge": ("transfer", "--strong", "demo-strong", "--method", "ridge", "--rho", 0.1),
        "self-trained": ("self-train", "--data", "two"),
    }
    later = ("strong-ridge", "self-trained", "refined")
    shutil.copytree(RUN, "kept")
    for name, line in redone.items():
        for _ in killed_at_any_moment(cli, *line):
            if (RUN / f"{name}.safetensors").read_bytes() != Path("kept", f"{name}.safetensors").read_bytes():
                left = [one for one in later[later.index(name) + 1 :] if (RUN / f"{one}.safetensors").exists()]
                assert not left, name
