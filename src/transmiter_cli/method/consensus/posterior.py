"""What a model's answers tell, as far as it is trusted, and how many images of each class several tell of together."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.agreement import beyond_chance
from transmiter_cli.method.embeddings import TINY
from transmiter_cli.method.per_image import PerImage, blocks_of, probabilities, softmax_of

SUREST = 0.95
"""The most that a fine-tuned model's own answers count, so that a few sure mistakes do not outvote the others."""
LEAST_DOUBT = 1e-9
"""A model is never so sure that nothing else can be."""
ROUNDS = 30
LIKELIEST = 32
"""Classes of each image whose posterior is told apart from that of the others."""


def doubted(
    logits: Float[Tensor, "rows classes"], trust: float | Float[Tensor, " classes"]
) -> Float[Tensor, "rows classes"]:
    """What a model's answers tell: its probabilities as far as it is trusted, the rest spread over all classes."""
    chance = probabilities(logits)
    if not isinstance(trust, Tensor):
        return trust * chance + max(1 - trust, LEAST_DOUBT) / logits.shape[1]
    kept = trust.to(chance.dtype) * chance
    return kept + (1 - kept.sum(-1, keepdim=True)).clamp_min(LEAST_DOUBT) / logits.shape[1]


def mixing_weight(trust: float, logits: PerImage, most: float) -> float:
    """The trust of `doubted` with which a model is as sure, on average, as it is trusted.

    A model whose softmax says itself how often it is wrong would be doubted twice by the trust alone.

    Args:
        trust: how often the model is right, beyond chance.
        logits: what it says.
        most: the weight is no larger than this, or than the trust where that is larger.
    """
    images, classes = logits.shape
    highest = sum(probabilities(logits[rows]).amax(-1).double().sum().item() for rows in blocks_of(logits))
    return max(trust, min(most, trust / max(beyond_chance(highest / images, classes), TINY)))


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
