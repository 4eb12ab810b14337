"""Results go to stdout, all else to stderr; bars only on a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from transmiter_cli.names import visible
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import RUN_VARIABLE

errors = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False, markup=False)
results = Console(soft_wrap=True, highlight=False, emoji=False, markup=False)
results.width = max(results.width, 80)  # a narrower terminal folds the lines of a table; rich would cut its cells
wide_results = Console(soft_wrap=True, highlight=False, emoji=False, markup=False, width=240)
"""For tables with all their columns, whatever the terminal has."""


class ConsoleReporter(Reporter):
    """Shows notes, warnings and progress on stderr; the same warning once."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.warned: set[str] = set()

    def note(self, message: str) -> None:
        """Print a dim line."""
        if not self.quiet:
            errors.print(Text(visible(message), style="dim"))

    def warn(self, message: str) -> None:
        """Print a line that begins with "Warning"."""
        if message not in self.warned:
            errors.print(Text.assemble(("Warning: ", "yellow"), visible(message)))
        self.warned.add(message)

    @contextmanager
    def progress(self, label: str) -> Generator[Callable[[int, int], None]]:
        """A bar with rate and time left, on a terminal."""
        if self.quiet or not errors.file.isatty():  # is_terminal would follow FORCE_COLOR into a log
            yield lambda done, total: None
            return
        from rich import progress as bars

        columns = (
            bars.TextColumn("{task.description}", markup=False),  # a column does not ask the console
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeRemainingColumn(),
        )
        # On a terminal, results go above the bar; elsewhere rich would take them to the terminal, too.
        beside = sys.stdout.isatty()
        with bars.Progress(*columns, console=errors, transient=True, redirect_stdout=beside) as bar:
            task = bar.add_task(label, total=None, rate="")

            def advance(done: int, total: int) -> None:
                speed = bar.tasks[0].speed
                bar.update(task, completed=done, total=total, rate=f"{speed:,.0f}/s" if speed else "")

            yield advance


def command_line() -> list[str]:
    """The command as it was typed, and the run where $TRANSMITER_RUN named it."""
    named = os.environ.get(RUN_VARIABLE)
    typed = any(part == "--run" or part.startswith("--run=") for part in sys.argv)
    return ["transmiter", *sys.argv[1:], *(["--run", named] if named and not typed else [])]


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object, fractions unrounded."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def print_text(text: str) -> None:
    """Print text as it is: Markdown or CSV, which no terminal may wrap."""
    sys.stdout.write(text)


def print_result(lines: list[tuple[str, str]]) -> None:
    """Print a result as aligned names and values."""
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        results.print(Text.assemble((f"{name:<{width}}  ", "bold"), visible(value)))


def percent(fraction: float) -> str:
    """A fraction as people read it: 93.1 %."""
    return f"{100 * fraction:.1f} %"


def said(value: object) -> str:
    """A setting as people write it: 1,198 and 0.1, and 10 for 10.0; a verdict in words."""
    if isinstance(value, dict):
        return verdict_in_words(value)
    return f"{value:,}" if type(value) is int else f"{value:g}" if isinstance(value, float) else str(value)


def shown(path: Path) -> str:
    """A path relative to here where that is shorter."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def verdict_in_words(verdict: dict[str, Any]) -> str:
    """What an artefact of the discriminant keeps of its verdict, in one line; "none" is a teacher that is not used."""
    word = f"{verdict['verdict']}: {verdict['doubt']}" if verdict.get("doubt") else verdict["verdict"]
    if not verdict["strong"] and not any(verdict["teachers"]):
        return word  # nothing was estimated
    trust = ", ".join(f"{one:.2f}" if one else "none" for one in verdict["teachers"])
    trusts = f"trust in the fine-tuned model {trust}, in the strong one {verdict['strong']:.2f}"
    if not any(verdict["teachers"]) or not verdict.get("consistent", True):
        return f"{word} ({trusts})"  # no gain is expected, or nobody can tell how large it is
    where = " on classes with images" if verdict.get("unseen") else ""
    return f"{word} (expected gain{where} {100 * verdict['gain']:+.1f} points; {trusts})"
