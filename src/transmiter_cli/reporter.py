"""How the core tells what it is doing; the command line shows it, a library user may ignore it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager


class Reporter:
    """Says nothing; the base of those that do."""

    def note(self, message: str) -> None:
        """One sentence about what was done or found."""

    def warn(self, message: str) -> None:
        """One sentence about something the user should look at."""

    @contextmanager
    def progress(self, label: str) -> Generator[Callable[[int, int], None]]:
        """Yield a function to call with (done, in all)."""
        yield lambda done, total: None
