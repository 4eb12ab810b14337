"""How far each model's answers can be trusted, without labels, and what they say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.logits import class_logits

LEAST_AGREEMENT = 0.05
"""Agreement beyond chance below which two models have nothing in common."""
ROUNDS = 30


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned weak model and its zero-shot twin on the unlabelled images.

    Attributes:
        finetuned: its logits of the classes.
        weak: the model that it was fine-tuned from, with the strong model's vocabulary.
        heads: what it multiplies image embeddings with, its logit scale included, where that is known and as wide as
            the weak model's embeddings.
    """

    finetuned: Float[Tensor, "images classes"]
    weak: Embeddings
    heads: Float[Tensor, "classes width"] | None = None

    @property
    def classes(self) -> int:
        """C, the number of task classes."""
        return self.finetuned.shape[1]

    def weak_heads(self) -> Float[Tensor, "classes width"]:
        """What the weak model multiplies image embeddings with: s T[:C]."""
        return self.weak.logit_scale * self.weak.unit_texts()[: self.classes]

    @cached_property
    def weak_logits(self) -> Float[Tensor, "images classes"]:
        """The weak model's zero-shot logits of the classes."""
        return class_logits(self.weak, self.classes)


def agreement(first: Float[Tensor, "images classes"], second: Float[Tensor, "images classes"]) -> float:
    """On how many images two models answer alike, beyond chance: 1 always, 0 as often as by chance or less."""
    classes = first.shape[1]
    rate = (first.argmax(-1) == second.argmax(-1)).double().mean().item()
    return max((classes * rate - 1) / (classes - 1), 0.0)


def third_party(first: float, second: float, between: float) -> float:
    """How often a model is right, beyond chance, from agreements alone.

    If three models err independently, their agreements beyond chance are products of how often each is right
    beyond chance, a_ij = q_i q_j, so that q_1^2 = a_12 a_13 / a_23 (Platanios et al., UAI 2014).

    Args:
        first, second: the model's agreements with the two others.
        between: the agreement of these two. Where they have nothing in common they are no witnesses:
            the larger of the two agreements is then taken for q^2.
    """
    if between < LEAST_AGREEMENT:
        return math.sqrt(max(first, second))
    return min(1.0, math.sqrt(first * second / between))


def pooled_log_posterior(
    answers: Sequence[Float[Tensor, "images classes"]], reliabilities: Sequence[float]
) -> Float[Tensor, "images classes"]:
    """Sum over the models of log(r p + (1 - r) / C), float64: a model that cannot be trusted has no say.

    Args:
        answers: logits of each model.
        reliabilities: r of each, from 0 to 1.
    """
    classes = answers[0].shape[1]
    summed = torch.zeros_like(answers[0], dtype=torch.float64)
    for logits, trust in zip(answers, reliabilities, strict=True):
        summed += torch.log(trust * F.softmax(logits.double(), -1) + max(1 - trust, 1e-9) / classes)
    return summed


def class_counts(log_posterior: Float[Tensor, "images classes"]) -> Float[Tensor, " classes"]:
    """How many images each class has, by expectation maximisation on the class prior (Saerens et al., 2002).

    A class with no image of its own loses the small share that every image's posterior leaves it.
    """
    images, classes = log_posterior.shape
    counts = log_posterior.new_full((classes,), images / classes)
    for _ in range(ROUNDS):
        prior = (counts + 1) / (images + classes)
        counts = F.softmax(log_posterior + prior.log(), -1).sum(0)
    return counts
