"""Numbers of each image, such as logits: a tensor, or what computes them for the images that are looked at.

Logits and posteriors of N images and C classes follow from embeddings, which are smaller. What only looks at a block of
images at a time takes either, so that N x C of them need not be there at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import Embeddings, blocks

Rows = slice | Tensor


@runtime_checkable
class PerImage(Protocol):
    """A matrix with a row per image, of which rows can be had."""

    @property
    def shape(self) -> Sequence[int]:
        """Images, and numbers per image."""
        ...

    def __getitem__(self, rows: Rows, /) -> Tensor:
        """The chosen rows."""
        ...


@dataclass(frozen=True)
class Computed:
    """Rows that are computed each time they are asked for.

    Attributes:
        shape: images, and numbers per image.
        compute: gives the chosen rows.
    """

    shape: tuple[int, int]
    compute: Callable[[Rows], Tensor]

    def __getitem__(self, rows: Rows, /) -> Tensor:
        return self.compute(rows)


def computed_zero_shot_logits(model: Embeddings, classes: int) -> Computed:
    """The first C columns of the zero-shot logits s X T'."""
    classifier = model.classifier(classes).T
    return Computed((len(model), classes), lambda rows: model.unit_images(rows) @ classifier)


def zero_shot_class_logits(model: Embeddings, classes: int) -> Float[Tensor, "images classes"]:
    """The same as a tensor; neither the auxiliary words' columns nor a copy of the images is ever formed."""
    computed = computed_zero_shot_logits(model, classes)
    return torch.cat([computed[rows] for rows in blocks_of(computed)])


def softmax_of(logits: PerImage) -> Computed:
    """The softmax of each row."""
    images, classes = logits.shape
    return Computed((images, classes), lambda rows: probabilities(logits[rows]))


def probabilities(logits: Float[Tensor, "rows classes"]) -> Float[Tensor, "rows classes"]:
    """The softmax of each row, in float32 at least."""
    return F.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)


def centred(logits: Float[Tensor, "rows classes"]) -> Float[Tensor, "rows classes"]:
    """Rows less their means, which no softmax sees."""
    return logits - logits.mean(-1, keepdim=True)


def blocks_of(numbers: PerImage) -> Iterator[slice]:
    """`blocks` of all images."""
    images, width = numbers.shape
    return blocks(images, width)


def predictions(scores: PerImage) -> Int[Tensor, " images"]:
    """The class with the highest score, of each image."""
    return torch.cat([scores[rows].argmax(-1) for rows in blocks_of(scores)])


def above_errors(differences: Float[Tensor, " images"], errors: float) -> bool:
    """Whether the mean over images is more than so many of its standard errors above 0."""
    error = differences.std(unbiased=False) / len(differences) ** 0.5
    return bool(differences.mean() > errors * error)
