"""What trainers keep beside weights in a pickle, read without running any code.

NumPy's own reading of its pickles believes whatever they say of memory. Here they give plain Python numbers and copies.
"""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

KINDS = "biufUS"
"""Booleans, integers, floating-point numbers and texts, as NumPy calls them."""


class PickledDtype:
    """The type of numbers or texts.

    Args:
        code: as "f8".
        *_: whether it is aligned, and a copy.

    Raises:
        UnpicklingError: if it is of another kind.
    """

    def __init__(self, code: str, *_: Any) -> None:
        if code[:1] not in KINDS or not code[1:].isdecimal():
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({code!r}) was not an allowed global")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        """Take the order of the bytes."""
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """An array, which `content` has; arguments are those of NumPy's own."""

    def __init__(self, *_: Any) -> None:
        self.content = np.empty(0)

    def __setstate__(self, state: Sequence[Any]) -> None:
        """Take shape, type, order and bytes."""
        _, shape, kind, by_columns, content = state
        array = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if by_columns else "C")
        self.content = array.astype(kind.dtype.newbyteorder("="))

    def as_tensor(self) -> torch.Tensor | list[Any] | str:
        """The array as a tensor; texts as a list of them, or as one."""
        return self.content.tolist() if self.content.dtype.kind in "US" else torch.from_numpy(self.content)


def scalar(kind: PickledDtype, content: bytes) -> Any:
    """A number or a text."""
    return np.frombuffer(content, kind.dtype, 1)[0].item()


def harmless() -> AbstractContextManager[Any]:
    """Where torch's reading of weights alone also reads options of argparse, paths, and NumPy's numbers and arrays."""
    functions = {"scalar": scalar, "_reconstruct": PickledArray}
    known: dict[str, Any] = {"numpy.dtype": PickledDtype, "numpy.ndarray": PickledArray}
    known |= {f"numpy.{core}.multiarray.{name}": it for name, it in functions.items() for core in ("core", "_core")}
    paths = {"PosixPath": PurePosixPath, "WindowsPath": PureWindowsPath}
    known |= {f"{module}.{name}": it for name, it in paths.items() for module in ("pathlib", "pathlib._local")}
    return torch.serialization.safe_globals([Namespace, *((it, name) for name, it in known.items())])
