"""A run's models, ready to look at images that are measured on, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from transmiter_cli.artefact import Artefact
from transmiter_cli.embedding.encoders.encoder import WrongCheckpointError
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import ImageSet
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.evaluation.candidates import Candidate, candidates
from transmiter_cli.record import Made, Task
from transmiter_cli.run import Run
from transmiter_cli.task.finetuned import PROBE, FinetunedModel, mean_logits, open_finetuned
from transmiter_cli.task.head_file import FinetunedHead
from transmiter_cli.task.logits_file import MissingLogitsError
from transmiter_cli.workflow.cost import image_flops
from transmiter_cli.workflow.encoded import EncodedImages, encode_same, finetuned_logits
from transmiter_cli.workflow.run_artefacts import (
    check_fitted,
    check_made,
    finetuned_models,
    load_fitted,
    load_transferred,
)


@dataclass(frozen=True)
class RunModels:
    """A run's models, ready to look at images."""

    task: Task
    run: Run
    workspace: Workspace
    weak: CachedEncoder
    strong: CachedEncoder
    fitted: Artefact
    transferred: Mapping[str, Artefact]


def open_run_models(run: Run, workspace: Workspace, strong_name: str | None) -> RunModels:
    """A run's models, checked to be of its task.

    Raises:
        UsageError: if nothing was fitted or transferred.
        TransmiterError: if an artefact is of another task or model.
    """
    task, name = run.task(), run.strong(strong_name)
    workspace = workspace.like_fit(task.decoding, task.precision)
    fitted = load_fitted(run, workspace)
    transferred = load_transferred(run, name, workspace)
    weak, strong = (workspace.open(resolve_model(model)) for model in (task.weak, name))
    check_fitted(fitted, run, weak)
    for row, artefact in transferred.items():
        check_made(artefact, Made(name, row), run, strong)
    return RunModels(task, run, workspace, weak, strong, fitted, transferred)


def open_strong_finetuned(given: str | None, run_models: RunModels, images: ImageSet) -> FinetunedModel | None:
    """A fine-tuned strong model, if one is given, in any form that --finetuned takes; checked here, before encoding.

    Raises:
        UsageError: if there is no such model, as there is no probe.
        TransmiterError: if it cannot be read, or is of another model than the strong one.
    """
    if given is None:
        return None
    if given == PROBE:
        raise UsageError("A probe is trained by fit, and there is none of the strong model.", "--strong-finetuned FILE")
    try:
        model = open_finetuned(given, run_models.strong, run_models.task.classes, run_models.task.templates)
        model.check(images.files)
    except WrongCheckpointError as error:
        error.fix = "pass the fine-tuned strong model, or transfer to the one that was fine-tuned, as --strong"
        raise
    return model


class WeakFinetuned(NamedTuple):
    """The fine-tuned weak model's logits, the mean where there are several, and the image towers behind them.

    Attributes:
        towers: its own; a head has none.
        on_weak: whether it needs the zero-shot weak model's tower, as a head does.
    """

    logits: Float[Tensor, "images classes"]
    towers: int
    on_weak: bool


def weak_finetuned_if_there(
    run_models: RunModels, images: ImageSet, own_data: bool
) -> tuple[list[FinetunedModel], TransmiterError | None]:
    """The fine-tuned weak models that answer for images, which are not encoded yet.

    None, and why, where a file has gone or changed, or is logits that lack these images.
    """
    try:
        models = finetuned_models(run_models.run, run_models.weak, own_data)
        for model in models:
            model.check(images.files)
        return models, None
    except (MissingLogitsError, UsageError) as error:
        return [], error


def weak_finetuned(models: Sequence[FinetunedModel], weak: EncodedImages) -> WeakFinetuned:
    """What the fine-tuned weak models make of images."""
    logits = mean_logits([finetuned_logits(one, weak.images.files, weak.embeddings) for one in models])
    heads = sum(isinstance(one, FinetunedHead) for one in models)
    return WeakFinetuned(logits, len(models) - heads, on_weak=heads > 0)


def make_candidates(
    eft: Sequence[float],
    run_models: RunModels,
    weak: EncodedImages,
    teacher: WeakFinetuned | None,
    strong_finetuned: FinetunedModel | None,
) -> dict[str, Candidate]:
    """Every model of a run on images that the weak model saw.

    Args:
        eft: strengths of EFT.
        run_models: the run's models.
        weak: the images, and what the weak model makes of them.
        teacher: the fine-tuned weak model on them, if it is known.
        strong_finetuned: the fine-tuned strong model, if there is one.
    """
    strong = encode_same(run_models.strong, weak, run_models.fitted.vocabulary, run_models.task.templates)
    files = strong.images.files
    return candidates(
        weak=weak.embeddings,
        finetuned_logits=None if teacher is None else teacher.logits,
        strong=strong.embeddings,
        strong_finetuned_logits=None
        if strong_finetuned is None
        else finetuned_logits(strong_finetuned, files, strong.embeddings),
        fitted=run_models.fitted,
        transferred=run_models.transferred,
        weak_parameters=run_models.weak.facts.image_parameters,
        weak_flops=None if teacher is None else image_flops(run_models.weak),
        weak_models=1 if teacher is None else 1 + teacher.towers,
        teacher_models=1 if teacher is None else teacher.towers + teacher.on_weak,
        eft=eft,
    )
