"""What is printed is printed as it is."""

import io

import pytest
from rich.console import Console

from transmiter_cli.cli import console


def test_brackets_in_names_are_no_markup(monkeypatch: pytest.MonkeyPatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(console, "errors", terminal)
    reporter = console.ConsoleReporter(quiet=False)
    with reporter.progress("Encoding images with local-dir:a[/b]") as advance:
        advance(1, 2)
    assert "local-dir:a[/b]" in terminal.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("out", [console.errors, console.results, console.wide_results])
def test_no_console_takes_text_for_markup(out: Console):
    with out.capture() as printed:
        out.print("/tmp/[red]x[/red]/hub")
    assert printed.get() == "/tmp/[red]x[/red]/hub\n"
