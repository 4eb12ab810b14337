"""The errors that users meet."""

from __future__ import annotations


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
