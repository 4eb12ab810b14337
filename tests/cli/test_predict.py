"""transmiter predict: labels that agree with eval, in every format, for named images and whole folders."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.test_errors import failed
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.workflow import predict as module

FIT = [
    "fit",
    "--weak",
    "demo-weak",
    "--finetuned",
    "demo-finetuned",
    "--data",
    "demo-digits",
    "--aux-words",
    "characters",
    "--epochs",
    "3",
]


@pytest.fixture
def run(cli: Cli) -> Cli:
    assert cli(*FIT).code == 0
    assert cli("transfer", "--strong", "demo-strong", "--method", "adapter", "--method", "ridge").code == 0
    return cli


def test_its_accuracy_is_that_of_eval(run: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CHUNK", 100)
    rows = json.loads(run("eval", "--json").out)["rows"]
    for row in ("transferred", "ridge"):
        lines = run("predict", "--data", "demo-digits", "--use", row).out.splitlines()
        predictions = [json.loads(line) for line in lines]
        assert [p["image"] for p in predictions] == [file.id for file in open_images("demo-digits", "test").files]
        right = sum(p["image"].split("/")[1] == p["label"] for p in predictions)
        assert right / len(predictions) == pytest.approx(rows[row]["top1"])


def test_named_images_in_every_format(run: Cli, tmp_path: Path):
    files = [str(file.path) for file in open_images("demo-digits", "test").files[:3]]
    table = run("predict", *files, "--format", "table", "--top", 2)
    assert table.out.count("%") == 6
    assert all(file in table.out for file in files)
    rows = list(csv.DictReader(io.StringIO(run("predict", *files, "--csv", "--top", 2).out)))
    assert [row["rank"] for row in rows] == ["1", "2"] * 3
    records = [json.loads(line) for line in run("predict", *files, "--top", 2, "--json").out.splitlines()]
    assert [record["label"] for record in records] == [row["label"] for row in rows[::2]]
    assert all(len(record["top"]) == 2 for record in records)
    assert all(0 < record["probability"] <= 1 for record in records)


def test_refined_is_taken_where_there_is_one(run: Cli):
    file = open_images("demo-digits", "test").files[0].path
    before = run("predict", file).out
    assert run("refine", "--method", "adapter", "--shots", 16, "--lr", 1e-2).code == 0
    assert run("predict", file).out == run("predict", file, "--use", "refined").out != before
    assert run("predict", file, "--use", "transferred").out == before


def test_paths_are_read_from_stdin(run: Cli, monkeypatch: pytest.MonkeyPatch):
    files = [str(file.path) for file in open_images("demo-digits", "test").files[:2]]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join([*files, ""]).encode())))
    assert run("predict", "-").out == run("predict", *files).out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\0".join([*files, ""]).encode())))
    assert run("predict", "-").out == run("predict", *files).out
    for given, said in ((b"", "stdin holds no paths"), (Path(files[0]).read_bytes(), "stdin holds an image")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        failed(run("predict", "-", "--run", "my run"), 2, said, "| transmiter predict --run 'my run' -\n")
    Path("RIFF").mkdir()
    shutil.copy(files[0], "RIFF")
    path = f"RIFF/{Path(files[0]).name}"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.encode())))
    assert run("predict", "-").out == run("predict", path).out
    failed(run("predict", "-", files[0]), 2, "- reads paths from stdin, and goes with no others")


def test_images_are_called_as_they_were_named(run: Cli, tmp_path: Path):
    shutil.copy(open_images("demo-digits", "test").files[0].path, tmp_path / "a.png")
    named = ["./a.png", "a.png", f"{tmp_path}//a.png"]
    lines = run("predict", *named).out.splitlines()
    assert [json.loads(line)["image"] for line in lines] == named


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_what_is_predicted_is_a_manifest_of_the_same_images(run: Cli, tmp_path: Path, form: str):
    for file, name in zip(open_images("demo-digits", "test").files, ("x.png", " x.png", "x.png "), strict=False):
        shutil.copy(file.path, tmp_path / name)
    written = run("predict", "x.png", " x.png", "x.png ", "--format", form).out
    (tmp_path / f"p.{form}").write_text(written)
    assert [file.id for file in open_images(str(tmp_path / f"p.{form}"), None).files] == ["x.png", " x.png", "x.png "]


def test_named_images_without_a_prediction_are_listed_after_the_others(run: Cli, tmp_path: Path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    file = open_images("demo-digits", "test").files[0].path
    outcome = run("predict", "absent.png", file, "bad.jpg")
    assert outcome.code == 1
    assert [json.loads(line)["image"] for line in outcome.out.splitlines()] == [str(file)]
    assert "bad.jpg: empty file" in outcome.err
    assert "Error: 2 of the 3 images that were named have no prediction: absent.png, bad.jpg." in outcome.err
    assert run("predict", file, file).code == 0
    assert run("predict", file, "bad.jpg", "--strict").code == 1


def test_paths_that_are_none_are_told_what_mends_them(cli: Cli):
    assert cli(*FIT).code == 0
    assert cli("transfer", "--strong", "demo-strong").code == 0
    failed(cli("predict", "nowhere/absent.png"), 1, "No such file or directory", "Try: ls ")
    failed(cli("predict", "https://x.y/z.png"), 2, "https://x.y/z.png is an address", "FILE, once you have it here")


def test_of_many_images_without_a_prediction_a_few_are_named(run: Cli):
    file = open_images("demo-digits", "test").files[0].path
    outcome = run("predict", file, *(f"absent{number}.png" for number in range(8)))
    named = ", ".join(f"absent{number}.png" for number in range(5))
    assert f"Error: 8 of the 9 images that were named have no prediction: {named} and 3 more." in outcome.err


def test_a_file_name_with_a_newline_is_one_line_of_the_table(run: Cli, tmp_path: Path):
    name = "two\nlines\x1b[2J\u00e9.png"
    shutil.copyfile(open_images("demo-digits", "test").files[0].path, tmp_path / name)
    (line,) = run("predict", name, "--format", "table").out.splitlines()
    assert line.endswith("two\\nlines\\x1b[2J\u00e9.png")
    assert json.loads(run("predict", name).out)["image"] == name


def test_images_beside_a_folder_of_thumbnails_are_predicted_and_no_class_of_fit(run: Cli, tmp_path: Path):
    source = open_images("demo-digits", "test").files
    (tmp_path / "mixed" / "thumbs").mkdir(parents=True)
    for place, file in zip(("1.png", "2.png", "thumbs/3.png"), source, strict=False):
        shutil.copy(file.path, tmp_path / "mixed" / place)
    lines = run("predict", "--data", "mixed").out.splitlines()
    assert [json.loads(line)["image"] for line in lines] == ["1.png", "2.png", "thumbs/3.png"]
    fitted = run("fit", "--weak", "demo-weak", "--finetuned", "demo-finetuned", "--data", "mixed", "--run", "other")
    failed(fitted, 2, "Left out 2 images in mixed, ", "1.png, 2.png", "there is 'thumbs' alone")


def test_bad_images_of_a_folder_are_left_out_and_named(run: Cli, tmp_path: Path):
    (tmp_path / "some").mkdir()
    shutil.copy(open_images("demo-digits", "test").files[0].path, tmp_path / "some" / "good.png")
    (tmp_path / "some" / "bad.jpg").write_bytes(b"")
    outcome = run("predict", "--data", "some")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 1
    assert "bad.jpg: empty file" in outcome.err
    assert run("predict", "--data", "some", "--strict").code == 1


def test_it_says_once_what_it_predicts_with(run: Cli):
    file = open_images("demo-digits", "test").files[0].path
    assert run("predict", file).err.count("Predicting with transferred on demo-strong.") == 1
    assert "Predicting with ridge on demo-strong." in run("predict", file, "--use", "ridge", "--format", "table").err
    assert "Predicting" not in run("predict", file, "-q").err


def test_colons_in_file_names_are_no_emoji(run: Cli, tmp_path: Path):
    name = "scan:x:1.png"
    shutil.copy(open_images("demo-digits", "test").files[0].path, tmp_path / name)
    assert run("predict", name, "--format", "table").out.endswith(f"  {name}\n")
    assert f"{name[:-4]}.jpg" in run("predict", f"{name[:-4]}.jpg").err


def test_calls_that_cannot_be_right(cli: Cli, run: Cli):
    assert "There is nothing to predict" in run("predict").err
    both = run("predict", "a.png", "--data", "my photos")
    assert "Name image files or --data, and not both" in both.err
    assert "Try: transmiter predict --data 'my photos'" in both.err
    failed(run("predict", "--data", ""), 2, "is empty")
    assert "no '' in transmiter-run" in run("predict", "--data", "demo-digits", "--use", "").err, "an empty variable"
    refused = run("predict", "--data", "demo-digits", "--use", "refined")
    assert "no 'refined' in transmiter-run, only transferred, ridge" in refused.err
    assert "Try: transmiter predict --data FOLDER --use transferred\n" in refused.err
    file = open_images("demo-digits", "test").files[0].path
    for flags in (("--split", "test"), ("--root", "x"), ("--limit", 3)):
        refused = run("predict", file, *flags)
        assert (refused.code, refused.out) == (2, "")
        assert f"{flags[0]} says which images of --data" in refused.err
    failed(run("predict", file, "--json", "--format", "csv"), 2, "--format writes csv and --json writes jsonl")
    failed(run("predict", file, "--json", "--csv"), 2, "--json writes jsonl and --csv writes csv")
    absent = run("predict", "absent.jpg")
    assert absent.code == 1
    assert "absent.jpg: No such file" in absent.err


def test_a_model_of_which_nothing_is_left_is_named(run: Cli, tmp_path: Path):
    for path in (tmp_path / "transmiter-run").glob("strong*.safetensors"):
        path.unlink()
    refused = run("predict", "--data", "demo-digits")
    assert refused.code == 2
    assert "Nothing of what was transferred to demo-strong is left in transmiter-run" in refused.err
    assert "Try: transmiter transfer --strong demo-strong\n" in refused.err


def test_a_folder_and_a_pipe_among_listed_files_are_skipped_and_named(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    file = open_images("demo-digits", "test").files[0].path
    paths = "\0".join(["folder.png", "pipe.png", str(file), "link.png"]).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(paths)))
    outcome = run("predict", "-")
    assert (outcome.code, len(outcome.out.splitlines())) == (1, 1)
    for name, reason in (("folder", "Is a directory"), ("pipe", "Not a regular file"), ("link", "Not a regular file")):
        assert f"Skipped {name}.png: {reason}." in outcome.err
    assert "3 of the 4 images that were named have no prediction" in outcome.err


def test_what_the_shell_passes_in_place_of_a_file_is_read(run: Cli):
    reader, writer = os.pipe()
    os.write(writer, open_images("demo-digits", "test").files[0].path.read_bytes())
    os.close(writer)
    outcome = run("predict", f"/dev/fd/{reader}")
    os.close(reader)
    assert (outcome.code, len(outcome.out.splitlines())) == (0, 1)


def test_a_folder_among_the_files_is_named_in_the_fix(run: Cli, tmp_path: Path):
    (tmp_path / "my photos").mkdir()
    outcome = run("predict", "a.png", "my photos")
    assert outcome.code == 2
    assert "Try: transmiter predict --data 'my photos'" in outcome.err
