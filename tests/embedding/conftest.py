"""A workspace of its own for each test, and photographs to put into folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.reporter import Reporter


class ListReporter(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def write_image(path: Path, shade: int = 0) -> Path:
    """A small picture whose content depends on `shade`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize((20, 16)).point(lambda value: (value + shade) % 256).save(path)
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(cache=tmp_path / "cache", reporter=ListReporter(), batch_size=4)


@pytest.fixture
def weak(workspace: Workspace) -> CachedEncoder:
    return workspace.open(resolve_model("demo-weak"))
