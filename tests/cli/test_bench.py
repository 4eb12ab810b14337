"""transmiter bench: the same file's shape as docs/reproduce/paper.toml, on the bundled task."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from tests.cli.conftest import Cli, Outcome
from tests.cli.test_evaluate import DIGITS, copies
from transmiter_cli import api, demo
from transmiter_cli.bench.grid import Cell
from transmiter_cli.bench.material import Source, feature_path, open_source
from transmiter_cli.bench.spec import read_spec
from transmiter_cli.bench.summary import summarize
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.report.bench import bench_markdown, bench_tables
from transmiter_cli.workflow.encoded import encode

REPRODUCE = Path(__file__).parents[2] / "docs/reproduce"
SMALL = """
weak = ["demo-weak"]
strong = ["demo-strong"]
seeds = [0, 1]
aux_words = "characters"
{more}
[[data]]
name = "digits"
images = "demo-digits"
limit = 200
[[teacher]]
name = "tuned"
finetuned = "{finetuned}"
[[method]]
name = "adapter"
fit = {{ epochs = 1 }}
[[method]]
name = "ridge"
transfer = "ridge"
"""


def small(folder: Path, more: str = "", finetuned: str = "demo-finetuned") -> Path:
    path = folder / "small.toml"
    path.write_text(SMALL.format(more=more, finetuned=finetuned))
    return path


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("fit = {{ epoch = 1 }}", "fit.epoch is none of basis, epochs"),
        ("refine = {{ shots = 1 }}", "refine.shots is none of epochs"),
        ("options = {{ lambda = 1 }}", "options.lambda is none of reg, paper_lambda"),
        ('transfer = "discriminant"\noptions = {{ reg = 1 }}', "options.reg is none of opaque_names"),
        ('transfer = "dscriminant"', "has transfer 'dscriminant', none of adapter, ridge, discriminant"),
    ],
)
def test_names_that_are_none_are_found_before_anything_is_computed(cli: Cli, tmp_path: Path, wrong: str, said: str):
    path = tmp_path / "small.toml"
    path.write_text(SMALL.replace("fit = {{ epochs = 1 }}", wrong).format(more="", finetuned="demo-finetuned"))
    outcome = cli("bench", path)
    assert outcome.code == 1
    assert said in outcome.err
    assert "images" not in outcome.err


RIDGE = 'transfer = "ridge"'
TARGET = '[[data]]\nname = "other"\nimages = "other"\n'


def table(outcome: Outcome) -> dict[str, dict]:
    assert outcome.code == 0, outcome.err
    return {line["row"]: line["columns"] for line in json.loads(outcome.out)["table"]}


def test_a_grid_is_one_table_in_every_format(cli: Cli, tmp_path: Path):
    path = small(tmp_path)
    shown = table(cli("bench", path, "--json"))
    assert list(shown) == [
        "weak", "weak_finetuned", "strong", "eft_0.5", "eft", "eft_1.5", "product", "direct", "adapter", "ridge"
    ]  # fmt: skip
    assert all(columns["top1"]["seeds"] == 2 for columns in shown.values())
    assert shown["ridge"]["top1"]["mean"] > shown["strong"]["top1"]["mean"]
    text, lines = cli("bench", path), list(csv.DictReader(io.StringIO(cli("bench", path, "--csv").out)))
    means = {line["row"]: float(line["mean"]) for line in lines if line["column"] == "top1" and not line["data"]}
    assert means == {name: columns["top1"]["mean"] for name, columns in shown.items()}
    assert max(map(len, text.out.splitlines())) <= 80
    assert f"{100 * means['ridge']:.1f} ±" in text.out
    assert f"| {100 * means['ridge']:.1f} ±" in cli("bench", path, "--markdown").out


def test_finished_cells_are_kept_and_only_what_changed_is_computed(cli: Cli, tmp_path: Path, monkeypatch):
    path = small(tmp_path)
    first = json.loads(cli("bench", path, "--json").out)
    assert first["kept"] == 0
    with monkeypatch.context() as patch:
        patch.setattr("transmiter_cli.api.fit", lambda *_, **__: 1 / 0)
        again = json.loads(cli("bench", path, "--json").out)
    assert again == {**first, "kept": 4}
    path.write_text(path.read_text().replace("seeds = [0, 1]", "seeds = [0, 1, 2]"))
    assert json.loads(cli("bench", path, "--json").out)["kept"] == 4
    path.write_text(path.read_text().replace("epochs = 1", "epochs = 2"))
    assert json.loads(cli("bench", path, "--json").out)["kept"] == 3
    newest = max((tmp_path / "small-results").iterdir(), key=lambda cell: cell.stat().st_mtime_ns)
    newest.write_text("{")
    assert json.loads(cli("bench", path, "--json").out)["kept"] == 5


def test_a_probe_from_a_few_labels_per_class(cli: Cli, tmp_path: Path):
    shown = json.loads(cli("bench", small(tmp_path, "shots = [1, 16]", "probe"), "--json").out)["table"]
    tops = {(line["shots"], line["row"]): line["columns"]["top1"]["mean"] for line in shown}
    assert tops[16, "weak_finetuned"] > tops[1, "weak_finetuned"]
    assert tops[1, "strong"] == tops[16, "strong"]


def test_base_to_novel_of_images_leaves_novel_classes_out_of_training(cli: Cli, tmp_path: Path):
    path = small(tmp_path, 'protocol = "base-to-novel"', "probe")
    shown = table(cli("bench", path, "--json"))
    tuned, weak = shown["weak_finetuned"], shown["weak"]
    assert tuned["base"]["mean"] > weak["base"]["mean"] + 0.1
    assert tuned["novel"]["mean"] < tuned["base"]["mean"]
    assert "HM of means" in cli("bench", path).out


def test_a_scene_that_cannot_be_measured_is_named_and_the_others_go_on(cli: Cli, tmp_path: Path):
    path = small(tmp_path)
    path.write_text(path.read_text() + '[[data]]\nname = "other"\nimages = "absent"\n')
    outcome = cli("bench", path, "--json")
    assert outcome.code == 1
    found = json.loads(outcome.out)
    assert len(found["failures"]) == 2
    assert all("no folder 'absent'. Try: ls " in failure for failure in found["failures"])
    assert (outcome.err.count("no folder 'absent'"), outcome.err.count("Try: ls ")) == (2, 1)
    assert len(found["cells"]) == 4
    path.write_text(small(tmp_path).read_text().replace("epochs = 1", "epoks = 1"))
    assert "fit.epoks is none of" in cli("bench", path).err


def test_results_that_cannot_be_kept_are_told_of_before_anything_is_computed(cli: Cli, tmp_path: Path):
    (tmp_path / "file").write_text("")
    outcome = cli("bench", small(tmp_path), "--results", "file")
    assert (outcome.code, outcome.out) == (1, "")
    assert "file cannot be written to" in outcome.err
    assert "Try: pass another --results" in outcome.err
    assert "images" not in outcome.err


def test_test_images_among_the_train_images_are_refused_unless_allowed(cli: Cli, tmp_path: Path):
    for part, each in (("train", 6), ("test", 4)):
        copies("train", tmp_path / "mine" / part, DIGITS, each)
    text = small(tmp_path).read_text().replace("demo-digits", str(tmp_path / "mine"))
    path = tmp_path / "small.toml"
    path.write_text(text)
    refused = cli("bench", path)
    assert refused.code == 1
    assert "40 of the 40 test images of 'digits' are among the train" in " ".join(refused.err.split())
    path.write_text(text.replace("limit = 200", "allow_overlap = true"))
    assert "strong" in table(cli("bench", path, "--json"))


def test_a_lambda_that_is_no_number_is_the_methods_fault(cli: Cli, tmp_path: Path, monkeypatch):
    """What the check of a file would miss is still named, and costs no other method its cell."""
    monkeypatch.setattr("transmiter_cli.bench.spec.check_numbers", lambda *_: None)
    path = small(tmp_path)
    path.write_text(path.read_text().replace("epochs = 1 }", 'epochs = 1 }\noptions = { paper_lambda = "x" }'))
    outcome = cli("bench", path, "--json")
    assert outcome.code == 1
    found = json.loads(outcome.out)
    assert len(found["failures"]) == 2, "one for each seed"
    assert all("The method 'adapter': unsupported operand" in one for one in found["failures"])
    assert [cell["method"] for cell in found["cells"]] == ["ridge", "ridge"]
    assert json.loads(cli("bench", path, "--json").out)["kept"] == 2


def test_auto_and_the_usual_numbers_pass(tmp_path: Path):
    path = small(tmp_path, "shots = [1, 16]")
    more = 'transfer = "ridge"\noptions = { rho = "auto" }\nrefine = { folds = 2, seed = 3 }'
    text = path.read_text().replace(
        "fit = { epochs = 1 }", "fit = { epochs = 1 }\nrefine = { learning_rate = 0, warmup = 1 }"
    )
    path.write_text(text.replace('transfer = "ridge"', more))
    assert read_spec(path).method[1].options == {"rho": "auto"}


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A grid of one seed on a list of digits, with prompts, words and a teacher from files."""
    files = {part: open_images("demo-digits", part).files for part in ("train", "test")}
    lines = [f"{one.name},{one.label},{part}" for part, some in files.items() for one in some[::6]]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    (tmp_path / "prompts.txt").write_text("a photo of a {}.\n")
    (tmp_path / "words.txt").write_text("\n".join(f"word {number}" for number in range(40)))
    path = small(tmp_path, finetuned="probe")
    text = path.read_text().replace("seeds = [0, 1]", "seeds = [0]").replace('"characters"', '"words.txt"')
    path.write_text(
        text.replace('images = "demo-digits"\nlimit = 200', 'images = "list.csv"\ntemplates = "prompts.txt"')
    )
    return path


def swap_labels(path: Path, part: str) -> None:
    """Give the first and last image of a part each other's label."""
    lines = path.read_text().splitlines()
    chosen = [number for number, line in enumerate(lines) if line.endswith(part)]
    (a, one, end), (b, other, _) = (lines[number].split(",") for number in (chosen[0], chosen[-1]))
    lines[chosen[0]], lines[chosen[-1]] = f"{a},{other},{end}", f"{b},{one},{end}"
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("change", ["train labels", "test labels", "prompts", "words"])
def test_a_change_of_labels_prompts_or_words_computes_anew(cli: Cli, listed: Path, tmp_path: Path, change: str):
    first = cli("bench", listed, "--json")
    assert first.code == 0, first.err
    assert json.loads(cli("bench", listed, "--json").out)["kept"] == 2
    if change.endswith("labels"):
        swap_labels(tmp_path / "list.csv", change.split()[0])
    elif change == "prompts":
        (tmp_path / "prompts.txt").write_text("a bad drawing of {}.\n")
    else:
        (tmp_path / "words.txt").write_text("\n".join(f"thing {number}" for number in range(40)))
    again = json.loads(cli("bench", listed, "--json").out)
    assert again["kept"] == 0
    likelihoods = [one["cells"][0]["rows"]["adapter"]["nll"] for one in (json.loads(first.out), again)]
    assert likelihoods[0] != likelihoods[1]


def sources(path: Path, cache: Path, **options: Any) -> list[Source]:
    """The source of each scene, as the files are now."""
    spec, workspace = read_spec(path), Workspace(cache=cache, **options)
    return [open_source(spec, key, workspace) for key in spec.scenes()]


def test_what_is_fitted_is_known_by_all_that_it_depends_on_and_what_is_measured_is_not(
    cli: Cli, listed: Path, shared_cache: Path, tmp_path: Path
):
    (before,) = sources(listed, shared_cache)
    swap_labels(tmp_path / "list.csv", "test")
    (test,) = sources(listed, shared_cache)
    assert test.origin == before.origin
    assert test.identity != before.identity
    swap_labels(tmp_path / "list.csv", "train")
    (train,) = sources(listed, shared_cache)
    (tmp_path / "prompts.txt").write_text("{}!\n")
    (prompts,) = sources(listed, shared_cache)
    (half,) = sources(listed, shared_cache, precision="half")
    (scaled,) = sources(listed, shared_cache, decoding="scaled")
    assert len({before.origin, train.origin, prompts.origin, half.origin, scaled.origin}) == 5


def test_ids_beside_logits_are_part_of_the_teacher(cli: Cli, shared_cache: Path, tmp_path: Path):
    (tmp_path / "l.npy").write_bytes(b"")
    (tmp_path / "l.txt").write_text("one\n")
    path = small(tmp_path, finetuned="l.npy")
    before = sources(path, shared_cache)[0].origin
    (tmp_path / "l.txt").write_text("another\n")
    assert sources(path, shared_cache)[0].origin != before


def authors_file(part: str, path: Path, workspace: Workspace) -> None:
    """The demo's digits as a file in the authors' form, train images with two views and of base classes only."""
    images = open_images("demo-digits", part)
    names = images.label_names
    numbers = torch.tensor(images.labels(names))
    content: dict[str, object] = {
        "label_names": dict(enumerate(names)),
        "base": [0, 1, 2, 3, 4],
        "novel": [5, 6, 7, 8, 9],
    }
    chosen = numbers < 5 if part == "train" else numbers >= 0
    from transmiter_cli.embedding.encoders.prompts import Templates

    for name in ("demo-weak", "demo-strong"):
        rows = encode(workspace.open(resolve_model(name)), images, names, Templates(("a photo of a {}.",))).embeddings
        own = rows.images[chosen]
        content[f"{name}_features"] = torch.stack([own, own], 1) if part == "train" else own
        if name == "demo-weak":
            logits = 10 * torch.nn.functional.one_hot(numbers[chosen], 10).float() + rows.images[chosen] @ rows.texts.T
            content[f"{name}_ft_logits"] = torch.stack([logits, logits], 1) if part == "train" else logits
    content["labels"] = torch.stack([numbers[chosen]] * 2, 1) if part == "train" else numbers[chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def test_the_papers_file_runs_on_the_demos_features(cli: Cli, tmp_path: Path, shared_cache: Path):
    workspace = Workspace(cache=shared_cache)
    for part in ("train", "test"):
        authors_file(part, tmp_path / f"features/PromptSRC/eurosat/1/16/{part}_features.pt", workspace)
    text = (REPRODUCE / "paper.toml").read_text()
    for ours, theirs in (("ViT-B/16", "demo-weak"), ("ViT-L/14", "demo-strong")):
        text = text.replace(ours, theirs).replace(ours.replace("/", "-"), theirs)
    before, after = text.split("[[data]]", 1)[0], text[text.index("[[teacher]]") :]
    after = after.replace('fit = { basis = "paper" }', 'fit = { basis = "paper", epochs = 1 }')
    before = before.replace("seeds = [1, 2, 3]", "seeds = [1]").replace('"nouns"', '"characters"')
    before = before.replace("vocabulary_size = 1024", "vocabulary_size = 60")
    (tmp_path / "paper.toml").write_text(f'{before}[[data]]\nname = "eurosat"\ntemplates = "eurosat"\n\n{after}')
    shown = table(cli("bench", "paper.toml", "--json"))
    assert list(shown)[-4:] == ["paper", "compact", "ridge", "discriminant"]
    assert set(shown["ridge"]) >= {"base", "novel", "hm", "hm_of_means", "hm/eurosat"}
    assert shown["weak_finetuned"]["base"]["mean"] > 0.95
    assert shown["ridge"]["base"]["mean"] > shown["strong"]["base"]["mean"]
    path = tmp_path / "paper.toml"
    path.write_text(re.sub(r"(\[names\].*)", '\\1\nanother = "another"', path.read_text()))
    assert json.loads(cli("bench", path, "--json").out)["kept"] == 0


def test_the_shipped_files_are_of_the_grammar():
    paper, demo = read_spec(REPRODUCE / "paper.toml"), read_spec(Path("demo"))
    assert len(paper.data) == 11
    assert paper.method[0].options == {"paper_lambda": 500.0}
    assert [one.name for one in demo.method] == ["transferred", "ridge", "discriminant", "refined"]
    scene = next(paper.scenes())
    path = scene.fill(paper.teacher[0].features, part="train")
    assert path == "features/PromptSRC/imagenet/1/16/train_features.pt"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("seeds = [0, 1]", 'seeds = "0"'), "seeds must be a list of whole numbers, not '0'"),
        (("seeds = [0, 1]", "seeds = []"), "seeds is empty"),
        (("seeds = [0, 1]", "seeds = [0, 1, 0]"), "seeds has 0 twice"),
        (("seeds = [0, 1]", "shots = [4, 4]"), "shots has 4 twice"),
        (('name = "ridge"', 'name = "strong_finetuned"'), "no method can be called 'strong_finetuned'"),
        (("seeds = [0, 1]", 'protocol = "b2n"'), "protocol is 'plain' or 'base-to-novel'"),
        (("seeds = [0, 1]", "sedes = [0]"), "'sedes', which is none of"),
        (("seeds = [0, 1]", "seeds = [-1]"), "seeds must be a whole number of at least 0.*, not -1"),
        (("seeds = [0, 1]", "shots = [4, 0]"), "shots must be a whole number of at least 1, not 0"),
        (("limit = 200", "limit = 0"), "limit must be a whole number of at least 1, not 0"),
        (
            ("epochs = 1 ", "epochs = 0 "),
            "the method 'adapter': fit.epochs must be a whole number of at least 1, not 0",
        ),
        (("epochs = 1 ", "epochs = 1.5 "), "fit.epochs must be a whole number .* not 1.5"),
        (("epochs = 1 ", "epochs = true "), "fit.epochs must be a whole number .* not True"),
        (("epochs = 1 ", "learning_rate = nan "), "fit.learning_rate must be a finite number of at least 0, not nan"),
        (
            ("epochs = 1 ", "noise_rate = 2 "),
            "fit.noise_rate must be a finite number of at least 0 and at most 1, not 2",
        ),
        (
            (RIDGE, 'options = { reg = "x" }'),
            "'ridge': options.reg must be a finite number above 0, or 'auto', not 'x'",
        ),
        ((RIDGE, f"{RIDGE}\noptions = {{ rho = 0 }}"), "'ridge': options.rho must be a finite number above 0.* not 0"),
        ((RIDGE, 'options = { paper_lambda = "x" }'), "options.paper_lambda must be a finite number above 0, not 'x'"),
        ((RIDGE, f"{RIDGE}\nrefine = {{ epochs = 3 }}"), "'ridge': refine.epochs is none of folds, seed"),
        ((RIDGE, "refine = { folds = 1 }"), "refine.folds must be a whole number of at least 2, not 1"),
        (("limit = 200", 'limit = "x"'), "limit must be a whole number, not 'x'"),
        (("seeds = [0, 1]", "shots = 4"), "shots must be a list of whole numbers, not 4"),
        ((RIDGE, 'options = "auto"'), "options must be a table, not 'auto'"),
        (("limit = 200", "allow_overlap = 1"), "allow_overlap must be true or false, not 1"),
        (('name = "adapter"', 'name = "direct"'), "no method can be called 'direct'"),
        (('name = "adapter"', 'name = ""'), "has a \\[\\[method\\]\\] with an empty name"),
        (('name = "adapter"', 'name = "ridge"'), "two \\[\\[method\\]\\] with the name 'ridge'"),
        (('finetuned = "demo-finetuned"', ""), "either finetuned or features"),
        (('images = "demo-digits"', ""), "needs data with images"),
        (('name = "digits"', ""), "lacks 'name'"),
        (("[[teacher]]", TARGET + 'fit_on = "pets"\n[[teacher]]'), "fit_on 'pets', which is none of digits"),
        (("[[teacher]]", TARGET + 'fit_on = "other"\n[[teacher]]'), "fit_on 'other', which is none of digits"),
        (("[[teacher]]", TARGET + 'map = "m.json"\n[[teacher]]'), "has a map, but no fit_on"),
        (("[[teacher]]", TARGET + 'fit_on = "digits"\nlimit = 5\n[[teacher]]'), "has limit and fit_on"),
        (("[[teacher]]", "[[data]]"), "at least one \\[\\[teacher\\]\\]|none of name, images"),
        (("seeds = [0, 1]", "seeds = ["), "no valid TOML"),
    ],
)
def test_what_a_file_must_not_say(tmp_path: Path, change: tuple[str, str], said: str):
    path = small(tmp_path)
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(TransmiterError, match=said) as found:
        read_spec(path)
    assert str(demo.FOLDER / "bench.toml") in (found.value.fix or ""), "an example that works"


def test_a_byte_order_mark_is_left_out_and_other_encodings_are_named(tmp_path: Path):
    path = small(tmp_path)
    content, spec = path.read_text(encoding="utf-8"), read_spec(path)
    path.write_text(content, encoding="utf-8-sig")
    assert read_spec(path) == spec
    path.write_text(content, encoding="utf-16")
    with pytest.raises(TransmiterError, match="is in UTF-16"):
        read_spec(path)


def test_a_missing_file_and_an_unknown_placeholder(tmp_path: Path):
    with pytest.raises(UsageError, match="no bench file"):
        read_spec(tmp_path / "absent.toml")
    scene = next(read_spec(small(tmp_path)).scenes())
    with pytest.raises(UsageError, match="placeholder that nothing fills"):
        scene.fill("features/{shots}")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Some test digits of three classes in folders of other names, the map, and the grid's file."""
    names = ["one", "six", "two"]
    folder = copies("test", tmp_path / "other", names)
    for name in names:
        (folder / name).rename(folder / f"n-{name}")
    (tmp_path / "map.json").write_text(json.dumps({f"n-{name}": name for name in names}))
    path = small(tmp_path)
    target = TARGET + 'fit_on = "digits"\nmap = "map.json"\n'
    path.write_text(path.read_text().replace("[[teacher]]", target + "[[teacher]]"))
    return path


def test_what_is_fitted_on_one_set_is_measured_on_others_with_a_map(cli: Cli, other: Path, monkeypatch):
    fits: list[int] = []
    real = api.fit
    monkeypatch.setattr(api, "fit", lambda *args, **more: fits.append(1) or real(*args, **more))
    outcome = cli("bench", other, "--json")
    found, shown = json.loads(outcome.out), table(outcome)
    assert len(fits) == 4, "two settings of two seeds, whatever the number of targets"
    assert len(found["cells"]) == 8
    assert {line["fit_on"] for line in found["table"]} == {"digits"}
    adapter = shown["adapter"]
    assert set(adapter) == {"top1", "top1/digits", "top1/other"}
    assert adapter["top1"] == adapter["top1/other"]
    assert shown["strong"]["top1/other"]["mean"] > shown["strong"]["top1/digits"]["mean"], "three classes to answer"
    assert json.loads(cli("bench", other, "--json").out) == {**found, "kept": 8}
    text = cli("bench", other).out
    assert "tuned, demo-weak > demo-strong, fitted on digits" in text
    assert re.search(r"top-1 % +digits +other", text)
    lines = list(csv.DictReader(io.StringIO(cli("bench", other, "--csv").out)))
    assert {line["fit_on"] for line in lines} == {"digits"}

    fit = ("fit", "--weak", "demo-weak", "--finetuned", "demo-finetuned", "--aux-words", "characters", "--epochs", 1)
    assert cli(*fit, "--data", "demo-digits", "--limit", 200).code == 0
    assert cli("transfer", "--strong", "demo-strong", "--method", "adapter").code == 0
    rows = json.loads(cli("eval", "--data", "other", "--map", "map.json", "--json").out)["rows"]
    (own,) = (one for one in found["cells"] if (one["data"], one["method"], one["seed"]) == ("other", "adapter", 0))
    assert (own["fit_on"], own["rows"]["adapter"]["top1"]) == ("digits", rows["transferred"]["top1"])
    assert own["rows"]["strong"]["top1"] == rows["strong"]["top1"]


def test_a_change_of_the_map_computes_the_target_anew(cli: Cli, other: Path, tmp_path: Path):
    first = json.loads(cli("bench", other, "--json").out)
    (tmp_path / "map.json").write_text(json.dumps({"n-one": "one", "n-six": None, "n-two": "two"}))
    again = json.loads(cli("bench", other, "--json").out)
    assert again["kept"] == 4
    tops = [one["table"][2]["columns"]["top1/other"]["mean"] for one in (first, again)]
    assert tops[1] >= tops[0]
    (tmp_path / "map.json").unlink()
    failures = json.loads(cli("bench", other, "--json").out)["failures"]
    assert len(failures) == 2
    assert "other (fitted on digits)" in failures[0]
    assert "no file map.json" in failures[0]


def test_base_to_novel_of_other_data_of_the_same_classes(cli: Cli, tmp_path: Path):
    copies("test", tmp_path / "other", DIGITS)
    path = small(tmp_path, 'protocol = "base-to-novel"', "probe")
    path.write_text(path.read_text().replace("[[teacher]]", TARGET + 'fit_on = "digits"\n[[teacher]]'))
    shown = table(cli("bench", path, "--json"))
    assert {"hm", "hm/other", "hm/digits"} <= set(shown["ridge"])
    assert shown["ridge"]["hm"] == shown["ridge"]["hm/other"]
    assert "fitted on digits" in cli("bench", path).out
    path.write_text(path.read_text().replace('fit_on = "digits"', 'fit_on = "digits"\nmap = "map.json"'))
    assert "no base and novel classes" in cli("bench", path).err


def test_logits_of_one_set_are_not_those_of_a_target_with_the_same_names(cli: Cli, tmp_path: Path):
    ids = [file.id for part in ("train", "test") for file in open_images("demo-digits", part).files]
    save_file({"logits": torch.randn(len(ids), 10)}, tmp_path / "l.safetensors", {"ids": json.dumps(ids)})
    shutil.copytree(open_images("demo-digits", "test").files[0].root, tmp_path / "other")
    path = small(tmp_path, finetuned="l.safetensors")
    path.write_text(path.read_text().replace("[[teacher]]", TARGET + 'fit_on = "digits"\n[[teacher]]'))
    outcome = json.loads(cli("bench", path, "--json").out)
    assert {one["data"] for one in outcome["cells"]} == {"digits"}
    assert len(outcome["failures"]) == 2
    assert "no logits for 599 images" in outcome["failures"][0]


def test_feature_files_are_those_of_what_is_fitted_and_of_what_is_measured(tmp_path: Path):
    path = small(tmp_path)
    text = path.read_text().replace("[[teacher]]", TARGET + 'fit_on = "digits"\n[[teacher]]')
    path.write_text(text.replace('finetuned = "demo-finetuned"', 'features = "{data}/{part}.pt"'))
    scenes = list(read_spec(path).scenes())
    assert [str(scene)[:24] for scene in scenes[:2]] == ["digits, tuned, demo-weak", "other (fitted on digits)"]
    files = [(str(feature_path(one, "train")), str(feature_path(one, "test"))) for one in scenes]
    assert set(files) == {("digits/train.pt", "digits/test.pt"), ("digits/train.pt", "other/test.pt")}
    path.write_text(path.read_text().replace('fit_on = "digits"', 'fit_on = "digits"\nmap = "map.json"'))
    with pytest.raises(TransmiterError, match="features have no images"):
        read_spec(path)


def cell(data: str, seed: int, base: float, novel: float, fit_on: str | None = None) -> Cell:
    row = {"top1": base, "base": base, "novel": novel, "hm": 2 * base * novel / (base + novel)}
    return Cell(data, "t", "w", "s", None, seed, "m", {"strong": row, "m": row}, 0.1, fit_on)


def test_means_of_what_was_fitted_elsewhere_are_over_the_others():
    cells = [cell("a", 0, 0.9, 0.4), cell("b", 0, 0.7, 0.6), cell("x", 0, 0.5, 0.3, "a"), cell("y", 0, 0.3, 0.1, "a")]
    lines = summarize(cells)
    assert [(line.fit_on, line.row) for line in lines] == [(None, "strong"), (None, "m"), ("a", "strong"), ("a", "m")]
    plain, cross = lines[1].columns, lines[3].columns
    assert plain["top1"].mean == pytest.approx(0.8)
    assert (cross["top1"].mean, cross["top1/a"].mean) == (pytest.approx(0.4), 0.9)
    assert "top1/b" not in cross
    assert [line.fit_on for line in summarize([cells[0], *cells[2:]])] == ["a", "a"]
    only_top1 = [replace(one, rows={"m": {"top1": one.rows["m"]["top1"]}}) for one in cells]
    text = bench_markdown(summarize(only_top1))
    assert "| top-1 % | a | b | mean |" in text
    assert "| top-1 % | a | x | y | mean of 2 |" in text
    assert "| m | 90.0 | 50.0 | 30.0 | 40.0 |" in text


def test_names_in_brackets_are_no_markup():
    cells = [replace(cell(data, 0, 0.9, 0.4), method="m [/auto]") for data in ("pets [v2]", "cars [/v2]")]
    rows = {"m [/auto]": {"top1": 0.5}}
    (shown,) = bench_tables(summarize([replace(one, rows=rows) for one in cells]))
    console = Console(file=io.StringIO(), width=80)
    console.print(shown)
    text = console.file.getvalue()
    assert all(name in text for name in ("pets [v2]", "cars [/v2]", "m [/auto]"))


def test_means_are_over_sets_within_a_seed_and_deviations_between_seeds():
    cells = [cell("a", 0, 0.8, 0.4), cell("b", 0, 0.6, 0.6), cell("a", 1, 0.9, 0.5), cell("b", 1, 0.7, 0.5)]
    lines = {line.row: line.columns for line in summarize(cells)}
    assert list(lines) == ["strong", "m"]
    found = lines["m"]
    assert found["base"].mean == pytest.approx(0.75)
    assert found["base"].std == pytest.approx(0.1 / 2**0.5)
    hms = [[2 * 0.8 * 0.4 / 1.2, 0.6], [2 * 0.9 * 0.5 / 1.4, 2 * 0.7 * 0.5 / 1.2]]
    assert found["hm"].mean == pytest.approx(sum(map(sum, hms)) / 4)
    assert found["hm_of_means"].mean == pytest.approx((2 * 0.7 * 0.5 / 1.2 + 2 * 0.8 * 0.5 / 1.3) / 2)
    assert found["base/a"].mean == pytest.approx(0.85)
    assert "| 75.0 ± 7.1 |" in bench_markdown(summarize(cells))


def test_all_means_of_a_setting_are_over_the_same_sets():
    rows = {name: {"top1": value} for name, value in (("strong", 0.5), ("m", 0.6), ("n", 0.8))}
    measured = [("a", 0, "n"), ("a", 0, "m"), ("b", 0, "m"), ("a", 1, "n"), ("a", 1, "m"), ("b", 1, "n"), ("b", 1, "m")]
    cells = [
        replace(cell(data, seed, 0.5, 0.5), method=method, rows={name: rows[name] for name in ("strong", method)})
        for data, seed, method in measured
    ]
    cells[2] = replace(cells[2], rows={**cells[2].rows, "strong": {"top1": 0.1}})
    lines = {line.row: line.columns for line in summarize(cells)}
    assert list(lines) == ["strong", "n", "m"]
    assert (lines["strong"]["top1/b"].seeds, lines["strong"]["top1"].seeds) == (2, 2)
    assert lines["strong"]["top1"].mean == pytest.approx((0.3 + 0.5) / 2)
    assert (lines["n"]["top1"].seeds, lines["m"]["top1"].seeds) == (1, 2), "n failed on a set of the first seed"
    assert "| n | 80.0 |  |  |" in bench_markdown(summarize(cells[:3]))
