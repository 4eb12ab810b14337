"""Which numbers settings take."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, TypeVar

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Range:
    """Which numbers a setting takes.

    Attributes:
        least: the smallest.
        most: the largest, itself allowed if it is finite.
        whole: whether it is an integer.
        above: whether `least` itself is not allowed.
        auto: whether "auto" is allowed, too.
    """

    least: int | float = 0
    most: int | float = math.inf
    whole: bool = False
    above: bool = False
    auto: bool = False

    def holds(self, value: object) -> bool:
        """Whether a value is one of these."""
        if isinstance(value, str):
            return self.auto and value == "auto"
        kind = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or (not self.whole and value > sys.float_info.max):
            return False
        return self.least <= value <= self.most and not (self.above and value == self.least)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a finite number"
        bounds = f"above {self.least:g}" if self.above else f"of at least {self.least:g}"
        top = f" and at most {self.most}" if math.isfinite(self.most) else ""
        return f"{kind} {bounds}{top}" + (", or 'auto'" if self.auto else "")


COUNT, SHARE, POSITIVE = Range(1, whole=True), Range(0, 1), Range(above=True)
STRENGTH, SEED = Range(above=True, auto=True), Range(0, 2**63 - 1, whole=True)
TRAINING: Mapping[str, Range] = {
    "epochs": COUNT,
    "batch_size": COUNT,
    "learning_rate": Range(),
    "weight_decay": Range(),
    "warmup": SHARE,
    "seed": SEED,
}
"""What every training by gradient descent is told."""


def settings_of(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """A recipe from what a caller gave by name; numbers may be NumPy's or tensors.

    Raises:
        TypeError: if it has no such setting; those that it has are named.
        ValueError: if a setting cannot be.
    """
    known = signature(kind).parameters
    for name in given:
        if name not in known:
            raise TypeError(f"there is no setting {name!r}, only {', '.join(known)}.")
    return kind(**{name: plain(value) for name, value in given.items()})


def plain(value: Any) -> Any:
    """A number of NumPy's, or a tensor of a single one, as Python's; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def one_or_several(given: Any) -> list[Any]:
    """What may be given alone or in a sequence, as a list; what is no sequence counts as given alone."""
    given = plain(given)
    return [*given] if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def within(name: str, value: Any, allowed: Range) -> Any:
    """A number as Python's.

    Raises:
        ValueError: if it is not within its range.
    """
    value = plain(value)
    if not allowed.holds(value):
        raise ValueError(f"{name} must be {allowed}, not {value!r}.")
    return value


def require_within(settings: object, ranges: Mapping[str, Range]) -> None:
    """Raise ValueError unless each setting is within its range."""
    for name, allowed in ranges.items():
        within(name, getattr(settings, name), allowed)
