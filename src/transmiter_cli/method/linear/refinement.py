"""Refinement of a linear classifier: its mean with a discriminant of a few labelled images, in closed form.

The discriminant is that of self-training with labels in the place of soft labels: Fisher's rule, the class means
expected where the classifier has them, the covariance starting as one without a direction. The scores are calibrated
on held-out labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import TINY, Embeddings
from transmiter_cli.method.folds import JUDGED, NUMBERS, evenly_spaced, folds_of, stratified_folds
from transmiter_cli.method.linear.classifier import Linear
from transmiter_cli.method.linear.discriminant import (
    SHRINKAGE,
    discriminants,
    expected_means,
    fit_inverse_temperature,
    isotropic,
    score_deviation,
    smoothed_labels,
)
from transmiter_cli.method.linear.moments import Moments, fold_moments, total
from transmiter_cli.method.per_image import Computed, above_errors

WORTHS = (math.inf, 100.0, 30.0, 10.0, 3.0, 1.0)
"""The classifier that is there counts like so many images of each class; the first leaves its answers as they are."""
CHANCE = 2.0
"""Held-out answers are likelier than before where their log-likelihood is more by so many standard errors."""
LIKELIHOOD_MARGIN = 2.0
"""Factors are within two standard errors of the likeliest one if their log-likelihood is less by this at most."""
HALVINGS = 15


class RefinedClassifier(NamedTuple):
    """What labels made of a classifier.

    Attributes:
        classifier: the refined one.
        share: of the discriminant of the labelled images in it; 0 where answers stay as they were.
        factor: what calibrated its scores.
        zero_shot: whether it began with the strong model's zero-shot classifier, in place of what was transferred.
    """

    classifier: Linear
    share: float
    factor: float
    zero_shot: bool = False


class HeldOut(NamedTuple):
    """How labels fare that a classifier did not see.

    Attributes:
        scores: of the images that are looked at.
        labels: theirs.
    """

    scores: Float[Tensor, "rows classes"]
    labels: Int[Tensor, " rows"]

    def right(self) -> Int[Tensor, ""]:
        """How many answers are right."""
        return (self.scores.argmax(-1) == self.labels).sum()

    def losses(self) -> Float[Tensor, " rows"]:
        """Of each image the cross-entropy, in nats, once all scores are calibrated by one factor."""
        targets, known = onehot(self.labels, self.scores.shape[1]), self.labels.unique()
        targets[:, known] = smoothed_labels(targets[:, known])
        factor, _ = fit_inverse_temperature(self.scores, targets)
        return F.cross_entropy(factor * self.scores, self.labels, reduction="none")


def refine_linear(
    labelled: Embeddings, labels: Int[Tensor, " images"], start: Linear, seed: int, folds: int = 5
) -> RefinedClassifier:
    """The mean of a classifier, which counts like k images of each class, and of a discriminant of labelled images.

    Of n images of C classes, the discriminant's share is n / (n + k C). k is the one, of several, that makes held-out
    labels likeliest, each candidate's scores calibrated: else the surest one would be. (Of very many labels, JUDGED are
    looked at.) Infinity, which changes no answer, is among the candidates, and is taken, too, unless the labels are
    likelier than before by more than CHANCE standard errors, and more answers are right. Last, all scores are
    multiplied by what calibrates them on held-out images (`calibrated_inverse_temperature`).

    Classes without a label stay as they are: what changes of the weights sums to zero over the others, so that these
    gain few images of those, and an answer with one of those is wrong. Nothing is calibrated then: labels say nothing
    of how sure to be of those. One class alone changes nothing.

    Where each class has a label, the same is made of the zero-shot classifier, and taken if it is `clearly_better` on
    held-out labels: what was transferred may come from a useless teacher, or from images unlike the labelled ones.

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
        return RefinedClassifier(start, 0.0, 1.0)
    moments = labelled_moments(labelled, own, len(known), parts)
    found, held_out = refine_from(start, labelled, labels, parts, moments)
    if len(known) == len(start.bias):
        zero_shot = Linear.zero_shot(labelled, len(start.bias))
        other, beside = refine_from(zero_shot, labelled, labels, parts, moments)
        if clearly_better(beside, held_out):
            return other._replace(zero_shot=True)
    return found


def refine_from(
    start: Linear,
    labelled: Embeddings,
    labels: Int[Tensor, " images"],
    parts: Sequence[Int[Tensor, " _"]],
    moments: Sequence[Moments],
) -> tuple[RefinedClassifier, HeldOut]:
    """What labels make of one classifier, and its scores of the labelled images, each part's without its own labels.

    Args:
        start: the classifier, of unit-norm embeddings.
        labelled: the strong model on labelled images.
        labels: their class indices.
        parts: rows of the images that are held out in turn.
        moments: of each part (`labelled_moments`).
    """
    known = labels.unique()
    before, whole = start.only(known), total(moments)
    found = [levelled_discriminant(before, whole - part) for part in moments]

    def scored_with(worth: float) -> HeldOut:
        mixed = [
            before.towards(one, share_of(len(labels) - len(part), worth, len(known)))
            for one, part in zip(found, parts, strict=True)
        ]
        return held_out_scores(labelled, labels, [start.replaced(known, one) for one in mixed], parts)

    worth, scored = most_likely(scored_with)
    share = share_of(len(labels), worth, len(known))
    after = before.towards(levelled_discriminant(before, whole), share)
    factor = calibrated_inverse_temperature(scored) if len(known) == len(start.bias) else 1.0
    return RefinedClassifier(start.replaced(known, after).scaled(factor), share, factor), scored


def most_likely(scored_with: Callable[[float], HeldOut]) -> tuple[float, HeldOut]:
    """The one of WORTHS that makes held-out labels likeliest; infinity, unless it is better than that beyond chance."""
    unchanged, *others = WORTHS
    before = scored_with(unchanged)
    worth, best = min(((one, scored_with(one)) for one in others), key=lambda one: one[1].losses().sum().item())
    return (worth, best) if clearly_better(best, before) else (unchanged, before)


def clearly_better(found: HeldOut, before: HeldOut) -> bool:
    """Whether labels are likelier than before by more than CHANCE standard errors, and more answers are right."""
    return above_errors(before.losses() - found.losses(), CHANCE) and bool(found.right() > before.right())


def labelled_moments(
    labelled: Embeddings, labels: Int[Tensor, " images"], classes: int, parts: Sequence[Int[Tensor, " _"]]
) -> list[Moments]:
    """The moments of each part of labelled images; together, they contain an isotropic image of each class."""
    targets = Computed((len(labels), classes), lambda rows: onehot(labels[rows], classes))
    return fold_moments(labelled, targets, folds_of(labelled, parts, classes * isotropic(labelled)))


def levelled_discriminant(start: Linear, moments: Moments) -> Linear:
    """The discriminant of labelled images, its scores made to vary as far as a classifier's, no more and no less.

    Among classes without a label, the labelled ones would else lose or win.
    """
    found = discriminants(moments, expected_means(moments, start), [SHRINKAGE])[0].centred()
    return found.scaled(score_deviation(start, moments) / score_deviation(found, moments).clamp_min(TINY))


def held_out_scores(
    labelled: Embeddings,
    labels: Int[Tensor, " images"],
    classifiers: Sequence[Linear],
    parts: Sequence[Int[Tensor, " _"]],
) -> HeldOut:
    """The scores of labelled images by classifiers that did not see them.

    Args:
        labelled: the strong model on labelled images.
        labels: their class indices.
        classifiers: for each part, one that did not see it.
        parts: rows of the images; of very many, some of each part are looked at.
    """
    most = -(-min(JUDGED, max(1, NUMBERS // len(classifiers[0].bias))) // len(parts))
    few = [evenly_spaced(part, most) for part in parts]
    scores = [classifier(labelled.unit_images(rows)) for classifier, rows in zip(classifiers, few, strict=True)]
    return HeldOut(torch.cat(scores), labels[torch.cat(few)])


def calibrated_inverse_temperature(held_out: HeldOut) -> float:
    """What scores are multiplied with, so that their softmax is the probability to be right on images held out.

    Of all factors whose likelihood is within two standard errors of the greatest, the one nearest to 1: of few labels,
    all predicted rightly, the greatest is that of an infinite factor.
    """
    scores, labels = held_out
    best, lowest = fit_inverse_temperature(scores, onehot(labels, scores.shape[1]))

    def likely_enough(factor: float) -> bool:
        return (
            F.cross_entropy(factor * scores, labels, reduction="sum").item() <= len(labels) * lowest + LIKELIHOOD_MARGIN
        )

    near, far = (1.0 if likely_enough(1.0) else best), 1.0
    for _ in range(HALVINGS if near != far else 0):
        middle = (near + far) / 2
        near, far = (middle, far) if likely_enough(middle) else (near, middle)
    return near or far  # labels that contradict wide scores ask for 0, which would leave no answer


def onehot(labels: Int[Tensor, " images"], classes: int) -> Float[Tensor, "images classes"]:
    """1 for each image's label, 0 for all other classes; `F.one_hot` would need three times the memory."""
    targets = torch.zeros(len(labels), classes, dtype=torch.float32, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1.0)


def share_of(images: int, worth: float, classes: int) -> float:
    """The discriminant's share in the mean, n / (n + k C)."""
    return images / (images + worth * classes)
