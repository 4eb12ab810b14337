"""The data and prompt flags of the commands, and that later commands remember them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Cli
from tests.cli.test_errors import failed
from transmiter_cli.bench import material
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import CachedEncoder
from transmiter_cli.workflow import evaluate, fit, transfer

FIT = ("fit", "--weak", "demo-weak", "--finetuned", "demo-finetuned", "--aux-words", "characters", "--epochs", "1")

BENCH = """
weak = ["demo-weak"]
strong = ["demo-strong"]
aux_words = "characters"
[[data]]
name = "digits"
images = "list.csv"
root = "pool"
[[teacher]]
name = "probe"
finetuned = "probe"
[[method]]
name = "ridge"
transfer = "ridge"
"""


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A few of the bundled digits in one folder, and a manifest of both parts."""
    lines = ["path,label,split"]
    for part, step in (("train", 20), ("test", 30)):
        for file in open_images("demo-digits", part).files[::step]:
            name = f"{part}-{'-'.join(file.id.split('/')[-2:])}"
            (tmp_path / "pool").mkdir(exist_ok=True)
            shutil.copy(file.path, tmp_path / "pool" / name)
            lines.append(f"{name},{file.label},{part}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return tmp_path


def task(folder: Path) -> dict:
    return json.loads((folder / "transmiter-run/run.json").read_text())["task"]


def test_a_manifest_through_all_commands_from_another_folder(cli: Cli, digits: Path, monkeypatch: pytest.MonkeyPatch):
    fitted = cli(*FIT, "--data", "list.csv", "--root", "pool", "--limit", 50, "--json")
    assert fitted.code == 0, fitted.err
    assert json.loads(fitted.out)["images"] == 50
    stored = task(digits)
    assert (stored["data"], stored["root"]) == (str(digits / "list.csv"), str(digits / "pool"))
    assert (stored["split"], stored["limit"]) == ("train", 50)
    (digits / "elsewhere").mkdir()
    monkeypatch.chdir(digits / "elsewhere")
    run = ("--run", digits / "transmiter-run", "--json")
    moved = json.loads(cli("transfer", "--strong", "demo-strong", *run).out)
    assert moved["methods"]["adapter"]["images"] == 50
    assert json.loads(cli("refine", *run).out)["labelled_images"] == 50
    assert json.loads(cli("refine", "--limit", 20, *run).out)["labelled_images"] == 20
    measured = json.loads(cli("eval", *run).out)
    assert (measured["split"], measured["images"], measured["data"]) == ("test", 20, str(digits / "list.csv"))
    assert json.loads(cli("eval", "--limit", 10, *run).out)["images"] == 10


def test_what_fit_saw_is_not_evaluated_on_unless_it_is_named(cli: Cli, digits: Path):
    assert cli(*FIT, "--data", "list.csv", "--root", "pool", "--split", "test").code == 0
    assert cli("transfer", "--strong", "demo-strong").code == 0
    failed(cli("eval"), 1, "Fit saw the test part of", "Try: transmiter eval")
    assert cli("eval", "--split", "train").code == 0
    named = ("eval", "--data", "list.csv", "--root", "pool", "--split", "test")
    failed(cli(*named), 1, "fit used 20 of these 20 images", "--allow-overlap")
    assert "OVERLAP" in cli(*named, "--allow-overlap").out
    assert json.loads(cli("refine", "--json").out)["labelled_images"] == 20, "as many as fit saw"


def test_split_and_limit_of_embed(cli: Cli, tmp_path: Path):
    line = ("embed", "--model", "demo-weak", "--data", "demo-digits", "--split", "testing", "--limit", 20)
    assert cli(*line, "--out", "e.safetensors").code == 0
    with safe_open(tmp_path / "e.safetensors", framework="pt") as file:
        ids, rows = json.loads(file.metadata()["ids"]), file.get_tensor("demo-weak")
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(20))
    assert ids == [file.id for i, file in enumerate(open_images("demo-digits", "test").files) if i in range_of(599, 20)]
    failed(cli(*line[:5], "--split", "dev"), 2, "no 'dev' split, only train, test", "Try: --split train")


def test_a_file_of_embeddings_holds_the_images_that_all_models_read(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = CachedEncoder.store_images

    def without_one(self: CachedEncoder, files: Any) -> Any:
        found = real(self, files)
        found.stored[0 if self.name == "demo-strong" else 1] = False
        return found

    monkeypatch.setattr(CachedEncoder, "store_images", without_one)
    line = ("embed", "--model", "demo-weak", "--model", "demo-strong", "--data", "demo-digits", "--limit", 5)
    assert cli(*line, "--out", "e.safetensors").code == 0
    assert {name: len(rows) for name, rows in load_file("e.safetensors").items()} == {"demo-weak": 3, "demo-strong": 3}


def test_a_file_of_embeddings_is_called_what_it_is(cli: Cli, tmp_path: Path):
    for source in (("--model", "demo-weak", "--data", "demo-digits"), ("--import", "features.pt")):
        refused = cli("embed", *source, "--out", "rows/e.npy")
        failed(refused, 2, "--out rows/e.npy does not end in .safetensors", "Try: --out rows/e.safetensors")
        assert "images" not in refused.err
    assert not (tmp_path / "rows").exists()
    (tmp_path / "pets.safetensors").mkdir()
    refused = cli("embed", "--model", "demo-weak", "--data", "demo-digits", "--out", "pets.safetensors")
    failed(refused, 2, "--out pets.safetensors is a folder", "Try: --out FILE.safetensors")


def test_a_file_that_cannot_be_written_is_told_before_anything_is_encoded(cli: Cli, tmp_path: Path):
    (tmp_path / "file").touch()
    line = ("embed", "--model", "demo-weak", "--data", "demo-digits", "--limit", 7)
    refused = cli(*line, "--out", "file/e.safetensors")
    failed(refused, 1, "file cannot be written to", "Try: pass another --out")
    assert "encoded" not in refused.err


def range_of(total: int, limit: int) -> set[int]:
    return {total * i // limit for i in range(limit)}


def test_a_missing_image_of_a_manifest_is_skipped_or_with_strict_an_error(cli: Cli, digits: Path):
    with (digits / "list.csv").open("a") as file:
        file.write("\nabsent.png,two,train\n")
    line = ("embed", "--model", "demo-weak", "--data", "list.csv", "--root", "pool")
    lenient = cli(*line)
    assert lenient.code == 0
    assert "absent.png: No such file or directory" in lenient.err
    failed(cli(*line, "--strict"), 1, "1 of 61 images cannot be decoded", "absent.png")
    failed(cli(*line[:5]), 1, "None of the 61 images", "Try: --root")


@pytest.mark.parametrize("command", ["fit", "transfer", "also", "eval", "bench"])
def test_an_image_that_one_model_reads_and_the_next_cannot_is_an_error(
    cli: Cli, digits: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    fitted = (*FIT, "--data", "list.csv", "--root", "pool")
    probed = (*FIT[:3], "--finetuned", "probe", *fitted[5:])
    other = ("fit", "--weak", "demo-strong", *probed[3:], "--run", "other")
    moved = ("transfer", "--strong", "demo-strong")
    also = ("transfer", "--strong", "demo-weak", "--method", "discriminant", "--also", "other")
    (digits / "bench.toml").write_text(BENCH)
    module, *before, asked = {
        "fit": (fit, fitted),
        "transfer": (transfer, probed, moved),
        "also": (transfer, probed, other, also),
        "eval": (evaluate, probed, moved, ("eval",)),
        "bench": (material, ("bench", "bench.toml")),
    }[command]
    for line in before:
        assert cli(*line).code == 0
    monkeypatch.setenv("TRANSMITER_CACHE", str(digits / "cache"))
    real = module.encode

    def changes_one(*given: Any) -> Any:
        found = real(*given)
        found.images.files[3].path.write_bytes(b"")
        return found

    monkeypatch.setattr(module, "encode", changes_one)
    outcome = cli(*asked)
    assert outcome.code == 1
    assert "Images changed while they were read. Try: run the command again" in " ".join(outcome.err.split())


def test_shards_and_a_broken_image_in_one(cli: Cli, digits: Path):
    with tarfile.open(digits / "0.tar", "w") as archive:
        for number, path in enumerate(sorted((digits / "pool").glob("*.png"))):
            content = b"broken" if number == 3 else path.read_bytes()
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    first = cli("embed", "--model", "demo-weak", "--data", "0.tar")
    assert first.code == 0, first.err
    assert "0.tar/3.png: not an image" in first.err
    again = cli("embed", "--model", "demo-weak", "--data", "0.tar")
    assert "79 images" in again.out
    assert "79 decoded" not in again.err


def test_parquet_files_as_of_the_hub_through_all_commands(cli: Cli, digits: Path):
    for part in ("train", "test"):
        files = open_images("demo-digits", part).files[:: 10 if part == "train" else 20]
        content = [file.open().read() for file in files]
        content[0] = b"no image"
        table = pa.table(
            {"image": [{"bytes": one, "path": None} for one in content], "label": [f.label for f in files]}
        )
        (digits / "hub" / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, digits / "hub" / "data" / f"{part}-00000-of-00001.parquet", row_group_size=32)
    outcome = cli(*FIT, "--data", "hub")
    assert outcome.code == 0, outcome.err
    assert "data/train-00000-of-00001.parquet/0: not an image" in outcome.err
    assert cli("transfer", "--strong", "demo-strong", "--method", "discriminant").code == 0
    shown = json.loads(cli("eval", "--json", "--report", "report.html").out)
    assert (shown["images"], shown["split"]) == (len(content) - 1, "test")
    assert "data:image/webp;base64," in (digits / "report.html").read_text(encoding="utf-8")
    first = json.loads(cli("predict", "--data", "hub", "--json").out.splitlines()[0])
    assert first["image"] == "data/test-00000-of-00001.parquet/1"


def test_a_split_file_in_coops_form(cli: Cli, digits: Path):
    rows: dict[str, list] = {"train": [], "val": [], "test": []}
    for path in sorted((digits / "pool").glob("*.png")):
        part, label, _ = path.name.split("-")
        rows[part].append([path.name, len(label), label])
    numbers = {label: i for i, label in enumerate(sorted({row[2] for row in rows["train"]}, reverse=True))}
    for part in rows.values():
        part[:] = [[path, numbers[label], label] for path, _, label in part]
    (digits / "split_zhou_Digits.json").write_text(json.dumps(rows))
    failed(cli(*FIT, "--data", "split_zhou_Digits.json"), 1, "None of the 60 images", "Try: --root FOLDER")
    assert cli(*FIT, "--data", "split_zhou_Digits.json", "--root", "pool").code == 0
    assert task(digits)["classes"] == list(numbers)


def test_templates_are_kept_in_the_run(cli: Cli, digits: Path):
    line = (*FIT, "--data", "demo-digits", "--limit", 30)
    assert cli(*line, "--templates", "simple", "--template", "the digit {}").code == 0
    assert len(task(digits)["templates"]["shared"]) == 8
    classes = task(digits)["classes"]
    own = {name: [f"handwritten {name}", "{} in ink"] for name in classes}
    (digits / "own.json").write_text(json.dumps(own))
    assert cli(*line, "--templates", "own.json").code == 0
    assert task(digits)["templates"] == {"shared": ["a photo of a {}."], "own": own}
    assert cli("transfer", "--strong", "demo-strong", "--method", "ridge").code == 0
    assert cli("eval", "--limit", 30).code == 0
    del own["two"]
    (digits / "own.json").write_text(json.dumps(own))
    failed(cli(*line, "--templates", "own.json"), 2, "own.json has no prompts for the class 'two'")


def test_a_probe_needs_labels(cli: Cli, digits: Path):
    (digits / "pool/names.txt").write_text("a\nb\n")
    line = ("fit", "--weak", "demo-weak", "--finetuned", "probe", "--data", "pool", "--classes", "pool/names.txt")
    failed(cli(*line), 2, "needs labelled images")


@pytest.mark.usefixtures("own_cache")
def test_views_are_learned_from_and_stored_but_not_counted(cli: Cli, digits: Path):
    line = (*FIT, "--data", "list.csv", "--root", "pool", "--limit", 20, "--json")
    plain, artefact = cli(*line), digits / "transmiter-run/weak.safetensors"
    before = artefact.read_bytes()
    viewed = cli(*line, "--views", 2)
    learned = artefact.read_bytes()
    assert learned != before
    assert "20 images, 20 decoded and encoded" in plain.err
    assert "20 images and 40 views of them, 40 decoded and encoded" in viewed.err
    assert json.loads(viewed.out)["images"] == 20
    assert json.loads(viewed.out)["agreement_before"] == json.loads(plain.out)["agreement_before"]
    again = cli(*line, "--views", 2)
    assert "20 images and 40 views of them, all from the cache" in again.err
    assert artefact.read_bytes() == learned
    assert "40 decoded" in cli(*line, "--views", 2, "--seed", 1).err
    moved = cli("transfer", "--strong", "demo-strong", "--json")
    assert json.loads(moved.out)["methods"]["adapter"]["images"] == 20


def test_logits_from_a_file_have_no_views(cli: Cli, digits: Path):
    ids = [line.split(",")[0] for line in (digits / "list.csv").read_text().splitlines()[1:] if ",train" in line]
    save_file({"logits": torch.randn(len(ids), 10)}, digits / "logits.safetensors", {"ids": json.dumps(ids)})
    line = ("fit", "--weak", "demo-weak", "--finetuned", "logits.safetensors", "--data", "list.csv", "--root", "pool")
    assert cli(*line, "--epochs", 1).code == 0
    refused = cli(*line, "--views", 1)
    assert refused.code == 2
    assert "logits of whole images" in refused.err
    assert "leave --views out" in refused.err


def test_logits_are_not_those_of_the_same_list_over_another_root(cli: Cli, digits: Path):
    ids = [line.split(",")[0] for line in (digits / "list.csv").read_text().splitlines()[1:]]
    save_file({"logits": torch.randn(len(ids), 10)}, digits / "logits.safetensors", {"ids": json.dumps(ids)})
    line = ("fit", "--weak", "demo-weak", "--finetuned", "logits.safetensors", "--epochs", 1, "--data", "list.csv")
    shutil.copytree(digits / "pool", digits / "corrupted")
    for file in (digits / "corrupted").iterdir():
        Image.open(file).convert("L").point(lambda value: 255 - value).save(file)
    assert cli(*line, "--root", "pool").code == 0
    assert cli(*line, "--root", "corrupted", "--run", "other").code == 0
    assert cli("transfer", "--strong", "demo-strong").code == 0
    for named in ((), ("--root", digits / "pool"), ("--data", "list.csv", "--root", "pool")):
        rows = json.loads(cli("eval", *named, "--json").out)["rows"]
        assert "weak_finetuned" in rows, named
    for named in (("--root", "corrupted"), ("--data", "list.csv", "--root", "corrupted")):
        elsewhere = cli("eval", *named, "--json")
        assert "weak_finetuned" not in json.loads(elsewhere.out)["rows"], named
        assert "are of fit's --data, which these images are not" in elsewhere.err
    also = ("transfer", "--strong", "demo-strong", "--method", "discriminant", "--also", "other")
    failed(cli(*also), 1, "has no logits for 60 images", "are of fit's --data, which these images are not")


@pytest.mark.usefixtures("own_cache")
def test_later_commands_decode_as_fit_did(cli: Cli, digits: Path):
    line = (*FIT, "--data", "list.csv", "--root", "pool")
    assert cli(*line).code == 0
    assert "decoded and encoded" in cli(*line, "--decode", "scaled").err
    assert task(digits)["decoding"] == "scaled"
    assert cli("embed", "--model", "demo-strong", "--data", "list.csv", "--root", "pool").code == 0
    assert "decoded and encoded" in cli("transfer", "--strong", "demo-strong").err
    assert "none decoded" in cli("transfer", "--strong", "demo-strong", "--decode", "full").err


@pytest.mark.usefixtures("own_cache")
def test_later_commands_encode_as_precisely_as_fit_did(cli: Cli, digits: Path):
    line = (*FIT, "--data", "list.csv", "--root", "pool")
    assert cli(*line).code == 0
    assert "decoded and encoded" in cli(*line, "--precision", "half").err
    assert task(digits)["precision"] == "half"
    assert cli("embed", "--model", "demo-strong", "--data", "list.csv", "--root", "pool").code == 0
    moved = cli("transfer", "--strong", "demo-strong")
    assert "decoded and encoded" in moved.err
    assert "none decoded" in cli("transfer", "--strong", "demo-strong", "--precision", "full").err
    assert "bfloat16" in cli("cache", "ls").out


def test_a_model_that_is_no_fine_tuned_twin_is_named(cli: Cli, digits: Path):
    line = ("fit", "--weak", "demo-weak", "--data", "list.csv", "--root", "pool", "--epochs", 1, "--finetuned")
    assert "the very weights of demo-weak" in cli(*line, "demo-weak").err
    assert "another architecture than demo-weak" in cli(*line, "demo-strong").err
    assert "architecture" not in cli(*line, "demo-finetuned").err


def test_images_beside_folders_are_taken_where_no_label_is_needed_and_told_of_elsewhere(cli: Cli, tmp_path: Path):
    files = open_images("demo-digits", "train").files
    by_class = {label: [one for one in files if one.label == label] for label in ("one", "two", "six")}
    for file in by_class["one"][:40] + by_class["two"][:40]:
        (tmp_path / "mixed" / file.label).mkdir(parents=True, exist_ok=True)
        shutil.copy(file.path, tmp_path / "mixed" / file.label)
    for number, file in enumerate(by_class["six"][:3]):
        shutil.copy(file.path, tmp_path / "mixed" / f"{number}.png")
    data = ("--data", "mixed")
    embedded = json.loads(cli("embed", "--model", "demo-strong", *data, "--json").out)
    assert embedded["models"]["demo-strong"]["images"] == 83
    told = "Left out 3 images in mixed, beside its folders and in none of them: 0.png, 1.png, 2.png."
    fitted = cli(*FIT, *data)
    assert told in fitted.err
    assert "classes          2: one, two" in fitted.out
    assert told not in cli("transfer", "--strong", "demo-strong", "--method", "ridge").err
    assert json.loads(cli("self-train", *data, "--json").out)["images"] == 83
    assert told in cli("refine", *data, "--shots", 4).err
    assert told in cli("eval", *data, "--allow-overlap").err
    unlabelled = cli("eval", *data, "--allow-overlap", "--no-labels", "--json")
    assert json.loads(unlabelled.out)["images"] == 83
    assert told not in unlabelled.err


def test_transfer_takes_images_that_moved_since_fit_and_encodes_none_again(cli: Cli, digits: Path):
    assert cli(*FIT, "--data", "list.csv", "--root", "pool").code == 0
    assert cli("transfer", "--strong", "demo-strong").code == 0
    artefacts = [digits / f"transmiter-run/{name}.safetensors" for name in ("strong", "strong-discriminant")]
    before = [path.read_bytes() for path in artefacts]
    (digits / "pool").rename(digits / "moved")
    for line in (("transfer", "--strong", "demo-strong"), ("eval",), ("refine",)):
        failed(cli(*line), 2, "fit saw are not where they were. There is no folder", "say where they lie now: --data")
    moved = cli("transfer", "--strong", "demo-strong", "--root", "moved")
    assert (moved.code, moved.err.count("all from the cache")) == (0, 3)
    assert [path.read_bytes() for path in artefacts] == before


def test_logits_from_a_file_are_of_fits_own_images_when_transfer_sees_others(cli: Cli, digits: Path):
    ids = [line.split(",")[0] for line in (digits / "list.csv").read_text().splitlines()[1:]]
    save_file({"logits": torch.randn(len(ids), 10)}, digits / "logits.safetensors", {"ids": json.dumps(ids)})
    line = ("fit", "--weak", "demo-weak", "--finetuned", "logits.safetensors", "--aux-words", "characters")
    assert cli(*line, "--epochs", 1, "--data", "list.csv", "--root", "pool").code == 0
    transfer = ("transfer", "--strong", "demo-strong", "--method", "discriminant")
    assert cli(*transfer, "--split", "test").code == 0
    shutil.copytree(digits / "pool", digits / "copy")
    failed(cli(*transfer, "--data", "copy"), 1, "which these images are not", "fit again with these images as --data")


def test_part_of_fits_own_images_is_part_of_what_fit_took(cli: Cli, digits: Path):
    for number, path in enumerate(sorted((digits / "pool").iterdir())):
        target = digits / "data" / "train" / f"class {number % 2}"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target if number > 9 else digits / "data" / "train")
    assert cli(*FIT, "--data", "data").code == 0
    part = cli("transfer", "--strong", "demo-strong", "--limit", 30)
    assert "The images are not those that fit saw: 0 more, 40 fewer" in part.err
    assert json.loads(cli("transfer", "--strong", "demo-strong", "--data", "data", "--json").out)["methods"]
