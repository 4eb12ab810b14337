"""transmiter transfer: carry the adapter to a stronger model, without labels and without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transmiter_cli import api
from transmiter_cli.artefact import Artefact, Method
from transmiter_cli.description import read_description
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.method.experts import Teacher
from transmiter_cli.method.logits import class_logits
from transmiter_cli.method.metrics import hits
from transmiter_cli.run import ARTEFACTS, Run, Task
from transmiter_cli.workflow.common import (
    EncodedImages,
    check_artefact,
    encode,
    finetuned_logits,
    fit_data,
    load_fitted,
    signed,
)

ROWS: dict[Method, str] = {"adapter": "transferred", "ridge": "ridge", "discriminant": "discriminant"}
"""The row of the evaluation that each method gives."""


@dataclass(frozen=True)
class TransferOptions:
    """Where to transfer, and how.

    Attributes:
        strong: the strong model's name.
        methods: each makes an artefact of its own.
        reg: the paper's lambda divided by the number of images, or "auto" ("adapter").
        rho: relative ridge strength, or "auto" ("ridge").
        others: runs of the same classes with other weak and fine-tuned models, to be combined ("discriminant").
    """

    strong: str
    methods: Sequence[Method] = ("adapter",)
    reg: float | api.Auto = 1.0
    rho: float | api.Auto = 0.1
    others: Sequence[Run] = ()


@dataclass(frozen=True)
class TransferResult:
    """What one method made.

    Attributes:
        changed: on how many of the images the strong model's answer changed, a fraction.
    """

    method: Method
    artefact: Artefact
    path: Path
    images: int
    changed: float

    @property
    def settings(self) -> dict[str, Any]:
        """What was chosen, and the verdict of "discriminant"."""
        return self.artefact.details["transfer"]


def transfer_run(options: TransferOptions, run: Run, workspace: Workspace, command: list[str]) -> list[TransferResult]:
    """Transfer a run's adapter with each method and write the artefacts to the run directory.

    Raises:
        UsageError: if nothing was fitted, or there is no such model.
        TransmiterError: if data or weights cannot be used.
    """
    task = run.task()
    workspace = workspace.like_fit(task.decoding)
    fitted = load_fitted(run, workspace)
    weak_encoder, strong_encoder = (workspace.open(resolve_model(name)) for name in (task.weak, options.strong))
    check_artefact(fitted, task, weak_encoder)
    images = open_images(fit_data(task), task.split)
    weak = encode(weak_encoder, images, fitted.vocabulary, task.templates)
    strong = encode(strong_encoder, weak.images, fitted.vocabulary, task.templates)
    if strong.images.files != weak.images.files:
        raise TransmiterError("Images changed while they were read; run the command again.")
    teacher = None
    if set(options.methods) != {"adapter"}:
        teacher = finetuned_logits(task, run, workspace, weak.images.files, weak.embeddings)
    teachers = [teacher_of(other, task, workspace, weak) for other in options.others]
    before = class_logits(strong.embeddings, len(task.classes)).argmax(-1)
    results: list[TransferResult] = []
    for method in options.methods:
        more = teachers if method == "discriminant" else ()
        about = (method, options.reg, options.rho, teacher, more)
        artefact = api.transfer(fitted, weak.embeddings, strong.embeddings, *about)
        kept = hits(artefact.adapt(strong.embeddings), before).double().mean().item()
        path = run.path / ARTEFACTS[ROWS[method]]
        results.append(
            TransferResult(method, signed(artefact, strong_encoder), path, len(strong.images.files), 1 - kept)
        )
    for result in results:
        result.artefact.save(result.path)
    forget_stale(run, options.methods, strong_encoder.fingerprint)
    fingerprints = {encoder.name: encoder.fingerprint for encoder in (weak_encoder, strong_encoder)}
    run.add(command, fingerprints, strong=strong_encoder.name)
    return results


def teacher_of(run: Run, task: Task, workspace: Workspace, seen: EncodedImages) -> Teacher:
    """The fine-tuned model of another run, with its own weak model, on the images of this one.

    Raises:
        UsageError: if the other run has other classes.
        TransmiterError: if its models cannot be used on these images.
    """
    other = run.task()
    if other.classes != task.classes:
        raise UsageError(f"The run {run.path} has other classes than this one.", "fit both with the same --classes")
    weak = encode(workspace.open(resolve_model(other.weak)), seen.images, other.classes, other.templates)
    if weak.images.files != seen.images.files:
        raise TransmiterError("Images changed while they were read; run the command again.")
    own_data = other.data == task.data
    logits = finetuned_logits(other, run, workspace, seen.images.files, weak.embeddings, own_data=own_data)
    return Teacher(logits, class_logits(weak.embeddings, len(other.classes)))


def forget_stale(run: Run, methods: Sequence[Method], fingerprint: str) -> None:
    """Remove what was transferred to another strong model, and what refined a correction that is replaced now."""
    for name in ARTEFACTS.values():
        path = run.path / name
        if not path.is_file():
            continue
        description = read_description(path)
        replaced = description["stage"] == "refined" and description["method"] in methods
        if replaced or description["details"]["model"]["fingerprint"] != fingerprint:
            path.unlink()
