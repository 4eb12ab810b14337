"""Every model that given parts allow, measured side by side on labelled test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.artefact import Artefact, parameters_added
from transmiter_cli.method.baselines import eft_logits
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.logits import class_logits
from transmiter_cli.method.metrics import accuracy, check_labels, hits


@dataclass(frozen=True)
class Row:
    """One model's line in an evaluation.

    Attributes:
        top1: accuracy, a fraction.
        low, high: its 95 % bootstrap interval.
        parameters: numbers needed at inference beside the model itself; None where it is not known.
        labels: whether labelled images went into it, the weak model's fine-tuning apart in all rows but its own.
        gradients: whether gradient descent went into it, the fit of the adapter on the weak model apart, too.
    """

    top1: float
    low: float
    high: float
    parameters: int | None = 0
    labels: bool = False
    gradients: bool = False


def evaluate(
    labels: Int[Tensor, " images"],
    *,
    weak: Embeddings | None = None,
    finetuned_logits: Float[Tensor, "images classes"] | None = None,
    strong: Embeddings | None = None,
    fitted: Artefact | None = None,
    transferred: Mapping[str, Artefact] | None = None,
    weak_parameters: int | None = None,
    seed: int = 0,
) -> dict[str, Row]:
    """Top-1 of every model that the given parts allow, on labelled test images.

    Args:
        labels: class indices of the test images.
        weak: the zero-shot weak model on the test images and the vocabulary.
        finetuned_logits: the fine-tuned weak model on the test images.
        strong: the zero-shot strong model on the test images and the vocabulary.
        fitted: what `fit` returned; gives "direct", the adapter on the strong model without a change of basis.
        transferred: artefacts by the name of their row: "transferred", "ridge", "refined", ...
        weak_parameters: the weak model's size, for the cost of "eft".
        seed: decides the bootstrap.

    Returns:
        Rows named "weak", "weak_finetuned", "strong", "eft", "direct", and those of `transferred`.

    Raises:
        InvalidTensorError: if shapes do not match, values are not finite, or a label is no class.
    """
    for part in (weak, strong, finetuned_logits):
        if part is not None and len(part) != len(labels):
            raise InvalidTensorError(f"{len(labels)} labels for a model on {len(part)} images.")
    artefacts = dict(transferred or {})
    classes = count_classes([weak, strong], finetuned_logits, [*artefacts.values(), *([fitted] if fitted else [])])
    check_labels(labels, len(labels), classes)

    def row(logits: Tensor, **cost: Any) -> Row:
        return Row(*accuracy(hits(logits, labels), seed), **cost)

    rows: dict[str, Row] = {}
    if weak is not None:
        rows["weak"] = row(class_logits(weak, classes))
    if finetuned_logits is not None:
        rows["weak_finetuned"] = row(finetuned_logits, labels=True, gradients=True)
    if strong is None:
        return rows
    rows["strong"] = row(class_logits(strong, classes))
    if weak is not None and finetuned_logits is not None:
        both = None if weak_parameters is None else 2 * weak_parameters
        combined = eft_logits(class_logits(strong, classes), class_logits(weak, classes), finetuned_logits)
        rows["eft"] = row(combined, parameters=both)
    if fitted is not None:
        rows["direct"] = row(fitted.adapt(strong), parameters=parameters_added(fitted.correction, strong.texts))
    for name, artefact in artefacts.items():
        trained = artefact.stage == "refined"
        cost = {"parameters": artefact.parameters_added, "labels": trained, "gradients": trained}
        rows[name] = row(artefact.adapt(strong), **cost)
    return rows


def count_classes(
    models: list[Embeddings | None], finetuned_logits: Float[Tensor, "images classes"] | None, artefacts: list[Artefact]
) -> int:
    """C, on which the artefacts and the fine-tuned logits must agree; all texts are classes where there are neither.

    Raises:
        InvalidTensorError: if they do not agree, or nothing was given.
    """
    counts = {artefact.correction.classes for artefact in artefacts}
    if finetuned_logits is not None:
        counts.add(finetuned_logits.shape[1])
    if not counts:
        counts = {len(model.texts) for model in models if model is not None}
    if len(counts) != 1:
        raise InvalidTensorError(f"the parts have {sorted(counts)} classes; they must have the same.")
    return counts.pop()
