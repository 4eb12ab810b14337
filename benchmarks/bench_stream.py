"""Moments of a stream: how time and peak memory grow with the number of images, generated or read from the store."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from benchmarks.measure import Row, in_new_process, peak, random_rows

import transmiter_cli as tm
from transmiter_cli.embedding.storage.index import key_digests
from transmiter_cli.embedding.storage.store import EmbeddingStore
from transmiter_cli.method.paper.cross_moment import CrossMoment, Standardizer

VOCABULARY, BLOCK, SHARD = 1024, 8192, 4096


def moment(widths: tuple[int, int]) -> CrossMoment:
    """An empty moment from a weak to a strong model."""
    weak, strong = (
        tm.Embeddings(torch.empty(0, width), random_rows(VOCABULARY, width, width), 100.0) for width in widths
    )
    return CrossMoment(Standardizer(strong), Standardizer(weak))


def generated(images: int, widths: tuple[int, int]) -> tuple[float, float]:
    """Seconds and peak MiB for blocks that are made as they are needed, in half precision as a store has them."""
    sums = moment(widths)
    generator = torch.Generator().manual_seed(0)
    seconds = 0.0
    pool = [random_rows(4 * BLOCK, width, width).half() for width in widths]
    with peak() as found:
        for start in range(0, images, BLOCK):
            rows = torch.randint(4 * BLOCK, (min(BLOCK, images - start),), generator=generator)
            weak, strong = (part[rows] for part in pool)
            began = time.perf_counter()
            sums.add(strong, weak)
            seconds += time.perf_counter() - began
    return seconds, found[0]


def stored(images: int, widths: tuple[int, int], folder: str) -> tuple[float, float]:
    """The same from shards on the disk; writing them is not counted."""
    stores = [EmbeddingStore(Path(folder) / str(width)) for width in widths]
    keys = key_digests(f"image {number}" for number in range(images))
    with peak() as found:
        began = time.perf_counter()
        sums = moment(widths)
        weak, strong = (store.stream(keys, BLOCK) for store in stores)
        for block in zip(strong, weak, strict=True):
            sums.add(*block)
        seconds = time.perf_counter() - began
    assert sums.images == images
    return seconds, found[0]


def write(images: int, widths: tuple[int, int], folder: str) -> None:
    """Fill a store of each width."""
    for width in widths:
        store, rows = EmbeddingStore(Path(folder) / str(width)), random_rows(SHARD, width, width).half()
        for start in range(0, images, SHARD):
            count = min(SHARD, images - start)
            store.append([f"image {start + number}" for number in range(count)], rows[:count])


def bench(quick: bool) -> list[Row]:
    """Seconds, rows per second and peak memory at growing N."""
    large, small = (512, 768), (64, 96)
    sizes = (
        [(50_000, small)] if quick else [(100_000, large), (1_000_000, large), (1_000_000, small), (10_000_000, small)]
    )
    rows: list[Row] = []
    for images, widths in sizes:
        rows.append(line("generated", images, widths, *in_new_process(generated, images, widths)))
    with tempfile.TemporaryDirectory() as folder:
        total = 20_000 if quick else 200_000
        write(total, large, folder)
        for images in (total // 4, total):
            rows.append(line("store", images, large, *in_new_process(stored, images, large, folder)))
    return rows


def line(source: str, images: int, widths: tuple[int, int], seconds: float, mebibytes: float) -> Row:
    """One row."""
    about = {"source": source, "images": images, "d weak, strong": f"{widths[0]}, {widths[1]}"}
    return {**about, "s": seconds, "images/s": images / seconds, "peak MiB": mebibytes}
