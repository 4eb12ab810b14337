"""How good logits are on labelled images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import InvalidTensorError, require_finite

RESAMPLES = 2000
"""Bootstrap resamples behind an interval."""


class Accuracy(NamedTuple):
    """Top-1 accuracy and its 95 % bootstrap interval, fractions."""

    top1: float
    low: float
    high: float


def hits(logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> Bool[Tensor, " images"]:
    """Whether the highest logit of each row is its label's.

    Raises:
        InvalidTensorError: if a logit is not finite: the highest of such a row means nothing.
    """
    require_finite("logits", logits)
    return logits.argmax(-1) == labels


def accuracy(correct: Bool[Tensor, " images"], seed: int = 0) -> Accuracy:
    """Top-1 with the percentile bootstrap over images.

    The resampled count of hits of n images is binomial, so it is drawn as such: the same distribution as
    drawing the n images again, without their N x RESAMPLES indices.
    """
    count = len(correct)
    rate = correct.double().mean().item()
    generator = torch.Generator().manual_seed(seed)
    totals = torch.full((RESAMPLES,), float(count), dtype=torch.float64)
    draws = torch.binomial(totals, torch.full_like(totals, rate), generator=generator) / count
    low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Accuracy(rate, low, high)


def check_labels(labels: Int[Tensor, " images"], images: int, classes: int) -> None:
    """Raise InvalidTensorError unless there is one class index for each image."""
    if labels.shape != (images,):
        raise InvalidTensorError(f"labels have shape {tuple(labels.shape)} for {images} images.")
    if not images:
        raise InvalidTensorError("there are no labelled images.")
    if torch.is_floating_point(labels) or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InvalidTensorError(f"labels must be class indices from 0 to {classes - 1}.")
