import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from transmiter_cli.cli.console import command_line
from transmiter_cli.embedding.encoders.prompts import Templates
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.layout import ARTEFACTS, FITTED, SWEPT_ROW, folder_name, swept_row
from transmiter_cli.record import Made, Task
from transmiter_cli.run import Run, default_run

TASK = Task(
    ("cat", "dog"),
    ("n1", "n2"),
    Templates(("a {}",), {"cat": ("a tabby",)}),
    "pets",
    "train",
    "ViT-B/32",
    ("pets.pt",),
    "/images",
    100,
)


STEP = {"command": ["transmiter", "fit"], "folder": "/", "models": {}, "versions": {}}


def put_fit(run: Run, task: Task = TASK) -> list[Made]:
    """Put a fit in a run whose adapter nobody reads."""
    return run.replace_fit(task, b"adapter", {}, STEP)


def test_a_task_survives_the_disk(tmp_path: Path):
    run = Run(tmp_path / "run")
    put_fit(run)
    assert Run(tmp_path / "run").task() == TASK


def test_the_history_goes_on_over_fits(tmp_path: Path):
    run = Run(tmp_path)
    for number in range(2):
        put_fit(run)
        run.add(
            ["transmiter", "refine", str(number)], {"ViT-B/32": "abc"}, [], strong="ViT-L/14", homes={"ViT-L/14": "."}
        )
    record = json.loads((tmp_path / "run.json").read_text())
    assert [entry["command"][2:] for entry in record["history"]] == [[], ["0"], [], ["1"]]
    assert record["history"][1]["models"] == {"ViT-B/32": "abc"}
    assert run.strong() == "ViT-L/14"
    assert run.commands() == ["transmiter fit", "transmiter refine 1"]


def test_a_new_fit_removes_what_was_transferred_from_the_old_one_and_nothing_else(tmp_path: Path):
    run = Run(tmp_path)
    put_fit(run)
    run.add(["x"], {}, [], strong="ViT-L/14", homes={"ViT-L/14": "."})
    homes = [tmp_path, *(tmp_path / "strong" / folder_name(name) for name in ("SigLIP", "EVA"))]
    notes = {tmp_path / "notes.txt", homes[1] / "notes.txt", tmp_path / "seen-by-me.txt"}
    notes |= {tmp_path / "strong" / "mine" / name for name in ("refined.safetensors", "seen-by-fit.txt")}
    (tmp_path / "strong" / "mine").mkdir(parents=True)
    for home in homes:
        home.mkdir(parents=True, exist_ok=True)
        for name in (*ARTEFACTS.values(), "strong-reg=10.safetensors", "seen-by-transfer.txt"):
            (home / name).touch()
    for path in notes:
        path.touch()
    assert {made.row for made in put_fit(run)} == {*ARTEFACTS, "reg=10"}
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {tmp_path / "run.json", tmp_path / FITTED} | notes
    assert not homes[2].exists()
    with pytest.raises(UsageError, match="Nothing was transferred"):
        run.strong()
    (tmp_path / FITTED).unlink()
    with pytest.raises(UsageError, match="a fit was interrupted"):
        run.strong()


@pytest.mark.parametrize(
    "name", [FITTED, "probe.safetensors", "seen-by-fit.txt", "strong.safetensors", "strong-reg=10.safetensors"]
)
def test_no_fit_takes_the_place_of_files_that_are_no_runs(tmp_path: Path, name: str):
    run = Run(tmp_path)
    run.require_free(TASK)
    (tmp_path / name).touch()
    with pytest.raises(UsageError, match=f"is no run, and holds {name}, which"):
        run.require_free(TASK)
    run.require_free(replace(TASK, finetuned=(str(tmp_path / name),)))
    run.forget(TASK)
    assert (tmp_path / name).exists()
    (tmp_path / "run.json").write_text("{")
    run.require_free(TASK)


def test_a_new_fit_removes_the_probe_of_the_old_one_unless_it_learned_from_it(tmp_path: Path):
    run, probe = Run(tmp_path), tmp_path / "probe.safetensors"
    put_fit(run)
    probe.touch()
    put_fit(run, replace(TASK, finetuned=("pets.pt", str(probe))))
    assert probe.exists()
    put_fit(run)
    assert not probe.exists()


REPLACING = "transmiter fit ... --force"


def test_one_command_at_a_time_changes_a_run(tmp_path: Path):
    refused = pytest.raises(TransmiterError, match="Another transmiter command is changing")
    with Run(tmp_path).locked(), refused, Run(tmp_path).locked():
        pass
    with Run(tmp_path).locked(), Run(tmp_path / "absent").locked():
        assert not (tmp_path / "absent").exists()


def test_other_classes_or_another_order_are_refused(tmp_path: Path):
    run = Run(tmp_path)
    run.claim(TASK, REPLACING)
    put_fit(run)
    run.claim(TASK, REPLACING)
    order = "the same classes in another order, with 'cat' where this one has 'dog'."
    more = "2 classes, cat, dog; this one has 3, cat, dog, eel."
    for classes, said in ((("dog", "cat"), order), (("cat", "dog", "eel"), more)):
        with pytest.raises(UsageError, match=f"run of another task: {said}") as refused:
            run.claim(replace(TASK, classes=classes), REPLACING)
        assert (refused.value.fix or "").endswith(REPLACING)


def written(*history: object) -> str:
    return json.dumps({"task": asdict(TASK), "history": history})


@pytest.mark.parametrize(
    "content",
    [
        *("{", "null", "[]", '{"task": {}}', '{"history": 3}', '{"task": {"classes": 1}}'),
        *(written({"command": ["transmiter"], "made": ["x"]}), written({"models": {}}), written("fit"), written(None)),
    ],
)
def test_a_damaged_record_is_named_and_can_be_replaced(tmp_path: Path, content: str):
    (tmp_path / "run.json").write_text(content)
    run = Run(tmp_path)
    for call in (run.task, run.strong, lambda: run.claim(TASK, REPLACING)):
        with pytest.raises(TransmiterError, match=r"run\.json is damaged"):
            call()
    put_fit(run)
    assert run.task() == TASK


def test_the_directory_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TRANSMITER_RUN", raising=False)
    assert default_run() == Path("transmiter-run")
    monkeypatch.setenv("TRANSMITER_RUN", "/tmp/elsewhere")
    assert default_run() == Path("/tmp/elsewhere")


@pytest.mark.parametrize(
    ("typed", "recorded"),
    [
        ("fit", "fit --run /tmp/elsewhere"),
        ("fit --run here", "fit --run here"),
        ("fit --run=here", "fit --run=here"),
    ],
)
def test_commands_say_which_run_they_mean_wherever_they_are_repeated(
    monkeypatch: pytest.MonkeyPatch, typed: str, recorded: str
):
    monkeypatch.setenv("TRANSMITER_RUN", "/tmp/elsewhere")
    monkeypatch.setattr(sys, "argv", ["/bin/transmiter", *typed.split()])
    assert command_line() == ["transmiter", *recorded.split()]
    assert Run(default_run()).flag == " --run /tmp/elsewhere"
    assert Run(Path("transmiter-run")).flag == " --run transmiter-run"
    monkeypatch.delenv("TRANSMITER_RUN")
    assert Run(Path("transmiter-run")).flag == ""


def test_the_rows_of_two_strengths_are_never_the_same():
    assert [swept_row(reg) for reg in (10.0, 0.1, 1e-7)] == ["reg=10", "reg=0.1", "reg=1e-07"]
    assert swept_row(1.0000001) != swept_row(1.0)
    assert float(swept_row(1.0000001).removeprefix(SWEPT_ROW)) == 1.0000001
