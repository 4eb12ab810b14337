"""What several commands need: a run's models on a set of images."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.artefact import Artefact, load
from transmiter_cli.embedding.found import require_unchanged
from transmiter_cli.embedding.prompts import Templates
from transmiter_cli.embedding.sources import DataSpec, ImageRecord, ImageSet, open_images
from transmiter_cli.embedding.sources.opening import open_reader
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.layout import FITTED, PROBE_FILE, ROWS
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.names import some
from transmiter_cli.record import Task
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import Run
from transmiter_cli.task.finetuned import PROBE, FinetunedModel, finetuned_digest, open_finetuned
from transmiter_cli.task.logits_file import FinetunedLogits

Options = TypeVar("Options")
Rest = ParamSpec("Rest")
Result = TypeVar("Result")


def alone(
    command: Callable[Concatenate[Options, Run, Rest], Result],
) -> Callable[Concatenate[Options, Run, Rest], Result]:
    """A command that changes a run, and refuses to while another one does."""

    @wraps(command)
    def held(options: Options, run: Run, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        with run.changing():
            return command(options, run, *args, **kwargs)

    return held


@dataclass(frozen=True)
class EncodedImages:
    """Images that could be decoded, and one model's embeddings of them and of the vocabulary."""

    images: ImageSet
    embeddings: Embeddings

    def part(self, rows: Sequence[int]) -> EncodedImages:
        """Some of the images."""
        files = tuple(self.images.files[i] for i in rows)
        return EncodedImages(replace(self.images, files=files), self.embeddings.only(torch.tensor(rows)))


@dataclass(frozen=True)
class DataFlags:
    """The data flags of a command that follows fit; what is None was not given."""

    data: str | None = None
    root: str | None = None
    split: str | None = None
    limit: int | None = None

    def spec(self, task: Task, limit: int | None = None) -> DataSpec:
        """The data they name; without --data, fit's own, at most `limit` images of them.

        Raises:
            UsageError: if these are no longer where they were.
        """
        if self.data is not None:
            return DataSpec(self.data, self.root, self.split, self.limit)
        if self.root is None:
            require_in_place(task)
        return DataSpec(task.data, self.root or task.root, self.split, self.limit or limit)


def open_told(spec: DataSpec, split: str | None, reporter: Reporter, labels: bool = True) -> ImageSet:
    """`open_images`, and a warning of the images that are left out, since they lie beside the folders of classes."""
    images = open_images(spec, split, labels)
    if images.beside:
        count = f"{len(images.beside):,} images" if len(images.beside) > 1 else "an image"
        names = some([file.id for file in images.beside])
        reporter.warn(f"Left out {count} in {spec.data}, beside its folders and in none of them: {names}.")
    return images


def require_in_place(task: Task) -> None:
    """Raise UsageError if the data that fit saw are no longer where they were."""
    try:
        open_reader(fit_data(task))
    except UsageError as error:
        if all(place is None or Path(place).exists() for place in (task.data, task.root)):
            raise
        raise UsageError(
            f"The data that fit saw are not where they were. {error}",
            "say where they lie now: --data, or --root where that alone has moved",
        ) from error


def fit_data(task: Task) -> DataSpec:
    """The images that fit saw."""
    return DataSpec(task.data, task.root, task.split, task.limit)


def encode(encoder: CachedEncoder, images: ImageSet, vocabulary: Sequence[str], templates: Templates) -> EncodedImages:
    """One model on images and vocabulary, on the workspace's device; images that cannot be decoded are left out."""
    device = encoder.workspace.method_device
    texts = encoder.text_embeddings(vocabulary, templates)  # first: what fails here takes seconds, and images hours
    found = encoder.image_embeddings(images.files)
    embeddings = Embeddings(found.rows.to(device), texts.to(device), encoder.facts.logit_scale)
    return EncodedImages(replace(images, files=found.files), embeddings)


def encode_same(
    encoder: CachedEncoder, seen: EncodedImages, vocabulary: Sequence[str], templates: Templates
) -> EncodedImages:
    """Another model on the very images that a first one saw.

    Raises:
        TransmiterError: if it cannot read all of them, since they changed meanwhile.
    """
    encoded = encode(encoder, seen.images, vocabulary, templates)
    require_unchanged(encoded.images.files, seen.images.files)
    return encoded


def finetuned_models(task: Task, run: Run, weak: CachedEncoder, own_data: bool = True) -> list[FinetunedModel]:
    """The fine-tuned weak models of a run, in the order of its --finetuned.

    Args:
        task: the run's task.
        run: where a probe was kept.
        weak: the zero-shot weak model.
        own_data: whether it is asked about images of fit's own --data; logits in a file go by its ids.

    Raises:
        UsageError: if one of them is gone, or is no longer what fit saw.
    """
    require_finetuned(task, run, weak.workspace)
    teachers = [open_finetuned_of(name, task, run, weak) for name in task.finetuned]
    return [replace(one, own_data=own_data) if isinstance(one, FinetunedLogits) else one for one in teachers]


def require_finetuned(task: Task, run: Run, workspace: Workspace) -> None:
    """Raise UsageError if a fine-tuned weak model of a run is gone, or is no longer what fit saw."""
    known: Mapping[str, str] = run.record().get("teachers", {})
    for name in task.finetuned:
        if name == PROBE:
            continue
        digest = finetuned_digest(name, workspace)
        if known.get(name, digest) != digest:
            what = f"{name}, or the .txt of its ids," if name.endswith(".npy") else name
            raise UsageError(f"{what} changed since fit read it.", run.again(run.since_fit()[0]))


def open_finetuned_of(name: str, task: Task, run: Run, weak: CachedEncoder) -> FinetunedModel:
    """One of the fine-tuned weak models of a run, by its name in the task: "probe" for the one that was kept there."""
    given = str(run.path / PROBE_FILE) if name == PROBE else name
    return open_finetuned(given, weak, task.classes, task.templates)


def finetuned_logits(
    model: FinetunedModel, files: Sequence[ImageRecord], weak: Embeddings
) -> Float[Tensor, "images classes"]:
    """A fine-tuned model on images that the zero-shot weak model saw, on its device."""
    return model.logits(files, weak.images.cpu()).to(weak.images.device)


def as_teacher(model: FinetunedModel, files: Sequence[ImageRecord], weak: Embeddings) -> Teacher:
    """A fine-tuned model on images that the zero-shot weak model saw, with its head where it has one."""
    head = model.head()
    return Teacher(finetuned_logits(model, files, weak), weak, None if head is None else head.to(weak.images.device))


def load_fitted(run: Run, workspace: Workspace) -> Artefact:
    """The fitted adapter of a run.

    Raises:
        UsageError: if nothing was fitted.
    """
    run.require_fitted()
    return load(run.path / FITTED, workspace.method_device)


def load_transferred(run: Run, strong: str, workspace: Workspace) -> dict[str, Artefact]:
    """What was transferred to a strong model and refined there, by the row of the evaluation it gives."""
    return {row: load(path, workspace.method_device) for row, path in run.artefacts(strong).items()}


def signed(artefact: Artefact, encoder: CachedEncoder) -> Artefact:
    """The artefact with the model that it is for among its details."""
    model = {"name": encoder.name, "fingerprint": encoder.fingerprint}
    return replace(artefact, details={**artefact.details, "model": model})


def check_artefact(artefact: Artefact, task: Task, encoder: CachedEncoder) -> None:
    """Raise TransmiterError if an artefact is not of the run's task, or is for another model than this one."""
    if artefact.class_names != task.classes:
        raise TransmiterError(
            f"The {artefact.stage} artefact's classes ({some(artefact.class_names)}) are not the run's "
            f"({some(task.classes)}).",
            "fit again, or pass another --run",
        )
    if artefact.details.get("model", {}).get("fingerprint") != encoder.fingerprint:
        raise TransmiterError(
            f"The {artefact.stage} artefact was made for {encoder.name} with other weights or preprocessing, or by no "
            "command of this run.",
            f"{'fit' if artefact.stage == 'weak' else 'transfer'} again, or pass another --run",
        )


def starting_point(run: Run, strong: str, rows: Sequence[str]) -> tuple[str, Path]:
    """The first there is of some corrections of a strong model: the row of the evaluation that it gives, and its file.

    Raises:
        UsageError: if there is none of them.
    """
    there = run.artefacts(strong)
    found = next(((row, there[row]) for row in rows if row in there), None)
    if found is None:
        run.require_fitted()
        method = next(method for row in rows for method, own in ROWS.items() if own == row)
        raise UsageError(
            f"There is no {method} in {run.path} to start from.",
            f"transmiter transfer --strong {shlex.quote(strong)} --method {method}{run.flag}",
        )
    return found
