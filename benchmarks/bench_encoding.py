"""Embedding camera-sized photographs, side by side with the loop that everybody writes.

Both read the same generated 12-megapixel JPEG files with the same full-size ViT-B/32, whose weights come from a seed:
what is measured is speed, and how far a faster way of decoding moves an embedding. Loading the model is not counted,
writing the store is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from benchmarks.measure import Row
from benchmarks.photographs import write_photographs
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from transmiter_cli.embedding.decoding import Decoding
from transmiter_cli.embedding.encoder import Encoder, Precision
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import ImageRecord, open_images
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace

ARCHITECTURE = "ViT-B-32-quickgelu"
BATCH = 64


def seeded_weights(folder: Path) -> Path:
    """Full-size weights from a seed."""
    torch.manual_seed(0)
    path = folder / "weights.safetensors"
    save_file(
        {name: tensor.contiguous() for name, tensor in open_clip.create_model(ARCHITECTURE).state_dict().items()}, path
    )
    return path


def plain_loop(weights: Path, folder: Path) -> tuple[float, Tensor]:
    """Seconds and embeddings of ImageFolder, DataLoader and encode_image, by open_clip's own model."""
    model, _, preprocess = open_clip.create_model_and_transforms(ARCHITECTURE, str(weights))
    model.eval()
    with torch.inference_mode():
        model.encode_image(torch.zeros(BATCH, 3, 224, 224))
    start = time.perf_counter()
    loader = DataLoader(ImageFolder(str(folder), preprocess), batch_size=BATCH, num_workers=2)
    with torch.inference_mode():
        rows = [F.normalize(model.encode_image(images), dim=-1) for images, _ in loader]
    return time.perf_counter() - start, torch.cat(rows)


def ours(
    encoder: CachedEncoder, files: Sequence[ImageRecord], decoding: Decoding, precision: Precision = "full"
) -> tuple[float, Tensor]:
    """Seconds and embeddings of this package, from an empty store."""
    with tempfile.TemporaryDirectory() as cache:
        workspace = Workspace(cache=Path(cache), batch_size=BATCH, decoding=decoding, precision=precision)
        model = encoder.encoder if precision == "full" else warmed(replace(encoder.encoder, precision=precision))
        fresh = CachedEncoder(workspace, model, encoder.fingerprint)
        start = time.perf_counter()
        found = fresh.image_embeddings(files)
        return time.perf_counter() - start, found.rows.float()


def warmed(encoder: Encoder) -> Encoder:
    """A model that is loaded and has encoded once."""
    encoder.encode_images(torch.zeros(BATCH, 3, encoder.side, encoder.side))
    return encoder


def movement(files: Sequence[ImageRecord]) -> Tensor:
    """Cosines between the embeddings of both ways of decoding by a model that was trained: the bundled one."""
    with tempfile.TemporaryDirectory() as cache:
        encoder = Workspace(cache=Path(cache)).open(resolve_model("demo-strong"))
        (_, full), (_, scaled) = ours(encoder, files, "full"), ours(encoder, files, "scaled")
    return F.cosine_similarity(full.double(), scaled.double())


def spread(cosines: Tensor) -> Row:
    """Median and worst, to six digits."""
    return {"median cosine": f"{cosines.median():.6f}", "worst cosine": f"{cosines.min():.6f}"}


def bench(quick: bool) -> list[Row]:
    """Images per second of each way, its ratio to the plain loop, and the cosines to the plain loop's embeddings."""
    images, distinct = (96, 12) if quick else (2000, 100)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        write_photographs(folder, images, distinct)
        size = sum(path.stat().st_size for path in folder.rglob("*.jpg")) / images
        files = open_images(str(folder), None).files
        weights = seeded_weights(Path(temporary))
        encoder = Workspace(cache=Path(temporary) / "cache").open(resolve_model(f"{ARCHITECTURE}:{weights}"))
        warmed(encoder.encoder)
        ways: dict[str, Callable[[], tuple[float, Tensor]]] = {
            "ImageFolder, DataLoader": lambda: plain_loop(weights, folder),
            "full": lambda: ours(encoder, files, "full"),
            "scaled": lambda: ours(encoder, files, "scaled"),
            "full, half precision": lambda: ours(encoder, files, "full", "half"),
            "scaled, half precision": lambda: ours(encoder, files, "scaled", "half"),
        }
        results = {name: way() for name, way in ways.items()}
        trained = movement(files[:distinct])
    (slow, exact), *_ = results.values()
    rows: list[Row] = []
    for name, (seconds, found) in results.items():
        row: Row = {"way": name, "images": images, "MB per file": size / 1e6, "images/s": images / seconds}
        rows.append({**row, "ratio": slow / seconds, **spread(F.cosine_similarity(exact.double(), found.double()))})
    rows.append({"way": "scaled against full, demo-strong", "images": distinct, **spread(trained)})
    return rows
