"""Columns of a fine-tuned model that stand for other classes than they are named after, told without labels.

A head whose columns are in another order than the names (as text, 10 comes before 2) is right about images and wrong
about names, which zero-shot models know: there are cycles of columns of which each has its images called by the next
one's name. Names that say little look otherwise: images of several classes are called by one name, whose own images
are called by it, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

MAJORITY = 0.5
"""More of a column's images than that, on average over a cycle, are called by the next one's name, by each model."""
CLAIMED = 0.75
"""At least so many of a cycle's columns claim a name; the others have what is left. All of two or three must."""


def mixed_up(said: Int[Tensor, " images"], zero_shot: Sequence[Int[Tensor, " images"]], classes: int) -> dict[int, int]:
    """Which columns of a fine-tuned model are mixed up, and the class that each of them stands for.

    Args:
        said: the fine-tuned model's answers.
        zero_shot: those of one or several zero-shot models to the same images.
        classes: C.
    """
    claimed = claims(said, zero_shot, classes)
    found: dict[int, int] = {}
    for cycle in cycles(claimed, classes):
        order = torch.arange(classes, device=said.device)
        order[cycle] = torch.tensor([*cycle[1:], cycle[0]], device=said.device)
        certain = len(claimed.keys() & set(cycle)) >= CLAIMED * len(cycle)
        if certain and all(called(said, order, one, cycle) > MAJORITY for one in zero_shot):
            found |= {column: int(order[column]) for column in cycle}
    return found


def called(
    said: Int[Tensor, " images"],
    order: Int[Tensor, " classes"],
    zero_shot: Int[Tensor, " images"],
    columns: Sequence[int],
) -> float:
    """The share of a column's images that a zero-shot model calls by the name it has in this order, a mean of some."""
    images = torch.bincount(said, minlength=len(order))
    alike = torch.bincount(said[order[said] == zero_shot], minlength=len(order))
    return (alike / images)[list(columns)].nanmean().item()


def claims(said: Int[Tensor, " images"], zero_shot: Sequence[Int[Tensor, " images"]], classes: int) -> dict[int, int]:
    """For columns of a fine-tuned model, the name that zero-shot models call their images by most often, none twice.

    A name is its own column's, if that is most often called by it, else that of the column with most such images: more
    than one, which says little.
    """
    pairs, votes = torch.unique(torch.cat([said * classes + one for one in zero_shot]), return_counts=True)
    columns, names = pairs // classes, pairs % classes
    ranked = sorted(zip((-votes).tolist(), (columns != names).tolist(), columns.tolist(), names.tolist(), strict=True))
    commonest: dict[int, tuple[int, int]] = {}
    for less, _, column, name in ranked:
        commonest.setdefault(column, (name, -less))
    taken = {name for column, (name, _) in commonest.items() if column == name}
    found = {name: name for name in taken}
    for column, (name, count) in commonest.items():
        if name not in taken and count > len(zero_shot):
            found[column] = name
            taken.add(name)
    return found


def cycles(claimed: Mapping[int, int], classes: int) -> Iterator[list[int]]:
    """Columns of which each claims the next one's name, two at least; the last one claims the first one's, or none."""
    unclaimed, left = set(range(classes)) - set(claimed.values()), set(range(classes))
    for start in (*sorted(unclaimed), *range(classes)):
        cycle: list[int] = []
        column = start
        while column in left:
            left.remove(column)
            cycle.append(column)
            column = claimed.get(column, start)
        if len(cycle) > 1:
            yield cycle
