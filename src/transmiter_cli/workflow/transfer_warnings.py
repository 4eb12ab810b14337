"""What transfer says of its models and of what "discriminant" may be worse for, beyond what it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transmiter_cli.embedding.workspace import CachedEncoder
from transmiter_cli.method.consensus.verdict import NEEDED
from transmiter_cli.names import some
from transmiter_cli.record import Task
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import Run

Told = Mapping[str, Any]
"""`Verdict.as_json`, as an artefact keeps it."""


def warn_of_same_weights(weak: CachedEncoder, strong: Sequence[CachedEncoder], reporter: Reporter) -> None:
    """Say so where a strong model is the weak one."""
    for encoder in strong:
        if encoder.fingerprint == weak.fingerprint:
            reporter.warn(
                f"{encoder.name} has the very weights of the weak model {weak.name}: they err alike, and the trust of "
                "discriminant takes models to err independently."
            )


def tell_limits(strong: str, verdict: Told, followers: Sequence[str], task: Task, run: Run, reporter: Reporter) -> None:
    """Say what a result of "discriminant" may be worse for, and how far to trust what else there is.

    Args:
        strong: the strong model's name.
        verdict: that on the result.
        followers: what else was made for the same strong model; it follows the fine-tuned model, useless or not.
        task: the run's task.
        run: where it is.
        reporter: what says it.
    """
    if verdict["different_images"] < NEEDED:
        reporter.warn(
            f"{verdict['different_images']} different images are too few: discriminant keeps the zero-shot answers "
            f"of {strong}. It needs {NEEDED}, and several of each class to be of use."
        )
    warn_of_teachers(strong, verdict, followers, task, reporter)
    note_classes_left_out(strong, verdict, task, run, reporter)
    warn_of_names(strong, verdict, reporter)


def teachers_aside(verdict: Told, task: Task) -> list[str]:
    """The run's own fine-tuned models that "discriminant" leaves aside."""
    trust = verdict["teachers"][: len(task.finetuned)]
    return [name for name, value in zip(task.finetuned, trust, strict=False) if not value]


def warn_of_teachers(strong: str, verdict: Told, followers: Sequence[str], task: Task, reporter: Reporter) -> None:
    """Say so where "discriminant" leaves fine-tuned models aside, which what else was made follows."""
    if verdict["verdict"] == "useless teacher" and followers:
        reporter.warn(
            f"To {strong} the fine-tuned model looks useless, and {', '.join(followers)} will follow it: use "
            "discriminant, which leaves it aside, or another fine-tuned model. It may also have the classes in another "
            "order (fit --classes), or these may have names that say nothing (transfer --opaque-names)."
        )
    aside = teachers_aside(verdict, task)
    if 0 < len(aside) < len(task.finetuned):
        reporter.warn(
            f"To {strong}, discriminant does better without {some(aside)}; what fit learned, and ridge, is the "
            "mean with it. Fit without it if you use these."
        )


def note_classes_left_out(strong: str, verdict: Told, task: Task, run: Run, reporter: Reporter) -> None:
    """Say which classes the fine-tuned models do not know, and which no image seems to show."""
    count = len(task.classes)
    if verdict["unknown_classes"]:
        aside, unknown = teachers_aside(verdict, task), [task.classes[i] for i in verdict["unknown_classes"]]
        heard = [name for name in task.finetuned if name not in aside]
        reporter.note(
            f"By {strong}, images show classes that {some(heard) if heard else 'the fine-tuned model'} hardly ever "
            f"answers, as if fine-tuned on others alone: {len(unknown)} of {count} ({some(unknown)}). discriminant "
            "asks the strong model which images are theirs, and trust is that on the others; the other methods follow "
            "the fine-tuned model."
        )
    if verdict["unseen"]:
        absent = some([task.classes[i] for i in verdict["unseen_classes"]])
        reporter.note(
            f"By {strong}, hardly any image shows {verdict['unseen']} of {count} classes ({absent}). If so, "
            "what was transferred may be worse than zero-shot on these, and no verdict tells; if images do show them, "
            "these models hardly know them, and eval tells what became of that. Once there are more images "
            f"of them, without labels: transmiter self-train --data IMAGES{run.strong_flag(strong)}{run.flag}"
        )


def warn_of_names(strong: str, verdict: Told, reporter: Reporter) -> None:
    """Say so where zero-shot models do not confirm the names of the fine-tuned model's classes."""
    if verdict["named"]:
        return
    does = "follows it" if any(verdict["teachers"]) else "leaves it aside"
    reporter.warn(
        f"To {strong}, zero-shot models do not know the fine-tuned model's classes by these names: it has "
        "them in another order, or the names say little. Without labels the two look alike, and discriminant "
        f"{does}. Check the order of the classes; fit --classes or --templates give other names. Where they are "
        "codes, which say nothing to any model, transfer --opaque-names believes the fine-tuned one."
    )
