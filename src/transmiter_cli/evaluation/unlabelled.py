"""What can be known of models without labels: how much they agree, how sure they are, and which answers move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from jaxtyping import Int
from torch import Tensor

from transmiter_cli.evaluation.candidates import Candidate, Cost, Parts, candidates, require_parts
from transmiter_cli.evaluation.rows import REFERENCE
from transmiter_cli.method.agreement import agreement
from transmiter_cli.method.embeddings import InvalidTensorError
from transmiter_cli.method.torch_state import plain_torch

TEACHER = "weak_finetuned"
MOVES = 10
"""Moves from class to class that are listed."""


@dataclass(frozen=True)
class Move:
    """Images whose answer is another than the zero-shot strong model's: how many went from which class to which."""

    before: int
    after: int
    images: int


@dataclass(frozen=True, kw_only=True)
class Unlabelled(Cost):
    """One model's line where there are no labels, with its `Cost`; nothing in it says which model is right.

    Attributes:
        agrees_strong: how often it answers as the zero-shot strong model does, a fraction.
        agrees_finetuned: how often it answers as the fine-tuned weak model does.
        changed: on how many images it answers otherwise than the zero-shot strong model.
        confidence: the mean of its highest probability.
        confidence_shift: that, minus the zero-shot strong model's.
        moves: the most frequent changes of class against the zero-shot strong model.
    """

    confidence: float
    agrees_strong: float | None = None
    agrees_finetuned: float | None = None
    changed: int | None = None
    confidence_shift: float | None = None
    moves: tuple[Move, ...] = ()


@plain_torch()
def evaluate_unlabelled(**parts: Unpack[Parts]) -> dict[str, Unlabelled]:
    """Every model that the given parts allow, on images without labels; `parts` as in `evaluate`.

    Raises:
        InvalidTensorError: if shapes do not match, or values are not finite.
        ValueError: as `evaluate`.
        TypeError: as `evaluate`.
    """
    require_parts("evaluate_unlabelled", parts)
    return describe(candidates(**parts))


def describe(models: Mapping[str, Candidate]) -> dict[str, Unlabelled]:
    """Rows of models; errors as in `evaluate_unlabelled`."""
    predictions: dict[str, Tensor] = {}
    sure: dict[str, float] = {}
    seconds: dict[str, float] = {}
    classes = 0
    for name, model in models.items():
        logits, seconds[name] = model.timed()
        if not len(logits):
            raise InvalidTensorError("there are no images.")
        classes = logits.shape[1]
        predictions[name] = logits.argmax(-1)
        sure[name] = logits.double().softmax(-1).amax(-1).mean().item()
    rows: dict[str, Unlabelled] = {}
    for name, model in models.items():
        found: dict[str, Any] = {"confidence": sure[name]}
        if TEACHER in models:
            found["agrees_finetuned"] = agreement(predictions[name], predictions[TEACHER])
        if REFERENCE in models:
            before = predictions[REFERENCE]
            found["agrees_strong"] = agreement(predictions[name], before)
            found["changed"] = int((predictions[name] != before).sum())
            found["confidence_shift"] = sure[name] - sure[REFERENCE]
            found["moves"] = moves(before, predictions[name], classes)
        rows[name] = Unlabelled(**found, **vars(replace(model.cost, seconds=seconds[name])))
    return rows


def moves(before: Int[Tensor, " images"], after: Int[Tensor, " images"], classes: int) -> tuple[Move, ...]:
    """The most frequent changes of answer, the most frequent first."""
    changed = before != after
    pairs, counts = torch.unique(before[changed] * classes + after[changed], return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:MOVES]
    found = zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    return tuple(Move(pair // classes, pair % classes, count) for pair, count in found)
