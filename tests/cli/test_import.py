"""Files in the TransMiter authors' layout, made from the bundled task, go through docs/import.md to a table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Cli
from transmiter_cli.embedding.encoders.models import resolve_model, with_weights
from transmiter_cli.embedding.encoders.prompts import Templates
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.task.finetuned import bundled_path

DOCUMENT = Path(__file__).parents[2] / "docs" / "import.md"
PROMPT = "a photo of a {}."


def authors_file(path: Path, split: str, cache: Path, views: int) -> None:
    """What the authors' code would have stored of the bundled task."""
    images, workspace = open_images("demo-digits", split), Workspace(cache=cache)
    weak = resolve_model("demo-weak")
    names = ("demo-weak", "demo-strong")
    found = {name: workspace.open(resolve_model(name)).image_embeddings(images.files).rows for name in names}
    tuned = workspace.open(with_weights(weak, bundled_path("demo-finetuned"), "tuned"))
    tuned_texts = tuned.text_embeddings(images.label_names, Templates((PROMPT,)))
    logits = tuned.facts.logit_scale * tuned.image_embeddings(images.files).rows @ tuned_texts.T
    labels = torch.tensor(images.labels(images.label_names))
    rows = {**{f"{name}_features": value for name, value in found.items()}, "demo-weak_ft_logits": logits}
    if views > 1:
        rows = {name: torch.stack([value] * views, 1) for name, value in rows.items()}
        labels = labels[:, None].expand(-1, views).contiguous()
    about = {"label_names": dict(enumerate(images.label_names)), "base": list(range(5)), "novel": list(range(5, 10))}
    torch.save({**rows, "demo-weak_ft_text_features": tuned_texts, "labels": labels, **about}, path)


@pytest.mark.parametrize("views", [1, 2])
def test_imported_files_give_the_table_of_the_document(
    cli: Cli, shared_cache: Path, tmp_path: Path, views: int, capsys: pytest.CaptureFixture[str]
):
    for split, count in (("train", views), ("test", 1)):
        authors_file(tmp_path / f"{split}_features.pt", split, shared_cache, count)
        line = ("embed", "--import", f"{split}_features.pt", "--out", f"{split}.safetensors", "--json")
        shown = json.loads(cli(*line).out)
        assert (shown["classes"], shown["models"], shown["views"]) == (10, ["demo-strong", "demo-weak"], count)
    examples = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    code = "\n".join(examples).replace('"nouns"', '"characters"').replace("ViT-B-16", "demo-weak")
    for name, bundled in (("ViT-L-14", "demo-strong"), ("ViT-B/16", "demo-weak"), ("ViT-L/14", "demo-strong")):
        code = code.replace(name, bundled)
    names: dict[str, Any] = {}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    table = {name: row.top1 for name, row in names["table"].items()}
    assert table["transferred"] > table["strong"] + 0.05
    assert table["ridge"] > table["strong"] + 0.05
    assert len(names["weak"]) == 1198 * views
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"base \d+\.\d\d  novel \d+\.\d\d  HM \d+\.\d\d", printed[-1])


def test_an_import_says_what_it_needs(cli: Cli, tmp_path: Path):
    outcome = cli("embed", "--import", "train_features.pt")
    assert outcome.code == 2
    assert "Try: transmiter embed --import train_features.pt --out train_features.safetensors" in outcome.err
    outcome = cli("embed", "--import", "train_features.pt", "--out", "x.safetensors")
    assert outcome.code == 2
    assert "no file train_features.pt" in outcome.err
    outcome = cli("embed", "--model", "demo-weak")
    assert outcome.code == 2
    assert "--model and --data, or --import and --out" in outcome.err


MEANINGLESS = (
    *(("--model", "demo-weak"), ("--data", "demo-digits"), ("--root", "."), ("--split", "test"), ("--limit", 3)),
    *(("--device", "cpu"), ("--strict",), ("--decode", "scaled"), ("--encode-batch", 8), ("--workers", 1)),
    ("--precision", "half"),
)


@pytest.mark.parametrize("also", MEANINGLESS)
def test_an_import_takes_no_images_and_no_model(cli: Cli, tmp_path: Path, also: tuple[object, ...]):
    outcome = cli("embed", "--import", "train_features.pt", "--out", "x.safetensors", *also)
    assert outcome.code == 2
    assert f"it takes no {also[0]}" in outcome.err
