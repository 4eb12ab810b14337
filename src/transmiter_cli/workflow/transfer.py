"""transmiter transfer: carry the adapter to a stronger model, without labels and without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transmiter_cli import api
from transmiter_cli.artefact import Artefact, Method
from transmiter_cli.description import read_description
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.method.logits import class_logits
from transmiter_cli.method.metrics import hits
from transmiter_cli.run import ARTEFACTS, Run
from transmiter_cli.workflow.common import check_artefact, encode, finetuned_logits, fit_data, load_fitted, signed

ROWS: dict[Method, str] = {"adapter": "transferred", "ridge": "ridge"}
"""The row of the evaluation that each method gives."""


@dataclass(frozen=True)
class TransferOptions:
    """Where to transfer, and how.

    Attributes:
        strong: the strong model's name.
        methods: each makes an artefact of its own.
        reg: the paper's lambda divided by the number of images ("adapter").
        rho: relative ridge strength ("ridge").
    """

    strong: str
    methods: Sequence[Method] = ("adapter",)
    reg: float = 1.0
    rho: float = 0.1


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
    if "ridge" in options.methods:
        teacher = finetuned_logits(task, run, workspace, weak.images.files, weak.embeddings)
    before = class_logits(strong.embeddings, len(task.classes)).argmax(-1)
    results: list[TransferResult] = []
    for method in options.methods:
        artefact = api.transfer(fitted, weak.embeddings, strong.embeddings, method, options.reg, options.rho, teacher)
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
