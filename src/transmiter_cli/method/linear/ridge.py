"""Ridge transfer: the fine-tuned weak model's answers, regressed on the strong model's own embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.embeddings import TINY, Embeddings, InvalidTensorError, check_teacher
from transmiter_cli.method.folds import Folds
from transmiter_cli.method.linear.classifier import Linear
from transmiter_cli.method.linear.moments import Moments, fold_moments
from transmiter_cli.method.per_image import Computed, centred


def ridge_transfer(strong: Embeddings, moments: Moments, rho: float) -> Linear:
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
    change = solve_ridge(moments.gram, moments.sums.T, rho).T
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
        raise InvalidTensorError(
            f"a ridge strength of {rho} is too small for these embeddings.", "a larger --rho (rho in Python)"
        )
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


def ridge_moments(strong: Embeddings, finetuned_logits: Float[Tensor, "images classes"], folds: Folds) -> list[Moments]:
    """The moments of each part of the images with the fine-tuned answers L as targets, centred in each row.

    Args:
        strong: the strong model on the unlabelled images.
        finetuned_logits: the fine-tuned weak model on the same images.
        folds: parts of the images.

    Raises:
        InvalidTensorError: if rows do not match or values are not finite.
    """
    check_teacher(strong, finetuned_logits)
    images, classes = finetuned_logits.shape
    answers = Computed((images, classes), lambda rows: centred(finetuned_logits[rows].double()).float())
    return fold_moments(strong, answers, folds)
