"""transmiter transfer to several strong models with several strengths, and what the later commands make of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.test_predict import FIT
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.run import Run

BOTH = ("--strong", "demo-strong", "--strong", "demo-weak")
RUN = Path("transmiter-run")


@pytest.fixture
def fitted(cli: Cli) -> Cli:
    assert cli(*FIT).code == 0
    return cli


def files() -> set[str]:
    return {str(path.relative_to(RUN)) for path in RUN.rglob("*.safetensors")}


def top1(cli: Cli, *flags: object) -> dict[str, float]:
    return {name: row["top1"] for name, row in json.loads(cli("eval", "--json", *flags).out)["rows"].items()}


def test_one_model_and_one_strength_lie_in_the_runs_own_folder(fitted: Cli):
    assert fitted("transfer", "--strong", "demo-strong").code == 0
    assert files() == {"weak.safetensors", "strong.safetensors", "strong-discriminant.safetensors"}
    assert json.loads((RUN / "run.json").read_text())["homes"] == {"demo-strong": "."}


def test_several_strengths_give_a_row_each_and_the_first_is_the_default(fitted: Cli):
    assert fitted("transfer", "--strong", "demo-strong", "--reg", "0.01,1,100", "--method", "adapter").code == 0
    assert files() == {"weak.safetensors", *(f"strong{end}.safetensors" for end in ("", "-reg=1", "-reg=100"))}
    rows = top1(fitted)
    assert [
        name
        for name in rows
        if name not in ("weak", "weak_finetuned", "strong", "eft_0.5", "eft", "eft_1.5", "product", "direct")
    ] == [
        "transferred",
        "reg=1",
        "reg=100",
    ]
    gate = fitted("eval", "--require", "reg=100.top1 >= 0")
    assert gate.code == 0
    assert "transferred reg=0.01 " in gate.out
    image = open_images("demo-digits", "test").files[0].path
    default = fitted("predict", image).out
    assert default == fitted("predict", image, "--use", "transferred").out
    assert default != fitted("predict", image, "--use", "reg=100").out
    shown = json.loads(fitted("inspect", RUN / "strong-reg=100.safetensors", "--json").out)
    assert shown["details"]["transfer"] == {"images": 1198, "reg": 100.0}
    for reg, row in (("1", "reg=1"), ("100", "reg=100")):
        assert fitted("transfer", "--strong", "demo-strong", "--method", "adapter", "--reg", reg).code == 0
        assert top1(fitted)["transferred"] == rows[row]
    assert files() == {"weak.safetensors", "strong.safetensors"}


def test_a_later_transfer_to_another_model_leaves_the_first_where_it_is(fitted: Cli):
    assert fitted("transfer", "--strong", "demo-strong", "--method", "discriminant").code == 0
    assert fitted("refine", "--shots", 2).code == 0
    before = {name: (RUN / name).read_bytes() for name in files()}
    done = fitted("transfer", "--strong", "demo-weak")
    assert (done.code, "No longer" in done.err) == (0, False)
    assert {name: (RUN / name).read_bytes() for name in before} == before
    home = Run(RUN).home("demo-weak").relative_to(RUN)
    assert files() == {*before, f"{home}/strong.safetensors", f"{home}/strong-discriminant.safetensors"}
    assert json.loads(fitted("eval", "--json").out)["strong"] == "demo-weak"
    assert "refined" in top1(fitted, "--strong", "demo-strong")
    assert fitted("transfer", *BOTH, "--method", "ridge").code == 0
    assert {"strong-ridge.safetensors", f"{home}/strong-ridge.safetensors"} < files()


def test_several_strong_models_have_a_folder_each_and_eval_chooses(fitted: Cli):
    assert fitted("transfer", "--strong", "demo-strong").code == 0
    alone = top1(fitted)
    assert fitted(*FIT).code == 0
    done = fitted("transfer", *BOTH, "--method", "adapter", "--method", "ridge", "--json")
    assert set(json.loads(done.out)["models"]) == {"demo-strong", "demo-weak"}
    homes = {name: Run(RUN).home(name).relative_to(RUN) for name in ("demo-strong", "demo-weak")}
    names = ("strong.safetensors", "strong-ridge.safetensors")
    assert files() == {"weak.safetensors", *(f"{home}/{name}" for home in homes.values() for name in names)}
    assert top1(fitted, "--strong", "demo-strong")["transferred"] == alone["transferred"]
    assert json.loads(fitted("eval", "--json").out)["strong"] == "demo-weak"
    refined = fitted("refine", "--shots", 2, "--strong", "demo-strong")
    assert "transmiter eval --data LABELLED_FOLDER --strong demo-strong" in " ".join(refined.out.split())
    assert "refined" in top1(fitted, "--strong", "demo-strong")
    assert "refined" not in top1(fitted)
    image = open_images("demo-digits", "test").files[0].path
    answers = {fitted("predict", image, "--strong", name).out for name in homes}
    assert len(answers) == 2


def test_a_later_transfer_to_one_of_several_replaces_that_one_alone(fitted: Cli):
    assert fitted("transfer", *BOTH, "--reg", "1,10").code == 0
    before = files()
    other = Run(RUN).home("demo-weak") / "strong.safetensors"
    kept = other.read_bytes()
    assert fitted("refine", "--shots", 2, "--strong", "demo-strong").code == 0
    assert fitted("transfer", "--strong", "demo-strong").code == 0
    home = Run(RUN).home("demo-strong").relative_to(RUN)
    assert files() == before - {f"{home}/strong-reg=10.safetensors"}
    assert other.read_bytes() == kept
    assert json.loads(fitted("eval", "--json").out)["strong"] == "demo-strong"
    assert fitted(*FIT).code == 0
    assert files() == {"weak.safetensors"}


def test_a_solve_for_several_is_that_for_each(fitted: Cli):
    assert fitted("transfer", *BOTH, "--reg", "1,10").code == 0
    together = (Run(RUN).home("demo-strong") / "strong-reg=10.safetensors").read_bytes()
    assert fitted(*FIT).code == 0
    assert fitted("transfer", "--strong", "demo-strong", "--reg", "10").code == 0
    assert (RUN / "strong.safetensors").read_bytes() == together


def test_a_models_folder_is_found_by_every_spelling_of_its_path(fitted: Cli, tmp_path: Path):
    folder = shutil.copytree(resolve_model("demo-strong").weights.parent, tmp_path / "strong")
    other = f"local-dir:../{tmp_path.name}/strong"
    both = ("--strong", "local-dir:strong", "--strong", f"local-dir:{folder}", "--strong", other)
    assert fitted("transfer", *both).code == 0
    assert Run(RUN).strong_models() == [f"local-dir:{folder}"]
    assert fitted("transfer", "--strong", "local-dir:strong", "--reg", "0.1,1").code == 0
    for line in (("refine", "--shots", 1), ("eval",), ("predict", "--data", "demo-digits", "--limit", 1)):
        assert fitted(*line, "--strong", "local-dir:strong").code == 0
    assert fitted("inspect").code == fitted("eval", "--strong", other).code == 0
    again = fitted(*FIT).err.split("To make it again: ")[1]
    assert "transfer --strong local-dir:strong --reg 0.1,1 && transmiter refine" in again


@pytest.mark.parametrize("command", ["refine", "transfer --strong demo-weak", "self-train --data demo-digits"])
def test_a_run_that_cannot_be_written_to_is_told_of_before_images_are_encoded(
    fitted: Cli, command: str, monkeypatch: pytest.MonkeyPatch
):
    assert fitted("transfer", "--strong", "demo-strong").code == 0

    def refuse(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("transmiter_cli.files.TemporaryFile", refuse)
    done = fitted(*command.split())
    assert (done.code, "transmiter-run cannot be written to: Read-only" in done.err) == (1, True)
    assert "images" not in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("transfer",), "No strong model was given"),
        (("transfer", "--strong", "demo-strong", "--reg", "1,x"), "--reg must be auto alone, or a positive"),
        (("transfer", "--strong", "demo-strong", "--reg", "1,-1"), "--reg must be auto alone, or a positive"),
        (("eval", "--strong", "ViT-L/14"), "Nothing was transferred to 'ViT-L/14'"),
        (("predict", "--data", "demo-digits", "--use", "reg=7"), "There is no 'reg=7'"),
    ],
)
def test_what_cannot_be_meant_is_refused(fitted: Cli, arguments: tuple[str, ...], said: str):
    assert fitted("transfer", "--strong", "demo-strong").code == 0
    done = fitted(*arguments)
    assert done.code == 2
    assert said in " ".join(done.err.replace("\u2502", " ").split())
