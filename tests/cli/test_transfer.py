"""transfer's methods, strengths and verdict on the bundled task."""

import errno
import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Cli
from tests.cli.test_errors import failed
from transmiter_cli.artefact import load
from transmiter_cli.method.linear.classifier import Linear, LinearClassifier
from transmiter_cli.run import Run
from transmiter_cli.workflow import fit

FIT = ["fit", "--weak", "demo-weak", "--data", "demo-digits", "--aux-words", "characters", "--epochs", "1"]
TRANSFER = ["transfer", "--strong", "demo-strong"]


@pytest.fixture
def run(cli: Cli) -> Cli:
    assert cli(*FIT, "--finetuned", "demo-finetuned").code == 0
    return cli


def test_the_verdict_is_printed_and_kept(run: Cli, tmp_path: Path):
    printed = json.loads(run(*TRANSFER, "--method", "discriminant", "--json").out)["methods"]["discriminant"]
    assert printed["verdict"]["verdict"] == "helps"
    assert 0 < printed["verdict"]["gain"] < 1
    kept = load(tmp_path / "transmiter-run/strong-discriminant.safetensors")
    assert kept.details["transfer"]["verdict"] == printed["verdict"]
    assert kept.parameters_added == 0
    assert "helps (expected gain +" in run(*TRANSFER, "--method", "discriminant").out


def test_all_results_that_follow_a_useless_teacher_are_warned_of(cli: Cli, tmp_path: Path):
    head = tmp_path / "wrong.safetensors"
    save_file({"weight": torch.randn(10, 64, generator=torch.Generator().manual_seed(0))}, head)
    assert cli(*FIT, "--finetuned", head).code == 0
    outcome = cli(*TRANSFER, "--method", "adapter", "--method", "ridge", "--method", "discriminant")
    assert "the fine-tuned model looks useless, and adapter, ridge will follow it" in " ".join(outcome.err.split())
    assert "useless, and" not in cli(*TRANSFER, "--method", "discriminant").err


def test_refine_starts_from_zero_shot_answers_where_what_was_transferred_is_clearly_worse(run: Cli):
    """It has the classes in another order, as from a head whose columns are mixed up."""
    assert run(*TRANSFER, "--method", "ridge").code == 0
    path = Path("transmiter-run/strong-ridge.safetensors")
    artefact = load(path)
    assert isinstance(artefact.correction, LinearClassifier)
    right = artefact.correction.linear
    mixed_up = LinearClassifier(Linear(right.weight.roll(1, 0), right.bias.roll(1, 0))).eval()
    replace(artefact, correction=mixed_up).save(path)
    outcome = run("refine", "--shots", 1, "--json")
    assert "better to start from zero-shot answers than from strong-ridge.safetensors" in outcome.err
    assert (json.loads(outcome.out)["start"], json.loads(outcome.out)["zero_shot"]) == ("strong", True)
    assert "started from  strong, zero-shot" in run("refine", "--shots", 1).out


def test_each_of_several_fine_tuned_models_is_trusted_by_itself_and_counts_once(cli: Cli, tmp_path: Path):
    head = tmp_path / "wrong.safetensors"
    save_file({"weight": torch.randn(10, 64, generator=torch.Generator().manual_seed(0))}, head)
    good = ("--finetuned", "demo-finetuned")
    assert cli(*FIT, *good, *good, "--finetuned", head).code == 0
    done = cli(*TRANSFER, "--method", "discriminant", "--json")
    trusted, wrong = json.loads(done.out)["methods"]["discriminant"]["verdict"]["teachers"]
    assert trusted > 0.5
    assert wrong == 0
    assert f"discriminant does better without {head}" in " ".join(done.err.split())


def test_of_too_few_images_zero_shot_answers_are_kept(cli: Cli):
    assert cli(*FIT, "--finetuned", "demo-finetuned", "--limit", 15).code == 0
    done = cli(*TRANSFER, "--method", "discriminant")
    assert "15 different images are too few" in " ".join(done.err.split())
    assert "0.0 % of demo-strong's answers change" in done.out
    assert "unsure: there are fewer than 20 different images\n" in done.out


def test_a_model_that_tells_no_classes_apart_is_refused(cli: Cli, tmp_path: Path):
    save_file({"weight": torch.zeros(10, 64), "bias": torch.zeros(10)}, tmp_path / "zero.safetensors")
    outcome = cli(*FIT, "--finetuned", "zero.safetensors")
    assert outcome.code == 1
    assert "gives every class the same logit" in outcome.err


def test_strengths_can_be_chosen_without_labels(run: Cli):
    methods = ["--method", "adapter", "--method", "ridge", "--reg", "auto", "--rho", "auto", "--json"]
    made = json.loads(run(*TRANSFER, *methods).out)["methods"]
    assert made["adapter"]["reg"] > 0
    assert made["ridge"]["rho"] > 0
    assert "--rho needs --method ridge" in run(*TRANSFER, "--rho", "1").err
    assert "--reg needs --method adapter" in run(*TRANSFER, "--method", "ridge", "--reg", "1").err
    assert "--opaque-names needs --method disc" in run(*TRANSFER, "--method", "ridge", "--opaque-names").err
    refused = run(*TRANSFER, "--method", "ridge", "--rho", "-1")
    assert refused.code == 2
    assert "positive" in refused.err


def test_the_fine_tuned_models_of_several_runs_are_combined(run: Cli, tmp_path: Path):
    assert run(*FIT, "--finetuned", "probe", "--run", "other").code == 0
    outcome = run(*TRANSFER, "--method", "discriminant", "--also", "other", "--json")
    assert len(json.loads(outcome.out)["methods"]["discriminant"]["verdict"]["teachers"]) == 2
    assert run(*TRANSFER, "--method", "ridge", "--also", "other").code == 2
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]))
    assert run(*FIT, "--finetuned", "demo-finetuned", "--classes", names, "--run", "reordered").code == 0
    refused = run(*TRANSFER, "--method", "discriminant", "--also", "reordered")
    assert refused.code == 2
    assert "other classes" in refused.err
    assert "images" not in refused.err, "the refusal comes before anything is encoded"


def test_images_that_the_probe_of_another_run_learned_are_refused_by_eval(run: Cli):
    other = (*FIT, "--split", "test", "--limit", 40, "--run", "other")
    assert run(*other, "--finetuned", "probe").code == 0
    assert run(*TRANSFER, "--method", "discriminant", "--also", "other").code == 0
    failed(run("eval"), 1, "In this run transfer, or a probe of its --also runs, used 40 of these")
    assert run(*TRANSFER, "--method", "discriminant").code == 0
    assert run("eval", "--limit", 20).code == 0


def test_each_run_is_asked_once_however_it_is_named(run: Cli, tmp_path: Path):
    assert run(*FIT, "--finetuned", "probe", "--run", "other").code == 0
    (tmp_path / "link").symlink_to("other")
    named = [part for path in ("other", tmp_path / "other", "link") for part in ("--also", path)]
    outcome = run(*TRANSFER, "--method", "discriminant", *named, "--json")
    assert len(json.loads(outcome.out)["methods"]["discriminant"]["verdict"]["teachers"]) == 2
    refused = run(*TRANSFER, "--also", tmp_path / "transmiter-run")
    assert refused.code == 2
    assert "is this one" in refused.err


def test_artefacts_that_cannot_all_be_written_leave_those_that_were_there(run: Cli, monkeypatch: pytest.MonkeyPatch):
    assert run(*TRANSFER).code == 0
    folder = Path("transmiter-run")
    before = {path: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert len(before) == 3
    flush, flushed = os.fsync, []

    def full_at_the_second(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if name.startswith(".strong"):
            flushed.append(name)
            if len(flushed) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_at_the_second)
        failed(run(*TRANSFER, "--limit", 100, "--data", "demo-digits"), 1, "No space left on device")
    assert {path: path.read_bytes() for path in folder.glob("*.safetensors")} == before


def test_a_strong_model_that_is_the_weak_one_is_warned_of(run: Cli):
    assert "very weights" not in run(*TRANSFER).err
    outcome = run("transfer", "--strong", "demo-weak", "--method", "discriminant")
    assert outcome.code == 0
    assert "Warning: demo-weak has the very weights of the weak model" in outcome.err


DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.mark.parametrize("wrong", [3, 10])
def test_a_good_teacher_is_believed_beside_some_names_that_say_nothing_and_warned_of_beside_none_that_do(
    run: Cli, tmp_path: Path, wrong: int
):
    """Digits under the names of other characters: zero-shot models know little of them, the teacher knows them."""
    letters = ["ampersand" if one == "&" else f"letter {one}" for one in "bfh&kmrwxy"]
    (tmp_path / "names.json").write_text(json.dumps(dict(zip(DIGITS, letters[:wrong] + DIGITS[wrong:], strict=True))))
    assert "by these names" not in run(*TRANSFER, "--method", "discriminant").err
    assert run(*FIT, "--finetuned", "probe", "--classes", "names.json", "--force").code == 0
    outcome = run(*TRANSFER, "--method", "discriminant")
    rows = json.loads(run("eval", "--json").out)["rows"]
    if wrong == len(DIGITS):
        assert "do not know the fine-tuned model's classes by these names" in outcome.err
        assert "discriminant follows it" in outcome.err
        believed = run(*TRANSFER, "--method", "discriminant", "--opaque-names")
        assert "by these names" not in believed.err
        assert "helps (expected gain" in believed.out
        assert json.loads(run("eval", "--json").out)["rows"]["discriminant"]["top1"] > max(0.9, rows["eft"]["top1"])
    else:
        assert "by these names" not in outcome.err
        assert rows["strong"]["top1"] < 0.7
        assert rows["discriminant"]["top1"] > max(0.9, rows["eft"]["top1"])


def test_refine_starts_from_the_discriminant(run: Cli, tmp_path: Path):
    assert run(*TRANSFER, "--method", "discriminant").code == 0
    outcome = run("refine", "--method", "discriminant", "--shots", 8)
    assert outcome.code == 0
    assert "labels weigh" in outcome.out
    refined = load(tmp_path / "transmiter-run/refined.safetensors")
    assert refined.stage == "refined"
    assert refined.method == "discriminant"
    refused = run("refine", "--epochs", 5)
    assert refused.code == 2
    assert "strong-discriminant.safetensors is a linear classifier" in refused.err


def test_a_fine_tuned_file_that_changed_after_fit_is_not_taken_for_what_it_was(run: Cli, tmp_path: Path):
    weight, path = torch.randn(10, 64), tmp_path / "head.safetensors"
    save_file({"weight": weight}, path)
    assert run(*FIT, "--finetuned", path).code == 0
    assert run(*TRANSFER, "--method", "ridge").code == 0
    save_file({"weight": -weight}, path)
    refused = run(*TRANSFER, "--method", "ridge")
    assert refused.code == 2
    assert "head.safetensors changed since fit read it" in refused.err
    assert "Try: transmiter fit --weak demo-weak" in refused.err
    assert "images" not in refused.err, "nothing is encoded before"
    evaluated = run("eval", "--json")
    assert "The rows weak_finetuned, eft and product are left out." in evaluated.err
    assert not {"weak_finetuned", "eft"} & set(json.loads(evaluated.out)["rows"])
    assert run(*TRANSFER, "--method", "adapter").code == 0, "which asks no fine-tuned model"
    path.unlink()
    assert "There is no fine-tuned model" in run(*TRANSFER).err


def test_a_fine_tuned_file_that_changed_while_fit_read_it_is_not_taken_for_what_it_was(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weight, path, real = torch.randn(10, 64), tmp_path / "head.safetensors", fit.open_given
    save_file({"weight": weight}, path)

    def changed_after(*given: Any) -> Any:
        found = real(*given)
        save_file({"weight": -weight}, path)
        return found

    monkeypatch.setattr(fit, "open_given", changed_after)
    assert run(*FIT, "--finetuned", path).code == 0
    assert "head.safetensors changed since fit read it" in run(*TRANSFER, "--method", "ridge").err


def test_a_run_that_does_not_say_what_its_fine_tuned_file_was_is_taken_at_its_word(run: Cli):
    assert run(*TRANSFER, "--method", "ridge").code == 0
    record = json.loads(Path("transmiter-run/run.json").read_text())
    del record["teachers"]
    Path("transmiter-run/run.json").write_text(json.dumps(record))
    assert "weak_finetuned" in json.loads(run("eval", "--json").out)["rows"]
    assert run(*TRANSFER, "--method", "discriminant").code == 0


def test_what_a_transfer_or_fit_removes_is_said_with_the_commands_that_make_it_again(run: Cli):
    assert "No longer" not in run(*TRANSFER).err
    assert run("refine", "--shots", 2).code == 0
    again = run(*TRANSFER)
    assert "No longer in transmiter-run: refined (demo-strong)." in again.err
    assert "To make it again: transmiter refine --shots 2\n" in again.err
    assert "No longer" not in run(*TRANSFER, "--method", "ridge").err
    assert "No longer" not in run("transfer", "--strong", "demo-weak", "--method", "ridge").err
    assert run("refine", "--shots", 2, "--strong", "demo-strong").code == 0
    before = Run(Path("transmiter-run")).made()
    assert len(before) == 5
    fitted = run(*FIT, "--finetuned", "demo-finetuned")
    assert "transferred, ridge, discriminant, refined (demo-strong); ridge (demo-weak)" in fitted.err
    (line,) = (line for line in fitted.err.splitlines() if "No longer" in line)
    for command in line.split("To make it again: transmiter ")[1].split(" && transmiter "):
        assert run(*shlex.split(command)).code == 0
    assert Run(Path("transmiter-run")).made() == before
    assert run(*FIT, "--finetuned", "demo-finetuned").code == 0
    assert "No longer" not in run(*FIT, "--finetuned", "demo-finetuned").err


def test_refine_says_that_a_probe_knows_the_labels_of_fit(cli: Cli, tmp_path: Path):
    assert cli(*FIT, "--finetuned", "probe", "--limit", 100).code == 0
    assert cli("transfer", "--strong", "demo-strong", "--method", "ridge").code == 0
    said = "The probe of this run learned from these very labels"
    assert said in cli("refine", "--shots", 2).err
    assert said not in cli("refine", "--data", "demo-digits", "--split", "test", "--shots", 2).err


def test_a_model_of_some_of_the_classes_is_told_of(cli: Cli):
    assert cli(*FIT, "--finetuned", "probe").code == 0
    head = load_file("transmiter-run/probe.safetensors")
    head["weight"][:5], head["bias"][:5] = 0, -100
    save_file(head, "some.safetensors")
    assert cli(*FIT, "--finetuned", "some.safetensors").code == 0
    done = cli(*TRANSFER, "--method", "discriminant", "--json")
    assert "some.safetensors hardly ever answers, as if fine-tuned on others alone" in " ".join(done.err.split())
    assert "5 of 10 (eight, five, four, nine, one)" in " ".join(done.err.split())
    verdict = json.loads(done.out)["methods"]["discriminant"]["verdict"]
    assert verdict["unknown_classes"] == [0, 1, 2, 3, 4]
