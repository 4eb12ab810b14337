"""Fine-tuned models of two images and three classes, opened as fit opens them."""

from pathlib import Path

import torch

from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.encoders.prompts import Templates
from transmiter_cli.embedding.sources import ImageFile
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.reporter import Reporter
from transmiter_cli.task.finetuned import open_finetuned

FILES = [ImageFile(Path("/data"), f"a/{name}.png", "a") for name in ("one", "two")]
IMAGES = torch.nn.functional.normalize(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)), dim=-1)


def weak_model(tmp_path: Path, reporter: Reporter | None = None) -> CachedEncoder:
    workspace = Workspace(cache=tmp_path / "cache", reporter=reporter or Reporter())
    return workspace.open(resolve_model("demo-weak"))


def opened(given: Path | str, tmp_path: Path, reporter: Reporter | None = None):
    names = [f"class {i}" for i in range(3)]
    return open_finetuned(str(given), weak_model(tmp_path, reporter), names, Templates(("a {}",)))
