"""From cells to a table: means over data sets and seeds, and the deviation between seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from transmiter_cli.bench.grid import Cell
from transmiter_cli.method.metrics import harmonic_mean

BEFORE = ("weak", "weak_finetuned", "strong")
COLUMNS = ("top1", "base", "novel", "hm", "hm_of_means")


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and the standard deviation between them (n - 1; 0 for one seed)."""

    mean: float
    std: float
    seeds: int


@dataclass(frozen=True)
class Line:
    """One row of the table: a model or method in one setting.

    Attributes:
        columns: by name: "top1" is the mean over data sets, "top1/NAME" one data set's; in base-to-novel also base,
            novel, hm (the mean of the data sets' harmonic means) and hm_of_means.
        fit_on: where all was fitted on one data set and measured on others, too, that one; the means are then over the
            others. None where each data set was fitted on itself.
    """

    teacher: str
    weak: str
    strong: str
    shots: int | None
    row: str
    columns: dict[str, Spread]
    fit_on: str | None = None


def summarize(cells: Sequence[Cell]) -> list[Line]:
    """Lines in the order of the cells; a setting's reference rows come before its methods.

    A mean over data sets takes, for each seed, those that were measured with that seed. What was fitted on one data
    set and measured on others has lines of its own, with that data set as the first; where there is no other data set
    that was fitted on itself, these are all.
    """
    settings = dict.fromkeys((cell.teacher, cell.weak, cell.strong, cell.shots) for cell in cells)
    lines: list[Line] = []
    for setting in settings:
        own = [cell for cell in cells if (cell.teacher, cell.weak, cell.strong, cell.shots) == setting]
        plain = [cell for cell in own if cell.fit_on is None]
        sources = list(dict.fromkeys(cell.fit_on for cell in own if cell.fit_on is not None))
        if {cell.data for cell in plain} != set(sources[:1]):
            lines += lines_of(setting, plain, None)
        for source in sources:
            within = [cell for cell in plain if cell.data == source]
            lines += lines_of(setting, within + [cell for cell in own if cell.fit_on == source], source)
    return lines


def lines_of(setting: tuple[str, str, str, int | None], cells: Sequence[Cell], fit_on: str | None) -> list[Line]:
    """The lines of one setting: the reference rows, then the methods."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    lines: list[Line] = []
    for method in methods:
        own = [cell for cell in cells if cell.method == method]
        if method == methods[0]:
            others = [name for name in own[0].rows if name != method]
            references = dict.fromkeys(name for name in (*BEFORE, *others) if name in own[0].rows)
            lines = [Line(*setting, name, spreads(own, name, fit_on), fit_on) for name in references]
        lines.append(Line(*setting, method, spreads(own, method, fit_on), fit_on))
    return lines


def spreads(cells: Sequence[Cell], row: str, fit_on: str | None = None) -> dict[str, Spread]:
    """The columns of one row; the means leave `fit_on` out."""
    meant = [cell for cell in cells if cell.data != fit_on]
    seeds = list(dict.fromkeys(cell.seed for cell in meant))
    found = {column: [seed_mean(meant, row, column, seed) for seed in seeds] for column in COLUMNS}
    for data in dict.fromkeys(cell.data for cell in cells):
        own = [cell for cell in cells if cell.data == data]
        for column in ("top1", "base", "novel", "hm"):
            found[f"{column}/{data}"] = [one for cell in own if (one := cell.rows[row].get(column)) is not None]
    kept = {name: [one for one in values if one is not None] for name, values in found.items()}
    return {name: spread(values) for name, values in kept.items() if values}


def seed_mean(cells: Sequence[Cell], row: str, column: str, seed: int) -> float | None:
    """The mean over the data sets of one seed; None for a column that was not measured."""
    if column == "hm_of_means":
        base, novel = (seed_mean(cells, row, part, seed) for part in ("base", "novel"))
        return None if base is None or novel is None else harmonic_mean(base, novel)
    values = [cell.rows[row].get(column) for cell in cells if cell.seed == seed]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))
