"""The compact basis: the directions in which an encoder's logits can differ between images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.embeddings import InvalidTensorError

TOLERANCE = 1e-4
"""Singular values below this fraction of the largest carry no direction."""
EQUAL = 1e-6
"""Numbers that differ by no more than this fraction are as large as each other, whatever rounding says."""


def centred_texts(texts: Float[Tensor, "vocabulary width"]) -> Float[Tensor, "vocabulary width"]:
    """Tc: unit-norm texts minus the mean of their rows, float64."""
    unit = F.normalize(texts.double(), dim=-1)
    return unit - unit.mean(0)


def compact_basis(texts: Float[Tensor, "vocabulary width"]) -> Float[Tensor, "basis vocabulary"]:
    """Orthonormal rows B that span the row-centred logits of an encoder with text embeddings T.

    A row of centred logits is s (T - mean row of T) x, so the left singular vectors of the centred T span
    all of them: D <= min(d, M - 1) rows instead of the paper's M (Sec. 3.2), and fixed. Which of the rows that
    span the same are taken hardly matters: the adapter's linear layers absorb a rotation, but for its
    LayerNorm's mean over coordinates. The rows are orthogonal to the all-ones vector.

    With Tc = U S V', V and S come from the d x d matrix Tc'Tc, and U = Tc V / S. The condition of Tc'Tc is the square
    of Tc's, but singular values below TOLERANCE are cut, so float64 leaves at least eight digits, at a small part of
    the cost of decomposing an M x d matrix. The first of each row's largest numbers is positive: eigenvectors have no
    sign of their own, and LAPACKs differ in what they return.

    Raises:
        InvalidTensorError: if all texts have the same embedding.
    """
    centred = centred_texts(texts)
    squares, vectors = torch.linalg.eigh(centred.T @ centred)
    singular = squares.clamp_min(0).sqrt().flip(0)
    if singular[0] < torch.finfo(torch.float32).eps:
        raise InvalidTensorError("all text embeddings are the same, so they span no basis.")
    kept = singular > TOLERANCE * singular[0]
    columns = centred @ (vectors.flip(1)[:, kept] / singular[kept])
    sizes = columns.abs()
    first = (sizes >= (1 - EQUAL) * sizes.amax(0)).byte().argmax(0, keepdim=True)
    return (columns * columns.gather(0, first).sign()).T.float().contiguous()
