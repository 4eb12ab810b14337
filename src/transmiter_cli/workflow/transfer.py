"""transmiter transfer: carry the adapter to a stronger model, without labels and without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from transmiter_cli import api
from transmiter_cli.artefact import Artefact, Method
from transmiter_cli.description import read_description
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.logits import class_answers
from transmiter_cli.run import ARTEFACTS, SWEPT, Run, swept_row
from transmiter_cli.workflow.common import check_artefact, encode, finetuned_logits, fit_data, load_fitted, signed

ROWS: dict[Method, str] = {"adapter": "transferred", "ridge": "ridge"}
"""The row of the evaluation that each method gives."""


@dataclass(frozen=True)
class TransferOptions:
    """Where to transfer, and how.

    Attributes:
        strong: the strong models' names.
        methods: each makes an artefact of its own.
        regs: the paper's lambda divided by the number of images ("adapter"); with several, an artefact for each.
        rho: relative ridge strength ("ridge").
    """

    strong: Sequence[str]
    methods: Sequence[Method] = ("adapter",)
    regs: Sequence[float] = (1.0,)
    rho: float = 0.1


@dataclass(frozen=True)
class TransferResult:
    """What was made for one strong model, by one method and strength.

    Attributes:
        row: the row of the evaluation that it gives.
        changed: on how many of the images the strong model's answer changed, a fraction.
    """

    strong: str
    row: str
    artefact: Artefact
    path: Path
    images: int
    changed: float


def transfer_run(options: TransferOptions, run: Run, workspace: Workspace, command: list[str]) -> list[TransferResult]:
    """Transfer a run's adapter to each strong model with each method, and write the artefacts to the run directory.

    Raises:
        UsageError: if nothing was fitted, or there is no such model.
        TransmiterError: if data or weights cannot be used.
    """
    task = run.task()
    fitted = load_fitted(run, workspace)
    weak_encoder, *encoders = (workspace.open(resolve_model(name)) for name in (task.weak, *options.strong))
    check_artefact(fitted, task, weak_encoder)
    images = open_images(fit_data(task), task.split)
    weak = encode(weak_encoder, images, fitted.vocabulary, task.templates)
    strong = [encode(encoder, weak.images, fitted.vocabulary, task.templates) for encoder in encoders]
    if any(encoded.images.files != weak.images.files for encoded in strong):
        raise TransmiterError("Images changed while they were read; run the command again.")
    teacher = None
    if "ridge" in options.methods:
        teacher = finetuned_logits(task, run, workspace, weak.images.files, weak.embeddings)
    made = solve(options, fitted, weak.embeddings, [encoded.embeddings for encoded in strong], teacher)
    folders = run.rehouse([encoder.name for encoder in encoders])
    results: list[TransferResult] = []
    for encoder, encoded, artefacts in zip(encoders, strong, made, strict=True):
        before = class_answers(encoded.embeddings, len(task.classes))
        for row, artefact in artefacts.items():
            changed = (artefact.answers(encoded.embeddings) != before).double().mean().item()
            path = run.home(encoder.name, folders) / file_name(row)
            signature = (signed(artefact, encoder), path, len(before), changed)
            results.append(TransferResult(encoder.name, row, *signature))
    for result in results:
        result.artefact.save(result.path)
    fingerprints = {encoder.name: encoder.fingerprint for encoder in (weak_encoder, *encoders)}
    run.add(command, fingerprints, strong=encoders[-1].name, **({"strong_folders": folders} if folders else {}))
    for encoder in encoders:
        forget_stale(run, encoder, options.methods, [result.path for result in results])
    return results


def solve(
    options: TransferOptions,
    fitted: Artefact,
    weak: Embeddings,
    strong: Sequence[Embeddings],
    teacher: Float[Tensor, "images classes"] | None,
) -> list[dict[str, Artefact]]:
    """For each strong model, an artefact by the row of the evaluation that it gives; adapters in one batched solve."""
    made: list[dict[str, Artefact]] = [{} for _ in strong]
    for method in options.methods:
        if method == "adapter":
            rows = [ROWS[method], *map(swept_row, options.regs[1:])]
            for rows_of_model, artefacts in zip(
                made, api.transfer_all(fitted, weak, strong, options.regs), strict=True
            ):
                rows_of_model.update(zip(rows, artefacts, strict=True))
        else:
            for rows_of_model, model in zip(made, strong, strict=True):
                ridge = api.transfer(fitted, weak, model, method, rho=options.rho, finetuned_logits=teacher)
                rows_of_model[ROWS[method]] = ridge
    return made


def file_name(row: str) -> str:
    """The artefact's file by the row of the evaluation it gives."""
    return ARTEFACTS.get(row) or f"{SWEPT}{row.removeprefix('reg=')}.safetensors"


def forget_stale(run: Run, encoder: CachedEncoder, methods: Sequence[Method], written: Sequence[Path]) -> None:
    """Remove what was transferred to another strong model, and what stems from a correction that is replaced now.

    What the run's own folder holds of a strong model that now has a folder goes, too.
    """
    home = run.home(encoder.name)
    for path in {*run.path.glob("*.safetensors"), *home.glob("*.safetensors")} - set(written):
        if path.name not in ARTEFACTS.values() and not path.name.startswith(SWEPT):
            continue
        description = read_description(path)
        replaced = description["method"] in methods and (
            description["stage"] == "refined" or path.name.startswith(SWEPT)
        )
        if replaced or path.parent != home or description["details"]["model"]["fingerprint"] != encoder.fingerprint:
            path.unlink()
