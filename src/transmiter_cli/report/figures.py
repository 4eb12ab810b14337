"""The report's figures, each a function from numbers to an inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import torch
from jaxtyping import Int
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from transmiter_cli.evaluation.unlabelled import Unlabelled
from transmiter_cli.layout import is_ours
from transmiter_cli.method.metrics import Calibration, per_class
from transmiter_cli.report.svg import COLOURS, SETTINGS, WIDTH, inline_svg

ROW_HEIGHT = 0.27
MOST_CLASSES = 16
"""Classes that a figure shows; of more, those with the largest gains and losses."""
CONFUSED = 8
NAME_LENGTH = 14
TEXT: Any = {"color": COLOURS["text"], "fontsize": 10}


def canvas(height: float, columns: int = 1) -> tuple[Figure, list[Any]]:
    """A figure with axes side by side."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        return figure, [figure.add_subplot(1, columns, i + 1) for i in range(columns)]


def bars(
    axes: Any, names: Sequence[str], values: Sequence[float], colours: Sequence[str], texts: Sequence[str]
) -> None:
    """Horizontal bars from the top, each with its value written at its end."""
    places = range(len(names))
    axes.barh(places, values, height=0.62, color=[COLOURS[colour] for colour in colours])
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xticks([])
    for place, text in zip(places, texts, strict=True):
        axes.text(1, place, text, ha="right", va="center", transform=axes.get_yaxis_transform(), **TEXT)


def accuracy_figure(rows: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Top-1 of all rows with their intervals; `names` are the rows' titles."""
    figure, (axes,) = canvas(0.35 + ROW_HEIGHT * len(rows))
    values = [100 * row.top1 for row in rows.values()]
    texts = [f"{value:.1f}" for value in values]
    bars(axes, [names[one] for one in rows], values, ["after" if is_ours(one) else "before" for one in rows], texts)
    low, high = ([100 * getattr(row, end) for row in rows.values()] for end in ("low", "high"))
    axes.hlines(range(len(rows)), low, high, colors=COLOURS["text"], linewidth=1.4)
    axes.set_xlim(0, 122)
    told = "; ".join(f"{names[one]} {row.top1:.1%} ({row.low:.1%} to {row.high:.1%})" for one, row in rows.items())
    return inline_svg(figure, f"Bars of top-1 accuracy with 95 % intervals: {told}.", "accuracy")


def parts_figure(rows: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Accuracy on base and novel classes and their harmonic mean, a line per row; `names` are the rows' titles."""
    figure, (axes,) = canvas(0.95 + ROW_HEIGHT * len(rows))
    places = range(len(rows))
    parts = {"base": ("o", "before"), "novel": ("s", "after"), "hm": ("D", "text")}
    values = {part: [100 * getattr(row, part) for row in rows.values()] for part in parts}
    ends = [[pick(values["base"][i], values["novel"][i]) for i in places] for pick in (min, max)]
    axes.hlines(places, *ends, colors=COLOURS["line"], linewidth=2.5, zorder=0)
    for part, (mark, colour) in parts.items():
        label = "harmonic mean" if part == "hm" else part
        axes.plot(values[part], places, mark, color=COLOURS[colour], markersize=6 if part != "hm" else 4, label=label)
    axes.set_yticks(places, [names[one] for one in rows])
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines[["left", "bottom"]].set_visible(False)
    figure.legend(
        loc="outside lower center",
        ncols=3,
        frameon=False,
        labelcolor=COLOURS["text"],
        handletextpad=0.2,
        columnspacing=1.2,
    )
    told = "; ".join(f"{names[n]} base {r.base:.1%}, novel {r.novel:.1%}, mean {r.hm:.1%}" for n, r in rows.items())
    return inline_svg(figure, f"Accuracy on base and novel classes: {told}.", "parts")


def reliability_figure(before: Calibration, after: Calibration, before_name: str, after_name: str) -> str:
    """Accuracy against confidence of two models side by side, whose titles these are."""
    figure, panels = canvas(2.5, columns=2)
    for axes, found, word in zip(panels, (before, after), ("before", "after"), strict=True):
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=1, linestyle=(0, (3, 3)))
        there = found.images > 0
        share = (found.images[there] / found.images.sum()).sqrt()
        points = [found.confidence[there].tolist(), found.accuracy[there].tolist()]
        axes.plot(*points, color=COLOURS[word], linewidth=1.2)
        axes.scatter(
            *points, s=(14 + 170 * share).tolist(), color=COLOURS[word], alpha=0.75, linewidths=0, clip_on=False
        )
        axes.set(xlim=(0, 1.04), ylim=(0, 1.04), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        axes.set_xticklabels(["0", "50", "100 %"])
        axes.set_yticklabels(["0", "50", "100"])
        axes.grid()
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", labelcolor=COLOURS["muted"])
        axes.set_xlabel("confidence")
        axes.set_title(f"{word}: ECE {100 * found.error:.1f}")
    panels[0].set_ylabel("accuracy")
    was, now = f"before, {before_name}, the calibration error is {before.error:.1%}", f"{after_name}, {after.error:.1%}"
    return inline_svg(figure, f"Reliability diagrams: {was}; after, {now}.", "reliability")


def classes_figure(names: Sequence[str], labels: Int[Tensor, " images"], before: Tensor, after: Tensor) -> str:
    """Gains and losses by class in points, sorted; `before` and `after` are where each model is right."""
    present, earlier = per_class(before, labels)
    change = (100 * (per_class(after, labels)[1] - earlier)).tolist()
    order = sorted(range(len(change)), key=lambda i: -change[i])
    if len(order) > MOST_CLASSES:
        order = order[: MOST_CLASSES // 2] + order[-MOST_CLASSES // 2 :]
    shown = [short(names[int(present[i])]) for i in order]
    values = [change[i] for i in order]
    figure, (axes,) = canvas(0.4 + ROW_HEIGHT * len(shown))
    colours = ["gain" if value >= 0 else "loss" for value in values]
    bars(axes, shown, values, colours, [f"{value:+.1f}" if value else "0" for value in values])
    axes.axvline(0, color=COLOURS["muted"], linewidth=0.8)
    reach = max(*map(abs, values), 1.0)
    axes.set_xlim(min(0.0, *values) - 0.04 * reach, max(0.0, *values) + 0.34 * reach)
    told = ", ".join(f"{names[int(present[i])]} {change[i]:+.1f}" for i in order)
    left_out = f" of the {len(change)} classes, the largest gains and losses" if len(change) > len(shown) else ""
    return inline_svg(figure, f"Change in accuracy by class in points{left_out}: {told}.", "classes")


def confusion_figure(names: Sequence[str], labels: Int[Tensor, " images"], before: Tensor, after: Tensor) -> str:
    """How many answers more or fewer each pair of class and answer has, for the classes that changed most.

    `before` and `after` are the models' answers.
    """
    moved = torch.bincount(labels[before != after], minlength=len(names))
    chosen: list[int] = sorted(moved.argsort(descending=True, stable=True)[:CONFUSED].tolist())
    size = len(chosen)
    figure, (axes,) = canvas(WIDTH * 0.86)
    place = torch.full((len(names),), size).index_copy(0, torch.tensor(chosen), torch.arange(size))
    now, then = (confusion(place[labels], place[answers], size + 1) for answers in (after, before))
    cells = (now - then)[:size, :size].tolist()
    largest = max(1, *(abs(cell) for line in cells for cell in line))
    for i, line in enumerate(cells):
        for j, cell in enumerate(line):
            good = cell > 0 if i == j else cell < 0
            colour, strength = COLOURS["gain" if good else "loss"], 0.12 + 0.68 * abs(cell) / largest
            axes.add_patch(square(j, i, colour if cell else COLOURS["line"], strength if cell else 0.25))
            axes.text(j, i, f"{cell:+d}" if cell else "", ha="center", va="center", **TEXT)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    ticks: list[str] = [short(names[i]) for i in chosen]
    axes.set_yticks(range(size), ticks)
    axes.set_xticks(range(size), ticks, rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", labelcolor=COLOURS["text"])
    axes.set_xlabel("answered")
    axes.set_ylabel("labelled")
    axes.spines[["left", "bottom"]].set_visible(False)
    told = ", ".join(f"{names[i]} {cells[k][k]:+d} right answers" for k, i in enumerate(chosen))
    return inline_svg(figure, f"Change of answers among the classes that changed most: {told}.", "confusion")


def confusion(labels: Tensor, answers: Tensor, classes: int) -> Int[Tensor, "classes classes"]:
    """How many images of each class (row) are answered with each (column)."""
    return torch.bincount(labels * classes + answers, minlength=classes**2).view(classes, classes)


def square(x: float, y: float, colour: str, strength: float) -> Any:
    """A cell of a matrix."""
    return Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=colour, alpha=strength, linewidth=0)


def agreement_figure(rows: Mapping[str, Unlabelled], names: Mapping[str, str]) -> str:
    """Without labels: how often each row answers as the zero-shot strong model does; `names` are the rows' titles."""
    figure, (axes,) = canvas(0.35 + ROW_HEIGHT * len(rows))
    values = [100 * (row.agrees_strong or 0.0) for row in rows.values()]
    colours = ["after" if is_ours(name) else "before" for name in rows]
    bars(axes, [names[one] for one in rows], values, colours, [f"{value:.1f}" for value in values])
    axes.set_xlim(0, 122)
    told = "; ".join(f"{names[one]} {value:.1f} %" for one, value in zip(rows, values, strict=True))
    return inline_svg(figure, f"Agreement with the zero-shot strong model: {told}.", "agreement")


def moves_figure(names: Sequence[str], row: Unlabelled) -> str:
    """Without labels: the most frequent changes of answer."""
    figure, (axes,) = canvas(0.4 + ROW_HEIGHT * max(1, len(row.moves)))
    shown = [f"{short(names[move.before])} → {short(names[move.after])}" for move in row.moves]
    values = [float(move.images) for move in row.moves]
    bars(axes, shown, values, ["after"] * len(values), [f"{value:,.0f}" for value in values])
    axes.set_xlim(0, 1.22 * max([1.0, *values]))
    told = ", ".join(f"{names[move.before]} to {names[move.after]} {move.images}" for move in row.moves)
    return inline_svg(figure, f"Images that moved from one answer to another: {told}.", "moves")


def short(name: str) -> str:
    """A class name that fits beside a figure, its dollars no signs of mathematics to matplotlib."""
    fitting = name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
    return fitting.replace("$", r"\$")
