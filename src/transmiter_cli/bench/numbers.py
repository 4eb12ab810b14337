"""The numbers that a method's entry in a bench file may give, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from transmiter_cli.errors import TransmiterError
from transmiter_cli.method.ranges import POSITIVE, STRENGTH, Range
from transmiter_cli.method.settings import FIT_RANGES, REFINE_RANGES, FitSettings, RefineSettings

RANGES: Mapping[str, Mapping[str, Range]] = {
    "options": {"reg": STRENGTH, "rho": STRENGTH, "paper_lambda": POSITIVE},
    "fit": FIT_RANGES,
    "refine": REFINE_RANGES,
}
"""By table of a method's entry."""
NAMES: Mapping[str, Sequence[str]] = {
    "adapter": ["reg", "paper_lambda"],
    "ridge": ["rho"],
    "discriminant": ["opaque_names"],
    "fit": [one.name for one in fields(FitSettings)],
    "refine": [one.name for one in fields(RefineSettings)],
}
"""What each table may have, and `options` by method; texts are left to the function that they are for."""
CLOSED_FORM = ("folds", "seed")
"""What `refine` may have for a linear classifier, which is refined without a step of training."""


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
            if table == "refine" and transfer != "adapter":
                known = CLOSED_FORM
            if name not in known:
                raise TransmiterError(f"{where}: {table}.{name} is none of {', '.join(known)}.")
            allowed = RANGES[table].get(name)
            if allowed is not None and not allowed.holds(value):
                raise TransmiterError(f"{where}: {table}.{name} must be {allowed}, not {value!r}.")
