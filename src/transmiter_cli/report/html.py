"""The report: one HTML file that needs nothing else, neither a network nor a script."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from torch import Tensor

from transmiter_cli import __version__
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.evaluation.result import EvalResult
from transmiter_cli.evaluation.rows import REFERENCE
from transmiter_cli.files import write_atomically
from transmiter_cli.layout import DIRECT, PREDICTED_BY, is_ours
from transmiter_cli.method.metrics import calibration, correct
from transmiter_cli.report import figures
from transmiter_cli.report.columns import gain, number, percent, points, titles
from transmiter_cli.report.gallery import Thumbnail, thumbnails
from transmiter_cli.report.table import best_row, columns_of, heading


@dataclass(frozen=True)
class Section:
    """One card of the report."""

    title: str
    figure: str
    text: str


@dataclass(frozen=True)
class Gallery:
    """Images under a heading, and how many such images there are in all."""

    title: str
    kind: str
    total: int
    thumbnails: Sequence[Thumbnail] = field(default_factory=list)


def write_report(result: EvalResult, path: Path, commands: Sequence[str] = ()) -> None:
    """Write the report of an evaluation.

    Args:
        result: what eval_run returned, its evidence included.
        path: the HTML file.
        commands: the command lines that led to it.

    Raises:
        TransmiterError: if there is no adapted strong model to report on, or the file cannot be written.
    """
    text = render(result, commands)
    try:
        write_atomically(path, text.encode("utf-8", "backslashreplace"))  # file names need not be text
    except OSError as error:
        raise TransmiterError(f"{path} cannot be written: {error.strerror}.", "pass another --report") from error


def render(result: EvalResult, commands: Sequence[str]) -> str:
    """The report's text."""
    name = subject(result.rows, result.against)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "points": points, "number": number, "gain": gain}
    source = (resources.files("transmiter_cli") / "report" / "report.html.j2").read_text(encoding="utf-8")
    shown = columns_of(result, wide=True)
    best = best_row(result)
    looked_at = on_cpu(result, name)
    names = titles(result.rows, result.reg)
    table = [(names[one], one == best, [column.cell(row) for column in shown]) for one, row in result.rows.items()]
    return environment.from_string(source).render(
        result=result,
        heading=heading(result),
        name=names[name],
        before=result.rows[result.against],
        before_name=names[result.against],
        beside=result.against != REFERENCE,
        after=result.rows[name],
        sections=labelled_sections(result, name, names, *looked_at)
        if result.labelled
        else unlabelled_sections(result, name, names),
        galleries=galleries(result, *looked_at),
        headers=[column.header for column in shown],
        table=table,
        any_best=best is not None,
        commands=commands,
        version=__version__,
    )


def subject(rows: Collection[str], against: str) -> str:
    """The row that the report is about: what `transmiter predict` takes, so that no test label chooses it.

    Raises:
        TransmiterError: if there is none.
        UsageError: if it would be compared with itself.
    """
    ours = [name for name in rows if is_ours(name) and name != DIRECT]
    name = next((name for name in (*PREDICTED_BY, *ours) if name in ours), None)
    if name is None:
        raise TransmiterError("There is no adapted strong model to report on.", "transfer, and eval again")
    if name == against:
        raise UsageError(
            f"The report is about {name}, and --against {name} compares that with itself.", "--against strong"
        )
    return name


def labelled_sections(
    result: EvalResult, name: str, names: Mapping[str, str], labels: Tensor | None, before: Tensor, after: Tensor
) -> list[Section]:
    """The figures of an evaluation with labels."""
    assert labels is not None
    called, classes = (names[result.against], names[name]), result.evidence.class_names
    right = (correct(before, labels), correct(after, labels))
    text = "Top-1 in %; the thin line is the 95 % interval."
    found = [Section("Accuracy", figures.accuracy_figure(result.rows, names), text)]
    if result.has_parts:
        text = "Each part is answered among its own classes, in %."
        found.append(Section("Base and novel classes", figures.parts_figure(result.rows, names), text))
    curves = (calibration(before, labels), calibration(after, labels))
    text = "On the dashed line, confidence is what it claims to be. Larger dots hold more images."
    found.append(Section("Calibration", figures.reliability_figure(*curves, *called), text))
    text = f"Change in accuracy against {called[0]}, in points."
    found.append(Section("Class by class", figures.classes_figure(classes, labels, *right), text))
    text = "Answers more or fewer than before, for the classes that changed most. The diagonal is right."
    figure = figures.confusion_figure(classes, labels, before.argmax(-1), after.argmax(-1))
    return [*found, Section("Where answers went", figure, text)]


def unlabelled_sections(result: EvalResult, name: str, names: Mapping[str, str]) -> list[Section]:
    """The figures of an evaluation without labels."""
    rows: Any = result.rows
    text = "How often each model answers as the zero-shot strong model does, in %."
    moved = figures.moves_figure(result.evidence.class_names, rows[name])
    return [
        Section("Agreement", figures.agreement_figure(rows, names), text),
        Section("Where answers went", moved, "Images that moved from one answer to another."),
    ]


def galleries(result: EvalResult, labels: Tensor | None, before: Tensor, after: Tensor) -> list[Gallery]:
    """Images that were fixed and broken; without labels, images whose answer changed."""
    evidence = result.evidence
    about = (evidence.files, evidence.class_names, labels, before, after)
    if labels is None:
        changed = before.argmax(-1) != after.argmax(-1)
        return [Gallery("Answered otherwise", "moved", int(changed.sum()), thumbnails(*about, changed))]
    earlier, later = correct(before, labels), correct(after, labels)
    fixed, broken = later & ~earlier, earlier & ~later
    return [
        Gallery("Fixed", "fixed", int(fixed.sum()), thumbnails(*about, fixed)),
        Gallery("Broken", "broken", int(broken.sum()), thumbnails(*about, broken)),
    ]


def on_cpu(result: EvalResult, name: str) -> tuple[Tensor | None, Tensor, Tensor]:
    """Labels, and the logits of the row to compare with and of the adapted strong model."""
    models, labels = result.evidence.models, result.evidence.labels
    before, after = (models[row].logits().cpu() for row in (result.against, name))
    return None if labels is None else labels.cpu(), before, after
