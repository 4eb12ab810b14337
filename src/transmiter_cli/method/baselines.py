"""What transfer is compared with."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def eft_logits(
    strong: Float[Tensor, "rows classes"],
    weak: Float[Tensor, "rows classes"],
    finetuned: Float[Tensor, "rows classes"],
    strength: float,
) -> Float[Tensor, "rows classes"]:
    """Log p_strong + a (log p_finetuned - log p_weak): emulated fine-tuning, also called proxy tuning.

    Needs all three models for every image (Mitchell et al., arXiv:2310.12962; Liu et al., arXiv:2401.08565).
    """
    gap = F.log_softmax(finetuned, dim=-1) - F.log_softmax(weak, dim=-1)
    return F.log_softmax(strong, dim=-1) + strength * gap


def product_logits(
    strong: Float[Tensor, "rows classes"], finetuned: Float[Tensor, "rows classes"]
) -> Float[Tensor, "rows classes"]:
    """Log p_strong + log p_finetuned: both models' probabilities multiplied. Needs both for every image."""
    return F.log_softmax(strong, dim=-1) + F.log_softmax(finetuned, dim=-1)
