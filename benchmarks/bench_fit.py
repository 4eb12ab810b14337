"""fit: an epoch of the published recipe, of `--basis paper` and of the compact basis, at M = 1024, d = 512."""

from __future__ import annotations

import math

import torch
from benchmarks.measure import Row, device, in_new_process, peak, product, product_operations, random_rows, side_by_side
from benchmarks.published import BATCH, published_fit

import transmiter_cli as tm

VOCABULARY, WIDTH, CLASSES, SCALE = 1024, 512, 100, 100.0


def inputs(images: int) -> tuple[tm.Embeddings, torch.Tensor]:
    """A weak model on random images, and a teacher."""
    weak = tm.Embeddings(random_rows(images, WIDTH, 0), random_rows(VOCABULARY, WIDTH, 1), SCALE)
    teacher = 5 * torch.randn(images, CLASSES, generator=torch.Generator().manual_seed(2))
    return weak, teacher.to(weak.images.device)


def one_epoch(way: str, images: int) -> float:
    """Train for an epoch; MiB by which that raised the peak memory."""
    weak, teacher = inputs(images)
    with peak() as found:
        train(way, weak, teacher)
    return found[0]


def train(way: str, weak: tm.Embeddings, teacher: torch.Tensor) -> None:
    """One epoch, the setting up included."""
    if way == "published":
        published_fit(weak.images, weak.texts, SCALE, teacher, epochs=1)
    else:
        tm.fit(weak, teacher, basis=way, epochs=1)


def operations(way: str) -> float:
    """Floating-point operations of one step's matrix products, the setting up and elementwise work apart."""
    size = VOCABULARY if way == "paper" else WIDTH
    network = 3 * 2 * BATCH * size * 4 * size * 2  # two layers; forward, and two products backward
    logits = 2 * BATCH * VOCABULARY * (WIDTH + size)
    learned = 2 * BATCH * VOCABULARY * size * 2 + 5 * 2 * VOCABULARY**3 if way == "paper" else 0
    return network + logits + learned


def bench(quick: bool) -> list[Row]:
    """Seconds per epoch and per step, ratios, memory, and the share of the machine's matmul rate."""
    images = (4 if quick else 10) * BATCH
    if device().type == "cuda":  # where steps are recorded only after some have passed
        images *= 20
    weak, teacher = inputs(images)
    ways = ("published", "paper", "compact")
    tm.fit(weak, teacher, epochs=1)  # warms up threads and allocator
    jobs = {way: lambda way=way: train(way, weak, teacher) for way in ways}
    seconds = side_by_side({**jobs, "product": product}, 3)
    steps = math.ceil(images / BATCH)
    rows: list[Row] = []
    for way in ways:
        share = (
            operations(way) * steps / seconds[way] / (product_operations() / seconds["product"])
            if way != "published"
            else None
        )
        rows.append(
            {
                "way": way,
                "s/epoch": seconds[way],
                "ms/step": 1000 * seconds[way] / steps,
                "times faster": seconds["published"] / seconds[way],
                "peak MiB": in_new_process(one_epoch, way, images),
                "of matmul rate": share,
            }
        )
    return rows
