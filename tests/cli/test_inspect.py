"""transmiter inspect: runs, artefacts, and files that are neither."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from tests.cli.conftest import Cli
from tests.cli.test_errors import failed
from tests.cli.test_transfer import FIT
from transmiter_cli.description import FORMAT, METADATA_KEY, DamagedArtefactError, read_description
from transmiter_cli.errors import TransmiterError
from transmiter_cli.layout import file_name

RUN = Path("transmiter-run")


@pytest.fixture
def run(cli: Cli) -> Cli:
    assert cli(*FIT, "--finetuned", "demo-finetuned", "--limit", 100).code == 0
    assert cli("transfer", "--strong", "demo-strong", "--reg", "0.1,10").code == 0
    assert cli("refine", "--shots", 2).code == 0
    return cli


def test_a_run_shows_its_task_its_artefacts_and_its_commands(run: Cli):
    text = run("inspect", RUN).out
    assert text == run("inspect").out == run("inspect", "--run", RUN).out == run("inspect", RUN / "run.json").out
    lines = text.splitlines()
    assert "weak                             demo-weak, fine-tuned demo-finetuned" in lines
    assert "strong                           demo-strong" in lines
    assert "data                             demo-digits --split train --limit 100" in lines
    assert "classes                          10: eight, five, four, nine, one and 5 more" in lines
    about = {line.split()[0]: line for line in lines if line.split()[0].endswith(".safetensors")}
    assert "fitted, adapter, basis compact, epochs 1, seed 0" in about["weak.safetensors"]
    assert "row transferred, on demo-strong, adapter, reg 0.1, images 100" in about["strong.safetensors"]
    assert "row reg=10, on demo-strong, adapter, reg 10, images 100" in about["strong-reg=10.safetensors"]
    assert "row discriminant, on demo-strong, discriminant" in about["strong-discriminant.safetensors"]
    assert "row refined, on demo-strong, discriminant, images 20" in about["refined.safetensors"]
    assert lines[-1] == "  $ transmiter refine --shots 2"


def test_commands_are_shown_with_the_folder_in_which_they_were_given(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    lines = run("inspect", tmp_path / RUN).out.splitlines()
    commands = lines[lines.index("commands") + 1 :]
    assert [line[:4] for line in commands] == ["  # ", *["  $ "] * (len(commands) - 1)]
    assert commands[0] == f"  # in {tmp_path}"
    assert {*json.loads(run("inspect", tmp_path / RUN, "--json").out)["folders"]} == {str(tmp_path)}


def test_json_has_the_same(run: Cli):
    shown = json.loads(run("inspect", RUN, "--json").out)
    assert shown["task"]["classes"][0] == "eight"
    assert [one["file"] for one in shown["artefacts"]][:2] == ["weak.safetensors", "strong.safetensors"]
    assert [one["row"] for one in shown["artefacts"]] == [None, "transferred", "reg=10", "discriminant", "refined"]
    assert shown["commands"][1] == "transmiter transfer --strong demo-strong --reg 0.1,10"
    artefact = json.loads(run("inspect", RUN / "strong.safetensors", "--json").out)
    assert shown["artefacts"][1]["details"] == artefact["details"]


def test_what_is_neither_a_run_nor_an_artefact(run: Cli, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    failed(run("inspect", "empty"), 2, "no run in empty")
    for absent in ("absent", "absent/run.json"):
        failed(run("inspect", absent), 2, "no run in absent", "Try: transmiter fit")
    (tmp_path / "list.json").write_text("{}")
    failed(run("inspect", "list.json"), 2, "list.json is neither a run directory, nor its run.json, nor an artefact")
    shutil.copy(RUN / "seen-by-fit.txt", tmp_path / "other.bin")
    failed(run("inspect", "other.bin"), 2, "other.bin is neither")
    (RUN / "run.json").write_text("{")
    failed(run("inspect", RUN), 1, "run.json is damaged")


def test_a_damaged_artefact_hides_no_other_and_goes_with_the_next_transfer(run: Cli):
    (RUN / "refined.safetensors").write_bytes(b"torn")
    lines = run("inspect", RUN).out.splitlines()
    about = {line.split()[0]: line for line in lines}
    assert "refined.safetensors cannot be read as an artefact" in about["refined.safetensors"]
    assert "row transferred" in about["strong.safetensors"]
    shown = {one["file"]: one for one in json.loads(run("inspect", RUN, "--json").out)["artefacts"]}
    assert "cannot be read" in shown["refined.safetensors"]["damage"]
    assert shown["refined.safetensors"]["method"] is None
    assert shown["weak.safetensors"]["damage"] is None
    outcome = run("transfer", "--strong", "demo-strong", "--method", "ridge")
    assert outcome.code == 0
    assert "No longer in transmiter-run: refined (demo-strong). To make it again: transmiter refine" in outcome.err
    assert run("eval", "--limit", 20).code == 0


def test_a_damaged_artefact_has_the_command_that_makes_it_again_and_no_other(run: Cli):
    (RUN / "refined.safetensors").write_bytes(b"torn")
    for line in (("eval",), ("predict", "--data", "demo-digits")):
        failed(run(*line), 1, "refined.safetensors cannot be read as an artefact", "Try: transmiter refine --shots 2\n")
    (RUN / "strong.safetensors").write_bytes(b"torn")
    only = "Try: transmiter transfer --reg 0.1,10 --strong demo-strong --method adapter\n"
    failed(run("predict", "--data", "demo-digits", "--use", "transferred"), 1, only)
    fit = "Try: transmiter fit --weak demo-weak --"
    (RUN / "weak.safetensors").write_bytes(b"torn")
    failed(run("eval"), 1, "weak.safetensors cannot be read as an artefact", fit)
    record = json.loads((RUN / "run.json").read_text())
    (RUN / "run.json").write_text(json.dumps({**record, "history": []}))
    failed(run("eval"), 1, "weak.safetensors cannot be read as an artefact", "Try: transmiter fit --weak MODEL --")
    (RUN / "run.json").write_text(json.dumps(record))
    (RUN / "weak.safetensors").unlink()
    failed(run("eval"), 2, "weak.safetensors is missing", fit)


def test_an_artefact_in_the_place_of_another_is_not_taken_for_it(run: Cli):
    assert run("transfer", "--strong", "demo-strong").code == 0
    shutil.copy(RUN / "strong-discriminant.safetensors", RUN / "strong.safetensors")
    said = "strong.safetensors is not what its name says, but another artefact, of stage 'strong', method 'disc"
    failed(run("eval"), 1, said, "--method adapter\n")
    assert said in run("inspect").out
    shutil.copy(RUN / "strong-discriminant.safetensors", RUN / "refined.safetensors")
    failed(run("predict", "--data", "demo-digits"), 1, "refined.safetensors is not", "Try: transmiter refine")
    shutil.copy(RUN / "strong-discriminant.safetensors", RUN / "weak.safetensors")
    failed(run("transfer", "--strong", "demo-strong"), 1, "weak.safetensors is not", "Try: transmiter fit")


def test_one_strength_in_the_place_of_another_is_not_taken_for_it(run: Cli):
    assert run("transfer", "--strong", "demo-strong", "--method", "adapter", "--reg", "1,10").code == 0
    shutil.copy(RUN / "strong.safetensors", RUN / "strong-reg=10.safetensors")
    failed(run("eval"), 1, "strong-reg=10.safetensors is not what its name says", "--reg 1,10")


@pytest.mark.parametrize("row", ["transferred", "reg=10", "ridge", "discriminant"])
def test_the_command_for_one_damaged_artefact_mends_it_and_leaves_the_others(run: Cli, row: str):
    every = ("--method", "adapter", "--method", "ridge", "--method", "discriminant")
    options = ("--reg", "1,10", "--rho=0.01", "--opaque-names")
    assert run("transfer", "--strong", "demo-strong", "--strong", "demo-weak", *every, *options).code == 0
    before = {path: path.read_bytes() for path in RUN.rglob("*.safetensors")}
    (RUN / file_name(row)).write_bytes(b"torn")
    line = run("eval", "--strong", "demo-strong").err.split("Try: transmiter ")[1]
    assert run(*shlex.split(line)).code == 0
    assert {path: path.read_bytes() for path in RUN.rglob("*.safetensors")} == before


def test_what_cannot_be_read_now_or_by_this_version_is_not_taken_for_damaged(run: Cli, monkeypatch: pytest.MonkeyPatch):
    later = RUN / "refined.safetensors"
    with safe_open(later, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, later, {METADATA_KEY: json.dumps({"stage": "refined", "format": FORMAT + 1})})
    failed(run("transfer", "--strong", "demo-strong", "--method", "ridge"), 1, "was written by a later version")
    assert later.is_file()

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("transmiter_cli.description.safe_open", fails)
    with pytest.raises(TransmiterError, match="cannot be read: Input/output error") as caught:
        read_description(later)
    assert not isinstance(caught.value, DamagedArtefactError)
    monkeypatch.setattr("os.access", lambda *_: False)  # as for other users than root
    with pytest.raises(TransmiterError, match="cannot be read: Permission denied"):
        read_description(later)


def test_self_train_takes_a_damaged_refinement_away(run: Cli):
    (RUN / "refined.safetensors").write_bytes(b"torn")
    outcome = run("self-train", "--data", "demo-digits", "--limit", 100)
    assert outcome.code == 0
    assert "No longer in transmiter-run: refined (demo-strong)" in outcome.err
