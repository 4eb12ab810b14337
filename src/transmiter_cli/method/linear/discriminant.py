"""Linear discriminant analysis from soft labels: class means with a prior from the text embeddings, one covariance.

With soft labels P (N x C) of images X, class c has the mass n_c = sum_i P_ic. Its mean is estimated as

    m_c = (k u_c + sum_i P_ic x_i) / (k + n_c),    u_c = mean(x) + a (t_c - sum_c q_c t_c),

between what the images say and where its text embedding t_c expects it: q_c is the share of the images that are of the
class, a the least-squares slope of the class means against the texts, and k, the number of images that the text is
worth, the ratio of the variance within classes to that of the class means around u (normal means with a normal prior,
both variances by moments). With q = n / N all u_c would lean towards a large class, of which soft labels give a part to
the others. The covariance S within classes is shrunk to a multiple of the identity. The classifier is Fisher's:
x' S^-1 m_c - m_c' S^-1 m_c / 2.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import TINY, Embeddings, InvalidTensorError
from transmiter_cli.method.folds import JUDGED, NUMBERS, Folds, evenly_spaced
from transmiter_cli.method.linear.classifier import Linear
from transmiter_cli.method.linear.moments import Moments, total
from transmiter_cli.method.per_image import Computed, PerImage, Rows, centred

SHRINKAGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Candidates for the share of the identity in the covariance."""
SHRINKAGE = 0.3
"""The share where none is chosen: any of the middle candidates ranks classes alike."""
MOST_PRIOR = 1e3
"""The text is worth at most so many images."""
LEAST_WITHIN = 1e-5
"""Least variance of a direction within classes, relative to the mean square of an image: below it, of images all alike,
it is rounding errors."""
COVARIANCE_SHRINKAGE = 0.5
"""The identity's share in the covariance that tells the expected class means."""
STEPS, LEAST_STEP, LEAST_GAIN = 50, 1e-4, 1e-8
"""The search for a factor ends after so many steps, or where one, relative to it, or the entropy that it saves is
smaller."""


def class_means(
    moments: Moments, directions: Float[Tensor, "classes width"]
) -> tuple[Float[Tensor, "classes width"], Float[Tensor, "width width"]]:
    """The means m and the covariance S within classes, before its shrinkage (see the module's head).

    Args:
        moments: of the images.
        directions: t - sum_c q_c t_c, where the classes are expected about the mean of the images, up to a factor:
            their text embeddings (`about_mean`), or `expected_means`.
    """
    mass, size = moments.mass[:, None], moments.mass.sum()
    means, within = plain_statistics(moments)
    deviations = means - moments.sums.sum(0) / size
    slope = (mass * directions * deviations).sum() / (mass * directions.square()).sum().clamp_min(TINY)
    expected = means - deviations + slope.clamp_min(0) * directions
    spread = within.diagonal().sum().clamp_min(TINY)
    around = ((mass * (means - expected).square()).sum() - len(mass) * spread) / size
    worth = spread / around.clamp_min(spread / MOST_PRIOR)
    return (worth * expected + moments.sums) / (worth + mass), within


def about_mean(
    texts: Float[Tensor, "classes width"], counts: Float[Tensor, " classes"]
) -> Float[Tensor, "classes width"]:
    """Directions of classes less what the images have of them on average, by how many are of each class."""
    return texts - counts @ texts / counts.sum().clamp_min(TINY)


def plain_statistics(moments: Moments) -> tuple[Float[Tensor, "classes width"], Float[Tensor, "width width"]]:
    """The class means by images alone, and the covariance within classes around them."""
    means = moments.sums / moments.mass[:, None].clamp_min(TINY)
    return means, (moments.gram - moments.sums.T @ means) / moments.mass.sum()


def discriminants(
    moments: Moments, directions: Float[Tensor, "classes width"], shrinkages: Sequence[float]
) -> list[Linear]:
    """The classifier for each shrinkage, by a Cholesky factorisation of its covariance.

    Args:
        moments: of the images.
        directions: as for `class_means`.
        shrinkages: shares of the identity in the covariance.

    Raises:
        InvalidTensorError: if a covariance is not positive, as of embeddings that differ by rounding alone.
    """
    means, within = class_means(moments, directions)
    scale = torch.maximum(within.diagonal().mean(), LEAST_WITHIN * moments.gram.trace() / moments.mass.sum())
    identity = torch.eye(len(within), dtype=within.dtype, device=within.device)
    result: list[Linear] = []
    for share in shrinkages:
        factor, failed = torch.linalg.cholesky_ex((1 - share) * within + share * scale.clamp_min(TINY) * identity)
        if bool(failed):
            raise InvalidTensorError("the embeddings of the images differ too little for a discriminant.")
        weight = torch.cholesky_solve(means.T, factor).T
        result.append(Linear(weight, -0.5 * (means * weight).sum(-1)))
    return result


def out_of_fold_scores(
    model: Embeddings,
    moments: Sequence[Moments],
    directions: Float[Tensor, "classes width"],
    folds: Folds,
    shrinkages: Sequence[float],
) -> list[Computed]:
    """For each shrinkage the scores of all images, each by the classifier of the parts that it is not in."""
    whole = total(moments)
    # Centred: what all classes have in common may be thousands of times their differences, which float32 would lose.
    classifiers = [[one.centred() for one in discriminants(whole - own, directions, shrinkages)] for own in moments]
    place = torch.empty(len(model), dtype=torch.long, device=model.images.device)
    for number, part in enumerate(folds.rows):
        place[part.to(place.device)] = number

    def scores(each: Sequence[Linear], rows: Rows) -> Float[Tensor, "rows classes"]:
        images, own = model.unit_images(rows), place[rows]
        found = images.new_empty(len(images), len(directions))
        for number, classifier in enumerate(each):
            chosen = own == number
            found[chosen] = classifier(images[chosen])
        return found

    shape = (len(model), len(directions))
    return [Computed(shape, functools.partial(scores, each)) for each in zip(*classifiers, strict=True)]


def fit_inverse_temperature(
    scores: Float[Tensor, "rows classes"], posterior: Float[Tensor, "rows classes"]
) -> tuple[float, float]:
    """The factor b >= 0 with the least cross-entropy of softmax(b scores) with the posterior, and that entropy.

    The loss is convex in b: Newton's method, its step halved while the loss rises.
    """
    unit = centred(scores) / scores.std().clamp_min(TINY)

    def loss(factor: float) -> float:
        return -(posterior * F.log_softmax(factor * unit, -1)).sum(-1).double().mean().item()

    factor, lowest = 0.0, loss(0.0)
    for _ in range(STEPS):
        chance = F.softmax(factor * unit, -1)
        mean = (chance * unit).sum(-1, keepdim=True)
        slope = ((chance - posterior) * unit).sum(-1).double().mean().item()
        curvature = (chance * (unit - mean).square()).sum(-1).double().mean().item()
        step = -slope / max(curvature, TINY)
        found = max(factor + step, 0.0)
        entropy = loss(found)
        while not entropy < lowest and abs(step) > LEAST_STEP * max(factor, 1.0):
            step /= 2
            found = max(factor + step, 0.0)
            entropy = loss(found)
        if not entropy < lowest - LEAST_GAIN:
            break
        factor, lowest = found, entropy
    return factor / scores.std().clamp_min(TINY).item(), lowest


def smoothed_labels(posterior: Float[Tensor, "rows classes"]) -> Float[Tensor, "rows classes"]:
    """Soft labels mixed with chance by 1 / (n + 1): n images cannot show a rarer error.

    Without that, the factor of scores that tell all images apart grows without end.
    """
    share = 1 / (len(posterior) + 1)
    return (1 - share) * posterior + share / posterior.shape[1]


@dataclass(frozen=True)
class CalibratedDiscriminant:
    """A classifier with shrinkage and calibration chosen on held-out images.

    Attributes:
        classifier: of all images, its scores calibrated: softmax of them is a probability.
        shrinkage: the share of the identity in the covariance.
        factor: what calibrates the scores: an inverse temperature.
        rows: the images that both were chosen on.
        held_out: their calibrated scores, each by a classifier that did not see it.
    """

    classifier: Linear
    shrinkage: float
    factor: float
    rows: Int[Tensor, " rows"]
    held_out: Float[Tensor, "rows classes"]


def choose_discriminant(
    model: Embeddings,
    posterior: PerImage,
    directions: Float[Tensor, "classes width"],
    folds: Folds,
    moments: Sequence[Moments],
) -> CalibratedDiscriminant:
    """The shrinkage and inverse temperature with the least cross-entropy of held-out scores and `smoothed_labels`."""
    most = min(JUDGED, max(1, NUMBERS // (len(directions) * len(SHRINKAGES))))
    each = -(-most // len(folds.rows))
    rows = torch.cat([evenly_spaced(part, each) for part in folds.rows]).to(model.images.device)
    scores = [one[rows] for one in out_of_fold_scores(model, moments, directions, folds, SHRINKAGES)]
    labels = smoothed_labels(posterior[rows])
    found = [fit_inverse_temperature(one, labels) for one in scores]
    best = min(range(len(SHRINKAGES)), key=lambda place: found[place][1])
    factor = found[best][0]
    classifier = discriminants(total(moments), directions, [SHRINKAGES[best]])[0].scaled(factor)
    return CalibratedDiscriminant(classifier, SHRINKAGES[best], factor, rows, factor * scores[best])


def score_deviation(classifier: Linear, moments: Moments) -> Float[Tensor, ""]:
    """The deviation over images of scores less their mean over the classes: the root of a sum over the classes.

    Args:
        classifier: gives the scores.
        moments: of the images, and of what is added to them for a covariance without a direction.
    """
    images = moments.mass.sum()
    mean, weight = moments.sums.sum(0) / images, classifier.centred().weight
    covariance = moments.gram / images - torch.outer(mean, mean)
    return ((weight @ covariance) * weight).sum().clamp_min(0).sqrt()


def isotropic(strong: Embeddings) -> Float[Tensor, "width width"]:
    """A covariance without a direction, as wide as that of the texts: what images have where they say nothing."""
    texts = strong.unit_texts().double()
    width = texts.shape[1]
    variance = (texts - texts.mean(0)).square().sum(-1).mean() / width
    return variance * torch.eye(width, dtype=texts.dtype, device=texts.device)


def expected_means(moments: Moments, start: Linear) -> Float[Tensor, "classes width"]:
    """The class means about that of the images, up to a factor, of which Fisher's rule would make a classifier."""
    _, covariance = plain_statistics(moments)
    directions, level = start.centred().weight, covariance.diagonal().mean()
    means = (1 - COVARIANCE_SHRINKAGE) * directions @ covariance + COVARIANCE_SHRINKAGE * level * directions
    return about_mean(means, moments.mass)
