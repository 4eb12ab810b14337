"""The device that a --device value names."""

from __future__ import annotations

import torch

from transmiter_cli.errors import UsageError, first_line

KINDS = ("cpu", "cuda", "mps")
"""Devices of torch that encoders were written for."""


def choose_device(name: str) -> torch.device:
    """The device of a --device value; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UsageError: if it does not exist here.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    if name.partition(":")[0] not in KINDS:
        raise UsageError(f"{name!r} is no device to compute on: {', '.join(KINDS)} are, and cuda:N.", "--device auto")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = first_line(error).split(". ")[0]  # torch may go on with all devices that it was ever built for
        raise UsageError(f"There is no device {name!r} here: {why}.", "--device cpu") from error
    return device
