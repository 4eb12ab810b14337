"""transmiter eval: every model of a run, on labelled test images or on images without labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from transmiter_cli.artefact import Artefact
from transmiter_cli.embedding.sources import DataSpec, ImageRecord, ImageSet, open_images
from transmiter_cli.embedding.sources.opening import lasting, same_data
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError, UsageError, mended_by
from transmiter_cli.evaluation.candidates import EFT_STRENGTHS, eft_name
from transmiter_cli.evaluation.protocols import base_to_novel
from transmiter_cli.evaluation.require import Gate, no_row, require_names
from transmiter_cli.evaluation.result import EvalResult, Evidence
from transmiter_cli.evaluation.rows import REFERENCE, Row, column_names, measure, positions_among
from transmiter_cli.evaluation.unlabelled import Unlabelled, describe
from transmiter_cli.layout import DIRECT, SWEPT_ROW
from transmiter_cli.names import resembling, some
from transmiter_cli.record import Task, values
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import Run
from transmiter_cli.workflow.class_lists import ClassMap, base_classes, read_map
from transmiter_cli.workflow.encoded import encode
from transmiter_cli.workflow.overlap import overlap
from transmiter_cli.workflow.run_data import DataFlags, fit_data, open_told
from transmiter_cli.workflow.run_models import (
    RunModels,
    make_candidates,
    open_run_models,
    open_strong_finetuned,
    weak_finetuned,
    weak_finetuned_if_there,
)


@dataclass(frozen=True)
class EvalOptions:
    """What to measure, and how.

    Attributes:
        data: test images, their test part where they have one; the data of fit, without its limit, if none are given.
        strong: which strong model, where the run has several; the last one transferred to if None.
        mapping: a file from the data's labels to the run's classes.
        elsewhere: labels of other data that the same file is for.
        base_to_novel: also measure base and novel classes, each answered among its own.
        base: a file of base classes; CoOp's rule if None.
        allow_overlap: measure on images that the run learned from, too.
        labels: whether labels are used where there are any.
        against: the row that the others are compared with, where there are labels.
        strong_finetuned: the fine-tuned strong model, for a row of its own.
        eft: strengths a of EFT.
    """

    data: DataFlags = field(default_factory=DataFlags)
    strong: str | None = None
    mapping: Path | None = None
    elsewhere: frozenset[str] = frozenset()
    base_to_novel: bool = False
    base: Path | None = None
    allow_overlap: bool = False
    labels: bool = True
    against: str = REFERENCE
    strong_finetuned: str | None = None
    eft: tuple[float, ...] = EFT_STRENGTHS


def eval_run(options: EvalOptions, run: Run, workspace: Workspace, gates: Sequence[Gate] = ()) -> EvalResult:
    """Measure a run's models.

    Args:
        options: what to measure, and how.
        run: a run in which something was transferred.
        workspace: cache and device.
        gates: gates that will be judged by the result; their names are checked before any image is encoded.

    Raises:
        UsageError: if nothing was fitted or transferred, `against` or a gate names what the result cannot have, a
            map and base classes are both given, or there is no such fine-tuned strong model.
        TransmiterError: if the images' labels are none of the run's classes, none is of base or novel classes, the run
            learned from the images, or the fine-tuned strong model cannot be used.
    """
    run_models = open_run_models(run, workspace, options.strong)
    task, spec = run_models.task, options.data.spec(run_models.task)
    test = check_measured(options, spec, run_models)
    strong_finetuned = open_strong_finetuned(options.strong_finetuned, run_models, test.images)
    check_rows(options, gates, test, row_names(options, run))
    teachers, gone = weak_finetuned_if_there(run_models, test.images, same_data(lasting(spec), fit_data(task)))
    lacking = () if gone is None else left_out(gone, options, gates, test, run_models)
    notes = overlap_notes(test.images.files, run_models, options.allow_overlap) + lacking
    weak = encode(run_models.weak, test.images, run_models.fitted.vocabulary, task.templates)
    teacher = weak_finetuned(teachers, weak) if teachers else None
    models = make_candidates(options.eft, run_models, weak, teacher, strong_finetuned)
    files, labels, class_names = weak.images.files, None, task.classes
    if test.labelled:
        labels = torch.tensor(test.mapping.indices(files), device=workspace.method_device)
        among = test.mapping.among(test.images)
        if among is not None:
            models = {name: model.among(among) for name, model in models.items()}
            labels, class_names = positions_among(labels, among, len(class_names)), [class_names[i] for i in among]
        rows = measure(models, labels, base=test.base, against=options.against)
        notes += () if test.base is None else novel_notes(test.base, task)
    else:
        rows = describe(models)
        notes += ("Without labels nothing here says which model is right.",)
    return EvalResult(
        rows,
        data=spec.data,
        split=test.images.split,
        images=len(files),
        classes=len(class_names),
        weak=task.weak,
        strong=run_models.strong.name,
        against=options.against,
        notes=notes,
        evidence=Evidence(models, labels, files, class_names),
        reg=first_reg(run_models.transferred),
    )


class Measured(NamedTuple):
    """Images to measure on, and what their labels mean to the run.

    Attributes:
        images: those whose label, if labels are used, is of the run's classes.
        labelled: whether labels are used.
        mapping: from their labels to the run's classes.
        base: the base classes, if base and novel ones are measured, too.
    """

    images: ImageSet
    labelled: bool
    mapping: ClassMap
    base: list[int] | None


def check_measured(options: EvalOptions, spec: DataSpec, run_models: RunModels) -> Measured:
    """The images to measure on, and all that can be wrong with them before one is encoded.

    Raises:
        UsageError, TransmiterError: as `eval_run`.
    """
    task, reporter = run_models.task, run_models.workspace.reporter
    images = open_measured(options, spec, run_models)
    labelled = options.labels and images.labelled
    with mended_by(f"transmiter inspect --json{run_models.run.flag}"):  # which lists the classes
        mapping = read_map(options.mapping, task.classes, task.labels)
        base = base_classes(options.base, task) if options.base_to_novel else None
    require_labels_for(options, labelled)
    if base is not None and mapping.targets:
        raise UsageError("--map and base classes ask for answers among different classes.", "leave one of them out")
    if labelled:
        warn_of_strangers(mapping, {*images.label_names, *options.elsewhere}, reporter)
        images = mapping.known_only(images)
        note_unmapped(mapping, images.label_names, reporter)
    if base is not None:
        base_to_novel(torch.tensor(mapping.indices(images.files)), base, len(task.classes))
    return Measured(images, labelled, mapping, base)


def check_rows(options: EvalOptions, gates: Sequence[Gate], test: Measured, rows: Sequence[str]) -> None:
    """Raise UsageError unless these rows are all that is to be compared with or is named by gates, whose columns are
    measured on such images.
    """
    if options.against not in rows:
        raise UsageError(f"--against: {no_row(options.against, rows)}", "name one of these, or leave --against out")
    require_names(gates, rows, column_names(Row if test.labelled else Unlabelled, test.base is not None))


def open_measured(options: EvalOptions, spec: DataSpec, run_models: RunModels) -> ImageSet:
    """The images to measure on.

    Raises:
        TransmiterError: if they are the very data that fit was given, and none others were named.
    """
    reporter = run_models.workspace.reporter
    images = open_told(spec, "test", reporter, options.labels)
    if images.beside and options.labels:
        reporter.note("eval --no-labels takes them, too.")
    if options.data.data is None and images.split == run_models.task.split and not options.allow_overlap:
        raise seen_by_fit(spec, images.split, run_models.run)
    return images


def left_out(
    why: TransmiterError, options: EvalOptions, gates: Sequence[Gate], test: Measured, run_models: RunModels
) -> tuple[str, ...]:
    """What to say where the fine-tuned weak model does not answer for the images.

    Raises:
        UsageError: if the rows that it would have are to be compared with, or named by gates.
    """
    try:
        check_rows(options, gates, test, row_names(options, run_models.run, finetuned=False))
    except UsageError as error:
        raise UsageError(f"{why} {error}", why.fix or error.fix) from why
    said = f"{why} The rows weak_finetuned, eft and product are left out."
    mend = f" Try: {why.fix}" if why.fix else ""
    run_models.workspace.reporter.warn(said + mend)
    return (said,)


def row_names(options: EvalOptions, run: Run, finetuned: bool = True) -> list[str]:
    """The rows that an evaluation has, in its order.

    Args:
        options: what to measure.
        run: what was made there.
        finetuned: whether the fine-tuned weak model answers for the images.
    """
    made = run.artefacts(run.strong(options.strong))
    tuned = ["weak_finetuned"] if finetuned else []
    ensembles = [*map(eft_name, options.eft), "product"] if finetuned else []
    last = ["strong_finetuned"] if options.strong_finetuned is not None else []
    return ["weak", *tuned, "strong", *ensembles, DIRECT, *made, *last]


def first_reg(transferred: Mapping[str, Artefact]) -> float | None:
    """The strength of "transferred" where there are rows of other strengths, of which each has its own in its name."""
    if "transferred" not in transferred or not any(row.startswith(SWEPT_ROW) for row in transferred):
        return None
    return transferred["transferred"].details["transfer"]["reg"]


def warn_of_strangers(mapping: ClassMap, labels: Collection[str], reporter: Reporter) -> None:
    """Say so where a map names what is no label of any data: those that were meant are not mapped."""
    strange = mapping.strangers(labels)
    if strange:
        meant = resembling(strange[0], labels)
        reporter.warn(f"--map names {len(strange)} labels that these images do not have: {some(strange)}.{meant}")


def note_unmapped(mapping: ClassMap, labels: Sequence[str], reporter: Reporter) -> None:
    """Say so where a map leaves labels to be classes of the same name."""
    own = mapping.unmapped(labels)
    if own:
        reporter.note(f"{len(own)} labels that --map does not name are taken as without it: {some(own)}.")


def require_labels_for(options: EvalOptions, labelled: bool) -> None:
    """Raise TransmiterError if what is asked for needs labels that are not there, or are not to be used."""
    asked = {
        "--base-to-novel": options.base_to_novel,
        "--map": options.mapping is not None,
        "--against": options.against != REFERENCE,
    }
    given = [flag for flag, is_given in asked.items() if is_given]
    if labelled or not given:
        return
    need = f"{' and '.join(given)} {'needs' if len(given) == 1 else 'need'} labels"
    if options.labels:
        raise TransmiterError(f"{need}, but these images have none.", f"leave {' and '.join(given)} out")
    raise UsageError(f"{need}, which --no-labels leaves out.", "leave one of them out")


def seen_by_fit(spec: DataSpec, split: str | None, run: Run) -> TransmiterError:
    """The error for the very data that fit was given."""
    if split is None:
        message = f"{spec.data} has no test split: fit saw all of it."
    else:
        message = f"Fit saw the {split} part of {spec.data}, so nothing can be measured there."
    return TransmiterError(message, f"transmiter eval --data FOLDER{run.flag}")


def overlap_notes(files: Sequence[ImageRecord], run_models: RunModels, allowed: bool) -> tuple[str, ...]:
    """What to say of images that fit, transfer, self-train or refine used.

    Raises:
        TransmiterError: if there are any and they are not allowed.
    """
    used = overlap(files, run_models.run, run_models.strong.name, run_models.workspace)
    if used is None:
        return ("The run does not say which images fit used, so nobody knows whether it used these.",)
    also = any(values(step.line, "--also") for step in run_models.run.since_fit())
    names = {use: "transfer, or a probe of its --also runs," if also and use == "transfer" else use for use in used}
    told = [f"{names[use]} used {len(same):,} of these {len(files):,} images" for use, same in used.items() if same]
    if not told:
        return ()
    what, names = " and ".join(told), list(dict.fromkeys(file.id for same in used.values() for file in same))
    if not allowed:
        redone = " and ".join(use for use, same in used.items() if same)
        raise TransmiterError(
            f"In this run {what} (by their content), so nothing can be measured on them: {some(names)}.",
            f"pass other images, or {redone} again with others for all that it made, or --allow-overlap, which says so "
            "in the table",
        )
    return (f"OVERLAP: in this run {what}. These numbers are too good.",)


def novel_notes(base: Sequence[int], task: Task) -> tuple[str, ...]:
    """What to say where fit saw images of novel classes, as far as the labels of its images tell."""
    try:
        images = open_images(fit_data(task), task.split)
    except TransmiterError:
        return ()
    novel = {*task.labels} - {task.labels[i] for i in base}
    count = sum(file.label in novel for file in images.files)
    if not count:
        return ()
    said = f"fit saw {count:,} images of novel classes, which is not the published base-to-novel protocol"
    return (f"{said}; --base FILE names other base classes.",)
