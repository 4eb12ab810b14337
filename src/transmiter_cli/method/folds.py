"""Parts of the images that are held out in turn, and what each contributes to a solve in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import BLOCK, Embeddings, block_rows
from transmiter_cli.method.per_image import PerImage

FOLDS = 5
JUDGED = 8192
"""Most held-out images that a choice is made on."""
NUMBERS = 2**26
"""Most scores that are compared at a time; of very many classes, fewer images are looked at."""


def fold_rows(images: int, folds: int = FOLDS) -> list[Int[Tensor, " _"]]:
    """Random disjoint parts of all rows, sorted; as many parts as there are images where those are fewer."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(0))
    return [order[start::folds].sort().values for start in range(min(folds, images))]


def evenly_spaced(rows: Int[Tensor, " rows"], most: int) -> Int[Tensor, " some"]:
    """At most so many of the rows, at even distances: in a list that is sorted by class, each class keeps its share."""
    return rows[torch.arange(most) * len(rows) // most] if most < len(rows) else rows


@dataclass(frozen=True)
class Folds:
    """Disjoint parts of a model's images, which together are all of them.

    Attributes:
        rows: of each part.
        grams: X'X of each part, float64, with its share of a prior; all soft labels have them in common.
    """

    rows: Sequence[Int[Tensor, " _"]]
    grams: Sequence[Float[Tensor, "width width"]]


def folds_of(
    model: Embeddings,
    rows: Sequence[Int[Tensor, " _"]] | None = None,
    prior: Float[Tensor, "width width"] | float = 0.0,
) -> Folds:
    """The folds of a model's images.

    Args:
        model: the model.
        rows: of each part; random ones if None.
        prior: added to X'X, an equal share to each part.
    """
    rows, width = fold_rows(len(model)) if rows is None else rows, model.images.shape[1]
    grams: list[Tensor] = []
    for part in rows:
        gram = model.images.new_zeros(width, width, dtype=torch.float64)
        for block in part.to(gram.device).split(BLOCK):
            images = model.unit_images(block)
            gram += images.T @ images
        grams.append(gram + prior / len(rows))
    return Folds(rows, grams)


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
    """The moments of each part."""
    classes = targets.shape[1]
    result: list[Moments] = []
    for part, gram in zip(folds.rows, folds.grams, strict=True):
        sums, mass = gram.new_zeros(classes, len(gram)), gram.new_zeros(classes)
        for rows in part.to(gram.device).split(block_rows(classes)):
            wanted = targets[rows]
            sums += wanted.T @ model.unit_images(rows).to(wanted.dtype)
            mass += wanted.double().sum(0)
        result.append(Moments(gram, sums, mass))
    return result


def total(moments: Sequence[Moments]) -> Moments:
    """The sum of the parts."""
    return reduce(add, moments)


def stratified_folds(labels: Int[Tensor, " images"], folds: int, seed: int) -> list[Int[Tensor, " rows"]]:
    """Rows of at most `folds` disjoint parts with equal shares of each class; together they are all rows.

    Each class is dealt out in turn, in a random order, where the class before it left off, so that classes
    of a single image are spread over the parts, too.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    dealt = shuffled[labels.cpu()[shuffled].argsort(stable=True)].to(labels.device)
    return [part for start in range(folds) if len(part := dealt[start::folds])]
