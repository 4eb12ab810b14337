"""transmiter transfer: carry the adapter to a stronger model, without labels and without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transmiter_cli import api
from transmiter_cli.artefact import Artefact, Method
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.method.metrics import hits
from transmiter_cli.run import ARTEFACTS, Run
from transmiter_cli.workflow.common import check_vocabulary, encode, finetuned_logits, load_fitted

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
    fitted = load_fitted(run, workspace)
    check_vocabulary(task, fitted)
    encoders = {name: workspace.open(resolve_model(name)) for name in (task.weak, options.strong)}
    images = open_images(task.data, task.split)
    weak = encode(encoders[task.weak], images, fitted.vocabulary, task.templates)
    strong = encode(encoders[options.strong], weak.images, fitted.vocabulary, task.templates)
    if strong.images.files != weak.images.files:
        raise TransmiterError("Images changed while they were read; run the command again.")
    (run.path / ARTEFACTS["refined"]).unlink(missing_ok=True)  # it refined what is replaced now
    teacher = None
    if "ridge" in options.methods:
        teacher = finetuned_logits(task, run, workspace, weak.images.files, weak.embeddings)
    before = strong.embeddings.unit_images() @ strong.embeddings.unit_texts()[: len(task.classes)].T
    results = []
    for method in options.methods:
        artefact = api.transfer(fitted, weak.embeddings, strong.embeddings, method, options.reg, options.rho, teacher)
        path = run.path / ARTEFACTS[ROWS[method]]
        artefact.save(path)
        kept = hits(artefact.class_logits(strong.embeddings.images), before.argmax(-1)).float().mean().item()
        results.append(TransferResult(method, artefact, path, len(images.files), 1 - kept))
    fingerprints = {name: encoder.fingerprint for name, encoder in encoders.items()}
    run.add(command, fingerprints, strong=options.strong)
    return results
