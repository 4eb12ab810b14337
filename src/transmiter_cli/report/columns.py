"""The wording of rows and columns, in one place for the terminal, Markdown and the HTML report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from transmiter_cli.layout import EFT_ROW, swept_row

TITLES = {
    "weak": "weak, zero-shot",
    "weak_finetuned": "weak, fine-tuned",
    "strong": "strong, zero-shot",
    "eft": "EFT, a = 1",
    "self_trained": "self-trained",
    "strong_finetuned": "strong, fine-tuned",
}


def title(name: str) -> str:
    """What a row is called; a row that is not known here goes by its own name."""
    other = f"EFT, a = {name.removeprefix(EFT_ROW)}" if name.startswith(EFT_ROW) else name
    return TITLES.get(name, other)


def titles(rows: Iterable[str], reg: float | None = None) -> dict[str, str]:
    """What each row is called; `reg` is the strength of "transferred", where others stand beside it."""
    named = {name: title(name) for name in rows}
    return named if reg is None else named | {"transferred": f"{title('transferred')} {swept_row(reg)}"}


@dataclass(frozen=True)
class Column:
    """One column: its header, and its text for a row."""

    header: str
    cell: Callable[[Any], str]


def percent(fraction: float | None) -> str:
    """91.8; nothing where it is not known."""
    return "" if fraction is None else f"{100 * fraction:z.1f}"


def points(difference: float | None) -> str:
    """+13.7, in percentage points."""
    return "" if difference is None else f"{100 * difference:+z.1f}"


def number(count: float | None) -> str:
    """83.2 k, 52.8 M; "?" where it is not known."""
    if count is None:
        return "?"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            digits = 0 if count >= 99.95 * size else 1
            return f"{count / size:.{digits}f} {unit}"
    return f"{count:,.0f}"


def gain(row: Any) -> str:
    """+13.7 [11.0, 16.4]; nothing without a row to compare with, a dash for that row itself."""
    if row.gain is None:
        return ""
    if row.gain_low == row.gain_high:
        return "-"
    return f"{points(row.gain)} [{percent(row.gain_low)}, {percent(row.gain_high)}]"


def adds(row: Any) -> str:
    """What runs beside the model: further models, or numbers."""
    if row.models:
        return f"{row.models} model{'s' * (row.models > 1)}"
    return number(row.parameters)


def yes(flag: bool) -> str:
    """Words, since a colour or a tick alone tells not everyone."""
    return "yes" if flag else "no"


GAIN_WIDTH = len("-18.7 [-22.4, -14.8]")
"""A longer header would make the table wider than a terminal."""
TOP1 = Column("top-1", lambda row: percent(row.top1))
INTERVAL = Column("95 %", lambda row: f"{percent(row.low)}-{percent(row.high)}")
ADDS = Column("adds", adds)
LABELS = Column("labels", lambda row: yes(row.labels))
BASE_TO_NOVEL_COLUMNS = (
    Column("base", lambda row: percent(row.base)),
    Column("novel", lambda row: percent(row.novel)),
    Column("HM", lambda row: percent(row.hm)),
)
REST = (
    Column("top-5", lambda row: percent(row.top5)),
    Column("per class", lambda row: percent(row.per_class)),
    Column("ECE", lambda row: percent(row.ece)),
    Column("NLL", lambda row: f"{row.nll:.3f}"),
    Column("fixed", lambda row: "" if row.fixed is None else f"{row.fixed:,}"),
    Column("broken", lambda row: "" if row.broken is None else f"{row.broken:,}"),
    Column("+parameters", lambda row: number(row.parameters)),
    Column("+FLOPs", lambda row: number(row.flops)),
    Column("+models", lambda row: str(row.models)),
    Column("seconds", lambda row: f"{row.seconds:.3f}"),
    LABELS,
    Column("gradients", lambda row: yes(row.gradients)),
)
UNLABELLED = (
    Column("as strong", lambda row: percent(row.agrees_strong)),
    Column("as tuned", lambda row: percent(row.agrees_finetuned)),
    Column("changed", lambda row: "" if row.changed is None else f"{row.changed:,}"),
    Column("confidence", lambda row: percent(row.confidence)),
    Column("shift", lambda row: points(row.confidence_shift)),
    ADDS,
)
MEAN_BASE_TO_NOVEL_COLUMNS = (*BASE_TO_NOVEL_COLUMNS, Column("HM of means", lambda row: percent(row.hm_of_means)))


def columns(labelled: bool, base_to_novel: bool, wide: bool, against: str) -> tuple[Column, ...]:
    """The columns of an evaluation, gains being those over the row `against`: at 80 characters, or all."""
    if not labelled:
        return UNLABELLED
    parts = BASE_TO_NOVEL_COLUMNS if base_to_novel else ()
    header = f"vs {against} [95 %]"
    gains = Column(header if wide or len(header) <= GAIN_WIDTH else f"vs {against}", gain)
    if wide:
        return (TOP1, INTERVAL, *parts, gains, *REST)
    return (TOP1, *(parts or (INTERVAL,)), gains, *(() if parts else (ADDS,)), LABELS)


def mean_columns(base_to_novel: bool, against: str) -> tuple[Column, ...]:
    """The columns of means over data sets."""
    parts = MEAN_BASE_TO_NOVEL_COLUMNS if base_to_novel else ()
    return (TOP1, Column(f"vs {against}", lambda row: points(row.gain)), *parts)
