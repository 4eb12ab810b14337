"""The numbers that a method's entry in a bench file may give, checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from transmiter_cli.errors import TransmiterError
from transmiter_cli.method.distillation import FitSettings
from transmiter_cli.method.refinement import RefineSettings


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

    least: float = 0
    most: float = math.inf
    whole: bool = False
    above: bool = False
    auto: bool = False

    def holds(self, value: object) -> bool:
        """Whether a value is one of these."""
        if self.auto and value == "auto":
            return True
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return math.isfinite(value) and self.least <= value <= self.most and not (self.above and value == self.least)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a finite number"
        bounds = f"above {self.least:g}" if self.above else f"of at least {self.least:g}"
        top = f" and at most {self.most:g}" if math.isfinite(self.most) else ""
        return f"{kind} {bounds}{top}" + (", or 'auto'" if self.auto else "")


COUNT, SHARE, POSITIVE = Range(1, whole=True), Range(0, 1), Range(above=True)
STRENGTH, SEED = Range(above=True, auto=True), Range(0, 2**63 - 1, whole=True)
TRAINING = {
    "epochs": COUNT,
    "batch_size": COUNT,
    "learning_rate": Range(),
    "weight_decay": Range(),
    "warmup": SHARE,
    "seed": SEED,
}
RANGES: Mapping[str, Mapping[str, Range]] = {
    "options": {"reg": STRENGTH, "rho": STRENGTH, "paper_lambda": POSITIVE},
    "fit": {**TRAINING, "temperature": POSITIVE, "noise": Range(), "noise_rate": SHARE},
    "refine": {**TRAINING, "folds": Range(2, whole=True)},
}
"""By table of a method's entry."""
NAMES: Mapping[str, Sequence[str]] = {
    "adapter": ["reg", "paper_lambda"],
    "ridge": ["rho"],
    "discriminant": [],
    "fit": [one.name for one in fields(FitSettings)],
    "refine": [one.name for one in fields(RefineSettings)],
}
"""What each table may have, and `options` by method; texts are left to the function that they are for."""


def check_numbers(where: str, transfer: str, tables: Mapping[str, Mapping[str, object] | None]) -> None:
    """Check the numbers of a method's entry.

    Args:
        where: what the entry is called.
        transfer: its method of transfer.
        tables: its tables, `options`, `fit` and `refine`; None for one that is not there.

    Raises:
        TransmiterError: if a number is out of its range, or is none, or a name is unknown.
    """
    for table, values in tables.items():
        for name, value in (values or {}).items():
            known = NAMES[transfer if table == "options" else table]
            if name not in known:
                what = f"none of {', '.join(known)}" if known else f"no option of {transfer}"
                raise TransmiterError(f"{where}: {table}.{name} is {what}.")
            allowed = RANGES[table].get(name)
            if allowed is not None and not allowed.holds(value):
                raise TransmiterError(f"{where}: {table}.{name} must be {allowed}, not {value!r}.")
