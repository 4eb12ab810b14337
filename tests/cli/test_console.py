"""What is printed is printed as it is."""

import io

import pytest
from rich.console import Console

from transmiter_cli.cli import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_brackets_in_names_are_no_markup(monkeypatch: pytest.MonkeyPatch):
    terminal = Console(file=Terminal(), force_terminal=True, width=80)
    monkeypatch.setattr(console, "errors", terminal)
    reporter = console.ConsoleReporter(quiet=False)
    with reporter.progress("Encoding images with local-dir:a[/b]") as advance:
        advance(1, 2)
    assert "local-dir:a[/b]" in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_results_go_to_their_file_also_while_a_bar_is_on_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(console, "errors", Console(file=Terminal(), force_terminal=True, width=80))
    with console.ConsoleReporter(quiet=False).progress("Encoding") as advance:
        advance(1, 2)
        print("result")
    assert capsys.readouterr().out == "result\n"


def test_a_log_has_no_bars_whatever_colours_are_asked_for(monkeypatch: pytest.MonkeyPatch):
    log = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(console, "errors", log)
    with console.ConsoleReporter(quiet=False).progress("Encoding") as advance:
        advance(1, 2)
    assert log.file.getvalue() == ""  # type: ignore[attr-defined]


def test_names_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console, "errors", Console(stderr=True, force_terminal=True))
    reporter = console.ConsoleReporter(quiet=False)
    reporter.note("a\x1b]0;title\x07b.jpg is skipped")
    reporter.warn("a\x9b31mb\tc\nd")
    console.print_result([("adapter", "a\x1b[2Jb")])
    printed = capsys.readouterr()
    assert r"a\x1b]0;title\x07b.jpg" in printed.err
    assert r"a\x9b31mb" in printed.err
    assert "\nd" in printed.err
    assert printed.out.endswith("a\\x1b[2Jb\n")


@pytest.mark.parametrize("out", [console.errors, console.results, console.wide_results])
def test_no_console_takes_text_for_markup(out: Console):
    with out.capture() as printed:
        out.print("/tmp/[red]x[/red]/hub")
    assert printed.get() == "/tmp/[red]x[/red]/hub\n"
