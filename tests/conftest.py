"""Shape annotations are checked in every test; models and embeddings that many tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxtyping import install_import_hook

# Read when the hub's client is imported: no test needs a network, nor what this machine has downloaded.
HUB_FOLDER = tempfile.TemporaryDirectory(prefix="transmiter-hub-")
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": HUB_FOLDER.name}

CHECKED = ("method", "embedding", "task", "workflow", "api", "artefact", "evaluation", "bench")
install_import_hook([f"transmiter_cli.{room}" for room in CHECKED], "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from hypothesis import settings  # noqa: E402

from transmiter_cli.method.embeddings import Embeddings  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("transmiter", deadline=None)  # a first call imports and compiles
settings.load_profile("transmiter")


def pytest_unconfigure() -> None:
    """A worker of pytest-xdist ends without the interpreter's own clearing up."""
    HUB_FOLDER.cleanup()


def random_embeddings(images: int, vocabulary: int, width: int, seed: int, scale: float = 30.0) -> Embeddings:
    """Unit-norm random embeddings of one encoder."""
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(images, width, generator=generator), dim=-1)
    texts = F.normalize(torch.randn(vocabulary, width, generator=generator), dim=-1)
    return Embeddings(rows, texts, scale)


class World:
    """A task with a truth: two encoders see the same hidden images, the fine-tuned weak model knows their classes.

    The hidden space holds classes and words; an encoder is a random isometry of it plus noise of its own.
    """

    def __init__(self, seed: int = 0, images: int = 400, classes: int = 6, words: int = 60) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(classes, (images,), generator=generator)
        names = F.normalize(torch.randn(classes + words, 24, generator=generator), dim=-1)
        shift = F.normalize(torch.randn(classes, 24, generator=generator), dim=-1)
        hidden = names[self.labels] + 1.6 * shift[self.labels] + 0.15 * torch.randn(images, 24, generator=generator)

        def encoder(width: int, noise: float) -> Embeddings:
            basis = torch.linalg.qr(torch.randn(width, 24, generator=generator))[0]
            rows = hidden @ basis.T + noise * torch.randn(images, width, generator=generator)
            return Embeddings(F.normalize(rows, dim=-1), names @ basis.T, 20.0)

        self.classes = classes
        self.weak = encoder(32, 0.2)
        self.strong = encoder(48, 0.1)
        self.finetuned_logits = 8.0 * F.one_hot(self.labels, classes).float()
        self.finetuned_logits += torch.randn(images, classes, generator=generator)

    def part(self, model: Embeddings, rows: slice) -> Embeddings:
        """One encoder on some of the images."""
        return Embeddings(model.images[rows], model.texts, model.logit_scale)


@pytest.fixture
def hub_cache() -> Iterator[Path]:
    """The hub's cache, emptied after the test."""
    yield Path(HUB_FOLDER.name)
    for entry in Path(HUB_FOLDER.name).iterdir():
        shutil.rmtree(entry)


@pytest.fixture(scope="session")
def world() -> World:
    return World()
