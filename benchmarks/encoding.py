"""Embedding camera-sized photographs, side by side with the loop that everybody writes.

    python benchmarks/encoding.py [--images 2000] [--distinct 100] [--rounds 1] [--json FILE]

Both read the same generated 12-megapixel JPEG files with the same full-size ViT-B/32, whose weights come from a seed:
what is measured is speed, and how far a faster way of decoding moves an embedding. The rounds take turns, so that a
noisy machine is noisy for both; loading the model is not counted, writing the store is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from photographs import write_photographs
from transmiter_cli.embedding.decoding import Decoding
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import open_images
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


def plain_loop(encoder: CachedEncoder, folder: Path) -> tuple[float, Tensor]:
    """Seconds and embeddings of ImageFolder, DataLoader and encode_image."""
    model, preprocess = encoder.encoder.model, encoder.encoder.preprocess
    start = time.perf_counter()
    loader = DataLoader(ImageFolder(str(folder), preprocess), batch_size=BATCH, num_workers=2)
    with torch.inference_mode():
        rows = [F.normalize(model.encode_image(images), dim=-1) for images, _ in loader]
    return time.perf_counter() - start, torch.cat(rows)


def ours(encoder: CachedEncoder, folder: Path, decoding: Decoding) -> tuple[float, Tensor]:
    """Seconds and embeddings of this package, from an empty store."""
    with tempfile.TemporaryDirectory() as cache:
        workspace = Workspace(cache=Path(cache), batch_size=BATCH, decoding=decoding)
        fresh = CachedEncoder(workspace, encoder.encoder, encoder.fingerprint)
        start = time.perf_counter()
        found = fresh.image_embeddings(open_images(str(folder), None).files)
        return time.perf_counter() - start, found.rows


def measure(images: int, distinct: int, rounds: int) -> dict[str, Any]:
    """Images per second of each way, the ratios of each round, and the cosines between the ways' embeddings."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        write_photographs(folder, images, distinct)
        size = sum(path.stat().st_size for path in folder.rglob("*.jpg")) / images
        weights = seeded_weights(Path(temporary))
        encoder = Workspace(cache=Path(temporary) / "cache").open(resolve_model(f"{ARCHITECTURE}:{weights}"))
        encoder.encoder.encode_images(torch.zeros(BATCH, 3, 224, 224))
        ways: dict[str, Callable[[], tuple[float, Tensor]]] = {
            "plain loop": lambda: plain_loop(encoder, folder),
            "full": lambda: ours(encoder, folder, "full"),
            "scaled": lambda: ours(encoder, folder, "scaled"),
        }
        results = [{name: way() for name, way in ways.items()} for _ in range(rounds)]
    seconds = {name: [result[name][0] for result in results] for name in ways}
    rows = {name: results[0][name][1] for name in ways}
    ratios = {
        name: [plain / own for plain, own in zip(seconds["plain loop"], seconds[name], strict=True)] for name in ways
    }
    cosines = {name: F.cosine_similarity(rows["plain loop"].double(), rows[name].double()) for name in ways}
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors",
        "torch": torch.__version__,
        "images": images,
        "distinct_images": distinct,
        "mean_file_bytes": size,
        "ways": {
            name: {
                "images_per_second": [images / one for one in seconds[name]],
                "speed_ratio": ratios[name],
                "cosine_median": cosines[name].median().item(),
                "cosine_worst": cosines[name].min().item(),
            }
            for name in ways
        },
    }


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--distinct", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.images, options.distinct, options.rounds)
    print(f"{result['machine']}; {result['images']} files of {result['mean_file_bytes'] / 1e6:.1f} MB")
    print("| | images/s | ratio | cosine, median | worst |\n|---|---|---|---|---|")
    for name, way in result["ways"].items():
        speed, ratio = (sum(way[key]) / len(way[key]) for key in ("images_per_second", "speed_ratio"))
        print(f"| {name} | {speed:.1f} | {ratio:.2f} | {way['cosine_median']:.6f} | {way['cosine_worst']:.6f} |")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
