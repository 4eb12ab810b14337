"""transfer: the published solve against ours, at N = 50,000, M = 1024, d = 512 (weak) and 768 (strong)."""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from benchmarks.measure import Row, in_new_process, peak, product, product_operations, random_rows, side_by_side
from benchmarks.published import published_solve

import transmiter_cli as tm
from transmiter_cli.api import ridge_classifier
from transmiter_cli.method.choice import choose_reg
from transmiter_cli.method.consensus.discriminant_transfer import discriminant_transfer
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.folds import fold_rows, folds_of
from transmiter_cli.method.linear.moments import total
from transmiter_cli.method.linear.ridge import ridge_moments, ridge_path
from transmiter_cli.method.paper.adapter import Adapter
from transmiter_cli.method.paper.basis import compact_basis
from transmiter_cli.method.paper.cross_moment import Standardizer, cross_moment, cross_moments
from transmiter_cli.method.paper.transfer import transfer_adapters
from transmiter_cli.method.per_image import zero_shot_class_logits

VOCABULARY, WEAK, STRONG, SCALE, CLASSES = 1024, 512, 768, 100.0, 100
REGS = [10 ** (-2 + 0.25 * power) for power in range(16)]


def models(images: int) -> tuple[tm.Embeddings, tm.Embeddings]:
    """A weak and a strong model on random images."""
    return tuple(  # type: ignore[return-value]
        tm.Embeddings(random_rows(images, width, width), random_rows(VOCABULARY, width, width + 1), SCALE)
        for width in (WEAK, STRONG)
    )


def solve(way: str, weak: tm.Embeddings, strong: tm.Embeddings, adapter: Adapter) -> None:
    """One way to transfer."""
    if way == "published":
        rotation = torch.eye(VOCABULARY, device=weak.images.device)
        published_solve((weak.images, weak.texts), (strong.images, strong.texts), SCALE, rotation)
    elif way.endswith("lambdas"):
        transfer_adapters(adapter, [cross_moment(strong, weak)], REGS)
    elif way == "ridge, rho auto":
        ridge_classifier(strong, strong.images[:, :CLASSES], "auto")
    elif way == "ours, reg auto":
        parts = cross_moments(strong, weak, fold_rows(len(strong)))
        transfer_adapters(adapter, [reduce(add, parts)], [choose_reg(parts, adapter.basis)])
    elif way == "discriminant":
        discriminant_transfer(strong, [Teacher(zero_shot_class_logits(strong, CLASSES), weak)])
    elif way.endswith("rho"):
        moments = total(ridge_moments(strong, strong.images[:, :CLASSES], folds_of(strong)))
        list(ridge_path(moments.gram, moments.sums.T, REGS))
    elif way == "ridge":
        ridge_classifier(strong, strong.images[:, :CLASSES], 0.1)
    else:
        transfer_adapters(adapter, [cross_moment(strong, weak)], [1.0])


def memory(way: str, images: int) -> float:
    """MiB by which one way raises the peak memory, its inputs there already."""
    weak, strong = models(images)
    adapter = Adapter(compact_basis(weak.texts), CLASSES)
    with peak() as found:
        solve(way, weak, strong, adapter)
    return found[0]


def operations(weak: tm.Embeddings, strong: tm.Embeddings) -> float:
    """Floating-point operations of our moments: two deviations and the product."""
    strips = sum(strip.numel() for model in (weak, strong) for _, strip in Standardizer(model).strips)
    return 2 * len(strong) * (strips + WEAK * STRONG)


def bench(quick: bool) -> list[Row]:
    """Seconds, ratios, peak memory, and the share of the machine's matmul rate."""
    images = 10_000 if quick else 50_000
    weak, strong = models(images)
    adapter = Adapter(compact_basis(weak.texts), CLASSES)
    ours = ("ours", "ours, reg auto", "ours, 16 lambdas", "ridge", "ridge, rho auto", "ridge, 16 rho", "discriminant")
    ways = ("published", *ours)
    jobs = {way: lambda way=way: solve(way, weak, strong, adapter) for way in ways}
    seconds = side_by_side({**jobs, "product": product}, 3 if quick else 5)
    share = operations(weak, strong) / seconds["ours"] / (product_operations() / seconds["product"])
    rows: list[Row] = []
    for way in ways:
        alone = way.partition(",")[0] if "," in way else None
        rows.append(
            {
                "way": way,
                "images": images,
                "s": seconds[way],
                "times faster": seconds["published"] / seconds[way],
                "times one": seconds[way] / seconds[alone] if alone else None,
                "peak MiB": in_new_process(memory, way, images),
                "of matmul rate": share if way == "ours" else None,
            }
        )
    return rows
