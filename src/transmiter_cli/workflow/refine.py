"""transmiter refine: improve what was transferred, or self-trained, with a few labelled images (TransMiter+)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from transmiter_cli import api
from transmiter_cli.artefact import Artefact
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import UsageError
from transmiter_cli.layout import ARTEFACTS, REFINED_FROM, ROWS, file_name
from transmiter_cli.method.settings import Method, RefineSettings
from transmiter_cli.record import Made
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import Run, run_locked
from transmiter_cli.task.finetuned import PROBE
from transmiter_cli.task.shots import choose_shots
from transmiter_cli.workflow.overlap import remembering
from transmiter_cli.workflow.run_artefacts import open_corrected, starting_point
from transmiter_cli.workflow.run_data import DataFlags, open_told

ZERO_SHOT = "strong"
"""The row that is refined where what was transferred is clearly worse."""


@dataclass(frozen=True)
class RefineOptions:
    """What to refine, with which labels.

    Attributes:
        data: labelled images; those that fit saw if none are given.
        shots: labelled images per class; all of them if None.
        method: which transferred correction to refine; the first of REFINED_FROM that there is if None.
        strong: of which strong model, where the run has several; the last one transferred to if None.
        tuned: whether a setting was given that only the training of an adapter heeds.
    """

    data: DataFlags = field(default_factory=DataFlags)
    shots: int | None = None
    method: Method | None = None
    strong: str | None = None
    settings: RefineSettings = field(default_factory=RefineSettings)
    tuned: bool = False


@dataclass(frozen=True)
class RefineResult:
    """What refine made, starting from which row, of how many labelled images."""

    artefact: Artefact
    path: Path
    start: str
    images: int


@run_locked
def refine_run(options: RefineOptions, run: Run, workspace: Workspace, command: list[str]) -> RefineResult:
    """Refine a correction of a run's strong model and write the result to the run directory.

    Raises:
        UsageError: if nothing was transferred with that method, or a linear classifier was to be tuned.
        TransmiterError: if the labelled images cannot be used.
    """
    task, strong = run.task(), run.strong(options.strong)
    start = starting_point(run, strong, (ROWS[options.method],) if options.method else REFINED_FROM)
    transferred, encoder = open_corrected(run, strong, start, workspace)
    workspace = encoder.workspace
    if options.tuned and transferred.method != "adapter":
        raise UsageError(
            f"--epochs and --lr train an adapter, but {file_name(start)} is a linear classifier, which needs neither.",
            f"leave them out, or transmiter refine --method adapter{run.strong_flag(strong)}{run.flag}",
        )
    if options.data == DataFlags(limit=options.data.limit) and PROBE in task.finetuned:
        workspace.reporter.warn(
            "The probe of this run learned from these very labels, so that answers to them are better than to other "
            "images, and little seems to be gained. Labels that it has not seen say more: --data FOLDER."
        )
    split = "train" if options.data.data else task.split or "train"
    images = open_told(options.data.spec(task, task.limit), split, workspace.reporter)
    labels = images.labels(task.labels, task.classes)
    chosen = choose_shots(labels, options.shots, options.settings.seed)
    files = tuple(images.files[i] for i in chosen)
    found = encoder.image_embeddings(files)
    targets = torch.tensor([labels[chosen[i]] for i in found.kept], device=workspace.method_device)
    note_fewer(targets, options.shots, len(task.classes), workspace.reporter)
    with workspace.reporter.progress("Refining") as advance:
        artefact = api.refine(
            transferred, found.rows.float().to(workspace.method_device), targets, advance, **vars(options.settings)
        )
    home = run.home(strong)
    path = home / ARTEFACTS["refined"]
    with remembering("refine", found.files, home, run, workspace):
        artefact.save(path)
        run.add(command, {strong: encoder.fingerprint}, [Made(strong, "refined")])
    tell_what_helped(artefact, len(targets), file_name(start), workspace.reporter)
    learned = artefact.details["refine"]
    return RefineResult(artefact, path, ZERO_SHOT if learned.get("zero_shot") else start, learned["images"])


def note_fewer(labels: Int[Tensor, " images"], shots: int | None, classes: int, reporter: Reporter) -> None:
    """Say so where fewer images of a class are there, or can be decoded, than were asked for."""
    fewer = int((torch.bincount(labels, minlength=classes) < (shots or 0)).sum())
    if fewer:
        reporter.note(f"{fewer} of {classes} classes have fewer than {shots} labelled images that can be read.")


def tell_what_helped(artefact: Artefact, images: int, source: str, reporter: Reporter) -> None:
    """Say so where labelled images repeat others, nothing helped, or classes have no label.

    Args:
        artefact: what was made.
        images: how many labelled images there were.
        source: the file that it began with.
        reporter: what says it.
    """
    learned, classes = artefact.details["refine"], len(artefact.class_names)
    if learned["images"] < images:
        reporter.note(f"{images - learned['images']:,} of {images:,} labelled images repeat others: each counts once.")
    known = learned["labelled_classes"]
    if learned.get("zero_shot"):
        reporter.note(
            f"By held-out labels it is better to start from zero-shot answers than from {source}: so refined does."
        )
    if learned["unchanged"]:
        why = (
            "Nothing clearly helped on held-out labels" if known > 1 else "Labels of one class alone tell nothing apart"
        )
        reporter.note(f"{why}: refined answers as {source} does.")
    elif known < classes:
        reporter.warn(f"{classes - known} of {classes} classes have no label, and may lose images to the others.")
