"""How often two models answer alike, beyond chance, by the same names or by any, and what that tells of both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import TINY

SHARED = 0.3
"""h, which smooths the ratio named_z: a name for three classes tells one of them, which is no mix-up of columns."""


def agreement(first: Int[Tensor, " images"], second: Int[Tensor, " images"]) -> float:
    """How often two models give the same answer."""
    return (first == second).double().mean().item()


def beyond_chance(rate: float, classes: int) -> float:
    """(C rate - 1) / (C - 1), 0 at least: 1 for always, 0 for as often as by chance or less."""
    return max((classes * rate - 1) / (classes - 1), 0.0)


def beyond_chance_of(rates: Float[Tensor, " rates"], classes: int) -> Float[Tensor, " rates"]:
    """`beyond_chance` of each rate."""
    return ((classes * rates - 1) / (classes - 1)).clamp_min(0)


def kappa(first: Int[Tensor, " images"], second: Int[Tensor, " images"], classes: int) -> float:
    """How often two models answer alike, beyond a chance of 1 / C (Brennan and Prediger's kappa, 1981), 0 at least."""
    return beyond_chance(agreement(first, second), classes)


def independent_shares(answers: Sequence[Int[Tensor, " images"]], trust: Sequence[float], classes: int) -> list[float]:
    """How much of what each of several models says is its own, 0 to 1: copies of one model count as one together.

    Two models that err independently of each other agree, beyond chance, on q_i q_j of the images. By how much they
    agree more often, of what is left, is how much of one the other repeats: 0 at least, and 1 for a copy. A model's
    share is 1 / (1 + what all others repeat of it).

    Args:
        answers: of each model.
        trust: q of each, 0 to 1.
        classes: how many there are to answer among.
    """

    def repeated(one: int, other: int) -> float:
        by_chance = trust[one] * trust[other]
        return max(kappa(answers[one], answers[other], classes) - by_chance, 0.0) / max(1 - by_chance, TINY)

    every = range(len(answers))
    return [1 / (1 + sum(repeated(one, other) for other in every if other != one)) for one in every]


def predictability(first: Int[Tensor, " images"], second: Int[Tensor, " images"], classes: int) -> float:
    """How often a second model's answer is told by the first's, beyond chance, whatever the two call it.

    It is where more of the other images with the same first answer have the same second one than any other. Where
    few second answers occur at all, a first one tells some of them by chance.
    """
    pairs, counts = torch.unique(first * classes + second, return_counts=True)
    given = pairs // classes

    def largest(values: Int[Tensor, " pairs"]) -> Int[Tensor, " pairs"]:
        return values.new_zeros(classes).scatter_reduce(0, given, values, "amax")[given]

    # The commonest second answer to each first one, where it leads the next by two or more.
    commonest = counts == largest(counts)
    alone = torch.bincount(given[commonest], minlength=classes)[given] == 1
    leads = commonest & alone & (counts - 1 > largest(counts.masked_fill(commonest, 0)))
    return beyond_chance(counts[leads].sum().item() / len(first), classes)


def named_alike(first: Int[Tensor, " images"], second: Int[Tensor, " images"], classes: int) -> float:
    """How much of what a first model's answers tell of the second's they tell by the same name: 0 to 1."""
    predicted = predictability(first, second, classes)
    return min(1.0, (kappa(first, second, classes) + SHARED) / (predicted + SHARED))


def order_evidence(first: Int[Tensor, " images"], second: Int[Tensor, " images"], classes: int) -> float:
    """How much more often two models agree than if one's classes had a random order, in standard deviations of that.

    With J the C x C numbers of images that get each pair of answers, an order pi has sum_i J[i, pi(i)] agreements. Over
    all orders, their mean is N / C and their variance |H J H|^2 / (C - 1), H = I - 11'/C (Hoeffding, 1951). It hardly
    depends on how much the answers tell of each other, but on how much of it they tell by the same name: it is C - 1,
    the most there is, if all of it and the classes are even.

    0 if no order agrees more often than another.
    """
    _, pairs = torch.unique(first * classes + second, return_counts=True)
    given, told = (torch.bincount(one, minlength=classes) for one in (first, second))
    squares, rows, columns = (one.double().square().sum().item() for one in (pairs, given, told))
    images = len(first)
    variance = (squares - (rows + columns) / classes + (images / classes) ** 2) / (classes - 1)
    excess = (first == second).sum().item() - images / classes
    return excess / variance**0.5 if variance > TINY * images**2 else 0.0
