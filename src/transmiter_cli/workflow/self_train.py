"""transmiter self-train: fit the transferred classifier to new unlabelled images, by its own answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from transmiter_cli import api
from transmiter_cli.artefact import Artefact, load
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.run import ARTEFACTS, Run
from transmiter_cli.workflow.common import DataFlags, check_artefact, transferred_path
from transmiter_cli.workflow.overlap import remembering

LinearMethod = Literal["discriminant", "ridge"]
PREFERENCE: tuple[LinearMethod, ...] = ("discriminant", "ridge")
"""Which classifier is trained where none is named."""
FEW = 10
"""Images per class; with fewer, the transferred classifier counts for more than they."""


SHOWN = 5
"""Classes that are named of those that no image shows."""


@dataclass(frozen=True)
class SelfTrainOptions:
    """What to train, on which images.

    Attributes:
        data: unlabelled images; labels, if there are any, are not looked at.
        method: which transferred classifier to start from; the first of PREFERENCE that there is if None.
        strong: of which strong model, where the run has several; the last one transferred to if None.
    """

    data: DataFlags = field(default_factory=DataFlags)
    method: LinearMethod | None = None
    strong: str | None = None


@dataclass(frozen=True)
class SelfTrainResult:
    """What self-train made, from how many images, and the share of them whose answer changed."""

    artefact: Artefact
    path: Path
    images: int
    changed: float


def self_train_run(options: SelfTrainOptions, run: Run, workspace: Workspace, command: list[str]) -> SelfTrainResult:
    """Self-train a run's transferred classifier and write the result to the run directory.

    Raises:
        UsageError: if no linear classifier was transferred.
        TransmiterError: if the images cannot be used.
    """
    task = run.task()
    workspace = workspace.like_fit(task.decoding, task.precision)
    strong = run.strong(options.strong)
    source = transferred_path(run, strong, (options.method,) if options.method else PREFERENCE)
    transferred = load(source, workspace.method_device)
    encoder = workspace.open(resolve_model(strong))
    check_artefact(transferred, task, encoder)
    images = open_images(options.data.spec(task, task.limit), "train")
    found = encoder.image_embeddings(images.files)
    if len(found.rows) < 2:
        raise TransmiterError(
            f"{options.data.data} has {len(found.rows)} image that can be used; self-training needs two at least.",
            f"transmiter self-train --data FOLDER{run.flag}",
        )
    artefact = api.self_train(transferred, found.rows.float().to(workspace.method_device))
    path = run.home(strong) / ARTEFACTS["self_trained"]
    with remembering("self-train", found.files, path, run, workspace):
        artefact.save(path)
        run.add(command, {strong: encoder.fingerprint})
    if len(found.files) < FEW * len(artefact.class_names):
        workspace.reporter.note(f"Fewer than {FEW} images per class: what was transferred counts for more than they.")
    missing = artefact.details["self_train"]["missing"]
    if missing:
        named = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        workspace.reporter.warn(
            f"No image seems to show {len(missing)} of {len(artefact.class_names)} classes: {named}. "
            "Answers in these may get worse; --data that shows all classes is safer."
        )
    return SelfTrainResult(artefact, path, len(found.files), artefact.details["self_train"]["changed"])
