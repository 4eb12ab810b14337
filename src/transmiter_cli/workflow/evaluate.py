"""transmiter eval: every model of a run on labelled test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import DataSpec, ImageRecord, open_images
from transmiter_cli.embedding.sources.opening import lasting
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.evaluation import Row, evaluate
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.run import Run, Task
from transmiter_cli.task.finetuned import MissingLogitsError
from transmiter_cli.workflow.common import (
    DataFlags,
    check_artefact,
    encode,
    finetuned_logits,
    load_fitted,
    load_transferred,
)


@dataclass(frozen=True)
class EvalResult:
    """Rows of the evaluation by name, and what they were measured on."""

    rows: dict[str, Row]
    data: str
    split: str | None
    images: int
    classes: int
    weak: str
    strong: str


def eval_run(flags: DataFlags, run: Run, workspace: Workspace, seed: int = 0, strong: str | None = None) -> EvalResult:
    """Measure a run's models.

    Args:
        flags: labelled images, their test part where they have one; the data of fit, without its limit, if none
            are given.
        run: the run directory.
        workspace: cache and device.
        seed: decides the bootstrap intervals.
        strong: which strong model, where the run has several; the last one transferred to if None.

    Raises:
        UsageError: if nothing was fitted or transferred.
        TransmiterError: if the images have no labels, or are those that fit saw.
    """
    task, strong_name = run.task(), run.strong(strong)
    fitted = load_fitted(run, workspace)
    transferred = load_transferred(run, strong_name, workspace)
    weak_encoder, strong_encoder = (workspace.open(resolve_model(name)) for name in (task.weak, strong_name))
    check_artefact(fitted, task, weak_encoder)
    for artefact in transferred.values():
        check_artefact(artefact, task, strong_encoder)
    spec = flags.spec(task)
    images = open_images(spec, "test")
    if flags.data is None and images.split == task.split:
        raise seen_by_fit(spec, images.split, run)
    images.labels(task.labels)  # fails before anything is encoded
    weak = encode(weak_encoder, images, fitted.vocabulary, task.templates)
    strong_images = encode(strong_encoder, weak.images, fitted.vocabulary, task.templates)
    rows = evaluate(
        torch.tensor(weak.images.labels(task.labels), device=workspace.method_device),
        weak=weak.embeddings,
        finetuned_logits=optional_logits(
            task, run, workspace, weak.images.files, weak.embeddings, lasting(spec).data == task.data
        ),
        strong=strong_images.embeddings,
        fitted=fitted,
        transferred=transferred,
        weak_parameters=weak_encoder.facts.parameters,
        seed=seed,
    )
    return EvalResult(rows, spec.data, images.split, len(weak.images.files), len(task.classes), task.weak, strong_name)


def seen_by_fit(spec: DataSpec, split: str | None, run: Run) -> TransmiterError:
    """The error for images that fit saw; whoever names them with --data may measure on them all the same."""
    if split is None:
        message = f"{spec.data} has no test part: fit saw all of it."
    else:
        message = f"Fit saw the {split} part of {spec.data}, so nothing can be measured there."
    return TransmiterError(message, f"transmiter eval --data FOLDER{run.flag}")


def optional_logits(
    task: Task, run: Run, workspace: Workspace, files: Sequence[ImageRecord], weak: Embeddings, own_data: bool
) -> Float[Tensor, "images classes"] | None:
    """The fine-tuned weak model's logits; None where its file has gone, or was logits that lack these images."""
    try:
        return finetuned_logits(task, run, workspace, files, weak, own_data=own_data)
    except (MissingLogitsError, UsageError) as error:
        workspace.reporter.warn(f"{error} The rows weak_finetuned and eft are left out.")
        return None
