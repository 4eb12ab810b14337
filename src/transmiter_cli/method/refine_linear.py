"""Refinement of a linear classifier: its mean with a discriminant of a few labelled images, in closed form.

The discriminant is that of self-training with labels in the place of soft labels: Fisher's rule, the class means
expected where the classifier has them, the covariance starting as one without a direction. The scores are calibrated
on held-out labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.discriminant import SHRINKAGE, Moments, best_factor, discriminants, fold_moments, total
from transmiter_cli.method.embeddings import BLOCK, TINY, Embeddings
from transmiter_cli.method.folds import JUDGED, NUMBERS, evenly_spaced, folds_of, stratified_folds
from transmiter_cli.method.linear import Linear
from transmiter_cli.method.per_image import Computed
from transmiter_cli.method.self_training import expected_means, isotropic, spread

WORTHS = (math.inf, 100.0, 30.0, 10.0, 3.0, 1.0)
"""The classifier that is there counts like so many images of each class; the first leaves its answers as they are."""
CHANCE = 1.5
"""Held-out answers are right more often than before where they are so by so many standard errors."""
DOUBT = 2.0
"""Factors are within two standard errors of the likeliest one if their log-likelihood is less by this at most."""
HALVINGS = 15


class Refined(NamedTuple):
    """What labels made of a classifier.

    Attributes:
        classifier: the refined one.
        share: of the discriminant of the labelled images in it; 0 where answers stay as they were.
        factor: what calibrated its scores.
    """

    classifier: Linear
    share: float
    factor: float


def refine_linear(
    labelled: Embeddings, labels: Int[Tensor, " images"], start: Linear, seed: int, folds: int = 5
) -> Refined:
    """The mean of a classifier, which counts like k images of each class, and of a discriminant of labelled images.

    Of n images of C classes, the discriminant's share is n / (n + k C). k is the one, of several the largest, whose
    answers to held-out images are right most often. Infinity, which changes no answer, is among the candidates, and is
    taken, too, unless the answers are right more often than before by more than CHANCE standard errors. Last, all
    scores are multiplied by what calibrates them on held-out images (`calibrating_factor`).

    Classes without a label stay as they are: what changes of the weights sums to zero over the others, so that these
    gain few images of those, and an answer with one of those is wrong. Nothing is calibrated then: labels say nothing
    of how sure to be of those. One class alone changes nothing.

    Args:
        labelled: the strong model on labelled images.
        labels: their class indices.
        start: the classifier that is there, of unit-norm embeddings.
        seed: decides the folds.
        folds: of the cross-validation.
    """
    known, own = labels.unique(return_inverse=True)
    parts = stratified_folds(own, folds, seed)
    if min(len(known), len(parts)) < 2:
        return Refined(start, 0.0, 1.0)
    before = start.only(known)
    moments = labelled_moments(labelled, own, len(known), parts)
    whole = total(moments)
    found = [levelled_discriminant(before, whole - part) for part in moments]
    right = torch.zeros(len(WORTHS), len(labels), dtype=torch.float32, device=labels.device)
    for held_out, of_others in zip(parts, found, strict=True):
        candidates = mixtures(before, of_others, len(labels) - len(held_out))
        for rows in held_out.split(BLOCK):
            images = labelled.unit_images(rows)
            for place, candidate in enumerate(candidates):
                right[place, rows] = (start.replaced(known, candidate)(images).argmax(-1) == labels[rows]).float()
    best = int(right.sum(-1).argmax())
    if not above_errors(right[best] - right[0], CHANCE):
        best = 0
    share = share_of(len(labels), WORTHS[best], len(known))
    after = before.towards(levelled_discriminant(before, whole), share)
    if len(known) < len(start.bias):
        return Refined(start.replaced(known, after), share, 1.0)
    held_out = [
        before.towards(of_others, share_of(len(labels) - len(part), WORTHS[best], len(known)))
        for part, of_others in zip(parts, found, strict=True)
    ]
    factor = calibrating_factor(labelled, labels, held_out, parts)
    return Refined(after.scaled(factor), share, factor)


def labelled_moments(
    labelled: Embeddings, labels: Int[Tensor, " images"], classes: int, parts: Sequence[Int[Tensor, " _"]]
) -> list[Moments]:
    """The moments of each part of labelled images; together, they contain an isotropic image of each class."""
    onehot = Computed((len(labels), classes), lambda rows: F.one_hot(labels[rows], classes).float())
    return fold_moments(labelled, onehot, folds_of(labelled, parts, classes * isotropic(labelled)))


def levelled_discriminant(start: Linear, moments: Moments) -> Linear:
    """The discriminant of labelled images, its scores made to vary as far as a classifier's, no more and no less.

    Among classes without a label, the labelled ones would else lose or win.
    """
    found = discriminants(moments, expected_means(moments, start), [SHRINKAGE])[0].centred()
    return found.scaled(spread(start, moments) / spread(found, moments).clamp_min(TINY))


def mixtures(start: Linear, found: Linear, images: int) -> list[Linear]:
    """For each of WORTHS, the mean of a classifier and of the discriminant of so many images."""
    return [start.towards(found, share_of(images, worth, len(start.bias))) for worth in WORTHS]


def calibrating_factor(
    labelled: Embeddings, labels: Int[Tensor, " images"], held_out: Sequence[Linear], parts: Sequence[Int[Tensor, " _"]]
) -> float:
    """What scores are multiplied with, so that their softmax is the probability to be right on images held out.

    Of all factors whose likelihood is within two standard errors of the greatest, the one nearest to 1: of few labels,
    all foretold rightly, the greatest is that of an infinite factor.

    Args:
        labelled: the strong model on labelled images.
        labels: their class indices.
        held_out: for each part, a classifier that did not see it.
        parts: rows of the images; of very many, some of each part are looked at.
    """
    classes = len(held_out[0].bias)
    most = -(-min(JUDGED, max(1, NUMBERS // classes)) // len(parts))
    few = [evenly_spaced(part, most) for part in parts]
    scores = torch.cat([classifier(labelled.unit_images(rows)) for classifier, rows in zip(held_out, few, strict=True)])
    told = labels[torch.cat(few)]
    best, lowest = best_factor(scores, torch.zeros_like(scores).scatter_(1, told[:, None], 1.0))

    def borne_out(factor: float) -> bool:
        return F.cross_entropy(factor * scores, told, reduction="sum").item() <= len(told) * lowest + DOUBT

    near, far = (1.0 if borne_out(1.0) else best), 1.0
    for _ in range(HALVINGS if near != far else 0):
        middle = (near + far) / 2
        near, far = (middle, far) if borne_out(middle) else (near, middle)
    return near or far  # labels that contradict wide scores ask for 0, which would leave no answer


def share_of(images: int, worth: float, classes: int) -> float:
    """The discriminant's share in the mean, n / (n + k C)."""
    return images / (images + worth * classes)


def above_errors(differences: Float[Tensor, " images"], errors: float) -> bool:
    """Whether the mean over images is more than so many of its standard errors above 0."""
    error = differences.std(unbiased=False) / len(differences) ** 0.5
    return bool(differences.mean() > errors * error)
