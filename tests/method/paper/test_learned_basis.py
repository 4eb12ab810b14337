"""The learned basis: the gradient of torch's own orthogonal parametrisation, and steps that stay orthogonal."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal

from tests.conftest import random_embeddings
from tests.method.paper.test_adapter import trained_like
from transmiter_cli.method.logits import zero_shot_logits
from transmiter_cli.method.paper.adapter import Adapter, with_basis
from transmiter_cli.method.paper.learned_basis import LearnedBasis, turned


def skew(size: int, norm: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A random skew-symmetric matrix with the given spectral norm."""
    draw = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=dtype)
    draw = draw - draw.T
    return norm * draw / torch.linalg.matrix_norm(draw, 2)


def test_the_steps_gradient_is_that_of_the_matrix_exponential_at_its_origin():
    logits = zero_shot_logits(random_embeddings(8, 20, 6, seed=0))
    ours = trained_like(Adapter(torch.eye(20), classes=5))
    theirs = with_basis(ours, ours.basis)
    learned = LearnedBasis(ours.basis)
    orthogonal(theirs.requires_grad_(True), "basis", orthogonal_map="matrix_exp")
    for adapter in (ours, theirs):
        adapter(logits).square().mean().backward()
    learned.pull()
    expected = theirs.parametrizations.basis.original.grad
    torch.testing.assert_close(learned.step.grad.tril(), expected.tril(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(learned.step.grad, -learned.step.grad.T)


@pytest.mark.parametrize("norm", [1e-3, 0.1, 0.3])
def test_a_turn_is_the_exponential_to_second_order_and_orthogonal(norm: float):
    step = skew(30, norm, torch.float64)
    start = torch.linalg.matrix_exp(skew(30, 1.0, torch.float64))
    found = turned(start, step)
    assert torch.linalg.matrix_norm(found - start @ torch.linalg.matrix_exp(step), 2) <= norm**3 / 5
    identity = torch.eye(30, dtype=torch.float64)
    torch.testing.assert_close(found.T @ found, identity, atol=norm**8 / 10 + 1e-14, rtol=0)


def test_a_thousand_large_steps_leave_an_orthogonal_matrix():
    learned = LearnedBasis(nn.Parameter(torch.eye(30)))
    for _ in range(1000):
        with torch.no_grad():
            learned.step.copy_(skew(30, 0.5))
        learned.turn()
    learned.freeze()
    assert not learned.basis.requires_grad
    torch.testing.assert_close(learned.basis.T @ learned.basis, torch.eye(30), atol=1e-5, rtol=0)
