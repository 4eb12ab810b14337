"""The errors that users meet."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class TransmiterError(Exception):
    """Something the user can mend. Its text says what happened and why.

    Attributes:
        fix: a command, or what else mends it; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, fix: str | None = None) -> None:
        super().__init__(message)
        self.fix = fix

    @property
    def fix(self) -> str | None:
        """See above; a traceback shows it below the text."""
        return self._fix

    @fix.setter
    def fix(self, fix: str | None) -> None:
        self._fix = fix
        self.__notes__ = [f"Try: {fix}"] if fix else []


class UsageError(TransmiterError):
    """The command line itself asks for something that does not exist or does not fit."""

    exit_code = 2


@contextmanager
def mended_by(fix: str) -> Generator[None]:
    """Set `fix` on a TransmiterError that is raised inside and has none; also a decorator."""
    try:
        yield
    except TransmiterError as error:
        error.fix = error.fix or fix
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, a GPU's, or a CPU's, for which torch and library loaders have no error."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    marks = ("DefaultCPUAllocator", os.strerror(errno.ENOMEM), "failed to map segment")
    return named or any(mark in str(error) for mark in marks)


def listing(path: Path) -> str:
    """The command line that shows what lies where a wrong path points, as far as there are folders."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 (takes ".." away, and leaves links)
    folder = next((folder for folder in whole.parents if folder.is_dir()), whole)
    return f"ls {shlex.quote(str(folder))}"


def first_line(error: Exception | None) -> str:
    """What an exception says, on one line and without a full stop; its type if that is nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
