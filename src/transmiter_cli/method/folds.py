"""Parts of the images that are held out in turn, and what each contributes to a solve in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import BLOCK, Embeddings

FOLDS = 5
JUDGED = 8192
"""Most held-out images that a choice is made on."""
NUMBERS = 2**26
"""Most scores that are held at a time: with many classes, fewer images are sampled."""
LOOKED_AT = 4096
"""Most images of a random sample, as where classes are left out."""


def fold_rows(images: int, folds: int = FOLDS) -> list[Int[Tensor, " _"]]:
    """Random disjoint parts of all rows, sorted; as many parts as there are images where those are fewer."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(0))
    return [order[start::folds].sort().values for start in range(min(folds, images))]


def evenly_spaced(rows: Int[Tensor, " rows"], most: int) -> Int[Tensor, " some"]:
    """At most so many of the rows, at even distances: in a list that is sorted by class, each class keeps its share."""
    return rows[torch.arange(most) * len(rows) // most] if most < len(rows) else rows


def all_rows(strong: Embeddings) -> Int[Tensor, " rows"]:
    """The numbers of all images."""
    return torch.arange(len(strong), device=strong.images.device)


def sampled_rows(rows: Int[Tensor, " rows"], classes: int) -> Int[Tensor, " some"]:
    """A random choice of images, as many as can be looked at at once."""
    most = min(LOOKED_AT, max(1, NUMBERS // classes))
    generator = torch.Generator().manual_seed(0)
    return rows[torch.randperm(len(rows), generator=generator)[:most].to(rows.device)]


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


def stratified_folds(labels: Int[Tensor, " images"], folds: int, seed: int) -> list[Int[Tensor, " rows"]]:
    """Rows of at most `folds` disjoint parts with equal shares of each class; together they are all rows.

    Each class is dealt out in turn, in a random order, where the class before it left off, so that classes
    of a single image are spread over the parts, too.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    dealt = shuffled[labels.cpu()[shuffled].argsort(stable=True)].to(labels.device)
    return [part for start in range(folds) if len(part := dealt[start::folds])]
