"""How good logits are on labelled images.

These are a few lines each, checked in the tests against torchmetrics: importing that takes longer than an evaluation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import INTEGERS, InvalidTensorError, require_finite, require_tensor

Z = 1.959964
"""Deviations of a normal distribution within which 95 % of it lie."""
BINS = 15
"""Bins of confidence behind the calibration error."""


class Accuracy(NamedTuple):
    """Top-1 accuracy and its 95 % interval, fractions."""

    top1: float
    low: float
    high: float


def correct(logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> Bool[Tensor, " images"]:
    """Whether the highest logit of each row is its label's.

    Raises:
        InvalidTensorError: if a logit is not finite: the highest of such a row means nothing.
    """
    require_finite("logits", logits)
    return logits.argmax(-1) == labels


def accuracy(hits: Bool[Tensor, " images"]) -> Accuracy:
    """Top-1 with Wilson's score interval (1927), which holds its 95 % for few images, and near 100 %, too."""
    count, rate = len(hits), hits.double().mean().item()
    pull = Z**2 / count
    centre = (rate + pull / 2) / (1 + pull)
    half = math.sqrt(pull * (rate * (1 - rate) + pull / 4)) / (1 + pull)
    return Accuracy(rate, max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half)))


def check_labels(labels: Int[Tensor, " images"], images: int, classes: int) -> None:
    """Raise InvalidTensorError unless there is one class index for each image."""
    require_tensor("labels", labels)
    if labels.shape != (images,):
        fix = "labels.argmax(-1), of one-hot labels" if labels.ndim == 2 and len(labels) == images else None
        raise InvalidTensorError(f"labels have shape {tuple(labels.shape)} for {images} images.", fix)
    if not images:
        raise InvalidTensorError("there are no labelled images.")
    if labels.dtype not in INTEGERS:
        fix = "the index of each image's class" if labels.dtype == torch.bool else "labels.long()"
        raise InvalidTensorError(f"labels must be class indices, integers, not {labels.dtype}.", fix)
    wrong = (labels < 0) | (labels >= classes)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        found = f"{int(labels[row])} in row {row}"
        raise InvalidTensorError(f"labels must be class indices from 0 to {classes - 1}; there is {found}.")


class Comparison(NamedTuple):
    """One model against a reference on the same images.

    Attributes:
        gain: accuracy minus the reference's.
        low, high: its 95 % interval.
        fixed: images that the reference has wrong and this model right.
        broken: the reverse.
    """

    gain: float
    low: float
    high: float
    fixed: int
    broken: int


def compare(hits: Bool[Tensor, " images"], reference: Bool[Tensor, " images"]) -> Comparison:
    """The paired difference in accuracy with the interval of Bonett and Price (2012).

    It is Wald's, with one more image fixed and one more broken: so it holds its 95 % where few answers changed, too,
    and is above 0 about where McNemar's test calls the gain more than chance.
    """
    count = len(hits)
    fixed, broken = (int(cell.sum()) for cell in (hits & ~reference, reference & ~hits))
    up, down = (fixed + 1) / (count + 2), (broken + 1) / (count + 2)
    half = Z * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    return Comparison((fixed - broken) / count, low, high, fixed, broken)


def top_five(logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> float:
    """How often the label is among the five highest logits; 1 where there are no more classes."""
    best = logits.topk(min(5, logits.shape[-1])).indices
    return (best == labels[:, None]).any(-1).double().mean().item()


def mean_per_class(correct: Bool[Tensor, " images"], labels: Int[Tensor, " images"]) -> float:
    """The mean of the accuracies of the classes that have images."""
    return per_class(correct, labels)[1].mean().item()


def per_class(
    correct: Bool[Tensor, " images"], labels: Int[Tensor, " images"]
) -> tuple[Int[Tensor, " present"], Float[Tensor, " present"]]:
    """The classes that have images, and the accuracy on each."""
    present, index = labels.unique(return_inverse=True)
    images = torch.bincount(index).double()
    return present, torch.bincount(index, weights=correct.double()) / images


class Calibration(NamedTuple):
    """Confidence against accuracy in equal-width bins of confidence (lo, hi].

    Attributes:
        images: how many in each bin.
        confidence: the mean of the highest probability in each; 0 in an empty one.
        accuracy: how often it was right; 0 in an empty one.
    """

    images: Float[Tensor, " bins"]
    confidence: Float[Tensor, " bins"]
    accuracy: Float[Tensor, " bins"]

    @property
    def error(self) -> float:
        """ECE: the mean over images of |accuracy - confidence| of their bin (Guo et al., arXiv:1706.04599)."""
        share = self.images / self.images.sum()
        return (share * (self.accuracy - self.confidence).abs()).sum().item()


def calibration(logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> Calibration:
    """Confidence and accuracy by bin of confidence."""
    confidence, answer = logits.double().softmax(-1).max(-1)
    place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    counts, confident, right = (
        torch.zeros(BINS, dtype=torch.float64, device=logits.device).index_add_(0, place, values)
        for values in (torch.ones_like(confidence), confidence, (answer == labels).double())
    )
    return Calibration(counts, confident / counts.clamp(min=1), right / counts.clamp(min=1))


def negative_log_likelihood(logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"]) -> float:
    """The mean of -log p(label), in nats."""
    return F.cross_entropy(logits.double(), labels.long()).item()


def harmonic_mean(first: float, second: float) -> float:
    """2 a b / (a + b); 0 where either is."""
    return 2 * first * second / (first + second) if first and second else 0.0
