"""Embedding camera-sized photographs, side by side with the loop that everybody writes.

Both read the same generated 12-megapixel JPEG files with the same full-size ViT-B/32, whose weights come from a seed:
what is measured is speed, and how far a faster way of decoding moves an embedding. Loading the model is not counted,
writing the store is. On a GPU, where a model waits for decoders, also small photographs and a ViT-L/14.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from benchmarks.measure import Row, device
from benchmarks.photographs import write_photographs
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from transmiter_cli.embedding.choices import Decoding, Precision
from transmiter_cli.embedding.decoding import usable_processors
from transmiter_cli.embedding.encoders.encoder import Encoder
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import ImageRecord, open_images
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace

ARCHITECTURES = ("ViT-B-32-quickgelu", "ViT-L-14-quickgelu")
BATCH = 64
CAMERA, SMALL = (4000, 3000), (500, 375)


def seeded_weights(architecture: str, folder: Path) -> Path:
    """Full-size weights from a seed."""
    torch.manual_seed(0)
    path = folder / f"{architecture}.safetensors"
    save_file(
        {name: tensor.contiguous() for name, tensor in open_clip.create_model(architecture).state_dict().items()}, path
    )
    return path


def plain_loop(architecture: str, weights: Path, folder: Path, half: bool = False) -> tuple[float, Tensor]:
    """Seconds and embeddings of ImageFolder, DataLoader and encode_image, by open_clip's own model."""
    model, _, preprocess = open_clip.create_model_and_transforms(architecture, str(weights), device=device())
    model.eval()
    with torch.inference_mode(), torch.autocast(device().type, torch.float16, enabled=half):
        model.encode_image(torch.zeros(BATCH, 3, 224, 224, device=device()))
        start = time.perf_counter()
        loader = DataLoader(
            ImageFolder(str(folder), preprocess),
            batch_size=BATCH,
            num_workers=usable_processors(),
            pin_memory=device().type == "cuda",
        )
        found = [model.encode_image(images.to(device(), non_blocking=True)) for images, _ in loader]
        rows = F.normalize(torch.cat(found).float(), dim=-1).cpu()
    return time.perf_counter() - start, rows


def ours(
    encoder: CachedEncoder, files: Sequence[ImageRecord], decoding: Decoding, precision: Precision = "full"
) -> tuple[float, Tensor]:
    """Seconds and embeddings of this package, from an empty store."""
    with tempfile.TemporaryDirectory() as cache:
        workspace = Workspace(cache=Path(cache), batch_size=BATCH, decoding=decoding, precision=precision)
        used = encoder.encoder.precision or "full"
        model = encoder.encoder if precision == used else warmed(replace(encoder.encoder, precision=precision))
        fresh = CachedEncoder(workspace, model, encoder.fingerprint)
        start = time.perf_counter()
        found = fresh.image_embeddings(files)
        return time.perf_counter() - start, found.rows.float()


def warmed(encoder: Encoder) -> Encoder:
    """A model that is loaded and has encoded once."""
    encoder.encode_images(torch.zeros(BATCH, encoder.side, encoder.side, 3, dtype=torch.uint8))
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


def compare(architecture: str, folder: Path, weights: Path, on_gpu: bool) -> dict[str, tuple[float, Tensor]]:
    """Seconds and embeddings of each way: in full precision first on a CPU, in half precision alone on a GPU."""
    files = open_images(str(folder), None).files
    with tempfile.TemporaryDirectory() as cache:
        workspace = Workspace(cache=Path(cache), device=device(), precision="half" if on_gpu else "full")
        encoder = workspace.open(resolve_model(f"{architecture}:{weights}"))
        warmed(encoder.encoder)
        ways: dict[str, Callable[[], tuple[float, Tensor]]] = {
            "ImageFolder, DataLoader": lambda: plain_loop(architecture, weights, folder, on_gpu)
        }
        for precision in ("half",) if on_gpu else ("full", "half"):
            for decoding in ("full", "scaled"):
                name = f"{decoding}, half precision" if precision == "half" else decoding
                ways[name] = partial(ours, encoder, files, decoding, precision)
        return {name: way() for name, way in ways.items()}


def bench(quick: bool) -> list[Row]:
    """Images per second of each way, its ratio to the plain loop, and the cosines to the plain loop's embeddings."""
    on_gpu = device().type == "cuda"
    images, distinct = (96, 12) if quick else (2000, 100)
    rows: list[Row] = []
    for size in (CAMERA, SMALL) if on_gpu else (CAMERA,):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "data"
            count = images if size == CAMERA else 5 * images
            write_photographs(folder, count, distinct, size)
            megabytes = sum(path.stat().st_size for path in folder.rglob("*.jpg")) / count / 1e6
            for architecture in ARCHITECTURES if on_gpu else ARCHITECTURES[:1]:
                results = compare(architecture, folder, seeded_weights(architecture, Path(temporary)), on_gpu)
                (slow, exact), *_ = results.values()
                for name, (seconds, found) in results.items():
                    about = {"model": architecture, "way": name, "images": count, "MB per file": megabytes}
                    cosines = spread(F.cosine_similarity(exact.double(), found.double()))
                    rows.append({**about, "images/s": count / seconds, "ratio": slow / seconds, **cosines})
            if size == CAMERA:
                trained = spread(movement(open_images(str(folder), None).files[:distinct]))
    rows.append({"way": "scaled against full, demo-strong", "images": distinct, **trained})
    return rows
