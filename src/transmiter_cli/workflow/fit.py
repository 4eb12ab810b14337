"""transmiter fit: distil the fine-tuned weak model into an adapter."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli import api
from transmiter_cli.artefact import Artefact
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import DataSpec, ImageSet
from transmiter_cli.embedding.sources.opening import lasting
from transmiter_cli.embedding.views import View, with_views
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.layout import FITTED, PROBE_FILE, SEEN
from transmiter_cli.method.agreement import agreement
from transmiter_cli.method.per_image import computed_zero_shot_logits, predictions
from transmiter_cli.method.settings import AUX_WORDS, VOCABULARY_SIZE, FitSettings
from transmiter_cli.names import some
from transmiter_cli.record import Task
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import Run, history_entry
from transmiter_cli.task import finetuned as teachers
from transmiter_cli.task.head_file import FinetunedHead, probe_head, save_head
from transmiter_cli.task.logits_file import FinetunedLogits
from transmiter_cli.task.templates import choose_templates
from transmiter_cli.task.vocabulary import auxiliary_words, build_vocabulary, class_names
from transmiter_cli.workflow.encoded import EncodedImages, encode, finetuned_logits
from transmiter_cli.workflow.fit_warnings import (
    hint_at_few_steps,
    note_classes_without_images,
    note_constant_columns,
    warn_of_cosines,
    warn_of_mix_up,
    warn_of_no_gain,
    warn_of_numbers,
    warn_of_splits_among_classes,
)
from transmiter_cli.workflow.overlap import fingerprints, listed
from transmiter_cli.workflow.removal import removal
from transmiter_cli.workflow.run_artefacts import open_finetuned_of, signed
from transmiter_cli.workflow.run_data import open_told


@dataclass(frozen=True)
class FitOptions:
    """What to fit, on what.

    Attributes:
        weak: the zero-shot weak model's name.
        finetuned: the fine-tuned ones, of which the adapter learns the mean: files, model names, or "probe".
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
    aux_words: str = AUX_WORDS
    vocabulary_size: int = VOCABULARY_SIZE
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
    """

    artefact: Artefact
    path: Path
    images: int
    agreement: float
    agreement_before: float


def fit_run(options: FitOptions, run: Run, workspace: Workspace, command: list[str]) -> FitResult:
    """Fit an adapter and write it to the run directory.

    Raises:
        UsageError: if a name, file or folder does not exist, or --run holds another task or others' files.
        TransmiterError: if the data or a file cannot be used.
    """
    images = open_told(options.data, "train", workspace.reporter)
    names, labels = class_names(images.label_names, options.classes)
    if len(names) < 2:
        said = f"At least two classes are needed; there is {', '.join(map(repr, names))} alone."
        raise UsageError(said, "pass a folder of two class folders or more, or --classes FILE with all names")
    note_classes_without_images(names, labels, images, workspace.reporter)
    warn_of_splits_among_classes(images.label_names, options.data, command, workspace.reporter)
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
    run.require_free(task)
    run.require_writable()  # and there, so that it can be locked
    with run.locked():
        return fit_task(options, run, task, images, vocabulary, workspace, command)


def fit_task(
    options: FitOptions,
    run: Run,
    task: Task,
    images: ImageSet,
    vocabulary: Sequence[str],
    workspace: Workspace,
    command: list[str],
) -> FitResult:
    """Fit an adapter for a task whose run directory is there, and locked; see `fit_run`."""
    if not options.force:  # here, since another fit may have ended just before this one held the run
        run.claim(task, shlex.join([*command, "--force"]))
    reporter, encoder = workspace.reporter, workspace.open(resolve_model(task.weak))
    files = [name for name in task.finetuned if name != teachers.PROBE]
    digests = {name: teachers.finetuned_digest(name, workspace) for name in files}  # first: later changes are refused
    given = open_given(task, images, run, encoder)
    columns = any(map(teachers.has_columns_of_a_file, given.values()))
    if columns and options.classes is None:
        warn_of_numbers(task, command, reporter)
    files = with_views(images.files, options.views, options.settings.seed)
    weak = encode(encoder, replace(images, files=files), vocabulary, task.templates)
    plain = [i for i, file in enumerate(weak.images.files) if not isinstance(file, View)]
    seen = weak.part(plain) if options.views else weak
    probe = make_probe(seen, task, options.settings.seed) if teachers.PROBE in task.finetuned else None
    if probe is not None:
        given[teachers.PROBE] = probe
    teacher = mean_answers(given, weak, task, reporter)
    wanted = predictions(teacher[plain])
    zero_shot = predictions(computed_zero_shot_logits(seen.embeddings, len(task.classes)))
    if columns and probe is None:
        warn_of_mix_up(zero_shot, wanted, task, command, reporter)
        warn_of_cosines(teacher, task, reporter)
    more_views = not options.views and not any(isinstance(model, FinetunedLogits) for model in given.values())
    hint_at_few_steps(len(weak.images.files), more_views, options.settings, reporter)
    with reporter.progress("Fitting the adapter") as advance:
        artefact = api.fit(weak.embeddings, teacher, vocabulary, advance, **vars(options.settings))
    artefact = signed(artefact, encoder)
    before, after = agreement(zero_shot, wanted), agreement(artefact.predictions(seen.embeddings), wanted)
    warn_of_no_gain(before, after, reporter)
    used = fingerprints(seen.images.files, workspace)
    beside = {SEEN["fit"]: listed(used)}
    if probe is not None:
        beside[PROBE_FILE] = save_head(probe)
    step = history_entry(command, {encoder.name: encoder.fingerprint})
    lost = run.unrecorded()
    gone = run.replace_fit(task, artefact.serialized(), beside, step, teachers=digests)
    if gone:
        reporter.warn(removal(gone, run))
    if lost:
        reporter.warn(f"No longer in {run.path}, whose record was damaged: {some(lost)}.")
    return FitResult(artefact, run.path / FITTED, len(plain), after, before)


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


def mean_answers(
    given: Mapping[str, teachers.FinetunedModel], weak: EncodedImages, task: Task, reporter: Reporter
) -> Float[Tensor, "images classes"]:
    """The mean logits of the fine-tuned models, which the adapter learns.

    Raises:
        TransmiterError: if they find all classes equally likely, whatever the image.
    """
    each = [finetuned_logits(given[name], weak.images.files, weak.embeddings) for name in task.finetuned]
    teacher = teachers.mean_logits(each)
    if bool((teacher == teacher[:, :1]).all()):
        raise TransmiterError(
            f"{' and '.join(task.finetuned)} gives every class the same logit, for every image: there is nothing to "
            "learn from it.",
            "save the logits, or the head, again",
        )
    note_constant_columns(teacher, task, reporter)
    return teacher


def make_probe(weak: EncodedImages, task: Task, seed: int) -> FinetunedHead:
    """The linear probe of `--finetuned probe`, trained on the labelled images."""
    labels = torch.tensor(weak.images.labels(task.label_names), device=weak.embeddings.images.device)
    return probe_head(weak.embeddings, labels, len(task.classes), seed)
