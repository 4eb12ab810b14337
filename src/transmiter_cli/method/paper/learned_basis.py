"""A square orthogonal basis that is learned (paper Sec. 3.2, W), without differentiating a matrix exponential."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transmiter_cli.method.paper.polar import polar_factor


class LearnedBasis:
    """Turns an orthogonal matrix B along skew-symmetric steps: B <- B exp(step).

    The usual parametrisation B = exp(A) sends every gradient back through the exponential, in torch an exponential of
    a matrix twice as wide. At A = 0 that derivative is the identity: the gradient with respect to A is S - S' with
    S = B'G, G that with respect to B. So the origin is moved to B after each step. The optimizer sees the same
    numbers as with B = exp(A) at its origin, and an elementwise optimizer such as AdamW keeps the step skew-symmetric.

    Args:
        basis: B; it is made to take gradients, and changed in place.
    """

    def __init__(self, basis: nn.Parameter) -> None:
        self.basis = basis.requires_grad_(True)
        self.step = nn.Parameter(torch.zeros_like(basis))
        """What the optimizer moves; zero between two steps."""

    @torch.no_grad()
    def pull(self) -> None:
        """Turn the gradient that reached B into that of the step."""
        assert self.basis.grad is not None
        slope = self.basis.T @ self.basis.grad
        self.step.grad = slope - slope.T
        self.basis.grad = None

    @torch.no_grad()
    def turn(self) -> None:
        """Take the step that the optimizer made."""
        self.basis.copy_(turned(self.basis, self.step))
        self.step.zero_()

    @torch.no_grad()
    def freeze(self) -> None:
        """Make B a plain matrix, orthogonal to float32's precision."""
        self.basis.requires_grad_(False).copy_(polar_factor(self.basis))


def turned(basis: Float[Tensor, "size size"], step: Float[Tensor, "size size"]) -> Float[Tensor, "size size"]:
    """B exp(step) to second order in the step, made orthogonal again by one Newton-Schulz iteration.

    I + K + K^2 / 2 of a skew-symmetric K misses orthogonality by K^4 / 4, and the iteration squares what is missing,
    that of earlier rounding included. Four matrix products, and nothing that waits for the device.
    """
    moved = basis + basis @ (step + step @ step / 2)
    return 1.5 * moved - 0.5 * moved @ (moved.T @ moved)
