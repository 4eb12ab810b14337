"""self-train: new unlabelled images, no teacher."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

import pytest
import torch

from tests.cli.conftest import Cli, done
from tests.cli.test_errors import failed
from tests.cli.test_overlap import digits
from transmiter_cli.artefact import load
from transmiter_cli.files import write_parts
from transmiter_cli.workflow import refine

FIT = ("fit", "--weak", "demo-weak", "--finetuned", "demo-finetuned", "--aux-words", "characters", "--epochs", 1)
TRANSFER = ("transfer", "--strong", "demo-strong")
NOVEL = ("five", "six", "seven", "eight", "nine")
BASE = ("zero", "one", "two", "three", "four")
FEW = 20
"""Digits per class."""


def flat(source: Path, folder: Path, labels: Sequence[str]) -> Path:
    """The images of some classes in one folder."""
    folder.mkdir()
    for file in (file for label in labels for file in (source / label).iterdir()):
        shutil.copyfile(file, folder / f"{file.parent.name}-{file.name}")
    return folder


@pytest.fixture(scope="module")
def transferred(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """Transferred on digits below five alone; `new` has digits of all classes, `test` others of them."""
    folder = tmp_path_factory.mktemp("transferred")
    flat(digits(folder / "all", 0, FEW), folder / "base", BASE)
    digits(folder / "new", FEW, FEW), digits(folder / "test", 2 * FEW, FEW)
    (folder / "names.txt").write_text("\n".join(sorted((*BASE, *NOVEL))))
    fit = (*FIT, "--data", "base", "--classes", "names.txt")
    return done(folder, shared_cache, fit, (*TRANSFER, "--method", "discriminant", "--method", "adapter"))


@pytest.fixture
def run(cli: Cli, transferred: Path, tmp_path: Path) -> Cli:
    shutil.copytree(transferred / "transmiter-run", tmp_path / "transmiter-run")
    for name in ("new", "test"):
        (tmp_path / name).symlink_to(transferred / name)  # so that no image is encoded twice
    return cli


def test_transfer_says_that_classes_have_no_image(run: Cli):
    outcome = run(*TRANSFER, "--method", "discriminant", "--json")
    assert "By demo-strong, hardly any image shows 5 of 10 classes (" in outcome.err
    assert "transmiter self-train --data IMAGES" in outcome.err
    verdict = json.loads(outcome.out)["methods"]["discriminant"]["verdict"]
    assert (verdict["unseen"], len(verdict["unseen_classes"])) == (5, 5)
    names = json.loads(Path("transmiter-run/run.json").read_text())["task"]["classes"]
    assert {names[i] for i in verdict["unseen_classes"]} == {*NOVEL}
    outcome = run(*TRANSFER, "--method", "discriminant")
    assert "expected gain on classes with images" in outcome.out


def top1(cli: Cli, *flags: object) -> dict[str, float]:
    outcome = cli("eval", "--data", "test", "--json", *flags)
    assert outcome.code == 0, outcome.err
    return {name: row["top1"] for name, row in json.loads(outcome.out)["rows"].items()}


def test_new_images_help_where_the_transfer_saw_some_classes_alone(run: Cli):
    outcome = run("self-train", "--data", "new")
    assert outcome.code == 0
    assert "200 different unlabelled images" in outcome.out
    rows = top1(run)
    assert rows["self_trained"] > rows["discriminant"]
    assert rows["self_trained"] > rows["strong"] + 0.05


def test_labels_are_not_looked_at(run: Cli, tmp_path: Path):
    assert run("self-train", "--data", "new").code == 0
    labelled = Path("transmiter-run/self-trained.safetensors").read_bytes()
    folder = flat(tmp_path / "new", tmp_path / "mixed", BASE + NOVEL)
    assert run("self-train", "--data", folder).code == 0
    assert Path("transmiter-run/self-trained.safetensors").read_bytes() == labelled, "the same images in the same order"


def test_predict_takes_it_and_eval_refuses_its_images(run: Cli):
    made = json.loads(run("self-train", "--data", "new", "--json").out)
    assert made["images"] == 10 * FEW
    assert 0 < made["changed"] < 0.5
    outcome = run("predict", "--data", "test")
    for name in ("self_trained", "self-trained"):
        assert outcome.out == run("predict", "--data", "test", "--use", name).out
    assert outcome.out != run("predict", "--data", "test", "--use", "discriminant").out
    failed(run("eval", "--data", "new"), 1, "self-train used 200 of these 200 images")
    assert "OVERLAP: in this run self-train used 200" in run("eval", "--data", "new", "--allow-overlap").out


def test_a_new_transfer_removes_it_and_says_how_to_make_it_again(run: Cli):
    assert run("self-train", "--data", "new").code == 0
    again = run(*TRANSFER, "--method", "discriminant")
    assert "No longer in transmiter-run: self_trained (demo-strong)." in again.err
    assert "To make it again: transmiter self-train --data new\n" in again.err
    assert run("eval", "--data", "new").code == 0, "what it used is forgotten with it"


def test_what_cannot_be_self_trained_is_refused(run: Cli, tmp_path: Path):
    failed(run("self-train", "--data", "new", "--method", "ridge"), 2, "There is no ridge in transmiter-run")
    assert "Missing option '--data'" in run("self-train").err
    (tmp_path / "one").mkdir()
    shutil.copyfile(next((tmp_path / "new").rglob("*.png")), tmp_path / "one" / "one.png")
    for file in (tmp_path / "new" / "one").iterdir():
        shutil.copyfile(tmp_path / "one" / "one.png", tmp_path / "one" / file.name)
    failed(run("self-train", "--data", "one"), 1, "10 different images at least, not 1", "more images")


def test_images_that_are_few_or_show_some_classes_alone_are_warned_of(run: Cli, tmp_path: Path):
    assert "Warning" not in run("self-train", "--data", "new").err
    outcome = run("self-train", "--data", flat(tmp_path / "new", tmp_path / "novel", NOVEL[:1]))
    assert outcome.code == 0
    assert f"{FEW} different images of 10 classes" in outcome.err
    assert "Warning: Hardly any image seems to show" in outcome.err
    assert "zero" not in json.loads(run("self-train", "--data", "new", "--json").out)["missing"]


def test_refine_starts_from_it(run: Cli):
    assert run("self-train", "--data", "new").code == 0
    before = load("transmiter-run/self-trained.safetensors").classifier()
    assert json.loads(run("refine", "--data", "new", "--shots", 1, "--json").out)["start"] == "self_trained"
    assert "discriminant, self-trained, images 10" in run("inspect").out
    refined = load("transmiter-run/refined.safetensors")
    assert "self_train" in refined.details
    assert refined.details["refine"]["unchanged"]
    torch.testing.assert_close(refined.classifier(), before, atol=1e-3, rtol=1e-3)
    again = run("self-train", "--data", "test")
    assert "No longer in transmiter-run: refined (demo-strong)." in again.err
    assert "To make it again: transmiter refine --data new --shots 1 --json\n" in again.err
    assert not Path("transmiter-run/refined.safetensors").exists()
    assert run("eval", "--data", "new").code == 0, "nothing that is left has learned from it"
    failed(run("eval", "--data", "test"), 1, "self-train used 200 of these 200 images")


def test_a_refinement_stays_until_what_comes_in_its_place_is_there(run: Cli, monkeypatch: pytest.MonkeyPatch):
    assert run("self-train", "--data", "new").code == 0
    assert run("refine", "--data", "new", "--shots", 1).code == 0

    def fail(file: BinaryIO, parts: Sequence[bytes]) -> None:
        if "self-trained" in str(file.name):
            raise OSError(28, "No space left on device")
        write_parts(file, parts)

    monkeypatch.setattr("transmiter_cli.files.write_parts", fail)
    failed(run("self-train", "--data", "test"), 1, "No space left on device")
    assert Path("transmiter-run/refined.safetensors").is_file()


def test_a_refinement_of_what_was_transferred_stays(run: Cli):
    assert run("refine", "--data", "new", "--shots", 1).code == 0
    outcome = run("self-train", "--data", "test")
    assert "predict still answers with refined.safetensors" in outcome.err
    assert "To begin it with this: transmiter refine --data new --shots 1\n" in outcome.err
    assert "No longer" not in outcome.err
    assert {"self_trained", "refined"} <= set(top1(run, "--allow-overlap"))


def test_what_refine_starts_from_is_left_to_it_once_there_is_more(run: Cli):
    assert run("refine", "--data", "new", "--shots", 1, "--method", "adapter", "--epochs", 1).code == 0
    outcome = run("self-train", "--data", "test")
    assert "To begin it with this: transmiter refine --data new --shots 1\n" in outcome.err


def test_with_two_strong_models_the_next_command_names_the_one(run: Cli):
    models = ("--strong", "demo-weak", "--strong", "demo-strong", "--method", "discriminant")
    assert run("transfer", *models).code == 0
    assert run("refine", "--data", "new", "--shots", 1, "--strong", "demo-weak").code == 0
    outcome = run("self-train", "--data", "test", "--strong", "demo-weak")
    assert "transmiter refine --data new --shots 1 --strong demo-weak\n" in outcome.err


def test_labels_that_the_run_does_not_know_are_refused_with_what_mends_it(run: Cli, tmp_path: Path):
    (tmp_path / "strange").mkdir()
    flat(tmp_path / "new", tmp_path / "strange" / "cat", ("seven",))
    failed(run("refine", "--data", "strange"), 1, "the class 'cat', which is none of the run's 10 classes", "Try: name")


def test_labels_of_one_class_change_nothing_and_that_is_said(run: Cli, tmp_path: Path):
    (tmp_path / "one").mkdir()
    flat(tmp_path / "new", tmp_path / "one" / "seven", ("seven",))
    outcome = run("refine", "--data", "one", "--method", "discriminant")
    assert "Labels of one class alone tell nothing apart" in outcome.err
    assert json.loads(run("refine", "--data", "one", "--json").out)["unchanged"]


def test_refine_says_that_classes_have_fewer_images_than_were_asked_for(run: Cli):
    said = f"10 of 10 classes have fewer than {FEW + 1} labelled images"
    assert said in run("refine", "--data", "new", "--shots", FEW + 1).err
    assert "have fewer than" not in run("refine", "--data", "new", "--shots", FEW).err


def test_labels_stay_with_their_images_where_one_cannot_be_read(run: Cli, tmp_path: Path):
    shutil.copytree(tmp_path / "new", tmp_path / "some")
    min((tmp_path / "some" / "eight").iterdir()).write_bytes(b"no image")
    with patch.object(refine.api, "refine", wraps=refine.api.refine) as called:
        assert run("refine", "--data", "some").code == 0
    assert torch.bincount(called.call_args.args[2]).tolist() == [FEW - 1, *[FEW] * 9]
