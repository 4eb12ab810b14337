"""The TransMiter adapter (paper Sec. 3.2): a small residual network on standardised logits."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from transmiter_cli.method.logits import standardize


class ZeroLinear(nn.Linear):
    """A linear layer that begins with zeros: torch draws from a generator that all threads of the process share."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class Adapter(nn.Module):
    """z_hat = std(z) * (z~ + g(z~ B') B) + mean(z), its first C entries.

    g is LayerNorm, Linear D -> 4D, GELU, Linear 4D -> D, the last layer zero at the start, so that a fresh
    adapter is the identity. It knows a model only through B: give it the basis of another model and it works
    on that model's logits.

    Args:
        basis: B, orthonormal rows.
        classes: C, the number of task classes; they come first in the vocabulary.
        seed: decides the weights of the first layer, whatever the device.
    """

    def __init__(self, basis: Float[Tensor, "basis vocabulary"], classes: int, seed: int = 0) -> None:
        super().__init__()
        size = len(basis)
        self.classes = classes
        self.basis = nn.Parameter(basis.clone(), requires_grad=False)
        place: dict[str, Any] = {"dtype": basis.dtype, "device": basis.device}
        first, last = ZeroLinear(size, 4 * size, **place), ZeroLinear(4 * size, size, **place)
        bound, generator = size**-0.5, torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in first.parameters():
                drawn = torch.empty(parameter.shape, dtype=basis.dtype).uniform_(-bound, bound, generator=generator)
                parameter.copy_(drawn)
        self.correction = nn.Sequential(nn.LayerNorm(size, **place), first, nn.GELU(), last)

    def forward(self, logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows classes"]:
        """Adapted logits of the task classes."""
        standard, mean, std = standardize(logits)
        change = self.correction(standard @ self.basis.T) @ self.basis[:, : self.classes]
        return std * (standard[:, : self.classes] + change) + mean


def with_basis(adapter: Adapter, basis: Float[Tensor, "basis vocabulary"]) -> Adapter:
    """The same correction behind another basis; nothing is shared with the original."""
    moved = copy.deepcopy(adapter)  # no initial weights are drawn
    moved.basis = nn.Parameter(basis.clone(), requires_grad=False)
    return moved
