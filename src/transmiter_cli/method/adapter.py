"""The TransMiter adapter (paper Sec. 3.2): a small residual network on standardised logits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal

from transmiter_cli.method.logits import standardize


class Adapter(nn.Module):
    """z_hat = std(z) * (z~ + g(z~ B') B) + mean(z), its first C entries.

    g is LayerNorm, Linear D -> 4D, GELU, Linear 4D -> D, the last layer zero at the start, so that a fresh
    adapter is the identity. It knows a model only through B: give it the basis of another model and it works
    on that model's logits.

    Args:
        basis: B, orthonormal rows.
        classes: C, the number of task classes; they come first in the vocabulary.
    """

    def __init__(self, basis: Float[Tensor, "basis vocabulary"], classes: int) -> None:
        super().__init__()
        size = len(basis)
        self.classes = classes
        self.basis = nn.Parameter(basis.clone(), requires_grad=False)
        last = nn.Linear(4 * size, size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.correction = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, 4 * size), nn.GELU(), last)

    def forward(self, logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows classes"]:
        """Adapted logits of the task classes."""
        basis = self.basis  # read once: the paper's learned basis is a matrix exponential behind this name
        standard, mean, std = standardize(logits)
        change = self.correction(standard @ basis.T) @ basis[:, : self.classes]
        return std * (standard[:, : self.classes] + change) + mean


def learn_basis(adapter: Adapter) -> None:
    """Make the adapter's square basis a learned orthogonal matrix, as in the paper (Sec. 3.2, W)."""
    adapter.basis.requires_grad_(True)
    orthogonal(adapter, "basis", orthogonal_map="matrix_exp")


def freeze_basis(adapter: Adapter) -> None:
    """Turn a learned basis back into a plain matrix; do nothing to a fixed one."""
    if parametrize.is_parametrized(adapter, "basis"):
        parametrize.remove_parametrizations(adapter, "basis", leave_parametrized=True)
    adapter.basis.requires_grad_(False)


def with_basis(adapter: Adapter, basis: Float[Tensor, "basis vocabulary"]) -> Adapter:
    """The same correction behind another basis; nothing is shared with the original."""
    moved = Adapter(basis, adapter.classes).to(basis.device)
    with torch.no_grad():
        moved.correction.load_state_dict(adapter.correction.state_dict())
    return moved
