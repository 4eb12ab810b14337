"""Linear discriminant analysis from soft labels: class means with a prior from the text embeddings, one covariance.

With soft labels P (N x C) of images X, class c has the mass n_c = sum_i P_ic. Its mean is estimated as

    m_c = (k u_c + sum_i P_ic x_i) / (k + n_c),    u_c = mean(x) + a (t_c - sum_c n_c t_c / N),

between what the images say and where its text embedding t_c expects it: a is the least-squares slope of the class
means against the texts, and k, the number of images that the text is worth, the ratio of the variance within classes
to that of the class means around u (normal means with a normal prior, both variances by moments). The covariance
S within classes is shrunk to a multiple of the identity. The classifier is Fisher's: x' S^-1 m_c - m_c' S^-1 m_c / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import BLOCK, Embeddings

FOLDS = 5
SHRINKAGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Candidates for the share of the identity in the covariance."""
SHRINKAGE = 0.3
"""The share where none is chosen: any of the middle candidates ranks classes alike."""
JUDGED = 8192
"""Most held-out images that shrinkage and temperature are chosen on."""
MOST_PRIOR = 1e3
"""The text is worth at most so many images."""
TINY = 1e-12


@dataclass(frozen=True)
class Moments:
    """What soft-labelled images contribute to a discriminant, in float64; those of disjoint images add up.

    Attributes:
        gram: X'X.
        sums: P'X.
        mass: the column sums of P.
    """

    gram: Float[Tensor, "width width"]
    sums: Float[Tensor, "classes width"]
    mass: Float[Tensor, " classes"]

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.sums + other.sums, self.mass + other.mass)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.gram - other.gram, self.sums - other.sums, self.mass - other.mass)


@dataclass(frozen=True)
class Linear:
    """Class scores x'w_c + b_c of unit-norm image embeddings, float64."""

    weight: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"]

    def __call__(self, images: Float[Tensor, "rows width"]) -> Float[Tensor, "rows classes"]:
        """Scores of unit-norm rows."""
        return images.double() @ self.weight.T + self.bias


def all_scores(model: Embeddings, classifier: Linear) -> Float[Tensor, "images classes"]:
    """The scores of all images, a block at a time."""
    return torch.cat([classifier(model.unit_images(rows)) for rows in model.blocks(len(classifier.bias))])


def fold_rows(images: int, folds: int = FOLDS, seed: int = 0) -> list[Int[Tensor, " _"]]:
    """Random disjoint parts of all rows, sorted; as many parts as there are images where those are fewer."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    return [order[start::folds].sort().values for start in range(min(folds, images))]


def grams(model: Embeddings, parts: Sequence[Int[Tensor, " _"]]) -> list[Float[Tensor, "width width"]]:
    """X'X of each part, float64."""
    result: list[Tensor] = []
    for part in parts:
        gram = model.images.new_zeros(model.images.shape[1], model.images.shape[1], dtype=torch.float64)
        for rows in part.split(BLOCK):
            images = model.unit_images(rows.to(model.images.device)).double()
            gram += images.T @ images
        result.append(gram)
    return result


def fold_moments(
    model: Embeddings,
    posterior: Float[Tensor, "images classes"],
    parts: Sequence[Int[Tensor, " _"]],
    gram: Sequence[Float[Tensor, "width width"]],
) -> list[Moments]:
    """The moments of each part, given its X'X, which all posteriors share."""
    result: list[Moments] = []
    for part, own in zip(parts, gram, strict=True):
        sums = own.new_zeros(posterior.shape[1], len(own))
        for rows in part.to(own.device).split(BLOCK):
            sums += posterior[rows].double().T @ model.unit_images(rows).double()
        result.append(Moments(own, sums, posterior[part.to(own.device)].double().sum(0)))
    return result


def total(moments: Sequence[Moments]) -> Moments:
    """The sum of the parts."""
    result = moments[0]
    for part in moments[1:]:
        result = result + part
    return result


def class_means(
    moments: Moments, texts: Float[Tensor, "classes width"]
) -> tuple[Float[Tensor, "classes width"], Float[Tensor, "width width"]]:
    """The means m and the covariance S within classes, before its shrinkage (see the module's head)."""
    mass, size = moments.mass[:, None], moments.mass.sum()
    means = moments.sums / mass.clamp_min(TINY)
    directions = texts - (mass * texts).sum(0) / size
    centred = means - moments.sums.sum(0) / size
    slope = (mass * directions * centred).sum() / (mass * directions.square()).sum().clamp_min(TINY)
    expected = means - centred + slope.clamp_min(0) * directions
    within = (moments.gram - moments.sums.T @ means) / size
    spread = within.diagonal().sum().clamp_min(TINY)
    around = ((mass * (means - expected).square()).sum() - len(mass) * spread) / size
    worth = spread / around.clamp_min(spread / MOST_PRIOR)
    return (worth * expected + moments.sums) / (worth + mass), within


def discriminants(moments: Moments, texts: Float[Tensor, "classes width"], shrinkages: Sequence[float]) -> list[Linear]:
    """The classifier for each shrinkage, from one eigendecomposition of the covariance."""
    means, within = class_means(moments, texts)
    values, vectors = torch.linalg.eigh(within)
    values = values.clamp_min(0)
    scale = values.mean().clamp_min(TINY)
    rotated = means @ vectors
    result: list[Linear] = []
    for share in shrinkages:
        weight = (rotated / ((1 - share) * values + share * scale)) @ vectors.T
        result.append(Linear(weight, -0.5 * (means * weight).sum(-1)))
    return result


def held_out_scores(
    model: Embeddings,
    moments: Sequence[Moments],
    texts: Float[Tensor, "classes width"],
    parts: Sequence[Int[Tensor, " _"]],
    shrinkages: Sequence[float],
) -> list[Float[Tensor, "rows classes"]]:
    """For each shrinkage, the scores of every part's rows by the classifier of the other parts, in the parts' order."""
    whole = total(moments)
    scores: list[list[Tensor]] = [[] for _ in shrinkages]
    for part, own in zip(parts, moments, strict=True):
        images = model.unit_images(part.to(model.images.device))
        for found, classifier in zip(scores, discriminants(whole - own, texts, shrinkages), strict=True):
            found.append(classifier(images))
    return [torch.cat(found) for found in scores]


def best_temperature(
    scores: Float[Tensor, "rows classes"], posterior: Float[Tensor, "rows classes"], steps: int = 50
) -> tuple[float, float]:
    """The factor b >= 0 with the least cross-entropy of softmax(b scores) with the posterior, and that entropy.

    The loss is convex in b: Newton's method, its step halved while the loss rises.
    """
    unit = (scores - scores.mean(-1, keepdim=True)) / scores.std().clamp_min(TINY)

    def loss(factor: float) -> float:
        return -(posterior * F.log_softmax(factor * unit, -1)).sum(-1).mean().item()

    factor, lowest = 0.0, loss(0.0)
    for _ in range(steps):
        chance = F.softmax(factor * unit, -1)
        mean = (chance * unit).sum(-1, keepdim=True)
        slope = ((chance - posterior) * unit).sum(-1).mean().item()
        curvature = (chance * (unit - mean).square()).sum(-1).mean().item()
        step = -slope / max(curvature, TINY)
        while abs(step) > 1e-6 * max(factor, 1.0) and not loss(max(factor + step, 0.0)) < lowest:
            step /= 2
        found = max(factor + step, 0.0)
        if not loss(found) < lowest - 1e-9:
            break
        factor, lowest = found, loss(found)
    return factor / scores.std().clamp_min(TINY).item(), lowest


@dataclass(frozen=True)
class Chosen:
    """A classifier with shrinkage and temperature chosen on held-out images.

    Attributes:
        classifier: of all images, its scores calibrated: softmax of them is a probability.
        shrinkage: the share of the identity in the covariance.
        temperature: the factor that calibrates the scores.
        rows: the images that were held out in turn.
        held_out: their calibrated scores, each by a classifier that did not see it.
    """

    classifier: Linear
    shrinkage: float
    temperature: float
    rows: Int[Tensor, " rows"]
    held_out: Float[Tensor, "rows classes"]

    def class_counts(self) -> Int[Tensor, " classes"]:
        """How many of the held-out images each class is the answer of.

        A class that the soft labels underrate gets its images back here, since its mean lies where they are.
        """
        return torch.bincount(self.held_out.argmax(-1), minlength=self.held_out.shape[1])


def choose_discriminant(
    model: Embeddings,
    posterior: Float[Tensor, "images classes"],
    texts: Float[Tensor, "classes width"],
    parts: Sequence[Int[Tensor, " _"]],
    moments: Sequence[Moments],
    shrinkages: Sequence[float] = SHRINKAGES,
) -> Chosen:
    """The shrinkage and the temperature whose held-out scores have the least cross-entropy with the soft labels."""
    few = [part[: -(-JUDGED // len(parts))] for part in parts]
    rows = torch.cat(few).to(posterior.device)
    scores = held_out_scores(model, moments, texts, few, shrinkages)
    found = [best_temperature(one, posterior[rows].double()) for one in scores]
    best = min(range(len(shrinkages)), key=lambda place: found[place][1])
    factor = found[best][0]
    linear = discriminants(total(moments), texts, [shrinkages[best]])[0]
    calibrated = Linear(factor * linear.weight, factor * linear.bias)
    return Chosen(calibrated, shrinkages[best], factor, rows, factor * scores[best])
