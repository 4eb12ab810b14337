"""What a caller may have changed for all of torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Result = TypeVar("Result")


def whatever_the_default_device(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """A function whose tensors are on the CPU where it names no device, after `torch.set_default_device("cuda")`, too.

    Random numbers are drawn on the CPU, so that they are the same everywhere, and moved to the inputs' device.
    """

    @wraps(function)
    def usual(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        if torch.get_default_device().type == "cpu":
            return function(*args, **kwargs)
        with torch.device("cpu"):
            return function(*args, **kwargs)

    return usual
