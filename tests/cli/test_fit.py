"""transmiter fit: its help, and what it says of a task that is too small."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Cli
from tests.cli.test_errors import failed
from tests.cli.test_evaluate import copies
from tests.cli.test_overlap import TRANSFER, digits
from tests.cli.test_self_train import BASE, NOVEL
from tests.cli.test_transfer import DIGITS, FIT
from tests.test_run import TASK, put_fit
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.run import Run

LINE = (*FIT[:-2], "--finetuned", "demo-finetuned", "--limit", 40)


@pytest.mark.parametrize(("command", "option"), [("fit", "--finetuned"), ("transfer", "--strong")])
def test_help_says_what_is_required_without_a_default(cli: Cli, command: str, option: str):
    text = " ".join(cli(command, "--help").out.replace("\u2502", " ").split())
    about = text.split(option, 1)[1].split("[required]", 1)[0]
    assert " --" not in about.replace("--data", "")
    assert "default: (required)" not in text


def test_few_steps_are_hinted_at_with_what_makes_more(cli: Cli):
    few = cli(*LINE)
    assert "Hint: 40 images times 10 epochs make 10 steps" in few.err
    assert "--views 10 for random crops of each, or --epochs 100" in few.err
    viewed = cli(*LINE, "--views", 3, "--batch-size", 40)
    assert "160 images times 10 epochs make 40 steps" in viewed.err
    assert "More images, or --epochs 25" in viewed.err
    ids = [file.id for file in open_images("demo-digits", "train").files]
    save_file({"logits": torch.randn(len(ids), 10)}, "logits.safetensors", {"ids": json.dumps(ids)})
    told = cli(*LINE[:-4], "--finetuned", "logits.safetensors", "--limit", 40)
    assert "More images, or --epochs 100" in told.err
    for enough in (("--epochs", 100), ("--batch-size", 4)):
        outcome = cli(*LINE, *enough)
        assert outcome.code == 0
        assert "Hint" not in outcome.err


def test_a_fit_of_another_task_that_ends_just_before_is_not_replaced(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    locked = Run.locked

    def late(run: Run) -> AbstractContextManager[None]:
        if run.path.is_dir():
            put_fit(run)
        return locked(run)

    monkeypatch.setattr(Run, "locked", late)
    outcome = cli(*LINE)
    assert outcome.code == 2
    assert "transmiter-run is a run of another task: 2 classes, cat, dog" in outcome.err
    assert f"or replace it: transmiter {shlex.join(map(str, LINE))} --force" in " ".join(outcome.err.split())
    assert "decoded" not in outcome.err, "nothing was encoded"
    assert Run(Path("transmiter-run")).task() == TASK
    assert cli(*LINE, "--force").code == 0


def test_a_folder_of_others_is_no_run(cli: Cli, tmp_path: Path):
    mine = {tmp_path / "proj" / "strong" / "open_clip_model.safetensors", tmp_path / "proj" / "strong.safetensors"}
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    failed(cli(*TRANSFER, "--run", "proj"), 2, "There is no run in proj.")
    for more in ((), ("--force",)):
        failed(cli(*LINE, "--run", "proj", *more), 2, "proj is no run, and holds strong.safetensors, which", "--run")
    assert {path for path in (tmp_path / "proj").rglob("*") if path.is_file()} == mine
    (tmp_path / "proj" / "strong.safetensors").unlink()
    for _ in range(2):
        assert cli(*LINE, "--run", "proj").code == 0
    assert all(path.exists() for path in mine - {tmp_path / "proj" / "strong.safetensors"})


def test_an_adapter_that_cannot_be_written_leaves_the_run_that_was_there(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    assert cli(*LINE).code == 0
    assert cli(*TRANSFER).code == 0
    before = {path: path.read_bytes() for path in Path("transmiter-run").iterdir() if path.is_file()}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        failed(cli(*LINE, "--seed", 1), 1, "weak.safetensors: No space left on device")
    assert {path: path.read_bytes() for path in Path("transmiter-run").iterdir() if path.is_file()} == before


def test_results_that_a_damaged_record_does_not_tell_of_are_named_as_they_go(cli: Cli, tmp_path: Path):
    assert cli(*LINE).code == 0
    assert cli(*TRANSFER).code == 0
    (tmp_path / "transmiter-run/run.json").write_text("{")
    outcome = cli(*LINE, "--force")
    assert outcome.code == 0
    assert "No longer in transmiter-run, whose record was damaged: strong-discriminant.safetensors" in outcome.err


def test_a_linked_adapter_stays_a_link_over_a_new_fit(cli: Cli, tmp_path: Path):
    assert cli(*LINE).code == 0
    fitted = tmp_path / "transmiter-run/weak.safetensors"
    before = fitted.rename(tmp_path / "elsewhere.safetensors").read_bytes()
    fitted.symlink_to(tmp_path / "elsewhere.safetensors")
    assert cli(*LINE, "--seed", 1).code == 0
    assert fitted.is_symlink()
    assert fitted.read_bytes() != before
    assert cli(*TRANSFER).code == 0


def test_one_class_is_refused_before_anything_is_encoded(cli: Cli, tmp_path: Path):
    data = copies("train", tmp_path / "few", ["one"])
    outcome = cli(*FIT[:3], "--data", data, "--finetuned", "demo-finetuned")
    assert outcome.code == 2
    assert "At least two classes are needed; there is 'one' alone." in " ".join(outcome.err.split())
    assert "Encoding" not in outcome.err


def test_a_list_of_names_may_have_classes_without_images(cli: Cli, tmp_path: Path):
    """Base-to-novel on class folders: half of the classes have images, and the teacher is a probe on those."""
    digits(tmp_path / "base", 0, 20)
    for name in NOVEL:
        shutil.rmtree(tmp_path / "base" / name)
    spelled = [name.title() for name in NOVEL]  # the test images' folders are named "five", ...
    for file, names in (("names.txt", (*BASE, *spelled)), ("base.txt", BASE)):
        (tmp_path / file).write_text("\n".join(names))
    words = ("--aux-words", "characters", "--epochs", 1)
    outcome = cli(*FIT[:3], "--finetuned", "probe", "--data", "base", "--classes", "names.txt", *words)
    assert outcome.code == 0, outcome.err
    assert "No image is labelled with 5 of 10 classes: Five, Six, Seven, Eight, Nine." in outcome.err
    assert cli("transfer", "--strong", "demo-strong", "--method", "discriminant").code == 0
    outcome = cli("eval", "--data", "demo-digits", "--base-to-novel", "--base", "base.txt", "--json")
    rows = json.loads(outcome.out)["rows"]
    assert rows["discriminant"]["hm"] > rows["strong"]["hm"]
    assert rows["discriminant"]["top1"] > rows["strong"]["top1"]


def test_folders_of_splits_that_are_taken_for_classes_are_warned_of(cli: Cli, tmp_path: Path):
    """Beside another folder with images, train and test are none: all images would be trained on."""
    for folder, name in zip(sorted(digits(tmp_path / "digits", 0).iterdir()), ("train", "Test", "more"), strict=False):
        shutil.copytree(folder, tmp_path / "pets" / name)
    outcome = cli("fit", "--weak", "demo-weak", "--finetuned", "probe", "--data", tmp_path / "pets")
    said = " ".join(outcome.err.split())
    assert "Folders like 'train' are taken for classes" in said
    assert "hold images, too: more." in said
    assert f"transmiter fit --weak demo-weak --finetuned probe --force --data {tmp_path}/pets/train" in said


def test_logits_without_their_scale_are_warned_of(cli: Cli):
    assert "softmax" not in cli(*FIT, "--finetuned", "probe").err
    head = load_file("transmiter-run/probe.safetensors")
    save_file({"weight": 0.01 * head["weight"], "bias": 0.01 * head["bias"]}, "cosines.safetensors")
    outcome = cli(*FIT, "--finetuned", "cosines.safetensors")
    assert outcome.code == 0
    assert "no softmax of them is ever sure" in outcome.err


def test_numbers_as_classes_are_in_the_order_of_texts_and_it_is_said(cli: Cli, tmp_path: Path):
    for folder, name in zip(sorted(digits(tmp_path / "digits", 2).iterdir()), ("9", "10", "11"), strict=False):
        shutil.copytree(folder, tmp_path / "numbers" / name)
    save_file({"weight": torch.randn(3, 64), "bias": torch.zeros(3)}, tmp_path / "head.safetensors")
    line = ("fit", "--weak", "demo-weak", "--data", tmp_path / "numbers", "--epochs", 1, "--aux-words", "characters")
    outcome = cli(*line, "--finetuned", "head.safetensors")
    assert outcome.code == 0, outcome.err
    assert "The classes are numbers, sorted as text: 10, 11, 9. The columns of" in " ".join(outcome.err.split())
    assert "sorted as text" not in cli(*line, "--finetuned", "demo-finetuned", "--force").err


def test_classes_that_a_model_masks_are_named(cli: Cli):
    head = {"weight": torch.randn(10, 64), "bias": torch.zeros(10)}
    head["weight"][:2], head["bias"][:2] = 0, -100
    save_file(head, "masked.safetensors")
    outcome = cli(*FIT, "--finetuned", "masked.safetensors")
    assert "says nothing of 2 of 10 classes, whose logit is the same for all images: eight, five." in outcome.err


def test_classes_in_another_order_than_the_fine_tuned_model_has_them_are_warned_of(cli: Cli, tmp_path: Path):
    assert "in another order" not in cli(*FIT, "--finetuned", "probe").err
    shutil.copy("transmiter-run/probe.safetensors", "head.safetensors")  # columns are the sorted folders: eight, ...
    line = (*FIT, "--finetuned", "head.safetensors", "--force", "--classes", "names.txt")
    (tmp_path / "names.txt").write_text("\n".join(DIGITS))
    outcome = cli(*line)
    assert outcome.code == 0
    assert "head.safetensors look to be in another order than the classes, zero, one, two" in outcome.err
    assert "--epochs 1 --finetuned head.safetensors --force --classes FILE\n" in outcome.err
    assert "to demo-weak, column 'one' is like 'five', 'eight' is like 'two', 'nine' is like 'zero'" in outcome.err
    assert "in another order" in cli(*line, "--finetuned", "head.safetensors").err  # several are one teacher
    (tmp_path / "names.txt").write_text("\n".join(sorted(DIGITS)))
    assert "in another order" not in cli(*line).err
