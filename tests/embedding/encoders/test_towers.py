"""Towers that compute the same in less time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from transmiter_cli.embedding.encoders.towers import (
    FirstTokenBlock,
    OneDNNLinear,
    multiply_by_onednn,
    onednn_is_here,
    read_first_token_alone,
)
from transmiter_cli.workflow.cost import count_flops

needs_onednn = pytest.mark.skipif(not onednn_is_here(), reason="oneDNN is not used here")

PIXELS = 32
TEXT = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": PIXELS, "patch_size": 8, "width": 48, "head_width": 16, "layers": 3}
TOWERS: dict[str, tuple[dict[str, Any], bool]] = {
    "first token": (VISION, True),
    "normalised after pooling": ({**VISION, "final_ln_after_pool": True}, True),
    "layer scale": ({**VISION, "ls_init_value": 0.1}, True),
    "mean token": ({**VISION, "pool_type": "avg"}, False),
    "pooled by attention": ({**VISION, "attentional_pool": True, "attn_pooler_heads": 2}, False),
    "all tokens": ({**VISION, "output_tokens": True}, False),
    "of timm": ({"image_size": 224, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"}, False),
}


def made(tower: str) -> Any:
    from open_clip.model import CLIP

    torch.manual_seed(0)
    return CLIP(32, TOWERS[tower][0], TEXT).eval()  # type: ignore[arg-type]


def pictures(tower: str) -> Tensor:
    side = TOWERS[tower][0]["image_size"]
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def embedded(model: Any, tower: str) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        images = model.encode_image(pictures(tower))
        texts = model.encode_text(torch.arange(1, 17).reshape(2, 8))
    return *(images if isinstance(images, tuple) else (images,)), texts


@pytest.mark.parametrize("tower", TOWERS)
def test_embeddings_are_open_clips(tower: str):
    slow, fast = made(tower), made(tower)
    read_first_token_alone(fast)
    multiply_by_onednn(fast)
    for expected, found in zip(embedded(slow, tower), embedded(fast, tower), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tower", TOWERS)
def test_only_a_tower_that_reads_one_token_leaves_the_others_out(tower: str):
    model = made(tower)
    read_first_token_alone(model)
    assert any(isinstance(module, FirstTokenBlock) for module in model.modules()) == TOWERS[tower][1]


def test_a_tower_that_reads_one_token_has_fewer_operations():
    model = made("first token")
    before = count_flops(model.encode_image, pictures("first token"))
    read_first_token_alone(model)
    assert count_flops(model.encode_image, pictures("first token")) < 0.85 * before


@needs_onednn
@pytest.mark.parametrize("tower", TOWERS)
def test_feed_forward_layers_of_both_towers_are_onednns_and_are_counted(tower: str):
    slow, fast = made(tower), made(tower)
    multiply_by_onednn(fast)
    assert any(isinstance(module, OneDNNLinear) for module in fast.visual.modules())
    assert any(isinstance(module, OneDNNLinear) for module in fast.transformer.modules())
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (slow, fast)]
    assert sizes[0] == sizes[1]
    counts = [count_flops(model.encode_image, pictures(tower)) for model in (slow, fast)]
    assert counts[0] == counts[1]


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_by_onednn_is_a_linear_layer(bias: bool):
    torch.manual_seed(0)
    layer = nn.Linear(5, 7, bias=bias)
    x = torch.randn(2, 3, 5)
    with torch.inference_mode():
        torch.testing.assert_close(OneDNNLinear(copy.deepcopy(layer))(x), layer(x))
