"""Strengths of regularisation, chosen without labels: by the residual on unlabelled images that were held out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.discriminant import fold_moments, fold_rows, grams, total
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.moments import cross_moment
from transmiter_cli.method.polar import polar_factor

REGS = (0.01, 0.1, 1.0, 10.0, 100.0)
RHOS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def choose_reg(
    target: Embeddings,
    source: Embeddings,
    basis: Float[Tensor, "basis vocabulary"],
    candidates: Sequence[float] = REGS,
) -> float:
    """The `reg` whose rotation, solved on four fifths of the images, has the least |H_t Omega - H_s|^2 on the others.

    Omega is orthogonal, so the residual is a constant less 2 tr(Omega' H_t'H_s): only the cross-moments of the
    fifths are needed.

    Raises:
        InvalidTensorError: if the models do not share images and vocabulary.
    """
    if len(target) != len(source):
        raise InvalidTensorError(f"the two models have {len(target)} and {len(source)} images; they must be the same.")
    parts = fold_rows(len(target))
    moments = [cross_moment(of_rows(target, part), of_rows(source, part)).in_basis(basis) for part in parts]
    whole = torch.stack(moments).sum(0)
    identity = torch.eye(len(whole), dtype=whole.dtype, device=whole.device)
    strengths = torch.tensor(candidates, dtype=whole.dtype, device=whole.device)[:, None, None]
    explained = torch.zeros(len(candidates), dtype=whole.dtype, device=whole.device)
    for part, own in zip(parts, moments, strict=True):
        rotations = polar_factor(whole - own + strengths * (len(target) - len(part)) * identity)
        explained += (rotations * own).sum((1, 2))
    return candidates[int(explained.argmax())]


def choose_rho(
    strong: Embeddings, finetuned_logits: Float[Tensor, "images classes"], candidates: Sequence[float] = RHOS
) -> float:
    """The `rho` of ridge transfer whose solution on four fifths of the images has the least residual on the others.

    With X'X = V E V', the residual of W = V (E + r)^-1 V'X'L on other images is, up to a constant,
    tr(W'GW) - 2 tr(W'K), G and K being their X'X and X'L.
    """
    logs = F.log_softmax(finetuned_logits.double(), -1)
    parts = fold_rows(len(strong))
    moments = fold_moments(strong, logs - logs.mean(-1, keepdim=True), parts, grams(strong, parts))
    whole = total(moments)
    residuals = dict.fromkeys(candidates, 0.0)
    for own in moments:
        rest = whole - own
        values, vectors = torch.linalg.eigh(rest.gram)
        rotated = vectors.T @ rest.sums.T
        for rho in candidates:
            weight = vectors @ (rotated / (values + rho * values.mean())[:, None])
            residuals[rho] += (weight * (own.gram @ weight)).sum().item() - 2 * (weight * own.sums.T).sum().item()
    return min(candidates, key=lambda rho: residuals[rho])


def of_rows(model: Embeddings, rows: Tensor) -> Embeddings:
    """A model on some of its images."""
    return Embeddings(model.images[rows.to(model.images.device)], model.texts, model.logit_scale)
