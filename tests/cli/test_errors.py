"""Bad input: what is wrong, why, what mends it, the right exit code, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.main import get_command

from tests.cli.conftest import Cli
from transmiter_cli.cli.errors import run
from transmiter_cli.cli.main import app
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.task.finetuned import bundled_path

FIT = ("fit", "--weak", "demo-weak", "--finetuned", "demo-finetuned", "--aux-words", "characters", "--epochs", "1")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of four pictures each."""
    for name in ("one", "two"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), 60 * number + len(name)).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def failed(outcome, code: int, *said: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert outcome.err.count("Error: ") == 1
    assert "Traceback" not in outcome.err
    for part in said:
        assert part in outcome.err


def test_a_missing_folder(cli: Cli):
    failed(cli(*FIT, "--data", "absent"), 2, "no folder 'absent'", "Try: ls")


def test_the_folder_that_is_there_is_named_as_a_shell_takes_it(cli: Cli, tmp_path: Path):
    (tmp_path / "my folder").mkdir()
    failed(cli(*FIT, "--data", "my folder/../my folder/absent/x"), 2, f"Try: ls '{tmp_path / 'my folder'}'")


def test_the_root_of_the_file_system_is_a_place_like_others(cli: Cli):
    failed(cli("embed", "--model", "local-dir:/", "--data", "demo-digits"), 2, "no open_clip_config.json", "Try: ls /")
    failed(cli("bench", "/"), 2, "no bench file", "Try: ls /")


def test_no_images(cli: Cli, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    failed(cli(*FIT, "--data", "empty"), 1, "holds no images", ".jpeg")


def test_a_class_without_images(cli: Cli, pictures: Path):
    (pictures / "three").mkdir()
    failed(cli(*FIT, "--data", pictures), 1, "class folder 'three'", "Try: put images into it")


def test_an_unknown_model(cli: Cli, pictures: Path):
    failed(
        cli("fit", "--weak", "ViT-B/23", "--finetuned", "demo-finetuned", "--data", pictures),
        2,
        "Did you mean 'ViT-B/32",
    )


def test_no_fine_tuned_model(cli: Cli, pictures: Path):
    failed(cli("fit", "--weak", "demo-weak", "--data", pictures), 2, "No fine-tuned weak model", "--finetuned probe")
    failed(cli(*FIT[:3], "--finetuned", "absent.pt", "--data", pictures), 2, "no fine-tuned model 'absent.pt'")


@pytest.mark.parametrize(
    ("given", "said", "fix"),
    [
        ("", "The fine-tuned model has no name", "Try: --finetuned FILE"),
        (
            "data",
            "data is a folder. A folder is a model if it holds an open_clip_config",
            "local-dir:",
        ),
        ("none.pt", "There is no fine-tuned model 'none.pt'", "Try: ls "),
    ],
)
def test_a_fine_tuned_model_that_is_no_file(cli: Cli, pictures: Path, given: str, said: str, fix: str):
    failed(cli(*FIT[:4], given, "--data", pictures), 2, said, fix)


def test_weights_of_another_architecture_are_not_told_to_be_given_as_an_option_that_is_not_there(cli: Cli):
    outcome = cli("embed", "--model", f"ViT-B-32:{bundled_path('demo-finetuned')}", "--data", "demo-digits")
    failed(outcome, 1, "does not hold weights of ViT-B-32", "Try: name the architecture that was trained")
    assert "--weak" not in outcome.err


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        (("fit", *FIT[1:], "--noise", "inf"), "--noise"),
        (("fit", *FIT[1:], "--lr", "inf"), "--lr"),
        (("refine", "--lr", "inf"), "--lr"),
    ],
)
def test_settings_out_of_their_range(cli: Cli, command: tuple[str, ...], setting: str):
    outcome = cli(*command, *(("--data", "demo-digits") if command[0] == "fit" else ()))
    assert outcome.code == 2
    assert f"{setting} must be a finite number of at least 0" in " ".join(outcome.err.replace("\u2502", " ").split())


def test_a_checkpoint_of_another_architecture(cli: Cli, pictures: Path):
    strong = resolve_model("demo-strong").weights
    outcome = cli("fit", "--weak", "demo-weak", "--finetuned", strong, "--data", pictures)
    failed(outcome, 1, "does not hold weights of", "demo-weak")


@pytest.mark.parametrize("shape", [(3, 64), (2, 32)], ids=["classes", "width"])
def test_a_fine_tuned_model_that_does_not_fit_is_told_of_before_images_are_encoded(
    cli: Cli, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
):
    monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path / "empty-cache"))
    save_file({"weight": torch.randn(shape)}, tmp_path / "head.safetensors")
    outcome = cli(*FIT[:4], "head.safetensors", "--data", pictures)
    failed(outcome, 1, f"shape {shape}")
    assert "encoded" not in outcome.err
    beside = cli(*FIT[:4], "probe", "--finetuned", "head.safetensors", "--data", pictures)
    failed(beside, 1, f"shape {shape}")
    assert "encoded" not in beside.err


def test_logits_of_other_images_are_told_of_before_images_are_encoded(
    cli: Cli, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path / "empty-cache"))
    save_file({"logits": 9 * torch.randn(1, 2)}, tmp_path / "l.safetensors", {"ids": '["train/one/0.png"]'})
    outcome = cli(*FIT[:4], "l.safetensors", "--data", pictures)
    failed(outcome, 1, "no logits for 8 images, 'one/0.png' the first", "look like 'train/one/0.png'")
    assert "encoded" not in outcome.err


def test_a_user_without_a_home_is_asked_for_a_cache(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    def homeless(_: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("transmiter_cli.embedding.storage.cache.user_cache_path", homeless)
    monkeypatch.delenv("TRANSMITER_CACHE")
    failed(cli("cache", "path"), 2, "There is no home directory", "Try: TRANSMITER_CACHE=FOLDER")
    monkeypatch.setenv("TRANSMITER_RUN", "~nobody-has-this-name/run")
    failed(cli("inspect"), 2, "no run in ~nobody-has-this-name/run")


def test_a_working_directory_that_was_removed_is_told(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    failed(cli("inspect", "--run", tmp_path), 1, "The working directory was removed.", "Try: cd")


def test_folders_whose_artefacts_could_not_be_opened_are_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    failed(cli(*FIT, "--data", "demo-digits", "--run", "a\udcffb"), 2, "is no UTF-8", "Try: name a run in another")
    monkeypatch.setenv("TRANSMITER_CACHE", "a\udcffb")
    failed(cli("cache", "path"), 2, "is no UTF-8", "Try: TRANSMITER_CACHE=FOLDER")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EACCES, errno.EROFS])
def test_what_the_system_refuses_says_what_mends_it(
    cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    def refuse(files: list[tuple[Path, bytes]], _: object) -> None:
        raise OSError(number, os.strerror(number), str(files[0][0]))

    monkeypatch.setattr("transmiter_cli.run.write_all", refuse)
    fixes = {errno.ENOSPC: "free some space; --run, --out", errno.EFBIG: "ulimit -f unlimited"}
    fix = f"Try: {fixes.get(number, 'ls -ld transmiter-run')}"
    failed(cli(*FIT, "--data", pictures), 1, os.strerror(number), fix)


def test_a_vocabulary_smaller_than_the_classes(cli: Cli):
    failed(cli(*FIT, "--data", "demo-digits", "--vocabulary-size", 9), 2, "cannot hold 10 classes", "--vocabulary-size")


def test_a_run_of_another_task_is_not_overwritten(cli: Cli, pictures: Path, tmp_path: Path):
    assert cli(*FIT, "--data", "demo-digits").code == 0
    before = (tmp_path / "transmiter-run/weak.safetensors").read_bytes()
    failed(cli(*FIT, "--data", pictures), 2, "a run of another task: 10 classes", "--force")
    assert (tmp_path / "transmiter-run/weak.safetensors").read_bytes() == before
    assert cli(*FIT, "--data", pictures, "--force").code == 0
    assert json.loads((tmp_path / "transmiter-run/run.json").read_text())["task"]["classes"] == ["one", "two"]


def test_nan_logits(cli: Cli, pictures: Path, tmp_path: Path):
    ids = [f"{name}/{number}.png" for name in ("one", "two") for number in range(4)]
    rows = torch.zeros(8, 2)
    rows[5, 0] = torch.nan
    save_file({"logits": rows}, tmp_path / "nan.safetensors", {"ids": json.dumps(ids)})
    failed(cli(*FIT[:4], "nan.safetensors", "--data", pictures), 1, "NaN", "row 5")


def test_a_single_image(cli: Cli, tmp_path: Path):
    (tmp_path / "data").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "data" / "1.png")
    (tmp_path / "names.txt").write_text("zero\none\n")
    failed(cli(*FIT, "--data", "data", "--classes", "names.txt"), 1, "At least two images", "more images")


def test_a_duplicated_class_name(cli: Cli, pictures: Path):
    (pictures / "one").rename(pictures / "Two")
    failed(cli(*FIT, "--data", pictures), 1, "same name")


def test_commands_out_of_order(cli: Cli):
    failed(cli("transfer", "--run", "x y"), 2, "No strong", "Try: transmiter transfer --strong demo-strong --run 'x y'")
    failed(cli("transfer", "--strong", "demo-strong"), 2, "no run in", "Try: transmiter fit")
    failed(cli("eval"), 2, "no run in")
    assert cli(*FIT, "--data", "demo-digits").code == 0
    failed(cli("eval"), 2, "Nothing was transferred", "Try: transmiter transfer")
    failed(cli("refine"), 2, "Nothing was transferred")


@pytest.mark.parametrize(
    "line",
    [
        ("fit", "--weak", "demo-weak", "--data", "one", "--data", "two"),
        ("predict", "--top", "2", "photo.png", "--top=2"),
        ("eval", "--run", "a", "--data", "x", "--data", "y", "--run", "b"),
        ("transfer", "--strong", "demo-strong", "--reg", "1", "--strong", "demo-weak", "--reg", "10"),
    ],
)
def test_an_option_that_takes_one_value_is_not_given_two(cli: Cli, line: tuple[str, ...]):
    flag = {"fit": "--data", "predict": "--top", "eval": "--run", "transfer": "--reg"}[line[0]]
    fix = "--reg 0.1,1,10" if flag == "--reg" else "leave all but one out"
    failed(cli(*line), 2, f"{flag} is given more than once, and takes one value.", fix)


def test_a_flag_may_be_given_twice_and_a_shell_may_ask_what_comes_next(cli: Cli):
    failed(cli("eval", "-q", "--quiet", "--wide", "--wide"), 2, "There is no run")
    command = get_command(app).commands["fit"]
    line = ["--limit", "3", "--limit", "4"]
    assert command.make_context("fit", line, resilient_parsing=True).params["limit"] == 4


def test_unlabelled_test_images(cli: Cli, pictures: Path):
    assert cli(*FIT, "--data", "demo-digits").code == 0
    assert cli("transfer", "--strong", "demo-strong").code == 0
    outcome = cli("eval", "--data", pictures / "one")
    assert outcome.code == 0
    assert "nothing here says which model is right" in outcome.out
    failed(cli("eval", "--data", pictures / "one", "--base-to-novel"), 1, "--base-to-novel needs labels")
    gate = ("--require", "discriminant.top1 > 0.2")
    failed(
        cli("eval", "--data", pictures / "one", *gate), 2, "has no number 'top1'", "Try: --require 'discriminant.agrees"
    )
    failed(cli("refine", "--data", pictures / "one"), 1, "have no labels", "Try: put them into a folder for each class")
    (pictures / "two").rename(pictures / "twelve")
    failed(cli("eval", "--data", pictures), 1, "class 'twelve'")


def test_data_that_fit_saw_whole_are_not_evaluated_on(cli: Cli, pictures: Path):
    assert cli(*FIT, "--data", pictures).code == 0
    assert cli("transfer", "--strong", "demo-strong").code == 0
    failed(cli("eval"), 1, "has no test split", "Try: transmiter eval")


def test_strict_fails_on_an_image_that_cannot_be_decoded(cli: Cli, pictures: Path):
    (pictures / "one" / "9.png").write_bytes(b"broken")
    lenient = cli(*FIT, "--data", pictures)
    assert lenient.code == 0
    assert "9.png: not an image" in lenient.err
    failed(cli(*FIT, "--data", pictures, "--strict"), 1, "1 of 9 images cannot be decoded", "9.png")


def test_a_stale_strong_artefact_does_not_outlive_a_new_fit(cli: Cli, tmp_path: Path):
    assert cli(*FIT, "--data", "demo-digits").code == 0
    assert cli("transfer", "--strong", "demo-strong").code == 0
    assert (tmp_path / "transmiter-run/strong.safetensors").is_file()
    assert cli(*FIT, "--data", "demo-digits", "--seed", 1).code == 0
    assert not (tmp_path / "transmiter-run/strong.safetensors").exists()
    failed(cli("eval"), 2, "Nothing was transferred")


def test_a_model_that_changed_under_its_name_is_noticed(cli: Cli, tmp_path: Path):
    folder = tmp_path / "strong"
    shutil.copytree(resolve_model("demo-strong").weights.parent, folder)
    assert cli(*FIT, "--data", "demo-digits").code == 0
    assert cli("transfer", "--strong", "local-dir:strong").code == 0
    weights = folder / "open_clip_model.safetensors"
    state = load_file(weights)
    save_file({**state, "logit_scale": state["logit_scale"] + 1}, weights)
    again = "Try: transmiter transfer --strong local-dir:"
    failed(cli("eval"), 1, "other weights or preprocessing", again, "--method adapter\n")


def test_relative_paths_mean_the_same_from_everywhere(cli: Cli, pictures: Path, tmp_path: Path, monkeypatch):
    shutil.copy(bundled_path("demo-finetuned"), tmp_path / "tuned.safetensors")
    shutil.copytree(resolve_model("demo-weak").weights.parent, tmp_path / "weak")
    line = ("fit", "--weak", "local-dir:weak", "--finetuned", "tuned.safetensors", "--data", "data", "--epochs", 1)
    assert cli(*line, "--run", "run").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli("transfer", "--strong", "demo-strong", "--method", "ridge", "--run", "../run").code == 0
    assert cli("eval", "--data", "../data", "--run", "../run", "--allow-overlap").code == 0


def test_logits_that_lack_the_test_images_leave_out_two_rows(cli: Cli, tmp_path: Path):
    from transmiter_cli.embedding.sources import open_images

    files = open_images("demo-digits", "train").files
    np.save(tmp_path / "logits.npy", np.random.default_rng(0).standard_normal((len(files), 10)).astype("float32"))
    (tmp_path / "logits.txt").write_text("\n".join(file.id for file in files))
    command = ("fit", "--weak", "demo-weak", "--finetuned", "logits.npy", "--data", "demo-digits", "--epochs", 1)
    assert cli(*command).code == 0
    assert cli("transfer", "--strong", "demo-strong", "--method", "ridge").code == 0
    outcome = cli("eval", "--json")
    assert list(json.loads(outcome.out)["rows"]) == ["weak", "strong", "direct", "ridge"]
    assert "no logits for 599 images" in outcome.err


def test_logits_that_lack_one_image_are_told_before_anything_is_encoded_unless_it_cannot_be_decoded(
    cli: Cli, pictures: Path, tmp_path: Path
):
    ids = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
    save_file({"logits": torch.eye(len(ids), 2)[1:]}, tmp_path / "l.safetensors", {"ids": json.dumps(ids[1:])})
    line = ["l.safetensors" if part == "demo-finetuned" else part for part in FIT]
    outcome = cli(*line, "--data", pictures)
    failed(
        outcome, 1, f"has no logits for 1 images, '{ids[0]}' the first", "Try: save the logits of all images that can"
    )
    assert "encoded" not in outcome.err
    (pictures / ids[0]).write_bytes(b"no picture")
    assert cli(*line, "--data", pictures).code == 0


def test_several_fine_tuned_models_are_one_teacher_for_all_commands(cli: Cli, tmp_path: Path):
    both = ("--finetuned", "demo-finetuned", "--finetuned", "probe")
    assert cli("fit", "--weak", "demo-weak", *both, "--data", "demo-digits", "--epochs", 1).code == 0
    task = json.loads((tmp_path / "transmiter-run/run.json").read_text())["task"]
    assert task["finetuned"] == ["demo-finetuned", "probe"]
    assert cli("transfer", "--strong", "demo-strong", "--method", "ridge").code == 0
    rows = json.loads(cli("eval", "--json").out)["rows"]
    assert (rows["weak_finetuned"]["models"], rows["eft"]["models"], rows["product"]["models"]) == (0, 2, 2)


def test_logits_of_train_images_are_not_those_of_test_images_with_the_same_names(cli: Cli, tmp_path: Path):
    for part in ("train", "test"):
        for name in ("one", "two"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for number in range(4):
                Image.new("L", (8, 8), 50 * number + len(part)).save(tmp_path / "pets" / part / name / f"{number}.png")
    ids = [f"{name}/{number}.png" for name in ("one", "two") for number in range(4)]
    save_file({"logits": torch.randn(8, 2)}, tmp_path / "l.safetensors", {"ids": json.dumps(ids)})
    assert cli(*FIT[:4], "l.safetensors", "--data", "pets/train", "--epochs", 1).code == 0
    assert cli("transfer", "--strong", "demo-strong").code == 0
    outcome = cli("eval", "--data", "pets/test", "--json")
    assert list(json.loads(outcome.out)["rows"]) == ["weak", "strong", "direct", "transferred", "discriminant"]
    assert "no logits for 8 images" in outcome.err
    assert "of fit's --data, which these images are not" in outcome.err


def test_a_fine_tuned_model_that_has_gone_costs_two_rows(cli: Cli, tmp_path: Path):
    shutil.copy(bundled_path("demo-finetuned"), tmp_path / "tuned.safetensors")
    line = ("fit", "--weak", "demo-weak", "--finetuned", "tuned.safetensors", "--data", "demo-digits", "--epochs", 1)
    assert cli(*line).code == 0
    assert cli("transfer", "--strong", "demo-strong").code == 0
    (tmp_path / "tuned.safetensors").unlink()
    outcome = cli("eval", "--json", "--report", "report.html")
    shown = json.loads(outcome.out)
    assert list(shown["rows"]) == ["weak", "strong", "direct", "transferred", "discriminant"]
    assert "tuned.safetensors" in outcome.err
    said = "The rows weak_finetuned, eft and product are left out."
    assert said in " ".join(shown["notes"])
    assert said in (tmp_path / "report.html").read_text()


def test_files_that_are_no_artefacts(cli: Cli, tmp_path: Path):
    failed(cli("inspect", "absent.safetensors"), 1, "no artefact")
    (tmp_path / "text.safetensors").write_text("hello")
    failed(cli("inspect", "text.safetensors"), 1, "cannot be read as an artefact")


def test_an_address_is_no_cache(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TRANSMITER_CACHE", "s3://bucket/cache")
    failed(cli("embed", "--model", "demo-weak", "--data", "demo-digits"), 2, "TRANSMITER_CACHE=s3://bucket/cache is an")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "line",
    [
        ("eval", "--report", "s3://bucket/report.html"),
        ("embed", "--model", "demo-weak", "--data", "demo-digits", "--out", "s3://bucket/report.html"),
        ("inspect", "--run", "s3://bucket/report.html"),
        ("transfer", "--strong", "demo-strong", "--also", "run", "--also", "s3://bucket/report.html"),
    ],
)
def test_an_address_is_no_place_to_write_to(cli: Cli, line: tuple[str, ...], tmp_path: Path):
    failed(cli(*line), 2, "s3://bucket/report.html is an address, and only paths are taken here.")
    assert not [*tmp_path.iterdir()]


def test_strengths_that_are_not_positive(cli: Cli):
    outcome = cli("transfer", "--strong", "demo-strong", "--reg", "0")
    assert outcome.code == 2
    assert "must be auto alone" in outcome.err


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    "place",
    ["embedding.decoding.as_rgb", "embedding.encoders.encoder.unwrapped", "method.paper.distillation.compact_basis"],
)
@pytest.mark.parametrize("exhausted", [lambda *_: bytearray(1 << 55), lambda *_: torch.empty(1 << 55)])
def test_too_little_memory_is_a_sentence(
    cli: Cli, pictures: Path, monkeypatch: pytest.MonkeyPatch, place: str, exhausted: Callable[..., object]
):
    monkeypatch.setattr(f"transmiter_cli.{place}", exhausted)
    failed(cli(*FIT, "--data", pictures), 1, "Error: There is too little memory.", "Try: add --workers 1")


def test_what_is_left_of_a_signal_that_other_code_dropped_is_no_error(capsys: pytest.CaptureFixture[str]):
    def app() -> None:
        with suppress(SystemExit):  # as C code does that imports
            signal.raise_signal(signal.SIGTERM)
        raise AttributeError("module 'numpy' has no attribute 'matrix'")

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(SystemExit) as stopped:
            run(app)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert stopped.value.code == 143
    assert "Terminated." in capsys.readouterr().err


def test_an_unexpected_error_is_not_hidden(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("transmiter_cli.workflow.inspect.read_description", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("inspect", "x.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_logits_of_whole_images_are_refused_for_views_before_anything_is_encoded(
    cli: Cli, pictures: Path, tmp_path: Path, kind: str
):
    ids = [f"{name}/{number}.png" for name in ("one", "two") for number in range(4)]
    given = tmp_path / f"logits.{kind}"
    if kind == "npy":
        np.save(given, np.eye(8, 2, dtype=np.float32))
        given.with_suffix(".txt").write_text("\n".join(ids))
    else:
        save_file({"logits": torch.eye(8, 2)}, given, {"ids": json.dumps(ids)})
    line = [given if part == "demo-finetuned" else part for part in FIT]
    outcome = cli(*line, "--data", pictures, "--views", 2)
    failed(outcome, 2, "logits of whole images, and none of views", "Try: leave --views out")
    assert "encoded" not in outcome.err
    assert cli(*line, "--data", pictures).code == 0
