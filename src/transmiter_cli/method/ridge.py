"""Ridge transfer: the fine-tuned weak model's answers, regressed on the strong model's own embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import TINY, Embeddings, InvalidTensorError, block_rows, check_teacher
from transmiter_cli.method.linear import Linear
from transmiter_cli.method.per_image import centred


@dataclass(frozen=True)
class RidgeMoments:
    """What unlabelled images contribute to ridge transfer, in float64; those of disjoint images add up.

    Attributes:
        gram: X'X.
        cross: X'L, with L centred in each row.
    """

    gram: Float[Tensor, "width width"]
    cross: Float[Tensor, "width classes"]

    def __add__(self, other: RidgeMoments) -> RidgeMoments:
        return RidgeMoments(self.gram + other.gram, self.cross + other.cross)

    def __sub__(self, other: RidgeMoments) -> RidgeMoments:
        return RidgeMoments(self.gram - other.gram, self.cross - other.cross)


def ridge_transfer(strong: Embeddings, moments: RidgeMoments, rho: float) -> Linear:
    """The classifier s T[:C] + W' with W = (X'X + rho mean(diag X'X) I)^-1 X'L, by one Cholesky factorisation.

    L are the fine-tuned weak model's log-probabilities, centred in each row. The result is the geometric
    ensemble of the strong and the fine-tuned weak model, distilled into the strong one.

    Args:
        strong: its texts and logit scale are used.
        moments: of the strong and the fine-tuned weak model on the unlabelled images.
        rho: ridge strength relative to the mean of X'X's diagonal.

    Raises:
        InvalidTensorError: if rho is too small for these embeddings.
    """
    change = solve_ridge(moments.gram, moments.cross, rho).T
    return Linear.zero_shot(strong, len(change)) + Linear(change, change.new_zeros(len(change)))


def solve_ridge(
    gram: Float[Tensor, "width width"], cross: Float[Tensor, "width targets"], rho: float
) -> Float[Tensor, "width targets"]:
    """(G + rho mean(diag G) I)^-1 C, by one Cholesky factorisation.

    Raises:
        InvalidTensorError: if rho is too small for the matrix to be positive.
    """
    level = (rho * gram.diagonal().mean()).clamp_min(TINY)  # embeddings that are all alike have no moments
    factor, failed = torch.linalg.cholesky_ex(gram + level * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    if bool(failed):
        raise InvalidTensorError(f"a ridge strength of {rho} is too small for these embeddings.", "a larger --rho")
    return torch.cholesky_solve(cross, factor)


def ridge_path(
    gram: Float[Tensor, "width width"], cross: Float[Tensor, "width targets"], rhos: Sequence[float]
) -> Iterator[Float[Tensor, "width targets"]]:
    """The same for each rho, from one eigendecomposition G = V E V': V (E + rho mean(diag G) I)^-1 V'C."""
    values, vectors = torch.linalg.eigh(gram)
    values, rotated = values.clamp_min(0), vectors.T @ cross
    for rho in rhos:
        level = (rho * values.mean()).clamp_min(TINY)  # the mean of the eigenvalues is the diagonal's
        yield vectors @ (rotated / (values + level)[:, None])


def ridge_moments(
    strong: Embeddings,
    finetuned_logits: Float[Tensor, "images classes"],
    parts: Sequence[Int[Tensor, " _"] | None] = (None,),
) -> list[RidgeMoments]:
    """The moments of each of several parts of the images, a block at a time; None is all of them, in order.

    Products are float32 within a block and summed over blocks in float64.

    Args:
        strong: the strong model on the unlabelled images.
        finetuned_logits: the fine-tuned weak model on the same images.
        parts: the rows of each part.

    Raises:
        InvalidTensorError: if rows do not match or values are not finite.
    """
    check_teacher(strong, finetuned_logits)
    width, classes = strong.images.shape[1], finetuned_logits.shape[1]
    result: list[RidgeMoments] = []
    for part in parts:
        gram = torch.zeros(width, width, dtype=torch.float64, device=strong.images.device)
        cross = gram.new_zeros(width, classes)
        for rows in strong.blocks(classes) if part is None else part.to(gram.device).split(block_rows(classes)):
            images = strong.unit_images(rows)
            gram += images.T @ images
            cross += images.T @ centred(finetuned_logits[rows].double()).float()
        result.append(RidgeMoments(gram, cross))
    return result
