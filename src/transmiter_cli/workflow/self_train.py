"""transmiter self-train: fit the transferred classifier to new unlabelled images, by its own answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from transmiter_cli import api
from transmiter_cli.artefact import Artefact, load
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.method.embeddings import InvalidTensorError
from transmiter_cli.method.self_training import WORTH
from transmiter_cli.run import ARTEFACTS, Run
from transmiter_cli.workflow.common import DataFlags, check_artefact, transferred_path
from transmiter_cli.workflow.overlap import FILES, remembering
from transmiter_cli.workflow.removal import removal

LinearMethod = Literal["discriminant", "ridge"]
PREFERENCE = ("discriminant", "ridge")
"""Which classifier is trained where none is named."""
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
    """What self-train made, from how many different images, the share of them whose answer changed, and the classes
    that hardly any of them seems to show.
    """

    artefact: Artefact
    path: Path
    images: int
    changed: float
    missing: tuple[str, ...]


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
    try:
        artefact = api.self_train(transferred, found.rows.float().to(workspace.method_device))
    except InvalidTensorError as error:
        raise TransmiterError(
            f"{options.data.data} cannot be used: {error}", "pass --data with more images, and no --limit"
        ) from error
    before, home = run.made(), run.home(strong)
    (home / ARTEFACTS["refined"]).unlink(missing_ok=True)  # it may stem from an earlier self-training
    if not any(run.path.rglob(ARTEFACTS["refined"])):
        (run.path / FILES["refine"]).unlink(missing_ok=True)
    path = home / ARTEFACTS["self_trained"]
    with remembering("self-train", found.files, path, run, workspace):
        artefact.save(path)
        run.add(command, {strong: encoder.fingerprint})
    there = run.made()
    gone = removal([one for one in before if one not in there], run)
    if gone:
        workspace.reporter.note(gone)
    made: Mapping[str, Any] = artefact.details["self_train"]
    images, classes, missing = made["images"], len(artefact.class_names), made["missing"]
    if images < WORTH * classes:
        workspace.reporter.note(
            f"{images} different images of {classes} classes: what was transferred counts for more than they."
        )
    if missing:
        named = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        workspace.reporter.warn(
            f"Hardly any image seems to show {len(missing)} of {classes} classes: {named}. Answers in these may get "
            "worse in favour of the others; --data that shows all classes is safer."
        )
    return SelfTrainResult(artefact, path, images, made["changed"], tuple(missing))
