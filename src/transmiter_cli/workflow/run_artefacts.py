"""A run's artefacts and fine-tuned models, each checked to be what it was."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from transmiter_cli.artefact import Artefact, load
from transmiter_cli.description import DamagedArtefactError, read_description
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.layout import FITTED, PROBE_FILE, ROWS, method_of, require_made_as
from transmiter_cli.names import some
from transmiter_cli.record import Made, Task
from transmiter_cli.run import Run
from transmiter_cli.task.finetuned import PROBE, FinetunedModel, finetuned_digest, open_finetuned
from transmiter_cli.task.logits_file import FinetunedLogits
from transmiter_cli.workflow.removal import line_alone


def finetuned_models(run: Run, weak: CachedEncoder, own_data: bool) -> list[FinetunedModel]:
    """The fine-tuned weak models of a run, in the order of its --finetuned.

    Args:
        run: the run.
        weak: the zero-shot weak model.
        own_data: whether it is asked about images of fit's own --data; logits in a file go by its ids.

    Raises:
        UsageError: if one of them is gone, or is no longer what fit saw.
    """
    require_finetuned(run, weak.workspace)
    task = run.task()
    teachers = [open_finetuned_of(name, task, run, weak) for name in task.finetuned]
    return [replace(one, own_data=own_data) if isinstance(one, FinetunedLogits) else one for one in teachers]


def require_finetuned(run: Run, workspace: Workspace) -> None:
    """Raise UsageError if a fine-tuned weak model of a run is gone, or is no longer what fit saw."""
    known: Mapping[str, str] = run.record().get("teachers", {})
    for name in run.task().finetuned:
        if name == PROBE:
            continue
        digest = finetuned_digest(name, workspace)
        if known.get(name, digest) != digest:
            what = f"{name}, or the .txt of its ids," if name.endswith(".npy") else name
            raise UsageError(f"{what} changed since fit read it.", run.last_fit)


def open_finetuned_of(name: str, task: Task, run: Run, weak: CachedEncoder) -> FinetunedModel:
    """One of the fine-tuned weak models of a run, by its name in the task: "probe" for the one that was kept there."""
    given = str(run.path / PROBE_FILE) if name == PROBE else name
    return open_finetuned(given, weak, task.classes, task.templates)


def load_fitted(run: Run, workspace: Workspace) -> Artefact:
    """The fitted adapter of a run.

    Raises:
        UsageError: if nothing was fitted.
        TransmiterError: if it is damaged, or another artefact.
    """
    run.require_fitted()
    with made_again_by(lambda: run.last_fit):
        return load_as(None, run.path / FITTED, workspace)


def load_transferred(run: Run, strong: str, workspace: Workspace) -> dict[str, Artefact]:
    """What was transferred to a strong model and refined there, by the row of the evaluation it gives."""
    return {row: load_made(Made(strong, row), run, workspace) for row in run.artefacts(strong)}


def load_made(made: Made, run: Run, workspace: Workspace) -> Artefact:
    """What a command of a run made.

    Raises:
        TransmiterError: if it is damaged, or another artefact.
    """
    with made_again_by(lambda: line_alone(made, run)):
        return load_as(made.row, run.artefacts(made.strong)[made.row], workspace)


def load_as(row: str | None, path: Path, workspace: Workspace) -> Artefact:
    """The artefact of a row of ours, or what fit made if None; DamagedArtefactError if it is damaged, or another's."""
    require_made_as(row, path, read_description(path))
    return load(path, workspace.method_device)


@contextmanager
def made_again_by(line: Callable[[], str]) -> Generator[None]:
    """Let the error for a damaged artefact have the command line that makes it again."""
    try:
        yield
    except DamagedArtefactError as error:
        error.fix = line()
        raise


def open_corrected(run: Run, strong: str, row: str, workspace: Workspace) -> tuple[Artefact, CachedEncoder]:
    """A correction of a run's strong model, by the row of the evaluation it gives, and that model, as fit decoded
    images.

    Raises:
        TransmiterError: if the artefact is damaged, or of another task or model.
    """
    task = run.task()
    made = Made(strong, row)
    artefact = load_made(made, run, workspace)
    encoder = workspace.like_fit(task.decoding, task.precision).open(resolve_model(strong))
    check_made(artefact, made, run, encoder)
    return artefact, encoder


def signed(artefact: Artefact, encoder: CachedEncoder) -> Artefact:
    """The artefact with the model that it is for among its details."""
    model = {"name": encoder.name, "fingerprint": encoder.fingerprint}
    return replace(artefact, details={**artefact.details, "model": model})


def check_fitted(fitted: Artefact, run: Run, weak: CachedEncoder) -> None:
    """Raise TransmiterError if a fitted adapter is not of the run's task, or is for another weak model than this."""
    check_artefact(fitted, run, weak, lambda: run.last_fit)


def check_made(artefact: Artefact, made: Made, run: Run, strong: CachedEncoder) -> None:
    """Raise TransmiterError if what a command made is not of the run's task, or is for another model than this."""
    check_artefact(artefact, run, strong, lambda: line_alone(made, run))


def check_artefact(artefact: Artefact, run: Run, encoder: CachedEncoder, line: Callable[[], str]) -> None:
    """Raise TransmiterError, with the command line that makes it again, if an artefact is of another task or model."""
    classes = run.task().classes
    if artefact.class_names != classes:
        raise TransmiterError(
            f"The {artefact.stage} artefact's classes ({some(artefact.class_names)}) are not the run's "
            f"({some(classes)}).",
            line(),
        )
    if artefact.details.get("model", {}).get("fingerprint") != encoder.fingerprint:
        raise TransmiterError(
            f"The {artefact.stage} artefact was made for {encoder.name} with other weights or preprocessing, or by no "
            "command of this run.",
            line(),
        )


def starting_point(run: Run, strong: str, rows: Sequence[str]) -> str:
    """The first there is of some corrections of a strong model, by the rows of the evaluation that they give.

    Raises:
        UsageError: if there is none of them.
    """
    there = run.artefacts(strong)
    found = next((row for row in rows if row in there), None)
    if found is None:
        run.require_fitted()
        method = next(method_of(row) for row in rows if row in ROWS.values())
        raise UsageError(
            f"There is no {method} in {run.path} to start from.",
            f"transmiter transfer --strong {shlex.quote(strong)} --method {method}{run.flag}",
        )
    return found
