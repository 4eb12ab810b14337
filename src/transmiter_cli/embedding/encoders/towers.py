"""The arithmetic of open_clip's towers in less time: what nobody reads is not computed, and products are oneDNN's."""

from __future__ import annotations

import platform
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FirstTokenBlock(nn.Module):
    """The last block of a tower of which only the first token is read: the others are its keys and values, no more.

    Args:
        block: open_clip's residual attention block, which computes all tokens.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(
        self, tokens: Float[Tensor, "images tokens width"], attn_mask: Tensor | None = None
    ) -> Float[Tensor, "images 1 width"]:
        """The first token's output."""
        block = self.block
        keys = block.ln_1(tokens)
        first = tokens[:, :1] + block.ls_1(block.attention(keys[:, :1], keys, keys, attn_mask))
        return first + block.ls_2(block.mlp(block.ln_2(first)))


class OneDNNLinear(nn.Module):
    """A linear layer by oneDNN's float32 product, which torch leaves to MKL unless tensors are in oneDNN's layout.

    MKL's was the slower one on an AMD processor (docs/performance.md).

    Args:
        linear: the layer; its weights are copied.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = in_onednn_layout(linear.weight)
        self.bias = in_onednn_layout(linear.bias) if linear.bias is not None else None  # pyright: ignore[reportUnnecessaryComparison]

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """X W' + b."""
        return F.linear(x.to_mkldnn(), self.weight, self.bias).to_dense()


def in_onednn_layout(parameter: Tensor) -> nn.Parameter:
    """A parameter that only oneDNN reads."""
    return nn.Parameter(parameter.detach().to_mkldnn(), requires_grad=False)


def read_first_token_alone(model: Any) -> None:
    """Let the last block of the image tower compute the first token alone, if it is a ViT's and no other is read."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    tower = model.visual
    if type(tower) is not VisionTransformer or tower.pool_type != "tok" or tower.output_tokens:
        return
    blocks: Any = tower.transformer.resblocks
    if tower.attn_pool is None and tower.transformer.batch_first and type(blocks[-1]) is ResidualAttentionBlock:
        blocks[-1] = FirstTokenBlock(blocks[-1])


def multiply_by_onednn(model: nn.Module) -> None:
    """Give the feed-forward layers of both towers, two thirds of a ViT's operations, to oneDNN where torch has it."""
    from open_clip.transformer import ResidualAttentionBlock
    from timm.layers.mlp import Mlp

    if not onednn_is_here():
        return
    layers: dict[type[nn.Module], tuple[str, ...]] = {
        ResidualAttentionBlock: ("mlp.c_fc", "mlp.c_proj"),
        Mlp: ("fc1", "fc2"),
    }
    for module in list(model.modules()):
        for name in layers.get(type(module), ()):
            layer = module.get_submodule(name)
            if type(layer) is nn.Linear:
                module.set_submodule(name, OneDNNLinear(layer))


def onednn_is_here() -> bool:
    """Whether torch has oneDNN's products, on a kind of processor where they were measured."""
    return torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")
