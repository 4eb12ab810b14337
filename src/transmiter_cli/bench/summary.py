"""From cells to a table: means over data sets and seeds, and the deviation between seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence, Set
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

    A mean over data sets takes, for each seed, those that were measured with that seed; a row that lacks one of them,
    since its method failed there, has no mean for that seed, so that all means of a setting are over the same sets.
    What was fitted on one data set and measured on others has lines of its own, with that data set as the first; where
    there is no other data set that was fitted on itself, these are all.
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
    """The lines of one setting: the reference rows, each data set's from any method that has them, then the methods."""
    methods = dict.fromkeys(cell.method for cell in cells)
    others = dict.fromkeys(name for cell in cells for name in cell.rows if name not in methods)
    references = [name for name in dict.fromkeys((*BEFORE, *others)) if name in others]
    sets: dict[int, set[str]] = {}
    for cell in cells:
        if cell.data != fit_on:
            sets.setdefault(cell.seed, set()).add(cell.data)
    of_row: dict[str, list[Cell]] = {}
    for name in references:
        first: dict[tuple[str, int], Cell] = {}
        for cell in cells:
            if name in cell.rows:
                first.setdefault((cell.data, cell.seed), cell)
        of_row[name] = [*first.values()]
    of_row |= {method: [cell for cell in cells if cell.method == method] for method in methods}
    return [Line(*setting, name, spreads(own, name, sets, fit_on), fit_on) for name, own in of_row.items()]


def spreads(
    cells: Sequence[Cell], row: str, sets: Mapping[int, Set[str]], fit_on: str | None = None
) -> dict[str, Spread]:
    """The columns of one row; the means leave `fit_on` out, and seeds of which one of the `sets` is not there."""
    meant = [cell for cell in cells if cell.data != fit_on]
    found = {column: [seed_mean(meant, row, column, seed, len(sets[seed])) for seed in sets] for column in COLUMNS}
    for data in dict.fromkeys(cell.data for cell in cells):
        own = [cell for cell in cells if cell.data == data]
        for column in ("top1", "base", "novel", "hm"):
            found[f"{column}/{data}"] = [one for cell in own if (one := cell.rows[row].get(column)) is not None]
    kept = {name: [one for one in values if one is not None] for name, values in found.items()}
    return {name: mean_and_deviation(values) for name, values in kept.items() if values}


def seed_mean(cells: Sequence[Cell], row: str, column: str, seed: int, sets: int) -> float | None:
    """The mean over the data sets of one seed; None for a column that was not measured on so many sets."""
    if column == "hm_of_means":
        base, novel = (seed_mean(cells, row, part, seed, sets) for part in ("base", "novel"))
        return None if base is None or novel is None else harmonic_mean(base, novel)
    values = [cell.rows[row].get(column) for cell in cells if cell.seed == seed]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == sets else None


def mean_and_deviation(values: Sequence[float]) -> Spread:
    """Mean and deviation."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))
