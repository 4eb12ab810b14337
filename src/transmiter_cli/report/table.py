"""The evaluation as a table, JSON, CSV and Markdown, and the demo's in a sentence."""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from transmiter_cli.evaluation.result import EvalResult
from transmiter_cli.evaluation.rows import REFERENCE, MeanRow
from transmiter_cli.layout import is_ours
from transmiter_cli.names import visible
from transmiter_cli.report.columns import Column, columns, mean_columns, titles

WIDTH = 80
MARK = "*"
BEST = f"{MARK} best of the rows that run one strong model."
NO_BEST = "No row that runs one strong model is better than the strong model itself."


def evaluation_table(result: EvalResult, wide: bool = False) -> Table:
    """All rows at 80 columns, or with all columns; the best of ours is marked by a star, not by style alone."""
    about = (columns_of(result, wide), best_row(result), caption(result), result.reg)
    return table(heading(result), result.rows, *about)


def table(
    name: str,
    rows: Mapping[str, Any],
    shown: Sequence[Column],
    best: str | None,
    below: str | None = None,
    reg: float | None = None,
) -> Table:
    """Rows under aligned columns; `reg` as in `titles`."""
    names = titles(rows, reg)
    found = Table(
        box=box.SIMPLE_HEAD,
        title=Text(wrapped(name)),
        title_justify="left",
        title_style="",
        caption=Text(wrapped(below)) if below else None,
        caption_justify="left",
        caption_style="",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    found.add_column("  model", no_wrap=True)
    for column in shown:
        found.add_column(column.header, justify="right", no_wrap=True)
    for row_name, row in rows.items():
        marked = f"{MARK if row_name == best else ' '} {names[row_name]}"
        found.add_row(marked, *(column.cell(row) for column in shown), style="bold" if row_name == best else "")
    return found


def wrapped(text: str) -> str:
    """Lines of at most 80 characters; the console itself wraps nothing."""
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, WIDTH) or [""])


def columns_of(result: EvalResult, wide: bool) -> tuple[Column, ...]:
    """The columns for a result."""
    return columns(result.labelled, result.has_parts, wide, result.against)


def best_row(result: EvalResult) -> str | None:
    """The most accurate of the strong model's rows; None without labels, or if none is better than zero-shot."""
    if not result.labelled:
        return None
    rows: Mapping[str, Any] = result.rows
    least = rows[REFERENCE].top1 if REFERENCE in rows else -1.0
    better = [name for name, row in rows.items() if is_ours(name) and row.top1 > least]
    return max(better, key=lambda name: rows[name].top1, default=None)


def heading(result: EvalResult) -> str:
    """What was measured on what."""
    part = f" ({result.split})" if result.split else ""
    models = f"weak {result.weak}, strong {result.strong}"
    return visible(f"{result.data}{part}: {result.images:,} images, {result.classes} classes; {models}")


def caption(result: EvalResult) -> str:
    """What the reader must know beside the numbers."""
    lines = list(result.notes)
    if not result.labelled:
        lines += moves(result)
    elif any(map(is_ours, result.rows)):
        best = NO_BEST if best_row(result) is None else BEST
        interval = "" if result.against == REFERENCE else " [95 %]"  # a long name has no place for it in the header
        lines.append(f"{best} vs {result.against}{interval}: paired difference in top-1, in points.")
    return "\n".join(lines)


def moves(result: EvalResult) -> list[str]:
    """For each of our rows without labels, which classes move."""
    names = result.evidence.class_names
    called = titles(result.rows, result.reg)
    lines: list[str] = []
    for name, row in result.rows.items():
        if is_ours(name) and getattr(row, "moves", ()):
            told = ", ".join(f"{names[m.before]} > {names[m.after]} {m.images}" for m in row.moves[:3])  # type: ignore[union-attr]
            lines.append(visible(f"{called[name]} moves {told}"))
    return lines


def means_table(means: Mapping[str, MeanRow], against: str, reg: float | None = None) -> Table:
    """The means over several data sets, compared with the row `against`; `reg` as in `titles`."""
    name, shown, note = about_means(means, against)
    return table(name, means, shown, None, note, reg)


def about_means(means: Mapping[str, MeanRow], against: str) -> tuple[str, tuple[Column, ...], str | None]:
    """The heading of the means over several data sets, their columns, and what to say below."""
    parts = any(row.hm is not None for row in means.values())
    sets = next(iter(means.values())).sets
    note = "HM: the mean of the data sets' HMs; HM of means: that of mean base and mean novel" if parts else None
    return f"mean over {sets} data sets", mean_columns(parts, against), note


def evaluation_markdown(result: EvalResult) -> str:
    """All rows and columns as Markdown."""
    below = "\n".join(result.notes)
    return markdown(heading(result), result.rows, columns_of(result, wide=True), below, result.reg)


def means_markdown(means: Mapping[str, MeanRow], against: str, reg: float | None = None) -> str:
    """The means over several data sets as Markdown; arguments as in `means_table`."""
    name, shown, note = about_means(means, against)
    return markdown(name, means, shown, note, reg)


def markdown(
    name: str, rows: Mapping[str, Any], shown: Sequence[Column], below: str | None, reg: float | None = None
) -> str:
    """A table as Markdown, with a line above and perhaps one below; `reg` as in `titles`."""
    names = titles(rows, reg)
    lines = [
        name,
        "",
        f"| model | {' | '.join(column.header for column in shown)} |",
        f"|---|{'---:|' * len(shown)}",
    ]
    lines += [f"| {names[one]} | {' | '.join(column.cell(row) for column in shown)} |" for one, row in rows.items()]
    return "\n".join([*lines, *(["", below] if below else [])]) + "\n"


def evaluation_csv(results: Sequence[EvalResult], means: Mapping[str, MeanRow] | None = None) -> str:
    """One line per data set and row, fractions unrounded; columns as in JSON. Last the means, whose data are "mean"."""
    lines: list[dict[str, Any]] = [
        {"data": result.data, "row": name, **row, **against_of(result), "notes": " ".join(result.notes)}
        for result in results
        for name, row in evaluation_json(result)["rows"].items()
    ]
    for line in lines:
        if "moves" in line:
            line["moves"] = json.dumps([[*move.values()] for move in line["moves"]], ensure_ascii=False)
    lines += [
        {"data": "mean", "row": name, **asdict(row), **against_of(results[0])} for name, row in (means or {}).items()
    ]
    out = StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def against_of(result: EvalResult) -> dict[str, str]:
    """The row that gains are over, for a line of CSV; none without labels."""
    return {"against": result.against} if result.labelled else {}


def evaluation_json(result: EvalResult) -> dict[str, Any]:
    """All rows; accuracies are fractions, moved classes names."""
    left_out = {"rows", "evidence"} if result.labelled else {"rows", "evidence", "against"}
    about = {name: value for name, value in vars(result).items() if name not in left_out}
    rows = {name: asdict(row) for name, row in result.rows.items()}
    if not result.labelled:
        names = result.evidence.class_names
        for row in rows.values():
            for move in row["moves"]:
                move |= {"before": names[move["before"]], "after": names[move["after"]]}
    return {**about, "labelled": result.labelled, "rows": rows}


def demo_sentence(result: EvalResult) -> str:
    """What the user just saw."""
    percents = {name: f"{100 * row.top1:.1f} %" for name, row in result.rows.items()}  # type: ignore[union-attr]
    return (
        f"You saw a strong model go from {percents['strong']} to {percents['transferred']} (the paper's adapter) and "
        f"to {percents['discriminant']} (discriminant) on handwriting, with no label and no gradient in it, by taking "
        f"over what a weaker model ({percents['weak']}) had learned in fine-tuning."
    )
