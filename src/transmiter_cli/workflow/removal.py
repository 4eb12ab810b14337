"""What a new fit, transfer or self-train takes out of a run, and the command lines that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import reduce

from transmiter_cli.layout import LATER, SWEPT_ROW, method_of
from transmiter_cli.method.settings import HEEDED_BY
from transmiter_cli.record import Made, Step, values, without
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import Run


@contextmanager
def telling_removed(run: Run, reporter: Reporter) -> Generator[None]:
    """Say what of a run is there before and not afterwards, and how to have it again."""
    before = run.made()
    yield
    there = run.made()
    told = removal([one for one in before if one not in there], run)
    if told:
        reporter.warn(told)


def removal(gone: Sequence[Made], run: Run) -> str:
    """One sentence on what was removed, and one on how to have it again; empty if nothing was.

    Args:
        gone: what was removed.
        run: where it was, with the history that made it.
    """
    if not gone:
        return ""
    rows: dict[str, list[str]] = {}
    for made in gone:
        rows.setdefault(made.strong, []).append(made.row)
    what = "; ".join(f"{', '.join(names)} ({strong})" for strong, names in rows.items())
    several = len({*run.strong_models(), *rows}) > 1
    history = run.history()
    last = {made: last_maker(made, history) for made in gone}
    lines = dict.fromkeys(
        line_for(made, run, history, several) for made in sorted(gone, key=lambda made: (made.row in LATER, last[made]))
    )
    newest = len(history) - 1
    older = [i for made, i in last.items() if made.row not in LATER and 0 <= i < newest]
    replaces = bool(older) and history[newest].command == "transfer"
    undone = "The following replaces what was just made, but makes it again" if replaces else "To make it again"
    return f"No longer in {run.path}: {what}. {undone}: {' && '.join(lines)}"


def last_maker(made: Made, history: Sequence[Step]) -> int:
    """The place in the history of the command that made something last; -1 if none did."""
    return max((i for i, step in enumerate(history) if made in step.made), default=-1)


def line_for(made: Made, run: Run, history: Sequence[Step], several: bool) -> str:
    """The command line that makes something again, as it was made last.

    Args:
        made: what is to be made.
        run: where.
        history: the commands that changed the run.
        several: whether the run has several strong models, or had.
    """
    last = last_maker(made, history)
    return run.command_line_of(told_for(history[last], made, several)) if last >= 0 else plain_line(made, run)


def line_alone(made: Made, run: Run) -> str:
    """The command line that makes something again, and nothing else of what the same transfer made."""
    history = run.history()
    if made.row not in LATER:
        history = [step._replace(line=transfer_alone(step.line, made)) for step in history]
    return line_for(made, run, history, several=len(run.strong_models()) > 1)


def transfer_alone(line: Sequence[str], made: Made) -> list[str]:
    """A transfer's command line for one strong model and method, less the options that only other methods heed."""
    method = method_of(made.row)
    others = {f"--{name.replace('_', '-')}" for name, by in HEEDED_BY.items() if by != method}
    flags = others & {"--opaque-names"}  # which has no value
    less = reduce(without, ["--strong", "--method", *(others - flags)], list(line))
    return [*(part for part in less if part not in flags), "--strong", made.strong, "--method", method]


def refine_again(strong: str, run: Run) -> str:
    """The command line that refines a strong model as it was done last, from what refine itself prefers to start with.

    What it was told to start with, and how to train that, is left out.
    """
    told = ("--method", "--epochs", "--lr")
    history = [step._replace(line=reduce(without, told, step.line)) for step in run.history()]
    return line_for(Made(strong, "refined"), run, history, several=len(run.strong_models()) > 1)


def told_for(step: Step, made: Made, several: bool) -> Step:
    """The step that made something, its strong model told, which it may have left unsaid while there was but one."""
    unsaid = made.row in LATER and several and not values(step.line, "--strong")
    return step._replace(line=[*step.line, "--strong", made.strong]) if unsaid else step


def plain_line(made: Made, run: Run) -> str:
    """The plainest command line that makes something, for what no history tells of."""
    strong = f"--strong {shlex.quote(made.strong)}"
    lines = {"self_trained": f"self-train --data IMAGES {strong}", "refined": f"refine {strong}"}
    usual = f"transfer {strong} --method {method_of(made.row)}"
    if made.row.startswith(SWEPT_ROW):
        usual += f" --reg 1,{made.row.removeprefix(SWEPT_ROW)}"
    return f"transmiter {lines.get(made.row, usual)}{run.flag}"
