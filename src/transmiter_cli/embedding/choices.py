"""How images are decoded and encoded, as flags name it; imported without torch."""

from __future__ import annotations

from typing import Literal

Decoding = Literal["full", "scaled"]
"""JPEG files as they are, or at a part of their size."""
Precision = Literal["full", "half"]
"""What image towers compute in: float32, or float16 on a GPU and bfloat16 on a CPU."""
