"""What fit says of classes, of a fine-tuned model's answers and of a short training, beyond what it refuses."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.embedding.sources import DataSpec, ImageSet
from transmiter_cli.embedding.sources.splits import SPLITS, canonical
from transmiter_cli.files import expanded
from transmiter_cli.method.consensus.experts import widest
from transmiter_cli.method.mix_up import mixed_up
from transmiter_cli.method.settings import FitSettings
from transmiter_cli.names import some
from transmiter_cli.record import Task, without
from transmiter_cli.reporter import Reporter

COSINES = 2.0
"""No two cosines differ by more."""
FEW_STEPS = 100
"""Steps of the optimiser below which a fit is told to be short."""


def note_classes_without_images(
    names: Sequence[str], labels: Sequence[str], images: ImageSet, reporter: Reporter
) -> None:
    """Say so where a --classes file, or another part of the data, has more classes than the labelled images."""
    shown = {file.label for file in images.files}
    absent = [name for name, label in zip(names, labels, strict=False) if label not in shown]
    if absent:
        reporter.note(f"No image is labelled with {len(absent)} of {len(names)} classes: {some(absent)}.")


def warn_of_splits_among_classes(
    names: Sequence[str], data: DataSpec, command: Sequence[str], reporter: Reporter
) -> None:
    """Say so where class folders are called as splits are: beside other folders with images, splits are none."""
    splits = [name for name in names if canonical(name) in SPLITS]
    if splits and len(splits) < len(names) and expanded(data.data).is_dir():
        likely = min(splits, key=lambda name: list(SPLITS).index(canonical(name)))
        reporter.warn(
            f"Folders like {likely!r} are taken for classes, since other folders in {data.data} hold images, too: "
            f"{some([name for name in names if name not in splits])}. If not meant so: "
            f"{again_with(command, '--data', str(Path(data.data) / likely))}"
        )


def note_constant_columns(teacher: Float[Tensor, "images classes"], task: Task, reporter: Reporter) -> None:
    """Say so where the fine-tuned model has one logit of a class for all images, as where it masks that class."""
    constant = (teacher == teacher[:1]).all(0).nonzero().flatten().tolist()
    if 0 < len(constant) < len(task.classes):
        named = some([task.classes[column] for column in constant])
        reporter.note(
            f"{' and '.join(task.finetuned)} says nothing of {len(constant)} of {len(task.classes)} classes, whose "
            f"logit is the same for all images: {named}."
        )


def warn_of_numbers(task: Task, command: Sequence[str], reporter: Reporter) -> None:
    """Say so where class folders are numbers, whose order as texts is hardly that of a file's columns."""
    if all(map(str.isdecimal, task.labels)):
        numbers = [int(label) for label in task.labels]
        if numbers != sorted(numbers):
            reporter.warn(
                f"The classes are numbers, sorted as text: {some(task.labels)}. The columns of "
                f"{' and '.join(task.finetuned)} are taken to be in this order. For another, a file with a class a "
                f"line: {again_with(command, '--classes', 'FILE')}"
            )


def warn_of_mix_up(
    zero_shot: Int[Tensor, " images"],
    teacher: Int[Tensor, " images"],
    task: Task,
    command: Sequence[str],
    reporter: Reporter,
) -> None:
    """Say so where, by answers, the columns of a head or of logits look to be in another order than the classes."""
    found = mixed_up(teacher, zero_shot, len(task.classes))
    if found:
        pairs = [f"{task.classes[column]!r} is like {task.classes[known]!r}" for column, known in sorted(found.items())]
        reporter.warn(
            f"The columns of {' and '.join(task.finetuned)} look to be in another order than the classes, "
            f"{some(task.classes)}: to {task.weak}, column {some(pairs)}. Either the order is another "
            f"one, and a file of the classes in the order of the columns is the mend; or the names say little to "
            f"{task.weak}. The columns are taken in the order of the classes. For another order: "
            f"{again_with(command, '--classes', 'FILE')}"
        )


def warn_of_cosines(teacher: Float[Tensor, "images classes"], task: Task, reporter: Reporter) -> None:
    """Say so where logits differ as little as cosines do: no softmax of them is ever sure."""
    spread = widest(teacher)
    if spread <= COSINES:
        reporter.warn(
            f"The logits of {' and '.join(task.finetuned)} differ by {spread:.2g} at most, so that no softmax of them "
            "is ever sure. Save what goes into the softmax, the logit scale included (100 for most CLIP models), and "
            "fit again: the adapter learns next to nothing of such logits."
        )


def again_with(command: Sequence[str], option: str, value: str) -> str:
    """The line of a fit with another value of an option, over what the fit made."""
    kept = [part for part in without(command, option) if part != "--force"]
    return shlex.join([*kept, "--force", option, value])


def warn_of_no_gain(before: float, after: float, reporter: Reporter) -> None:
    """Say so where the adapted weak model agrees with the fine-tuned one no more often than the zero-shot one."""
    if before == 1:
        reporter.warn(
            "The fine-tuned model gives each image the class that the zero-shot model gives it: these images show "
            "nothing of what fine-tuning changed. More images may."
        )
    elif after <= before:
        reporter.warn(
            "The adapter agrees with the fine-tuned model no more than the zero-shot model did: nothing was learned. "
            "Few images, few epochs, --aux-words that say nothing to the weak model, or one that was not fine-tuned?"
        )


def hint_at_few_steps(rows: int, more_views: bool, settings: FitSettings, reporter: Reporter) -> None:
    """Say so if images and epochs make a few steps of the optimiser only, and what makes more.

    Args:
        rows: images, and views of them.
        more_views: whether random crops of the images can be asked for, and were not.
        settings: of the fit.
        reporter: what says it.
    """
    steps = settings.epochs * math.ceil(rows / settings.batch_size)
    if steps >= FEW_STEPS:
        return
    enough = math.ceil(FEW_STEPS / math.ceil(rows / settings.batch_size))
    crops = f", --views {math.ceil(FEW_STEPS / steps)} for random crops of each" if more_views else ""
    reporter.note(
        f"Hint: {rows:,} images times {settings.epochs} epochs make {steps} steps of the optimiser, which is few. "
        f"More images{crops}, or --epochs {enough} give it more."
    )
