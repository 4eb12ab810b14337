"""Pickles of torch, read without running what strangers put into them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from transmiter_cli.embedding.hub import first_line
from transmiter_cli.errors import TransmiterError


def load_tensors(path: Path) -> dict[str, Any]:
    """The dictionary of tensors in a file of torch.save, on the CPU, memory-mapped where the format allows.

    Raises:
        TransmiterError: if it is damaged, holds more than tensors, or no dictionary.
    """
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of torch before 1.6 cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TransmiterError(
            f"{path} holds more than tensors, and running a stranger's pickle is refused.",
            "save the state_dict alone: torch.save(model.state_dict(), PATH)",
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, LookupError) as error:  # LookupError: text, not a pickle
        raise TransmiterError(f"{path} cannot be read as a file of torch: {first_line(error)}.") from error
    if not isinstance(content, dict):
        raise TransmiterError(
            f"{path} holds no dictionary of tensors, but {type(content).__name__}.",
            "torch.save(model.state_dict(), PATH)",
        )
    return content
