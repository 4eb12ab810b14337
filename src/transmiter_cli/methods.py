"""The methods of transfer, by name, and which of them heeds an option; imported without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

LinearMethod = Literal["discriminant", "ridge"]
Method = Literal["adapter", "ridge", "discriminant"]
Auto = Literal["auto"]
"""A strength that is chosen by unlabelled images."""
HEEDED_BY: Mapping[str, Method] = {
    "reg": "adapter",
    "rho": "ridge",
    "opaque_names": "discriminant",
    "also": "discriminant",
}
"""The method that heeds an option of `transfer`."""
