"""The names of splits."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from transmiter_cli.errors import TransmiterError, UsageError

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def canonical(split: str) -> str:
    """The usual name of a split: "validation" is "val"; any other name is its own."""
    return next((name for name, spellings in SPLITS.items() if split.lower() in spellings), split)


def is_usual(split: str) -> bool:
    """Whether a split is called as those of most data are."""
    return canonical(split) in SPLITS


def choose_split(splits: Sequence[str], asked: str | None, usual: str | None, data: str) -> str | None:
    """The split to read; None for data without splits.

    Args:
        splits: those that there are.
        asked: the one that the user asked for.
        usual: the one that the command reads otherwise; "test" falls back to "val".
        data: the data's name.

    Raises:
        UsageError: if the user asked for a split that does not exist.
        TransmiterError: if the usual split does not exist.
    """
    has = ", ".join(splits)
    if asked is not None:
        if canonical(asked) in splits:
            return canonical(asked)
        if not splits:
            raise UsageError(f"{data} has no splits, so it has no {asked!r} split.", "leave --split out")
        raise UsageError(f"{data} has no {asked!r} split, only {has}.", f"--split {shlex.quote(splits[0])}")
    if not splits or usual in splits:
        return usual if splits else None
    if usual == "test" and "val" in splits:
        return "val"
    raise TransmiterError(f"{data} has no {usual!r} split, only {has}.", f"--split {shlex.quote(splits[0])}")
