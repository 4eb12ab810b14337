"""The names of splits."""

from __future__ import annotations

from collections.abc import Sequence

from transmiter_cli.errors import TransmiterError, UsageError

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def canonical(split: str) -> str:
    """The usual name of a split: "validation" is "val"; any other name is its own."""
    return next((name for name, spellings in SPLITS.items() if split.lower() in spellings), split)


def is_usual(split: str) -> bool:
    """Whether a split is called as those of most data are."""
    return canonical(split) in SPLITS


def choose_part(parts: Sequence[str], asked: str | None, usual: str | None, data: str) -> str | None:
    """The split to read; None for data without splits.

    Args:
        parts: the splits that there are.
        asked: the one that the user asked for.
        usual: the one that the command reads otherwise; "test" falls back to "val".
        data: the data's name.

    Raises:
        UsageError: if the user asked for a split that does not exist.
        TransmiterError: if the usual split does not exist.
    """
    has = ", ".join(parts)
    if asked is not None:
        if canonical(asked) in parts:
            return canonical(asked)
        if not parts:
            raise UsageError(f"{data} has no splits, so it has no {asked!r} part.", "leave --split out")
        raise UsageError(f"{data} has no {asked!r} part, only {has}.", f"--split {parts[0]}")
    if not parts or usual in parts:
        return usual if parts else None
    if usual == "test" and "val" in parts:
        return "val"
    raise TransmiterError(f"{data} has no {usual!r} part, only {has}.", f"--split {parts[0]}")
