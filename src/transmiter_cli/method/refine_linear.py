"""Refinement of a linear classifier: its mean with a discriminant of a few labelled images, in closed form.

The discriminant is that of self-training with labels in the place of soft labels: Fisher's rule, the class means
expected where the classifier has them, the covariance starting as one without a direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.discriminant import (
    SHRINKAGE,
    TINY,
    Linear,
    Moments,
    discriminants,
    fold_moments,
    grams,
    total,
)
from transmiter_cli.method.embeddings import BLOCK, Embeddings
from transmiter_cli.method.per_image import Computed
from transmiter_cli.method.refinement import stratified_folds
from transmiter_cli.method.self_training import centred, expected_means, isotropic, moved_towards, scaled, spread

WORTHS = (math.inf, 100.0, 30.0, 10.0, 3.0, 1.0)
"""The classifier that is there counts like so many images of each class; the first leaves it as it is."""
CHANCE = 1.5
"""Held-out answers are right more often than before where they are so by so many standard errors."""


def refine_linear(
    labelled: Embeddings, labels: Int[Tensor, " images"], start: Linear, seed: int, folds: int = 5
) -> tuple[Linear, float]:
    """The mean of a classifier, which counts like k images of each class, and of a discriminant of labelled images.

    Of n images of C classes, the discriminant's share is n / (n + k C). k is the one, of several the largest, whose
    answers to held-out images are right most often. Infinity, no change at all, is among the candidates, and is taken,
    too, unless the answers are right more often than before by more than CHANCE standard errors.

    Classes without a label stay as they are, and the others are told apart among themselves: what changes of the
    weights sums to zero over them, so that they gain few images of those. One class alone changes nothing.

    Args:
        labelled: the strong model on labelled images.
        labels: their class indices.
        start: the classifier that is there, of unit-norm embeddings.
        seed: decides the folds.
        folds: of the cross-validation.

    Returns:
        The classifier after it, and the share of the discriminant in it: 0 where nothing changed.
    """
    known, own = labels.unique(return_inverse=True)
    parts = stratified_folds(own, folds, seed)
    if min(len(known), len(parts)) < 2:
        return start, 0.0
    before = Linear(start.weight[known], start.bias[known])
    moments = labelled_moments(labelled, own, len(known), parts)
    right = torch.zeros(len(WORTHS), len(labels), device=labels.device)
    for held_out, part in zip(parts, moments, strict=True):
        candidates = refinements(before, total(moments) - part)
        for rows in held_out.split(BLOCK):
            images = labelled.unit_images(rows)
            for place, candidate in enumerate(candidates):
                right[place, rows] = (candidate(images).argmax(-1) == own[rows]).float()
    best = int(right.sum(-1).argmax())
    if not above_errors(right[best] - right[0], CHANCE):
        return start, 0.0
    after = refinements(before, total(moments))[best]
    weight, bias = start.weight.index_copy(0, known, after.weight), start.bias.index_copy(0, known, after.bias)
    return Linear(weight, bias), share_of(len(labels), WORTHS[best], len(known))


def labelled_moments(
    labelled: Embeddings, labels: Int[Tensor, " images"], classes: int, parts: Sequence[Int[Tensor, " _"]]
) -> list[Moments]:
    """The moments of each part of labelled images; together, they contain an isotropic image of each class."""
    prior = classes / len(parts) * isotropic(labelled)
    onehot = Computed((len(labels), classes), lambda rows: F.one_hot(labels[rows], classes).float())
    return fold_moments(labelled, onehot, parts, [gram + prior for gram in grams(labelled, parts)])


def refinements(start: Linear, moments: Moments) -> list[Linear]:
    """For each of WORTHS, the mean of a classifier and of the discriminant of labelled images.

    The discriminant's scores are made to vary as far as the classifier's, no more and no less: among classes without a
    label, the labelled ones would else lose or win.
    """
    found = centred(discriminants(moments, expected_means(moments, start), [SHRINKAGE])[0])
    level = spread(start, moments) / spread(found, moments).clamp_min(TINY)
    images, classes = round(float(moments.mass.sum())), len(start.bias)
    shares = [share_of(images, worth, classes) for worth in WORTHS]
    return [moved_towards(scaled(found, level), start, share) for share in shares]


def share_of(images: int, worth: float, classes: int) -> float:
    """The discriminant's share in the mean, n / (n + k C)."""
    return images / (images + worth * classes)


def above_errors(differences: Float[Tensor, " images"], errors: float) -> bool:
    """Whether the mean over images is more than so many of its standard errors above 0."""
    error = differences.std(unbiased=False) / len(differences) ** 0.5
    return bool(differences.mean() > errors * error)
