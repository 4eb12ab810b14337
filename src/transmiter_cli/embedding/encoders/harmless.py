"""What trainers keep beside weights in a pickle, read without running any code.

NumPy's own reading of its pickles believes whatever they say of memory. Here they give tensors, numbers and texts.
"""

from __future__ import annotations

import pickle
import re
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

KINDS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
"""The numbers that tensors may hold, as NumPy calls them."""
TEXT = re.compile(r"[US]\d+", re.ASCII)


class PickledDtype:
    """The type of numbers or texts.

    Args:
        code: as "f8".
        *_: whether it is aligned, and a copy.

    Raises:
        UnpicklingError: if it is of another kind; in torch's words for what is not allowed, which `refused` reads.
    """

    def __init__(self, code: str, *_: Any) -> None:
        if code not in KINDS and not TEXT.fullmatch(code):
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype.{code} was not an allowed global")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        """Take the order of the bytes."""
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """An array; arguments are those of NumPy's own function.

    Attributes:
        content: a tensor; of texts a list of lists, as many as the array has dimensions, or a single one.
    """

    content: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Sequence[Any]) -> None:
        """Take shape, type, order and bytes."""
        _, shape, kind, by_columns, content = state
        array = np.empty(0, kind.dtype)  # without content there are no numbers, whatever the shape says
        if content:
            array = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if by_columns else "C")
        texts = array.dtype.kind in "US"
        native = str if texts else kind.dtype.newbyteorder("=")
        self.content = array.astype(native).tolist() if texts else torch.from_numpy(array.astype(native))


def scalar(kind: PickledDtype, content: bytes) -> Any:
    """A number or a text."""
    return np.frombuffer(content, kind.dtype, 1)[0].item() if content else ""


def no_bytes() -> bytes:
    """How old protocols write empty bytes."""
    return b""


def plain(value: Any) -> Any:
    """The same value of a file, with what they hold in place of arrays, also in dictionaries of two levels."""
    return plain_to(2, value)


def plain_to(levels: int, value: Any) -> Any:
    """The same to so many levels of dictionaries: of weights, and of what holds these beside other things."""
    if isinstance(value, PickledArray):
        return value.content
    if isinstance(value, dict) and levels:
        return {name: plain_to(levels - 1, inner) for name, inner in value.items()}
    return value


def harmless() -> AbstractContextManager[Any]:
    """Where torch's reading of weights alone also reads options of argparse, paths, and NumPy's numbers and arrays."""
    known: dict[str, Any] = {"numpy.dtype": PickledDtype, "numpy.ndarray": PickledArray}
    known |= {f"{module}.bytes": no_bytes for module in ("builtins", "__builtin__")}
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1, and since 2
        known |= {f"{core}.scalar": scalar, f"{core}._reconstruct": PickledArray}
    for module in ("pathlib", "pathlib._local"):  # Python 3.13 alone has the latter
        known |= {f"{module}.PosixPath": PurePosixPath, f"{module}.WindowsPath": PureWindowsPath}
    return torch.serialization.safe_globals([Namespace, *((stand_in, name) for name, stand_in in known.items())])


def refused(error: pickle.UnpicklingError) -> str:
    """What torch refuses to read, by its name; empty if it does not say, or what it says is no name."""
    found = re.search(r"GLOBAL ([A-Za-z_][\w.]*)\s", str(error), re.ASCII)
    return found[1] if found else ""
