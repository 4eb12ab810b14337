"""transmiter eval: every model of a run, on labelled test images or on images without labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from transmiter_cli.artefact import Artefact
from transmiter_cli.embedding.sources import DataSpec, ImageRecord, ImageSet, open_images
from transmiter_cli.embedding.sources.opening import lasting, same_data
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError, UsageError, mended_by
from transmiter_cli.evaluation.candidates import EFT_STRENGTHS, Candidate, eft_name
from transmiter_cli.evaluation.protocols import base_to_novel
from transmiter_cli.evaluation.require import Gate, require_names
from transmiter_cli.evaluation.rows import Row, column_names, measure, positions_among
from transmiter_cli.evaluation.unlabelled import Unlabelled, describe
from transmiter_cli.layout import SWEPT_ROW
from transmiter_cli.names import resembling, some
from transmiter_cli.record import Task
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import Run
from transmiter_cli.workflow.class_lists import ClassMap, base_classes, read_map
from transmiter_cli.workflow.common import (
    DataFlags,
    encode,
    fit_data,
    open_told,
)
from transmiter_cli.workflow.overlap import overlap
from transmiter_cli.workflow.scene import Scene, make_candidates, open_scene, open_twin, optional_logits

FEW = 50
"""Images; bootstrap intervals of fewer hold the truth less often than they say."""


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
        strong_finetuned: a fine-tuned twin of the strong model, for a row of its own.
        eft: strengths a of EFT.
        seed: decides the bootstrap intervals.
    """

    data: DataFlags = field(default_factory=DataFlags)
    strong: str | None = None
    mapping: Path | None = None
    elsewhere: frozenset[str] = frozenset()
    base_to_novel: bool = False
    base: Path | None = None
    allow_overlap: bool = False
    labels: bool = True
    strong_finetuned: str | None = None
    eft: tuple[float, ...] = EFT_STRENGTHS
    seed: int = 0


@dataclass(frozen=True)
class Evidence:
    """What the rows were measured on, for those who want to look at images and classes.

    Attributes:
        models: logits among `class_names`, by row.
        labels: positions in `class_names`; None without labels.
    """

    models: Mapping[str, Candidate]
    labels: Int[Tensor, " images"] | None
    files: Sequence[ImageRecord]
    class_names: Sequence[str]


@dataclass(frozen=True)
class EvalResult:
    """Rows of the evaluation by name, and what they were measured on.

    Attributes:
        labelled: whether rows are `Row`s; `Unlabelled` otherwise.
        reg: the strength of the row "transferred", where the run has rows of other strengths; None otherwise.
        notes: what a reader of the numbers must know.
    """

    rows: Mapping[str, Row] | Mapping[str, Unlabelled]
    data: str
    split: str | None
    images: int
    classes: int
    weak: str
    strong: str
    evidence: Evidence
    labelled: bool = True
    notes: tuple[str, ...] = ()
    reg: float | None = None

    @property
    def has_parts(self) -> bool:
        """Whether base and novel classes were measured, too."""
        return any(getattr(row, "hm", None) is not None for row in self.rows.values())


def eval_run(options: EvalOptions, run: Run, workspace: Workspace, gates: Sequence[Gate] = ()) -> EvalResult:
    """Measure a run's models.

    Args:
        options: what to measure, and how.
        run: a run in which something was transferred.
        workspace: cache and device.
        gates: gates that will be judged by the result; their names are checked before any image is encoded.

    Raises:
        UsageError: if nothing was fitted or transferred, a gate names a row or column that the result cannot have, a
            map and base classes are both given, or there is no such fine-tuned strong model.
        TransmiterError: if the images' labels are none of the run's classes, none is of base or novel classes, the run
            learned from the images, or the fine-tuned strong model cannot be used.
    """
    scene = open_scene(run, workspace, options.strong)
    task, spec = scene.task, options.data.spec(scene.task)
    images = open_measured(options, spec, scene)
    labelled = options.labels and images.labelled
    with mended_by(f"transmiter inspect --json{run.flag}"):  # which lists the classes
        mapping = read_map(options.mapping, task.classes, task.labels)
        base = base_classes(options.base, task) if options.base_to_novel or options.base else None
    require_labels_for(options, labelled)
    if base is not None and mapping.targets:
        raise UsageError("--map and base classes ask for answers among different classes.", "leave one of them out")
    require_names(gates, row_names(options, run), column_names(Row if labelled else Unlabelled, base is not None))
    if labelled:
        warn_of_strangers(mapping, {*images.label_names, *options.elsewhere}, workspace.reporter)
        images = mapping.known_only(images)  # fails on a strange label before anything is encoded, as do the next
    if base is not None:
        base_to_novel(torch.tensor(mapping.indices(images.files)), base, len(task.classes))
    twin = None if options.strong_finetuned is None else open_twin(options.strong_finetuned, scene, images)
    notes = overlap_notes(images.files, scene, options.allow_overlap)
    weak = encode(scene.weak, images, scene.fitted.vocabulary, task.templates)
    teacher, untold = optional_logits(scene, weak, same_data(lasting(spec), fit_data(task)))
    notes += untold
    models = make_candidates(options.eft, scene, weak, teacher, twin)
    files = weak.images.files
    labels = torch.tensor(mapping.indices(files), device=workspace.method_device) if labelled else None
    evidence = Evidence(models, labels, files, task.classes)
    if labels is None:
        rows = describe(models)
        notes += ("Without labels nothing here says which model is right.",)
    else:
        among = mapping.among(images)
        rows = measure(models, labels, base=base, among=among, seed=options.seed)
        evidence = evidence if among is None else narrowed(evidence, among)
        notes += few_notes(len(labels)) + (() if base is None else novel_notes(base, task))
    return EvalResult(
        rows,
        data=spec.data,
        split=images.split,
        images=len(files),
        classes=len(evidence.class_names),
        weak=task.weak,
        strong=scene.strong.name,
        labelled=labelled,
        notes=notes,
        evidence=evidence,
        reg=first_reg(scene.transferred),
    )


def open_measured(options: EvalOptions, spec: DataSpec, scene: Scene) -> ImageSet:
    """The images to measure on.

    Raises:
        TransmiterError: if they are the very data that fit was given, and none others were named.
    """
    reporter = scene.workspace.reporter
    images = open_told(spec, "test", reporter, options.labels)
    if images.beside and options.labels:
        reporter.note("eval --no-labels takes them, too.")
    if options.data.data is None and images.split == scene.task.split and not options.allow_overlap:
        raise seen_by_fit(spec, images.split, scene.run)
    return images


def row_names(options: EvalOptions, run: Run) -> list[str]:
    """The rows that an evaluation can have, in its order, as far as what lies in the run tells."""
    made = run.artefacts(run.strong(options.strong))
    last = ["strong_finetuned"] if options.strong_finetuned is not None else []
    return ["weak", "weak_finetuned", "strong", *map(eft_name, options.eft), "direct", *made, *last]


def first_reg(transferred: Mapping[str, Artefact]) -> float | None:
    """The strength of "transferred" where there are rows of other strengths, of which each has its own in its name."""
    if "transferred" not in transferred or not any(row.startswith(SWEPT_ROW) for row in transferred):
        return None
    return transferred["transferred"].details["transfer"]["reg"]


def narrowed(evidence: Evidence, among: Sequence[int]) -> Evidence:
    """The same evidence, with the classes that may be answered as its only ones."""
    assert evidence.labels is not None
    models = {name: model.among(among) for name, model in evidence.models.items()}
    labels = positions_among(evidence.labels, among, len(evidence.class_names))
    return Evidence(models, labels, evidence.files, [evidence.class_names[i] for i in among])


def warn_of_strangers(mapping: ClassMap, labels: Collection[str], reporter: Reporter) -> None:
    """Say so where a map names what is no label of any data: those that were meant are not mapped."""
    strange = mapping.strangers(labels)
    if strange:
        meant = resembling(strange[0], labels)
        reporter.warn(f"--map names {len(strange)} labels that these images do not have: {some(strange)}.{meant}")


def require_labels_for(options: EvalOptions, labelled: bool) -> None:
    """Raise TransmiterError if what is asked for needs labels that are not there, or are not to be used."""
    if labelled or not (options.base_to_novel or options.base or options.mapping):
        return
    if options.labels:
        raise TransmiterError("Base-to-novel and --map need labels, but these images have none.", "leave them out")
    raise UsageError("Base-to-novel and --map need labels, which --no-labels leaves out.", "leave one of them out")


def seen_by_fit(spec: DataSpec, split: str | None, run: Run) -> TransmiterError:
    """The error for the very data that fit was given."""
    if split is None:
        message = f"{spec.data} has no test split: fit saw all of it."
    else:
        message = f"Fit saw the {split} part of {spec.data}, so nothing can be measured there."
    return TransmiterError(message, f"transmiter eval --data FOLDER{run.flag}")


def overlap_notes(files: Sequence[ImageRecord], scene: Scene, allowed: bool) -> tuple[str, ...]:
    """What to say of images that fit, transfer, self-train or refine used.

    Raises:
        TransmiterError: if there are any and they are not allowed.
    """
    used = overlap(files, scene.run, scene.workspace)
    if used is None:
        return ("The run does not say which images fit used, so nobody knows whether it used these.",)
    told = [f"{use} used {len(same):,} of these {len(files):,} images" for use, same in used.items() if same]
    if not told:
        return ()
    what, names = " and ".join(told), list(dict.fromkeys(file.id for same in used.values() for file in same))
    if not allowed:
        raise TransmiterError(
            f"In this run {what} (by their content), so nothing can be measured on them: {some(names)}.",
            "pass other images, or --allow-overlap, which says so in the table",
        )
    return (f"OVERLAP: in this run {what}. These numbers are too good.",)


def few_notes(images: int) -> tuple[str, ...]:
    """What to say of numbers that are measured on few images."""
    return (f"{images} images: intervals of so few are too narrow.",) if images < FEW else ()


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
