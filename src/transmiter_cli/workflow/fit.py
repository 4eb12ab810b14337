"""transmiter fit: distil the fine-tuned weak model into an adapter."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli import api
from transmiter_cli.artefact import Artefact
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import DataSpec, ImageSet
from transmiter_cli.embedding.sources.opening import lasting
from transmiter_cli.embedding.sources.splits import SPLITS, canonical
from transmiter_cli.embedding.views import View, with_views
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import write_atomically
from transmiter_cli.layout import FITTED, PROBE_FILE
from transmiter_cli.method.distillation import FitSettings
from transmiter_cli.method.mix_up import mixed_up
from transmiter_cli.method.per_image import agreement, computed_zero_shot_logits, predictions
from transmiter_cli.method.probe import linear_probe
from transmiter_cli.names import some
from transmiter_cli.record import Task, without
from transmiter_cli.run import Run
from transmiter_cli.task import finetuned as teachers
from transmiter_cli.task.templates import choose_templates
from transmiter_cli.task.vocabulary import auxiliary_words, build_vocabulary, class_names
from transmiter_cli.workflow.common import (
    EncodedImages,
    alone,
    encode,
    finetuned_logits,
    open_finetuned_of,
    open_told,
    signed,
)
from transmiter_cli.workflow.overlap import fingerprints, remember_fit
from transmiter_cli.workflow.removal import removal

COSINES = 2.0
"""No two cosines differ by more."""
FEW_STEPS = 100
"""Steps of the optimiser below which a fit is told to be short."""


@dataclass(frozen=True)
class FitOptions:
    """What to fit, on what.

    Attributes:
        weak: the zero-shot weak model's name.
        finetuned: its fine-tuned twins, of which the adapter learns the mean: files, model names, or "probe".
        data: unlabelled images (labels are read for "probe" only).
        classes: a file of class names; the data's labels if None.
        template: prompts, each with {} for the name.
        templates: a file or a name of more of them.
        aux_words: an auxiliary word list's name or file.
        vocabulary_size: M.
        views: random crops of each image that the adapter is trained on, besides the image as it is.
        force: replace a run of other classes.
    """

    weak: str
    finetuned: Sequence[str]
    data: DataSpec
    classes: Path | None = None
    template: Sequence[str] = ()
    templates: str | None = None
    aux_words: str = "nouns"
    vocabulary_size: int = 1024
    settings: FitSettings = field(default_factory=FitSettings)
    views: int = 0
    force: bool = False


@dataclass(frozen=True)
class FitResult:
    """What fit made.

    Attributes:
        images: images it learned from, their views not counted.
        agreement: on how many of the images the adapted weak model and the fine-tuned one agree, a fraction.
        agreement_before: the same for the zero-shot weak model.
        removed: what the run had of an earlier fit and has no more, and how to make it again; empty for nothing.
    """

    artefact: Artefact
    path: Path
    images: int
    agreement: float
    agreement_before: float
    removed: str = ""


def fit_run(options: FitOptions, run: Run, workspace: Workspace, command: list[str]) -> FitResult:
    """Fit an adapter and write it to the run directory.

    Raises:
        UsageError: if a name, file or folder does not exist, or the run is of another task.
        TransmiterError: if the data or a file cannot be used.
    """
    images = open_told(options.data, "train", workspace.reporter)
    names, labels = class_names(images.label_names, options.classes)
    if len(names) < 2:
        said = f"At least two classes are needed; there is {', '.join(map(repr, names))} alone."
        raise UsageError(said, "pass a folder of two class folders or more, or --classes FILE with all names")
    note_classes_without_images(names, labels, images, workspace)
    warn_of_splits_among_classes(images.label_names, options.data, command, workspace)
    templates = choose_templates(options.template, options.templates, names, labels)
    vocabulary = build_vocabulary(
        names, auxiliary_words(options.aux_words), options.vocabulary_size, options.settings.seed
    )
    if len(vocabulary) < options.vocabulary_size:
        workspace.reporter.note(f"The vocabulary has {len(vocabulary)} entries: {options.aux_words} has no more words.")
    finetuned = tuple(dict.fromkeys(map(teachers.lasting_name, options.finetuned)))
    if options.views:
        teachers.require_answers_of_views(finetuned)
    data, spec = lasting(options.data), resolve_model(options.weak)  # last, since weights may have to be downloaded
    task = Task(
        classes=names,
        label_names=labels,
        templates=templates,
        data=data.data,
        split=images.split,
        weak=spec.name,
        finetuned=finetuned,
        root=data.root,
        limit=data.limit,
        decoding=workspace.decoding or "full",
        precision=workspace.precision,
    )
    run.require_writable()  # and there, so that it can be locked
    return fit_task(options, run, task, images, vocabulary, workspace, command)


@alone
def fit_task(
    options: FitOptions,
    run: Run,
    task: Task,
    images: ImageSet,
    vocabulary: Sequence[str],
    workspace: Workspace,
    command: list[str],
) -> FitResult:
    """Fit an adapter for a task whose run directory is there; see `fit_run`."""
    run.claim(task, options.force)  # here, since another fit may have ended just before this one held the run
    encoder = workspace.open(resolve_model(task.weak))
    files = [name for name in task.finetuned if name != teachers.PROBE]
    digests = {name: teachers.finetuned_digest(name, workspace) for name in files}  # first: later changes are refused
    given = open_given(task, images, run, encoder)
    columns = any(map(teachers.has_columns_of_a_file, given.values()))
    if columns:
        warn_of_numbers(task, options, command, workspace)
    files = with_views(images.files, options.views, options.settings.seed)
    weak = encode(encoder, replace(images, files=files), vocabulary, task.templates)
    plain = [i for i, file in enumerate(weak.images.files) if not isinstance(file, View)]
    seen = weak.part(plain) if options.views else weak
    probe = make_probe(seen, task, options.settings.seed) if teachers.PROBE in task.finetuned else None
    if probe is not None:
        given[teachers.PROBE] = probe
    each = [finetuned_logits(given[name], weak.images.files, weak.embeddings) for name in task.finetuned]
    teacher = teachers.mean_logits(each)
    require_answers(teacher, task)
    note_constant_columns(teacher, task, workspace)
    wanted = predictions(teacher[plain])
    zero_shot = predictions(computed_zero_shot_logits(seen.embeddings, len(task.classes)))
    if columns and probe is None:
        warn_of_mix_up(zero_shot, wanted, task, command, workspace)
        warn_of_cosines(teacher, task, workspace)
    hint_at_few_steps(len(weak.images.files), options, workspace)
    with workspace.reporter.progress("Fitting the adapter") as advance:
        artefact = api.fit(weak.embeddings, teacher, vocabulary, advance, **vars(options.settings))
    artefact = signed(artefact, encoder)
    before, after = agreement(zero_shot, wanted), agreement(artefact.predictions(seen.embeddings), wanted)
    warn_of_no_gain(before, after, workspace)
    used = fingerprints(seen.images.files, workspace)
    gone = run.begin(task)  # the run that was there goes only now that nothing else can fail
    if probe is not None:
        write_atomically(run.path / PROBE_FILE, teachers.save_head(probe))
    remember_fit(used, run)
    run.add(command, {encoder.name: encoder.fingerprint}, teachers=digests)
    artefact.save(run.path / FITTED)  # last: without it a run is none, so one that was killed before is refused
    return FitResult(artefact, run.path / FITTED, len(plain), after, before, removal(gone, run))


def open_given(task: Task, images: ImageSet, run: Run, encoder: CachedEncoder) -> dict[str, teachers.FinetunedModel]:
    """The fine-tuned models by name, but for a probe; checked here, since to encode the images may take hours.

    Raises:
        UsageError: if a probe is asked for, and the images have no labels.
        TransmiterError: if a file cannot be used.
    """
    if teachers.PROBE in task.finetuned and not images.labelled:
        raise UsageError("--finetuned probe needs labelled images, but these have no labels.", "--finetuned FILE")
    given = {name: open_finetuned_of(name, task, run, encoder) for name in task.finetuned if name != teachers.PROBE}
    for model in given.values():
        model.check(images.files)
    return given


def note_classes_without_images(
    names: Sequence[str], labels: Sequence[str], images: ImageSet, workspace: Workspace
) -> None:
    """Say so where a --classes file, or another part of the data, has more classes than the labelled images."""
    shown = {file.label for file in images.files}
    absent = [name for name, label in zip(names, labels, strict=False) if label not in shown]
    if absent:
        workspace.reporter.note(f"No image is labelled with {len(absent)} of {len(names)} classes: {some(absent)}.")


def warn_of_splits_among_classes(
    names: Sequence[str], data: DataSpec, command: Sequence[str], workspace: Workspace
) -> None:
    """Say so where class folders are called as splits are: beside other folders with images, splits are none."""
    splits = [name for name in names if canonical(name) in SPLITS]
    if splits and len(splits) < len(names) and Path(data.data).expanduser().is_dir():
        likely = min(splits, key=lambda name: list(SPLITS).index(canonical(name)))
        workspace.reporter.warn(
            f"Folders like {likely!r} are taken for classes, since other folders in {data.data} hold images, too: "
            f"{some([name for name in names if name not in splits])}. If not meant so: "
            f"{again_with(command, '--data', str(Path(data.data) / likely))}"
        )


def require_answers(teacher: Float[Tensor, "images classes"], task: Task) -> None:
    """Raise TransmiterError if the fine-tuned model finds all classes equally likely, whatever the image."""
    if bool((teacher == teacher[:, :1]).all()):
        raise TransmiterError(
            f"{' and '.join(task.finetuned)} gives every class the same logit, for every image: there is nothing to "
            "learn from it.",
            "save the logits, or the head, again",
        )


def note_constant_columns(teacher: Float[Tensor, "images classes"], task: Task, workspace: Workspace) -> None:
    """Say so where the fine-tuned model has one logit of a class for all images, as where it masks that class."""
    constant = (teacher == teacher[:1]).all(0).nonzero().flatten().tolist()
    if 0 < len(constant) < len(task.classes):
        named = some([task.classes[column] for column in constant])
        workspace.reporter.note(
            f"{' and '.join(task.finetuned)} says nothing of {len(constant)} of {len(task.classes)} classes, whose "
            f"logit is the same for all images: {named}."
        )


def warn_of_numbers(task: Task, options: FitOptions, command: Sequence[str], workspace: Workspace) -> None:
    """Say so where class folders are numbers, whose order as texts is hardly that of a file's columns."""
    if options.classes is None and all(map(str.isdecimal, task.labels)):
        numbers = [int(label) for label in task.labels]
        if numbers != sorted(numbers):
            workspace.reporter.warn(
                f"The classes are numbers, sorted as text: {some(task.labels)}. The columns of "
                f"{' and '.join(task.finetuned)} are taken to be in this order. For another, a file with a class a "
                f"line: {again_with(command, '--classes', 'FILE')}"
            )


def warn_of_mix_up(
    zero_shot: Int[Tensor, " images"],
    teacher: Int[Tensor, " images"],
    task: Task,
    command: Sequence[str],
    workspace: Workspace,
) -> None:
    """Say so where, by answers, the columns of a head or of logits look to be in another order than the classes."""
    found = mixed_up(teacher, zero_shot, len(task.classes))
    if found:
        pairs = [f"{task.classes[column]!r} is like {task.classes[known]!r}" for column, known in sorted(found.items())]
        workspace.reporter.warn(
            f"The columns of {' and '.join(task.finetuned)} look to be in another order than the classes, "
            f"{some(task.classes)}: to {task.weak}, column {some(pairs)}. Either the order is another "
            f"one, and a file of the classes in the order of the columns is the mend; or the names say little to "
            f"{task.weak}. The columns are taken in the order of the classes. For another order: "
            f"{again_with(command, '--classes', 'FILE')}"
        )


def warn_of_cosines(teacher: Float[Tensor, "images classes"], task: Task, workspace: Workspace) -> None:
    """Say so where logits differ as little as cosines do: no softmax of them is ever sure."""
    spread = (teacher.amax(-1) - teacher.amin(-1)).max().item()
    if spread <= COSINES:
        workspace.reporter.warn(
            f"The logits of {' and '.join(task.finetuned)} differ by {spread:.2g} at most, so that no softmax of them "
            "is ever sure. Save what goes into the softmax, the logit scale included (100 for most CLIP models), and "
            "fit again: the adapter learns next to nothing of such logits."
        )


def again_with(command: Sequence[str], option: str, value: str) -> str:
    """The line of a fit with another value of an option, over what the fit made."""
    kept = [part for part in without(command, option) if part != "--force"]
    return shlex.join([*kept, "--force", option, value])


def warn_of_no_gain(before: float, after: float, workspace: Workspace) -> None:
    """Say so where the adapted weak model agrees with the fine-tuned one no more often than the zero-shot one."""
    if after <= before:
        workspace.reporter.warn(
            "The adapter agrees with the fine-tuned model no more than the zero-shot model did: nothing was learned. "
            "Few images, few epochs, --aux-words that say nothing to the weak model, or one that was not fine-tuned?"
        )


def hint_at_few_steps(rows: int, options: FitOptions, workspace: Workspace) -> None:
    """Say so if images and epochs make a few steps of the optimiser only, and what makes more."""
    settings = options.settings
    steps = settings.epochs * math.ceil(rows / settings.batch_size)
    if steps >= FEW_STEPS:
        return
    enough = math.ceil(FEW_STEPS / math.ceil(rows / settings.batch_size))
    views = "" if options.views else f", --views {math.ceil(FEW_STEPS / steps)} for random crops of each"
    workspace.reporter.note(
        f"Hint: {rows:,} images in {settings.epochs} epochs are {steps} steps of the optimiser, which is few. "
        f"More images{views}, or --epochs {enough} give it more."
    )


def make_probe(weak: EncodedImages, task: Task, seed: int) -> teachers.FinetunedHead:
    """The linear probe of `--finetuned probe`, trained on the labelled images."""
    labels = torch.tensor(weak.images.labels(task.label_names), device=weak.embeddings.images.device)
    return teachers.FinetunedHead(linear_probe(weak.embeddings, labels, len(task.classes), seed).cpu())
