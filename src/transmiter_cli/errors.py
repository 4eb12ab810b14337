"""The errors that users meet."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 5
"""How many of many names a message shows."""


class TransmiterError(Exception):
    """Something the user can mend. Its text says what happened and why.

    Attributes:
        fix: a command, or what else mends it; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.fix = fix


class UsageError(TransmiterError):
    """The command line itself asks for something that does not exist or does not fit."""

    exit_code = 2


def some(names: Sequence[object]) -> str:
    """The first of maybe many names."""
    return ", ".join(map(str, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
