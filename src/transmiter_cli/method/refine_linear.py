"""Refinement of a linear classifier: a convex problem of a few labelled images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transmiter_cli.method.probe import logistic_regression
from transmiter_cli.method.refinement import stratified_folds

PENALTIES = (math.inf, 10.0, 1.0, 0.1, 0.01, 0.001)
"""Candidate penalties on the distance from the classifier that is there; the first leaves it as it is."""
CHANCE = 1.5
"""Held-out answers are right more often than before where they are so by so many standard errors."""


def refine_linear(
    images: Float[Tensor, "images width"],
    labels: Int[Tensor, " images"],
    weight: Float[Tensor, "classes width"],
    bias: Float[Tensor, " classes"],
    scale: float,
    seed: int,
    folds: int = 5,
) -> tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"], float]:
    """Logistic regression with the penalty |V|^2 on its distance V from a linear classifier.

    Minimises cross-entropy(x (W + s V)' + b + s v) + penalty |(V, v)|^2, a convex problem of a few labelled images.
    The penalty is the largest whose cross-validated cross-entropy is within a standard error of the least, so that
    few labels change little; infinity, no change at all, is among the candidates, and is taken, too, unless held-out
    images are answered rightly more often than before, by more than 1.5 standard errors: cross-entropy also falls
    where the classifier only becomes surer or less sure.

    Classes without a label stay as they are, and the others are told apart among themselves: V sums to zero over them,
    so that they gain few images of those.

    Args:
        images: unit-norm embeddings of labelled images.
        labels: their class indices.
        weight, bias: the classifier that is there.
        scale: s, the strong model's logit scale.
        seed: decides the folds.
        folds: of the cross-validation.

    Returns:
        The weight and bias after it, and the penalty taken.
    """
    with_one = torch.cat([images, torch.ones_like(images[:, :1])], -1)
    known, labels = labels.unique(return_inverse=True)
    start = torch.cat([weight, bias[:, None]], -1)[known] / scale
    everything = torch.arange(len(labels), device=labels.device)

    def refined(rows: Tensor, penalty: float) -> Tensor:
        if math.isinf(penalty):
            return start
        return logistic_regression(with_one[rows], labels[rows], start, scale, penalty)

    losses = torch.zeros(len(PENALTIES), len(labels), device=labels.device)
    right = torch.zeros_like(losses)
    for held_out in stratified_folds(labels, folds, seed):
        rows = everything[~torch.isin(everything, held_out)]
        for place, penalty in enumerate(PENALTIES):
            if len(rows):
                scores = scale * with_one[held_out] @ refined(rows, penalty).T
                losses[place, held_out] = F.cross_entropy(scores, labels[held_out], reduction="none")
                right[place, held_out] = (scores.argmax(-1) == labels[held_out]).float()
    worse = above_errors(losses - losses[losses.mean(-1).argmin()], 1.0)
    best = int((~worse).nonzero()[0, 0])
    if not bool(above_errors(right[best] - right[0], CHANCE)):
        return weight, bias, math.inf
    final = scale * refined(everything, PENALTIES[best])
    return weight.index_copy(0, known, final[:, :-1]), bias.index_copy(0, known, final[:, -1]), PENALTIES[best]


def above_errors(differences: Float[Tensor, "*batch images"], errors: float) -> Bool[Tensor, "*batch"]:
    """Whether the mean over images is more than so many of its standard errors above 0."""
    error = differences.std(-1, unbiased=False) / differences.shape[-1] ** 0.5
    return differences.mean(-1) > errors * error
