"""transmiter inspect: what a run or an artefact says of itself, without torch and without loading a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transmiter_cli.description import read_description
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import RECORD
from transmiter_cli.layout import FITTED, require_made_as
from transmiter_cli.record import Task
from transmiter_cli.run import Run


@dataclass(frozen=True)
class Content:
    """An artefact of a run.

    Attributes:
        file: its path below the run.
        strong: the strong model that it is for; None for what fit made.
        row: the row of the evaluation that it gives; None for what fit made.
        description: what it says of itself; nothing if it is damaged.
        damage: why it cannot be read; None if it can.
    """

    file: str
    strong: str | None
    row: str | None
    description: dict[str, Any]
    damage: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The artefact in short: neither its vocabulary nor its tensors."""
        about = {name: self.description.get(name) for name in ("stage", "method", "details")}
        return {"file": self.file, "strong": self.strong, "row": self.row, **about, "damage": self.damage}


@dataclass(frozen=True)
class RunSummary:
    """What a run is about, what is in it, and how it was made.

    Attributes:
        commands: the command lines that made what is there, the last fit's first.
        folders: where each was given; empty if nobody knows.
    """

    path: Path
    task: Task
    contents: Sequence[Content]
    commands: Sequence[str]
    folders: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        contents = [content.as_json() for content in self.contents]
        history = {"commands": self.commands, "folders": self.folders}
        return {"run": str(self.path), "task": asdict(self.task), "artefacts": contents, **history}


def open_inspected(path: Path) -> RunSummary | dict[str, Any]:
    """A run, by its directory or its run.json, or an artefact's description.

    Raises:
        UsageError: if it is neither, or the directory holds no run.
        TransmiterError: if it is damaged, or an artefact that is not there.
    """
    if path.name == RECORD and not path.is_dir():
        return summarize(Run(path.parent))
    if path.is_dir() or (not path.exists() and path.suffix != ".safetensors"):
        return summarize(Run(path))
    if path.suffix != ".safetensors":
        raise UsageError(
            f"{path} is neither a run directory, nor its {RECORD}, nor an artefact (.safetensors).",
            "transmiter inspect RUN_DIRECTORY",
        )
    return read_description(path)


def summarize(run: Run) -> RunSummary:
    """What a run says of itself.

    Raises:
        UsageError: if there is no run.
        TransmiterError: if run.json is damaged.
    """
    task = run.task()
    fitted = run.path / FITTED
    lost = Content(FITTED, None, None, {}, "missing: a fit was interrupted, or it was removed")
    found = [content_of(fitted, run) if fitted.is_file() else lost]
    for strong in run.strong_models():
        found += [content_of(path, run, strong, row) for row, path in run.artefacts(strong).items()]
    return RunSummary(run.path, task, found, run.commands(), [step.folder for step in run.since_fit()])


def content_of(path: Path, run: Run, strong: str | None = None, row: str | None = None) -> Content:
    """One artefact of a run, damaged or not."""
    file = str(path.relative_to(run.path))
    try:
        description = read_description(path)
        require_made_as(row, path, description)
        return Content(file, strong, row, description)
    except TransmiterError as error:
        return Content(file, strong, row, {}, str(error))
