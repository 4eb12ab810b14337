"""First and second moments of images with targets, which all solves in closed form start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.embeddings import Embeddings, block_rows
from transmiter_cli.method.folds import Folds
from transmiter_cli.method.per_image import PerImage


@dataclass(frozen=True)
class Moments:
    """What images X with targets P of each class contribute, in float64; those of disjoint images add up.

    Products are taken in float32 within a block of images and summed over blocks in float64.

    Attributes:
        gram: X'X.
        sums: P'X.
        mass: the column sums of P: of soft labels, how many images each class has.
    """

    gram: Float[Tensor, "width width"]
    sums: Float[Tensor, "classes width"]
    mass: Float[Tensor, " classes"]

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.sums + other.sums, self.mass + other.mass)

    def __sub__(self, other: Moments) -> Moments:
        return Moments(self.gram - other.gram, self.sums - other.sums, self.mass - other.mass)


def fold_moments(model: Embeddings, targets: PerImage, folds: Folds) -> list[Moments]:
    """The moments of each part.

    Sums are taken about the first image of a block: equal soft labels times what all images have in common would round
    alike, again and again, and leave a covariance that is not positive.
    """
    classes = targets.shape[1]
    result: list[Moments] = []
    for part, gram in zip(folds.rows, folds.grams, strict=True):
        sums, mass = gram.new_zeros(classes, len(gram)), gram.new_zeros(classes)
        for rows in part.to(gram.device).split(block_rows(classes)):
            labels = targets[rows]
            images = model.unit_images(rows).to(labels.dtype)
            count = labels.double().sum(0)
            about = images[:1]
            sums += labels.T @ (images - about) + torch.outer(count, about.double().sum(0))
            mass += count
        result.append(Moments(gram, sums, mass))
    return result


def total(moments: Sequence[Moments]) -> Moments:
    """The moments of all parts together."""
    return reduce(add, moments)
