"""A classifier head over the weak model's embeddings: from a file, as probes and tuned prompts are, or made here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor

from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.workspace import CachedEncoder
from transmiter_cli.errors import TransmiterError, mended_by
from transmiter_cli.method.embeddings import Embeddings, require_finite
from transmiter_cli.method.linear.probe import linear_probe

UNIT_NORM_TOLERANCE = 1e-2
"""Rows whose norms differ from 1 by less are text features."""


@dataclass(frozen=True)
class FinetunedHead:
    """A linear classifier over the weak model's unit-norm embeddings: logits = x W' + b."""

    weight: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"] | None = None

    def logits(self, files: Sequence[ImageRecord], weak_images: Tensor) -> Tensor:
        """See `FinetunedModel`."""
        return F.linear(F.normalize(weak_images.float(), dim=-1), self.weight, self.bias)

    def head(self) -> Tensor:
        """See `FinetunedModel`."""
        return self.weight

    def check(self, files: Sequence[ImageRecord]) -> None:
        """See `FinetunedModel`: it answers for whatever the weak model encodes."""


def probe_head(weak: Embeddings, labels: Int[Tensor, " images"], classes: int, seed: int) -> FinetunedHead:
    """A linear probe of the weak model, trained on labelled images."""
    return FinetunedHead(linear_probe(weak, labels, classes, seed).cpu())


def is_head(names: Collection[str]) -> bool:
    """Whether the tensors of a file are those of one linear layer: weight and bias, whatever stands before."""
    last = [name.rpartition(".")[2] for name in names]
    return sorted(last) in (["weight"], ["bias", "weight"])


def by_last_part(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of one layer by the last part of their names: "fc.weight" is "weight"."""
    return {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}


def checked_head(path: Path, tensors: Mapping[str, Any], weak: CachedEncoder, classes: int) -> FinetunedHead:
    """A head; rows of unit norm are text features of tuned prompts, so they get the weak model's logit scale."""
    weight, bias = tensors["weight"], tensors.get("bias")
    if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise TransmiterError(f"The head in {path} is no tensor.", "save it as safetensors: weight (C x d), bias (C)")
    weight = weight.float()
    if bias is not None and bias.shape != (classes,):
        whole = f"save the whole head: a bias of {classes} numbers beside its weight"
        flat = "save it flat, bias.flatten()" if bias.numel() == classes else whole
        raise TransmiterError(
            f"The bias in {path} has shape {tuple(bias.shape)}, but the task has {classes} classes.",
            flat if len(weight) == classes else fitting_weight(weight, weak, classes),
        )
    if weight.shape != (classes, weak.width):
        raise TransmiterError(
            f"The head in {path} has shape {tuple(weight.shape)}, but the task has {classes} classes "
            f"and embeddings of {weak.name} have {weak.width} numbers.",
            fitting_weight(weight, weak, classes),
        )
    bias = None if bias is None else bias.float()
    with mended_by("save the head again, once its numbers are finite"):
        require_finite(f"the weights in {path}", weight)
        if bias is not None:
            require_finite(f"the bias in {path}", bias)
    if bias is None and has_unit_rows(weight):
        weight = weak.facts.logit_scale * weight
    return FinetunedHead(weight, bias)


def has_unit_rows(weight: Tensor) -> bool:
    """Whether a weight's rows all have unit norm, as text features have."""
    return bool(((weight.norm(dim=-1) - 1).abs() < UNIT_NORM_TOLERANCE).all())


def fitting_weight(weight: Tensor, weak: CachedEncoder, classes: int) -> str:
    """What helps where a head's weight is not C x d."""
    if weight.shape == (weak.width, classes):
        return "save the transpose, weight.T.contiguous()"
    if weight.ndim != 2 and weight.numel() == classes * weak.width:
        return "save it flat, weight.flatten(1)"
    if weight.shape[1:] != (weak.width,):
        return f"pass a head that was trained on embeddings of {weak.name}, or fit --weak MODEL for it"
    if len(weight) > classes:
        return "--classes FILE with all of the head's classes, or a head of the task's alone"
    padded = "give each class that it does not know a row of zeros and a bias of -100, in the order of the classes"
    scaled = f", and multiply the others by the logit scale, {weak.facts.logit_scale:g}"
    return padded + scaled if has_unit_rows(weight) else padded


def save_head(head: FinetunedHead) -> bytes:
    """A head as a safetensors file. Its zero bias says that the weight is complete: rows of unit norm alone are
    taken for text features, and get the logit scale.
    """
    bias = torch.zeros(len(head.weight)) if head.bias is None else head.bias
    return save({"weight": head.weight, "bias": bias})
