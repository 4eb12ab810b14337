"""All ways to the polar factor, on the CPU: LAPACK, and the matrix products that CUDA uses."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transmiter_cli.method.paper.polar import polar_by_lapack, polar_by_products, polar_by_svd, polar_factor

WAYS = (polar_by_lapack, polar_by_svd, polar_by_products)


def spectrum(values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A matrix with the given singular values and random singular vectors."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    )
    return left @ values.double().diag() @ right.T


def assert_orthogonal(factor: torch.Tensor) -> None:
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype).expand_as(factor)
    torch.testing.assert_close(factor.mT @ factor, identity, atol=1e-5, rtol=0)


@settings(max_examples=30)
@given(st.sampled_from(WAYS), st.integers(1, 12), st.integers(0, 1000))
def test_it_is_scipys(way, size: int, seed: int):
    matrix = np.random.default_rng(seed).standard_normal((size, size))
    expected, _ = scipy.linalg.polar(matrix)
    np.testing.assert_allclose(way(torch.from_numpy(matrix)).numpy(), expected, atol=1e-8)


@pytest.mark.parametrize("way", [polar_by_lapack, polar_by_products])
@pytest.mark.parametrize("digits", [0, 1, 3, 4, 5, 6, 9])
def test_all_ways_agree_however_ill_conditioned(way, digits: int):
    matrix = 1e7 * spectrum(torch.logspace(0, -digits, 60))
    factor = way(matrix)
    assert_orthogonal(factor)
    torch.testing.assert_close(factor, polar_by_svd(matrix), atol=1e-6, rtol=0)


@pytest.mark.parametrize("digits", [0, 2, 4, 4.9, 6])
def test_the_factor_is_orthogonal_to_float64s_precision(digits: float):
    factor = polar_by_lapack(spectrum(torch.logspace(0, -digits, 60)))
    identity = torch.eye(60, dtype=torch.float64)
    torch.testing.assert_close(factor.mT @ factor, identity, atol=1e-11, rtol=0)


@pytest.mark.parametrize("way", [polar_by_lapack, polar_by_products])
@pytest.mark.parametrize("shift", [1e-6, 1e-3, 1.0, 1e3])
def test_all_ways_agree_on_low_rank_plus_a_multiple_of_the_identity(way, shift: float):
    """Fewer images than directions: R + lambda I with R of rank 5 of 60."""
    generator = torch.Generator().manual_seed(0)
    thin = torch.randn(2, 60, 5, generator=generator, dtype=torch.float64)
    matrix = thin[0] @ thin[1].T + shift * torch.eye(60, dtype=torch.float64)
    factor = way(matrix)
    assert_orthogonal(factor)
    torch.testing.assert_close(factor, polar_by_svd(matrix), atol=1e-6, rtol=0)


SINGULAR = {
    "rank 40 of 60": spectrum(torch.cat([torch.logspace(0, -3, 40), torch.zeros(20)])),
    "zero": torch.zeros(60, 60, dtype=torch.float64),
    "null spaces at right angles": torch.eye(60, dtype=torch.float64).roll(30, 1).triu(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SINGULAR)
def test_a_singular_matrix_has_an_orthogonal_factor_with_a_semidefinite_partner(way, name: str):
    """Q is not unique then, but A = Q H with H = Q'A symmetric and positive semidefinite holds for each."""
    matrix = SINGULAR[name]
    factor = way(matrix)
    assert_orthogonal(factor)
    partner = factor.T @ matrix
    torch.testing.assert_close(partner, partner.T, atol=1e-10, rtol=0)
    assert torch.linalg.eigvalsh((partner + partner.T) / 2).min() > -1e-10


def test_where_nothing_is_known_products_turn_little():
    factor = polar_by_products(SINGULAR["zero"])
    assert (factor - torch.eye(60, dtype=torch.float64)).abs().max() < 0.1


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_is_its_matrices_one_by_one(way):
    matrices = torch.stack([spectrum(torch.logspace(0, -digits, 20), digits) for digits in range(6)]).view(2, 3, 20, 20)
    matrices[1, 2] = SINGULAR["zero"][:20, :20]
    factors = way(matrices)
    assert factors.shape == matrices.shape
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(factors[i, j], way(matrices[i, j]), atol=1e-6, rtol=0)


def test_float32_comes_back_as_float32_with_float64s_accuracy():
    matrix = spectrum(torch.logspace(0, -5, 60)).float()
    factor = polar_factor(matrix)
    assert factor.dtype == torch.float32
    assert_orthogonal(factor)
    torch.testing.assert_close(factor, polar_by_svd(matrix.double()).float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(polar_by_products(matrix.double()).float(), factor, atol=1e-4, rtol=0)
