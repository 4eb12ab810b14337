"""Strengths of regularisation, chosen without labels on unlabelled images that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.folds import JUDGED, Folds, evenly_spaced
from transmiter_cli.method.linear.moments import Moments, total
from transmiter_cli.method.linear.ridge import ridge_path
from transmiter_cli.method.paper.cross_moment import CrossMoment
from transmiter_cli.method.paper.transfer import basis_rotations

REGS = (0.01, 0.1, 1.0, 10.0, 100.0)
SAME_RESIDUAL = 1e-9
"""Residuals that differ by this part of what is explained are the same, and more regularisation is taken."""
RHOS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def choose_reg(
    parts: Sequence[CrossMoment], basis: Float[Tensor, "basis vocabulary"], candidates: Sequence[float] = REGS
) -> float:
    """The `reg` whose rotation, solved without a part of the images, has the least |H_t Omega - H_s|^2 on that part.

    Omega is orthogonal, so the residual is a constant less 2 tr(Omega' H_t'H_s): only the cross-moments of the
    parts are needed. Parts are held out in turn until JUDGED images were.

    Args:
        parts: the moments of two or more disjoint parts of the images, the largest first.
        basis: B.
        candidates: what is chosen from.
    """
    whole = reduce(add, parts)
    explained = whole.sum.new_zeros(len(candidates))
    for part in parts[: -(-JUDGED // parts[0].images)]:
        rotations = basis_rotations([whole - part], basis, candidates)[0]
        explained += (rotations * part.in_basis(basis)).sum((1, 2))
    alike = explained >= explained.max() - SAME_RESIDUAL * explained.max().abs()
    return max(one for one, best in zip(candidates, alike.tolist(), strict=True) if best)


def choose_rho(
    strong: Embeddings,
    finetuned_logits: Float[Tensor, "images classes"],
    folds: Folds,
    parts: Sequence[Moments],
) -> float:
    """The `rho` of ridge transfer whose solution without a part of the images predicts that part best.

    Ridge transfer distils softmax(z + L) into softmax(z + x W): the least cross-entropy between the two wins.

    Args:
        strong: the strong model on the unlabelled images.
        finetuned_logits: the fine-tuned weak model on the same images.
        folds: two or more parts of the images.
        parts: their moments.
    """
    whole, texts = total(parts), strong.classifier(finetuned_logits.shape[1]).double()
    entropy = dict.fromkeys(RHOS, 0.0)
    for part, own in zip(folds.rows, parts, strict=True):
        rest = whole - own
        rows = evenly_spaced(part, -(-JUDGED // len(parts))).to(finetuned_logits.device)
        held = strong.unit_images(rows).double()
        zero_shot = held @ texts.T
        wanted = F.softmax(zero_shot + finetuned_logits[rows].double(), -1)
        for rho, weight in zip(RHOS, ridge_path(rest.gram, rest.sums.T, RHOS), strict=True):
            entropy[rho] -= (wanted * F.log_softmax(zero_shot + held @ weight, -1)).sum().item()
    return min(RHOS, key=lambda rho: entropy[rho])
