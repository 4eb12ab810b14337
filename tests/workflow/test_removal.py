import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest

from tests.test_run import put_fit
from transmiter_cli.record import Made, Step
from transmiter_cli.run import Run
from transmiter_cli.workflow.removal import removal

BOTH, SIGLIP, VIT = ("SigLIP", "ViT-L/14"), ("SigLIP",), ("ViT-L/14",)
STEPS = {
    "transfer --strong ViT-L/14 --method=ridge --rho 0.3": (VIT, ("ridge",)),
    "transfer --strong=ViT-L/14 --strong SigLIP --reg 0.1,1.0,10": (
        BOTH,
        ("transferred", "reg=1", "reg=10", "discriminant"),
    ),
    "refine --shots 4": (SIGLIP, ("refined",)),
    "transfer --strong SigLIP --method adapter": (SIGLIP, ("transferred",)),
    "refine --shots 8": (VIT, ("refined",)),
}
LINES = [*STEPS]


def add(run: Run, line: str, strong: Sequence[str], rows: Sequence[str]) -> None:
    """A command of the history, and what it made."""
    made = [Made(*one) for one in product(strong, rows)]
    run.add(["transmiter", *line.split()], {}, made, strong="SigLIP", homes={"SigLIP": "."})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    put_fit(run)
    for line, (strong, rows) in STEPS.items():
        add(run, line, strong, rows)
    return run


@pytest.mark.parametrize(
    ("gone", "again"),
    [
        ([("ViT-L/14", "ridge")], LINES[0]),
        ([("ViT-L/14", "transferred")], LINES[1]),
        ([("ViT-L/14", "reg=1"), ("ViT-L/14", "discriminant")], LINES[1]),
        ([("SigLIP", "transferred")], LINES[3]),
        ([("SigLIP", "refined"), ("SigLIP", "discriminant")], f"{LINES[1]} && transmiter {LINES[2]}"),
        ([("ViT-L/14", "refined")], f"{LINES[4]} --strong ViT-L/14"),
        ([("EVA", "ridge")], "transfer --strong EVA --method ridge"),
        ([("EVA", "reg=10")], "transfer --strong EVA --method adapter --reg 1,10"),
    ],
)
def test_the_command_lines_of_the_history_make_it_again(run: Run, gone: list, again: str):
    told = removal([Made(*one) for one in gone], run)
    assert told.split("To make it again: ")[1].replace(run.flag, "") == f"transmiter {again}"
    assert all(f"{row}" in told and f"({strong})" in told for strong, row in gone)


def test_commands_come_in_the_order_in_which_they_were_given_and_for_where_the_run_lies_now(run: Run, tmp_path: Path):
    gone = [Made("SigLIP", "discriminant"), Made("SigLIP", "transferred"), Made("ViT-L/14", "ridge")]
    lines = removal([gone[1], gone[0], gone[2]], run).split("To make it again: ")[1].split(" && ")
    assert lines == [f"transmiter {LINES[place]}{run.flag}" for place in (0, 1, 3)]
    moved = Run(tmp_path / "moved")
    step = Step(["transmiter", "transfer", "--run", "before", "--reg=2", "--run=x"])
    assert moved.command_line_of(step) == f"transmiter transfer --reg=2 --run {moved.path}"


def test_a_path_of_a_strong_model_starts_where_the_command_was_given(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    strong = f"local-dir:{tmp_path / 'models' / 'strong'}"
    add(run, "transfer --strong local-dir:models/strong --reg 0.1,1", [strong], ["transferred", "reg=1"])
    monkeypatch.chdir("/")
    told = removal([Made(strong, "reg=1")], run).split("To make it again: ")[1]
    assert told.startswith(f"(cd {tmp_path} && transmiter transfer --strong local-dir:models/strong --reg 0.1,1 ")


def test_a_command_that_was_given_in_another_folder_goes_back_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = tmp_path / "some where"
    here.mkdir()
    monkeypatch.chdir(here)
    add(run, "refine --data ../few --run ../run", ["EVA"], ["refined"])
    lines = [removal([Made("EVA", "refined")], run).split("To make it again: ")[1]]
    monkeypatch.chdir(tmp_path)
    lines += [removal([Made("EVA", "refined")], Run(Path("run"))).split("To make it again: ")[1]]
    here.rename(tmp_path / "gone")
    lines += [removal([Made("EVA", "refined")], Run(Path("run"))).split("To make it again: ")[1]]
    refine = "transmiter refine --data ../few --strong EVA"
    there = f"(cd '{here}' && {refine} --run {tmp_path / 'run'})"
    assert lines == [f"{refine}{run.flag}", there, f"{refine} --run run"]


def test_a_history_without_folders_is_taken_to_be_of_this_one(run: Run):
    record = json.loads(run.record_path.read_text())
    for entry in record["history"]:
        del entry["folder"]
    run.record_path.write_text(json.dumps(record))
    assert run.command_line_of(run.history()[3]) == f"transmiter {LINES[2]}{run.flag}"


def test_strengths_that_differ_little_are_kept_apart(run: Run):
    add(run, "transfer --strong SigLIP --reg 2,1.0000001", SIGLIP, ["transferred", "reg=1.0000001"])
    assert "--reg 2,1.0000001" in removal([Made("SigLIP", "reg=1.0000001")], run)
    assert "--reg 0.1,1.0,10" in removal([Made("SigLIP", "reg=1")], run)


def test_an_older_transfer_is_said_to_replace_the_one_that_was_just_made(run: Run):
    add(run, "transfer --strong SigLIP --method adapter", SIGLIP, ["transferred"])
    assert "The following replaces what was just made, but makes it again: " in removal(
        [Made("SigLIP", "discriminant")], run
    )
    assert "To make it again: " in removal([Made("SigLIP", "refined")], run)


def test_nothing_is_said_of_nothing(run: Run):
    assert removal([], run) == ""
