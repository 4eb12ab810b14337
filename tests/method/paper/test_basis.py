import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import random_embeddings
from transmiter_cli.method.logits import standardize, zero_shot_logits
from transmiter_cli.method.paper.basis import compact_basis


@settings(max_examples=20)
@given(st.integers(2, 40), st.integers(2, 24), st.integers(0, 1000))
def test_rows_are_orthonormal_and_orthogonal_to_ones(vocabulary: int, width: int, seed: int):
    basis = compact_basis(random_embeddings(1, vocabulary, width, seed).texts)
    assert len(basis) <= min(width, vocabulary - 1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis.sum(1), torch.zeros(len(basis)), atol=1e-5, rtol=0)


def test_standardized_logits_lie_in_its_span():
    embeddings = random_embeddings(50, 40, 12, seed=1)
    basis = compact_basis(embeddings.texts)
    standard = standardize(zero_shot_logits(embeddings)).logits
    torch.testing.assert_close(standard @ basis.T @ basis, standard, atol=1e-4, rtol=1e-4)


def test_directions_that_no_text_varies_in_are_left_out():
    texts = torch.randn(30, 10, generator=torch.Generator().manual_seed(0))
    texts[:, 6:] = 0
    texts = texts / texts.norm(dim=-1, keepdim=True)
    assert len(compact_basis(texts)) == 6


@settings(max_examples=40)
@given(st.integers(0, 1000), st.sampled_from([2, 3, 20]))
def test_signs_are_not_the_eigensolvers(seed: int, vocabulary: int):
    """Not where numbers are as large as each other either: of two words the row is (a, -a)."""
    texts = random_embeddings(1, vocabulary, 8, seed).texts.double()
    axes = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    basis = compact_basis(texts)
    torch.testing.assert_close(compact_basis(texts @ axes), basis, atol=1e-4, rtol=0)
    torch.testing.assert_close(basis.amax(1), basis.abs().amax(1), atol=1e-5, rtol=0)
