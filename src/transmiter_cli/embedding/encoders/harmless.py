"""What trainers keep beside weights in a pickle, read without running any code.

NumPy's own reading of its pickles believes whatever they say of memory. Here they give tensors, numbers and texts.
"""

from __future__ import annotations

import pickle
import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
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
        array: as the file has it, not copied; empty of one whose content does not come.
    """

    array: np.ndarray = np.empty(0)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Sequence[Any]) -> None:
        """Take shape, type, order and bytes."""
        _, shape, kind, by_columns, content = state
        flat = np.frombuffer(content, kind.dtype) if content else np.empty(0, kind.dtype)
        self.array = flat.reshape(shape, order="F" if by_columns else "C")

    @cached_property
    def content(self) -> torch.Tensor | list[str]:
        """A tensor; of texts a list of them all."""
        if self.array.dtype.kind in "US":
            return self.array.astype(str).ravel().tolist()
        return torch.from_numpy(self.array.astype(self.array.dtype.newbyteorder("=")))


def scalar(kind: PickledDtype, content: bytes) -> Any:
    """A number or a text."""
    return np.frombuffer(content, kind.dtype, 1)[0].item() if content else ""


def no_bytes() -> bytes:
    """How old protocols write empty bytes."""
    return b""


LEVELS = 2
"""Of dictionaries: that of weights, and that which holds these beside other things."""


def plain(value: Any, levels: int = LEVELS) -> Any:
    """The same value of a file, with tensors or lists in place of arrays, also in so many levels of dictionaries."""
    if isinstance(value, PickledArray):
        return value.content
    if isinstance(value, dict) and levels:
        return {name: plain(inner, levels - 1) for name, inner in value.items()}
    return value


def arrays_in(value: Any, levels: int = LEVELS) -> Iterator[PickledArray]:
    """The arrays that `plain` makes tensors or lists of."""
    if isinstance(value, PickledArray):
        yield value
    elif isinstance(value, dict) and levels:
        for inner in value.values():
            yield from arrays_in(inner, levels - 1)


class Unread:
    """What is of no use beside weights: times, and types of numbers."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def empty_dictionary(*_: Any) -> dict[Any, Any]:
    """A dictionary whose entries follow; what would make up missing ones is left out."""
    return {}


def harmless() -> AbstractContextManager[Any]:
    """Where torch's reading of weights alone also reads what trainers keep beside them: options of argparse, paths,
    NumPy's numbers and arrays, default dictionaries and times.
    """
    known: dict[str, Any] = {"numpy.dtype": PickledDtype, "numpy.ndarray": PickledArray}
    known |= {"types.SimpleNamespace": Namespace, "collections.defaultdict": empty_dictionary}
    known |= {f"datetime.{name}": Unread for name in ("datetime", "date", "time", "timedelta", "timezone")}
    for module in ("builtins", "__builtin__"):  # since Python 3, and as old protocols have it
        known |= {f"{module}.bytes": no_bytes}
        known |= {f"{module}.{name}": Unread for name in ("list", "dict", "int", "float", "bool", "str")}
    known |= {f"numpy.{name}": Unread for name in ("float16", "float32", "float64", "int64", "bool_", "bool")}
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1, and since 2
        known |= {f"{core}.scalar": scalar, f"{core}._reconstruct": PickledArray}
    for module in ("pathlib", "pathlib._local"):  # Python 3.13 alone has the latter
        for name, kind in (("PosixPath", PurePosixPath), ("WindowsPath", PureWindowsPath)):
            known |= {f"{module}.{name}": kind, f"{module}.Pure{name}": kind}
    return torch.serialization.safe_globals([Namespace, *((stand_in, name) for name, stand_in in known.items())])


def refused(error: pickle.UnpicklingError) -> str:
    """What torch refuses to read, by its name; empty if it does not say, or what it says is no name."""
    found = re.search(r"GLOBAL ([A-Za-z_][\w.]*)\s", str(error), re.ASCII)
    return found[1] if found else ""
