"""A bench as a table, JSON, CSV and Markdown."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from transmiter_cli.bench.grid import BenchResult
from transmiter_cli.bench.summary import Line, Spread
from transmiter_cli.report.columns import title

SETS = 4
"""Data sets that have columns of their own; of more, the table has the mean, the other formats have all."""
HEADERS = {"top1": "mean", "base": "base", "novel": "novel", "hm": "HM", "hm_of_means": "HM of means"}


def shown_columns(lines: Sequence[Line], all_sets: bool = False) -> dict[str, str]:
    """Headers by column, of the lines of one setting."""
    there = {name: None for line in lines for name in line.columns}
    if "hm" in there:
        return {name: HEADERS[name] for name in ("base", "novel", "hm", "hm_of_means")}
    sets = [name for name in there if name.startswith("top1/")]
    fitted = [name for name in sets if name.removeprefix("top1/") == lines[0].fit_on]
    shown = sets if all_sets or len(sets) <= SETS else fitted
    own = {name: name.removeprefix("top1/") for name in shown}
    if len(sets) - len(fitted) == 1:
        return own
    return {**own, "top1": f"mean of {len(sets) - len(fitted)}" if fitted else "mean"}


def setting(line: Line) -> str:
    """What a group of lines is about."""
    shots = "" if line.shots is None else f", {line.shots} shots"
    fitted = "" if line.fit_on is None else f", fitted on {line.fit_on}"
    return f"{line.teacher}, {line.weak} > {line.strong}{shots}{fitted}"


def cell(found: Spread | None) -> str:
    """91.8 ± 0.4, in percent; without a deviation for one seed."""
    if found is None:
        return ""
    return f"{100 * found.mean:.1f}" + (f" ± {100 * found.std:.1f}" if found.seeds > 1 else "")


def groups(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Lines by setting, in order."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(setting(line), []).append(line)
    return found


def bench_tables(lines: Sequence[Line]) -> list[Table]:
    """One table for each setting."""
    tables: list[Table] = []
    for name, own in groups(lines).items():
        shown = shown_columns(own)
        table = Table(box=box.SIMPLE_HEAD, title=Text(name), title_justify="left", title_style="", show_edge=False)
        table.add_column("top-1 %", no_wrap=True)
        for header in shown.values():
            table.add_column(Text(header), justify="right", no_wrap=True)
        for line in own:
            table.add_row(Text(title(line.row)), *(cell(line.columns.get(column)) for column in shown))
        tables.append(table)
    return tables


def bench_markdown(lines: Sequence[Line]) -> str:
    """All settings and data sets as Markdown tables."""
    text: list[str] = []
    for name, own in groups(lines).items():
        shown = shown_columns(own, all_sets=True)
        text += [name, "", f"| top-1 % | {' | '.join(shown.values())} |", f"|---|{'---:|' * len(shown)}"]
        text += [f"| {title(one.row)} | {' | '.join(cell(one.columns.get(c)) for c in shown)} |" for one in own]
        text.append("")
    return "\n".join(text)


def bench_csv(lines: Sequence[Line]) -> str:
    """One line per row and column of the table: mean, deviation and number of seeds."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["teacher", "weak", "strong", "shots", "fit_on", "row", "column", "data", "mean", "std", "seeds"])
    for line in lines:
        for name, found in line.columns.items():
            column, _, data = name.partition("/")
            about = (line.teacher, line.weak, line.strong, line.shots, line.fit_on, line.row, column, data)
            writer.writerow([*about, found.mean, found.std, found.seeds])
    return out.getvalue()


def bench_json(result: BenchResult, lines: Sequence[Line]) -> dict[str, Any]:
    """The table, all cells, and what could not be measured; fractions."""
    table = [asdict(line) for line in lines]
    cells = [asdict(one) for one in result.cells]
    return {"table": table, "cells": cells, "failures": list(result.failures), "kept": result.kept}
