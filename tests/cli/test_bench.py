"""transmiter bench: the same file's shape as docs/reproduce/paper.toml, on the bundled task."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Cli, Outcome
from transmiter_cli.bench.grid import Cell
from transmiter_cli.bench.spec import read_spec
from transmiter_cli.bench.summary import summarize
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.report.bench import bench_markdown
from transmiter_cli.workflow.common import encode

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


def table(outcome: Outcome) -> dict[str, dict]:
    assert outcome.code == 0, outcome.err
    return {line["row"]: line["columns"] for line in json.loads(outcome.out)["table"]}


def test_a_grid_is_one_table_in_every_format(cli: Cli, tmp_path: Path):
    path = small(tmp_path)
    shown = table(cli("bench", path, "--json"))
    assert list(shown) == [
        "weak", "weak_finetuned", "strong", "eft_0.5", "eft", "eft_1.5", "direct", "adapter", "ridge"
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
    assert "no folder 'absent'" in found["failures"][0]
    assert len(found["cells"]) == 4
    path.write_text(small(tmp_path).read_text().replace("epochs = 1", "epoks = 1"))
    assert "'epoks'" in cli("bench", path).err


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
    from transmiter_cli.embedding.prompts import Templates

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
    for ours, demo in (("ViT-B/16", "demo-weak"), ("ViT-L/14", "demo-strong")):
        text = text.replace(ours, demo).replace(ours.replace("/", "-"), demo)
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
        (("seeds = [0, 1]", 'seeds = "0"'), "seeds cannot be '0'"),
        (("seeds = [0, 1]", "seeds = []"), "seeds is empty"),
        (("seeds = [0, 1]", 'protocol = "b2n"'), "protocol is 'plain' or 'base-to-novel'"),
        (("seeds = [0, 1]", "sedes = [0]"), "'sedes', which is none of"),
        (("limit = 200", 'limit = "x"'), "limit cannot be 'x'"),
        (('name = "adapter"', 'name = "direct"'), "no method can be called 'direct'"),
        (('name = "adapter"', 'name = "ridge"'), "two \\[\\[method\\]\\] with the name 'ridge'"),
        (('finetuned = "demo-finetuned"', ""), "either finetuned or features"),
        (('images = "demo-digits"', ""), "needs data with images"),
        (('name = "digits"', ""), "lacks 'name'"),
        (("[[teacher]]", "[[data]]"), "at least one \\[\\[teacher\\]\\]|none of name, images"),
        (("seeds = [0, 1]", "seeds = ["), "no valid TOML"),
    ],
)
def test_what_a_file_must_not_say(tmp_path: Path, change: tuple[str, str], said: str):
    path = small(tmp_path)
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(TransmiterError, match=said):
        read_spec(path)


def test_a_missing_file_and_an_unknown_placeholder(tmp_path: Path):
    with pytest.raises(UsageError, match="no bench file"):
        read_spec(tmp_path / "absent.toml")
    scene = next(read_spec(small(tmp_path)).scenes())
    with pytest.raises(UsageError, match="placeholder that nothing fills"):
        scene.fill("features/{shots}")


def cell(data: str, seed: int, base: float, novel: float) -> Cell:
    row = {"top1": base, "base": base, "novel": novel, "hm": 2 * base * novel / (base + novel)}
    return Cell(data, "t", "w", "s", None, seed, "m", {"strong": row, "m": row}, 0.1)


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
