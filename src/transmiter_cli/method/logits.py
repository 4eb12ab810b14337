"""Zero-shot logits and their row standardisation (paper Sec. 3.1 and 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.method.embeddings import Embeddings, require_embeddings
from transmiter_cli.method.torch_state import plain_torch

EPSILON = 1e-6
"""Added to a row's standard deviation before dividing by it."""


class Standardized(NamedTuple):
    """Logits with zero mean and unit deviation in each row, and what restores them.

    Attributes:
        logits: z~ = (z - mean) / (std + EPSILON).
        mean: mean of each row.
        std: unbiased standard deviation of each row.
    """

    logits: Float[Tensor, "rows vocabulary"]
    mean: Float[Tensor, "rows 1"]
    std: Float[Tensor, "rows 1"]


@plain_torch()
def zero_shot_logits(embeddings: Embeddings, rows: slice | Tensor = slice(None)) -> Float[Tensor, "rows vocabulary"]:
    """Z = s X T' for the chosen rows.

    Raises:
        InvalidTensorError: if they are no Embeddings.
    """
    require_embeddings("a model", embeddings)
    return embeddings.unit_images(rows) @ embeddings.classifier().T


def standardize(logits: Float[Tensor, "rows vocabulary"]) -> Standardized:
    """Standardise each row over all its M entries with its own mean and unbiased deviation."""
    if not len(logits):  # of which torch would warn
        return Standardized(logits, logits[:, :1], logits[:, :1])
    std, mean = torch.std_mean(logits, dim=-1, keepdim=True)
    return Standardized((logits - mean) / (std + EPSILON), mean, std)
