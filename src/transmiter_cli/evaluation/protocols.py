"""Base-to-novel evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import InvalidTensorError
from transmiter_cli.method.metrics import harmonic_mean


class Rates(NamedTuple):
    """Accuracy on base and on novel classes, and their harmonic mean."""

    base: float
    novel: float
    hm: float


@dataclass(frozen=True)
class BaseToNovel:
    """The images and classes of both parts.

    Attributes:
        labels: of all images.
        base, novel: class indices.
    """

    labels: Int[Tensor, " images"]
    base: tuple[int, ...]
    novel: tuple[int, ...]

    def rates(self, logits: Float[Tensor, "images classes"]) -> Rates:
        """Accuracy on each part, its images answered among its own classes."""
        base, novel = (accuracy_among(logits, self.labels, part) for part in (self.base, self.novel))
        return Rates(base, novel, harmonic_mean(base, novel))


def base_to_novel(labels: Int[Tensor, " images"], base: Sequence[int], classes: int) -> BaseToNovel:
    """The two parts of a test set.

    Raises:
        InvalidTensorError: if a part has no classes or no images, or `base` names no classes.
    """
    chosen = tuple(sorted(set(base)))
    novel = tuple(sorted({*range(classes)} - {*chosen}))
    if not chosen or not novel or chosen[0] < 0 or chosen[-1] >= classes:
        raise InvalidTensorError(f"base classes must be some, but not all, of the numbers 0 to {classes - 1}.")
    for name, part in (("base", chosen), ("novel", novel)):
        if not bool(torch.isin(labels, torch.tensor(part, device=labels.device)).any()):
            raise InvalidTensorError(f"there are no images of the {name} classes.")
    return BaseToNovel(labels, chosen, novel)


def coop_base(classes: int) -> list[int]:
    """CoOp's rule: the base classes are the first ceil(n/2) labels, sorted by number (Zhou et al., CVPR 2022).

    A task's classes are in that order: the numbers of a CoOp split file, or the sorted names of class folders; but in
    that of a --classes file where fit was given one.
    """
    return list(range(math.ceil(classes / 2)))


def accuracy_among(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], among: Sequence[int]
) -> float:
    """Accuracy on the images of some classes, answered among those classes."""
    columns = torch.tensor(list(among), device=labels.device)
    rows = torch.isin(labels, columns)
    return (columns[logits[rows][:, columns].argmax(-1)] == labels[rows]).double().mean().item()
