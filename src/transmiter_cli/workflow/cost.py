"""What an encoder costs per image."""

from __future__ import annotations

import json

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from transmiter_cli.embedding.workspace import CachedEncoder
from transmiter_cli.files import canonical_json, write_if_possible


def image_flops(encoder: CachedEncoder) -> int:
    """Floating-point operations of one image through the encoder; the model is loaded for it once.

    Matrix products and convolutions are counted, a multiplication and an addition as two.
    """
    path = encoder.folder / "flops.json"
    if path.is_file():
        return json.loads(path.read_text())["flops"]
    model = encoder.encoder.model
    image = encoder.encoder.preprocess(Image.new("RGB", (64, 64)))[None].to(encoder.encoder.device)
    counter = FlopCounterMode(display=False)
    with torch.enable_grad(), counter:  # without gradients, attention takes a fused path that is not counted
        model.encode_image(image)
    write_if_possible(path, canonical_json({"flops": counter.get_total_flops()}).encode())
    return counter.get_total_flops()
