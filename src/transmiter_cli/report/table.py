"""The evaluation as a table, as JSON, and the demo's in a sentence."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from transmiter_cli.evaluation import Row
from transmiter_cli.workflow.evaluate import EvalResult

TITLES = {
    "weak": "weak, zero-shot",
    "weak_finetuned": "weak, fine-tuned",
    "strong": "strong, zero-shot",
    "eft": "EFT, 3 models",
    "direct": "direct",
    "transferred": "transferred",
    "ridge": "ridge",
    "discriminant": "discriminant",
    "refined": "refined",
}


def evaluation_table(result: EvalResult) -> Table:
    """All rows at 80 columns; the best of the strong model's is marked with a star, not by colour alone."""
    table = Table(
        box=box.SIMPLE_HEAD, title=Text(heading(result)), title_justify="left", title_style="", pad_edge=False
    )
    table.add_column("model", no_wrap=True)
    for header in ("top-1 %", "95 % interval", "parameters", "labels", "gradients"):
        table.add_column(header, justify="right", no_wrap=True)
    ours = {name: row for name, row in result.rows.items() if name not in ("weak", "weak_finetuned", "strong", "eft")}
    best = max(ours, key=lambda name: ours[name].top1, default=None)
    for name, row in result.rows.items():
        table.add_row(*cells(name, row, name == best), style="bold" if name == best else "")
    return table


def heading(result: EvalResult) -> str:
    """What was measured on what."""
    part = f" ({result.split})" if result.split else ""
    models = f"weak {result.weak}, strong {result.strong}"
    return f"{result.data}{part}: {result.images:,} images, {result.classes} classes; {models}"


def cells(name: str, row: Row, best: bool) -> tuple[str, ...]:
    """One row's texts."""
    cost = "?" if row.parameters is None else f"+{row.parameters:,}" if row.parameters else "0"
    return (
        f"{TITLES.get(name, name)}{' *' if best else ''}",
        f"{100 * row.top1:.1f}",
        f"{100 * row.low:.1f}-{100 * row.high:.1f}",
        cost,
        "yes" if row.labels else "no",
        "yes" if row.gradients else "no",
    )


def evaluation_json(result: EvalResult) -> dict[str, Any]:
    """All rows; accuracies are fractions."""
    about = {name: value for name, value in vars(result).items() if name != "rows"}
    return {**about, "rows": {name: asdict(row) for name, row in result.rows.items()}}


def demo_sentence(result: EvalResult) -> str:
    """What the user just saw."""
    rows = {name: 100 * row.top1 for name, row in result.rows.items()}
    return (
        f"You saw a strong model go from {rows['strong']:.1f} % to {rows['transferred']:.1f} % on handwriting, with "
        f"no label and no gradient in it, by taking over what a weaker model ({rows['weak']:.1f} %) had "
        f"learned in fine-tuning; 16 labels per class then made it {rows['refined']:.1f} %."
    )
