"""Ridge transfer: the fine-tuned weak model's answers, regressed on the strong model's own embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from transmiter_cli.method.distillation import check_teacher
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.moments import RidgeMoments
from transmiter_cli.method.per_image import centred

TINY = 1e-12
"""Least of what is added to the diagonal: embeddings that are all alike have no moments of their own."""


class LinearCorrection(nn.Module):
    """z_hat = z[:C] + x W + b: a linear correction of the class logits from the image embedding.

    It folds into the strong model's own text classifier, and then costs nothing.

    Args:
        weight: W.
        bias: b; zero if left out.
    """

    def __init__(self, weight: Float[Tensor, "width classes"], bias: Float[Tensor, " classes"] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
        self.bias = nn.Parameter(weight.new_zeros(weight.shape[1]) if bias is None else bias.clone())

    @classmethod
    def of_classifier(
        cls, weight: Float[Tensor, "classes width"], bias: Float[Tensor, " classes"], model: Embeddings
    ) -> LinearCorrection:
        """The correction that folds into a given classifier of unit-norm embeddings of a model."""
        change = weight - model.logit_scale * model.unit_texts()[: len(weight)].to(weight)
        return cls(change.T.float(), bias.float()).eval()

    @property
    def classes(self) -> int:
        """C, the number of task classes."""
        return self.weight.shape[1]

    def forward(
        self, logits: Float[Tensor, "rows vocabulary"], images: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows classes"]:
        """Corrected logits of the task classes."""
        return logits[:, : self.classes] + F.normalize(images.float(), dim=-1) @ self.weight + self.bias

    def fold(
        self, texts: Float[Tensor, "vocabulary width"], logit_scale: float
    ) -> tuple[Float[Tensor, "classes width"], Float[Tensor, " classes"]]:
        """The classifier (weight, bias) with x weight' + bias = z_hat for unit-norm x: s T[:C] + W' and b.

        `texts` are the strong model's, unit-norm.
        """
        return logit_scale * texts[: self.classes] + self.weight.T, self.bias


def ridge_transfer(
    strong: Embeddings, finetuned_logits: Float[Tensor, "images classes"], rho: float
) -> LinearCorrection:
    """W = (X'X + rho mean(diag X'X) I)^-1 X'L on unlabelled images, by one Cholesky factorisation.

    L are the fine-tuned weak model's log-probabilities, centred in each row. The result is the geometric
    ensemble of the strong and the fine-tuned weak model, distilled into the strong one.

    Args:
        strong: the strong model on the unlabelled images.
        finetuned_logits: the fine-tuned weak model on the same images.
        rho: ridge strength relative to the mean of X'X's diagonal.

    Raises:
        InvalidTensorError: if rows do not match or values are not finite.
    """
    moments = ridge_moments(strong, finetuned_logits)
    return LinearCorrection(solve_ridge(moments.gram, moments.cross, rho).float())


def solve_ridge(
    gram: Float[Tensor, "width width"], cross: Float[Tensor, "width targets"], rho: float
) -> Float[Tensor, "width targets"]:
    """(G + rho mean(diag G) I)^-1 C, by one Cholesky factorisation.

    Raises:
        InvalidTensorError: if rho is too small for the matrix to be positive.
    """
    level = (rho * gram.diagonal().mean()).clamp_min(TINY)
    factor, failed = torch.linalg.cholesky_ex(gram + level * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    if bool(failed):
        raise InvalidTensorError(f"a ridge strength of {rho} is too small for these embeddings.", "a larger --rho")
    return torch.cholesky_solve(cross, factor)


def ridge_sweep(
    strong: Embeddings, finetuned_logits: Float[Tensor, "images classes"], rhos: Sequence[float]
) -> list[LinearCorrection]:
    """The same for several rho, from one eigendecomposition X'X = V E V': W = V (E + rho mean(diag X'X))^-1 V'X'L.

    Raises:
        InvalidTensorError: if rows do not match or values are not finite.
    """
    moments = ridge_moments(strong, finetuned_logits)
    values, vectors = torch.linalg.eigh(moments.gram)
    values, rotated = values.clamp_min(0), vectors.T @ moments.cross
    shifts = [(rho * values.mean()).clamp_min(TINY) for rho in rhos]  # the diagonal's mean is the eigenvalues'
    return [LinearCorrection((vectors @ (rotated / (values + shift)[:, None])).float()) for shift in shifts]


def ridge_moments(strong: Embeddings, finetuned_logits: Float[Tensor, "images classes"]) -> RidgeMoments:
    """X'X and X'L on the strong model's images, with L centred in each row, a block at a time.

    Raises:
        InvalidTensorError: if rows do not match or values are not finite.
    """
    check_teacher(strong, finetuned_logits)
    moments = RidgeMoments(strong.images.shape[1], finetuned_logits.shape[1], strong.images.device)
    for rows in strong.blocks(finetuned_logits.shape[1]):
        moments.add(strong.unit_images(rows), centred(finetuned_logits[rows].float()))
    return moments
