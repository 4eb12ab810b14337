"""The polar factor: the orthogonal matrix nearest to a given one, for whole batches at once."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = 1e-14
"""Singular values below this fraction of the largest count as zero: float64 cannot tell their directions."""
SMALLEST_SQUARE = 1e-10
"""Eigenvalues of A'A below this fraction of the largest have lost half of float64's digits, or more."""
SCALE_LIMIT = 1.5
"""Keeps p(1) at 0.56: a scale near sqrt(3) would send the largest singular value to zero, its direction to noise."""
SINGULAR = 1e-10
"""Orthogonality misses 1e-14 or so where all singular values are 1, and 1 where one is 0: anything between tells."""


def polar_factor(matrix: Float[Tensor, "*batch size size"]) -> Float[Tensor, "*batch size size"]:
    """U V' of the singular value decompositions U S V', computed in float64 whatever the dtype.

    On CUDA, where a matrix is decomposed mostly on one core, by matrix products alone; elsewhere by LAPACK, which is
    faster there. A direction whose singular value is zero has no nearest orthogonal matrix; what
    is returned is orthogonal all the same.
    """
    solve = polar_by_products if matrix.is_cuda else polar_by_lapack
    return solve(matrix.double()).to(matrix.dtype)


def polar_by_lapack(matrix: Float[Tensor, "*batch size size"]) -> Float[Tensor, "*batch size size"]:
    """A (A'A)^(-1/2), which is U V', from eigenvectors, which cost less than singular vectors; from those if need be.

    The error of the root is about float64's times the square of A's condition, which SMALLEST_SQUARE keeps below 1e5;
    a Newton-Schulz step then squares what is missing from orthogonality.
    """
    squares, vectors = torch.linalg.eigh(matrix.mT @ matrix)
    well = squares[..., 0] > SMALLEST_SQUARE * squares[..., -1]
    vectors = vectors[well]
    root = matrix[well] @ (vectors / squares[well].sqrt()[..., None, :] @ vectors.mT)
    factor = torch.empty_like(matrix)
    factor[well] = torch.baddbmm(root, root, root.mT @ root, beta=1.5, alpha=-0.5)
    factor[~well] = polar_by_svd(matrix[~well])
    return factor


def polar_by_svd(matrix: Float[Tensor, "*batch size size"]) -> Float[Tensor, "*batch size size"]:
    """U V' from LAPACK's singular vectors."""
    left, _, right = torch.linalg.svd(matrix)
    return left @ right


def polar_by_products(matrix: Float[Tensor, "*batch size size"]) -> Float[Tensor, "*batch size size"]:
    """U V' by matrix products: scaled Newton-Schulz steps, then a completion where the matrix was singular."""
    size = matrix.shape[-1]
    norm = torch.minimum(
        torch.linalg.matrix_norm(matrix), torch.sqrt(matrix.abs().sum(-1).amax(-1) * matrix.abs().sum(-2).amax(-1))
    )
    smallest = torch.finfo(matrix.dtype).tiny
    factor = newton_schulz(matrix / norm.clamp_min(smallest)[..., None, None])
    identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    gap = identity - factor.mT @ factor
    if float(gap.abs().max()) < SINGULAR:
        return factor
    # What has no direction is turned as little as possible: G is the identity, and a little noise where its part
    # between the two null spaces is singular itself. Both projectors vanish elsewhere.
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    filling = identity + 0.1 / math.sqrt(size) * noise.to(matrix.device)
    filled = factor + (identity - factor @ factor.mT) @ filling @ gap / 2
    return newton_schulz(filled)


def newton_schulz(matrix: Float[Tensor, "*batch size size"]) -> Float[Tensor, "*batch size size"]:
    """X <- r X (3 I - r^2 X'X) / 2 until all singular values that began in [SMALLEST, 1] are 1 to float64's precision.

    Each step maps a singular value x to p(x) = r x (3 - r^2 x^2) / 2 and leaves U and V alone. With
    r^2 = 3 / (1 + l + l^2), p maps [l, 1] into [p(l), 1] with the largest possible p(l) (Chen and Chow, A stable
    scaling of Newton-Schulz for improving the sign function computation of a Hermitian matrix, 2014); r is kept
    below SCALE_LIMIT, as backward stability asks (Nakatsukasa and Higham, 2012). So the lower end is known before
    each step without looking at the matrix, and so is the number of steps: nothing is read back from the device.
    """
    lower = SMALLEST
    while True:
        scale = min(SCALE_LIMIT, math.sqrt(3 / (1 + lower + lower**2)))
        matrix = 1.5 * scale * matrix - 0.5 * scale**3 * matrix @ (matrix.mT @ matrix)
        if 1 - lower < 1e-9:  # this step squared what was missing
            return matrix
        lower = 0.5 * scale * min(lower * (3 - (scale * lower) ** 2), 3 - scale**2)
