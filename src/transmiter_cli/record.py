"""What run.json holds: the task, and the commands that changed the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from transmiter_cli.embedding.choices import Decoding, Precision
from transmiter_cli.embedding.encoders.prompts import Templates


@dataclass(frozen=True)
class Task:
    """What a run is about; later commands read it, so that flags are not repeated.

    Attributes:
        classes: names of the task classes.
        label_names: what the data call them; empty for unlabelled data.
        templates: prompts.
        data: the --data of fit.
        split: its part that fit saw.
        weak: the weak model's name.
        finetuned: the --finetuned values of fit; several are averaged.
        root: the --root of fit.
        limit: the --limit of fit.
        decoding: how fit's images were decoded.
        precision: what their encoders computed in; None for what is usual on a device.
    """

    classes: tuple[str, ...]
    label_names: tuple[str, ...]
    templates: Templates
    data: str
    split: str | None
    weak: str
    finetuned: tuple[str, ...]
    root: str | None = None
    limit: int | None = None
    decoding: Decoding = "full"
    precision: Precision | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What labelled images of the task are labelled with: the data's own labels, or the class names."""
        return self.label_names or self.classes


class Made(NamedTuple):
    """What transfer, self-train or refine made: for which strong model, and the row of the evaluation that it gives."""

    strong: str
    row: str


class Step(NamedTuple):
    """A command that changed a run.

    Attributes:
        line: the command line.
        made: what it made; nothing for fit.
        folder: where it was given, and relative paths in it start; empty if nobody knows.
    """

    line: Sequence[str]
    made: frozenset[Made] = frozenset()
    folder: str = ""

    @property
    def command(self) -> str:
        """Which command it was: "fit", "transfer", ...; empty if nobody knows."""
        return "".join(self.line[1:2])


def task_from_json(stored: dict[str, Any]) -> Task:
    """A task as run.json holds it: tuples are lists there."""
    lists: dict[str, Any] = {name: tuple(stored[name]) for name in ("classes", "label_names", "finetuned")}
    own: dict[str, tuple[str, ...]] = {name: tuple(prompts) for name, prompts in stored["templates"]["own"].items()}
    lists["templates"] = Templates(tuple(stored["templates"]["shared"]), own)
    return Task(**(stored | lists))


def step_from_json(stored: dict[str, Any]) -> Step:
    """An entry of the history as run.json holds it."""
    made = frozenset(Made(*one) for one in stored.get("made", ()))
    return Step([str(part) for part in stored["command"]], made, str(stored.get("folder", "")))


def without(line: Sequence[str], option: str) -> list[str]:
    """A command line less an option and its value, written as `--name value` or `--name=value`."""
    pairs = pairwise(["", *line])
    return [part for before, part in pairs if option not in (before, part) and not part.startswith(f"{option}=")]


def values(line: Sequence[str], option: str) -> list[str]:
    """What a command line gives for an option that may be repeated, as `--name value` or `--name=value`."""
    apart = [value for name, value in pairwise(line) if name == option]
    return apart + [part.removeprefix(f"{option}=") for part in line if part.startswith(f"{option}=")]
