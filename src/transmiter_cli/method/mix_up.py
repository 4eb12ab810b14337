"""Columns of a fine-tuned model that stand for other classes than they are named after, told without labels.

A head whose columns are in another order than the names (as text, 10 comes before 2) is right about images and wrong
about names, which a zero-shot model knows: what one column answers is called by the name of another one, and what that
one answers is not. Names that say little look otherwise: images of several classes are called by one name, those of its
own class among them.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

MAJORITY = 0.5
"""More of a column's images than that are called by the name that it claims."""
FEWEST_CLAIMS, CLAIMING = 3, 0.25
"""The claims that are needed, as a number and as a share of the columns that answer anything, before an order is called
mixed up: zero-shot models take fewer classes than that for others."""
FEWEST_IMAGES = 5
"""Of each of two columns: that these claim each other's names is no coincidence, where the images are no fewer."""


def mixed_up(teacher: Int[Tensor, " images"], zero_shot: Int[Tensor, " images"], classes: int) -> dict[int, int]:
    """Columns of a fine-tuned model that look to be mixed up, or pairs swapped, and the class each seems to stand for.

    Args:
        teacher: the fine-tuned model's answers.
        zero_shot: those of a zero-shot model to the same images.
        classes: C.
    """
    found = claims(teacher, zero_shot, classes)
    if len(found) >= max(FEWEST_CLAIMS, CLAIMING * len(teacher.unique())):
        return found
    images = torch.bincount(teacher, minlength=classes).tolist()
    return {
        column: name
        for column, name in found.items()
        if found.get(name) == column and min(images[column], images[name]) >= FEWEST_IMAGES
    }


def claims(teacher: Int[Tensor, " images"], zero_shot: Int[Tensor, " images"], classes: int) -> dict[int, int]:
    """For columns whose images a zero-shot model mostly calls by another column's name: that name.

    Two images at least; no name that several columns claim, its own among them.
    """
    pairs, counts = torch.unique(teacher * classes + zero_shot, return_counts=True)
    columns, names = pairs // classes, pairs % classes
    most = (counts > MAJORITY * torch.bincount(teacher, minlength=classes)[columns]) & (counts > 1)
    columns, names = columns[most], names[most]
    alone = (columns != names) & (torch.bincount(names, minlength=classes)[names] == 1)
    return dict(zip(columns[alone].tolist(), names[alone].tolist(), strict=True))
