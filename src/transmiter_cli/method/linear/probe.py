"""A linear probe that starts from the zero-shot classifier: the simplest fine-tuned weak model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.folds import FOLDS, stratified_folds

STRENGTHS = (10.0, 1.0, 0.1, 0.01, 0.001)
"""Candidate penalties on the distance from the zero-shot classifier."""


def linear_probe(
    labelled: Embeddings,
    labels: Int[Tensor, " images"],
    classes: int,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
) -> Float[Tensor, "classes width"]:
    """W of the probe's logits x W', W = s (T + V), by logistic regression with a penalty on |V|^2.

    The penalty is the one with the lowest cross-entropy on a held-out fifth of the labelled images; the probe
    is then trained on all of them.

    Args:
        labelled: the weak model on labelled images and the vocabulary.
        labels: class indices.
        classes: C.
        seed: decides the held-out fifth.
        strengths: penalties to choose from.
    """
    images = labelled.unit_images()
    start = labelled.unit_texts()[:classes]
    scale = labelled.logit_scale
    held_out, *others = stratified_folds(labels, FOLDS, seed)

    def held_out_loss(strength: float) -> float:
        rows = torch.cat(others)
        classifier = logistic_regression(images[rows], labels[rows], start, scale, strength)
        return F.cross_entropy(scale * images[held_out] @ classifier.T, labels[held_out]).item()

    best = min(strengths, key=held_out_loss) if others else strengths[0]
    return scale * logistic_regression(images, labels, start, scale, best)


def logistic_regression(
    images: Float[Tensor, "images width"],
    labels: Int[Tensor, " images"],
    start: Float[Tensor, "classes width"],
    scale: float,
    strength: float,
) -> Float[Tensor, "classes width"]:
    """T + V that minimises cross-entropy(s X (T + V)') + strength |V|^2, by L-BFGS from V = 0."""
    shift = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.LBFGS([shift], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(scale * images @ (start + shift).T, labels) + strength * shift.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return (start + shift).detach()
