"""What an encoder costs per image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from transmiter_cli.embedding.storage.cache import FLOPS
from transmiter_cli.embedding.workspace import CachedEncoder
from transmiter_cli.files import canonical_json, stored_json, write_if_possible


def image_flops(encoder: CachedEncoder) -> int:
    """Floating-point operations of one image through the encoder; the model is loaded for it once.

    A multiplication and an addition are two.
    """
    path = encoder.folder / FLOPS
    if known := stored_json(path):
        return known["flops"]
    model = encoder.encoder.model
    image = encoder.encoder.input(encoder.encoder.preprocess(Image.new("RGB", (64, 64)))[None])
    found = count_flops(model.encode_image, image)
    write_if_possible(path, canonical_json({"flops": found}).encode())
    return found


def count_flops(encode: Callable[[Tensor], Tensor], batch: Tensor) -> int:
    """Operations of matrix products and convolutions in one call."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, for which no evaluation need wait twice

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_linear: linear_flops})
    # Attention has fused ways that the counter may not know: those without gradients, and torch 2.14's on a CPU.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        encode(batch)
    return counter.get_total_flops()


def linear_flops(inputs: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Operations of a linear layer of oneDNN's, which torch's counter does not know, from the shapes."""
    return 2 * math.prod(inputs) * weight[0]
