"""How many images each class has by soft labels, how even these counts are, and what class prior they tell."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.embeddings import TINY
from transmiter_cli.method.per_image import PerImage, blocks_of, softmax_of

ROUNDS = 30
LIKELIEST = 32
"""Classes of each image whose posterior is told apart from that of the others."""


def class_counts(log_posterior: PerImage, likeliest: int = LIKELIEST) -> Float[Tensor, " classes"]:
    """How many images each class has, by expectation maximisation on the class prior (Saerens et al., 2002).

    A class with no image of its own loses the small share that every image's posterior leaves it.

    Args:
        log_posterior: of each image, up to a constant.
        likeliest: how many classes of each image are kept, on the CPU, where sums do not depend on the order; the
            others have equal parts of the rest, as where a model has no say.
    """
    images, classes = log_posterior.shape
    top = min(likeliest, classes)
    posterior = softmax_of(log_posterior)
    blocks: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows in blocks_of(posterior):
        shares, places = (found.cpu() for found in posterior[rows].topk(top))
        rest = (1 - shares.double().sum(-1, keepdim=True)).clamp_min(0) / max(classes - top, 1)
        blocks.append((places, shares - rest, rest))
    counts = torch.full((classes,), images / classes, dtype=torch.float64)
    for _ in range(ROUNDS):
        prior = (counts + 1) / (images + classes)
        factors = torch.zeros_like(prior)
        for places, beyond, rest in blocks:
            evidence = rest + (beyond * prior[places]).sum(-1, keepdim=True)
            factors += torch.bincount(places.flatten(), (beyond / evidence).flatten(), classes)
            factors += (rest / evidence).sum()
        counts = prior * factors
    return counts.to(posterior[:1].device)


def evenness(counts: Float[Tensor, " classes"]) -> Float[Tensor, ""]:
    """The effective number of classes beside their number, (sum n)^2 / (C sum n^2): 1 where all have as many images."""
    return counts.sum().square() / (len(counts) * counts.square().sum()).clamp_min(TINY)


def believed_log_prior(counts: Float[Tensor, " classes"]) -> Float[Tensor, " classes"]:
    """The logarithm of the class prior that counts tell, up to a constant, times (1 - evenness)^2.

    Models that err make even classes look uneven, but seldom very: of counts that are nearly even, nothing is believed.
    """
    shares = (counts + 1) / (counts.sum() + len(counts))
    return (1 - evenness(counts)).square() * shares.log()
