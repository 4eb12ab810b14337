"""What a model's answers tell, as far as it is trusted."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.agreement import beyond_chance
from transmiter_cli.method.embeddings import TINY
from transmiter_cli.method.per_image import PerImage, blocks_of, probabilities

SUREST = 0.95
"""The most that a fine-tuned model's own answers count, so that a few sure mistakes do not outvote the others."""
LEAST_DOUBT = 1e-9
"""A model is never so sure that nothing else can be."""


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
