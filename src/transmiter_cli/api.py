"""fit, transfer, refine and evaluate on tensors: all of transmiter for those who have embeddings already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transmiter_cli.artefact import Artefact, Method
from transmiter_cli.method.adapter import Adapter
from transmiter_cli.method.baselines import eft_logits
from transmiter_cli.method.distillation import FitSettings, Progress, fit_adapter
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.logits import zero_shot_logits
from transmiter_cli.method.metrics import accuracy, hits
from transmiter_cli.method.refinement import RefineSettings, refine_correction
from transmiter_cli.method.ridge import ridge_transfer
from transmiter_cli.method.transfer import transfer_adapter


def fit(
    weak: Embeddings,
    finetuned_logits: Float[Tensor, "images classes"],
    vocabulary: Sequence[str] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Artefact:
    """Extract what the weak model learned in fine-tuning into an adapter of its logits (paper Sec. 3.2).

    Args:
        weak: the zero-shot weak model on unlabelled images and the vocabulary, the C task classes first.
        finetuned_logits: the fine-tuned weak model on the same images; any constant per row may be added.
        vocabulary: names of the vocabulary entries; their numbers if left out.
        progress: called with (steps done, steps in all).
        **settings: fields of `FitSettings`: basis, epochs, batch_size, learning_rate, seed, ...

    Raises:
        InvalidTensorError: if shapes do not match or values are not finite.
    """
    recipe = FitSettings(**settings)
    names = tuple(vocabulary) if vocabulary is not None else tuple(map(str, range(len(weak.texts))))
    if len(names) != len(weak.texts):
        raise InvalidTensorError(f"{len(names)} vocabulary names for {len(weak.texts)} text embeddings.")
    adapter = fit_adapter(weak, finetuned_logits, recipe, progress)
    return Artefact("weak", "adapter", adapter, weak.unit_texts(), weak.logit_scale, names, {"fit": asdict(recipe)})


def transfer(
    fitted: Artefact,
    weak: Embeddings,
    strong: Embeddings,
    method: Method = "adapter",
    reg: float = 1.0,
    rho: float = 0.1,
    finetuned_logits: Float[Tensor, "images classes"] | None = None,
) -> Artefact:
    """Carry a fitted adapter to the strong model without labels and without gradients (paper Sec. 3.3).

    Args:
        fitted: what `fit` returned.
        weak: the weak model on unlabelled images.
        strong: the strong model on the same images and vocabulary.
        method: "adapter" (the paper's) or "ridge" (regress the fine-tuned answers on the strong embeddings).
        reg: the paper's lambda divided by the number of images; "adapter" only.
        rho: ridge strength; "ridge" only.
        finetuned_logits: the fine-tuned weak model on the same images; "ridge" only.

    Raises:
        InvalidTensorError: if shapes do not match or values are not finite.
        ValueError: if `fitted` is no fitted adapter, a strength is not positive, or "ridge" lacks its logits.
    """
    if fitted.stage != "weak" or not isinstance(fitted.correction, Adapter):
        raise ValueError("transfer starts from a fitted adapter, as fit returns it.")
    if reg <= 0 or rho <= 0:
        raise ValueError(f"reg and rho must be positive, not {reg} and {rho}.")
    if method == "adapter":
        moved: Adapter | nn.Module = transfer_adapter(fitted.correction, weak, strong, reg)
        chosen = {"reg": reg}
    elif finetuned_logits is None:
        raise ValueError("method 'ridge' needs finetuned_logits, the fine-tuned weak model on the same images.")
    else:
        moved = ridge_transfer(strong, finetuned_logits, rho)
        chosen = {"rho": rho}
    details = {**fitted.details, "transfer": {"images": len(strong), **chosen}}
    return replace(
        fitted,
        stage="strong",
        method=method,
        correction=moved.eval(),  # type: ignore[arg-type]
        texts=strong.unit_texts(),
        logit_scale=strong.logit_scale,
        details=details,
    )


def refine(
    transferred: Artefact,
    images: Float[Tensor, "images width"],
    labels: Int[Tensor, " images"],
    progress: Progress | None = None,
    **settings: Any,
) -> Artefact:
    """Improve a transferred correction with a few labelled images, the strong model frozen (paper Sec. 3.4).

    Args:
        transferred: what `transfer` returned.
        images: the strong model's embeddings of labelled images.
        labels: their class indices.
        progress: called with (epochs done, epochs in all).
        **settings: fields of `RefineSettings`: epochs, learning_rate, folds, seed, ...

    Raises:
        InvalidTensorError: if shapes do not match, values are not finite, or a label is no class.
    """
    recipe = RefineSettings(**settings)
    check_labels(labels, len(images), transferred.correction.classes)
    embeddings = Embeddings(images, transferred.texts.to(images.device), transferred.logit_scale)

    def forward(module: nn.Module, rows: Tensor) -> Tensor:
        logits = zero_shot_logits(embeddings, rows)
        return module(logits) if isinstance(module, Adapter) else module(logits, images[rows])

    module = refine_correction(transferred.correction, forward, labels, recipe, progress)
    details = {**transferred.details, "refine": {"images": len(images), **asdict(recipe)}}
    return replace(transferred, stage="refined", correction=module, details=details)


@dataclass(frozen=True)
class Row:
    """One model's line in an evaluation.

    Attributes:
        top1: accuracy, a fraction.
        low, high: its 95 % bootstrap interval.
        parameters: numbers needed at inference beside the model itself; None where it is not known.
        labels: whether labels of this task were used to make it, the weak model's fine-tuning apart.
        gradients: whether gradient descent was used to make it, the weak model's fine-tuning and fit apart.
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
        weak, strong: the zero-shot models on the test images and the vocabulary.
        finetuned_logits: the fine-tuned weak model on the test images.
        fitted: what `fit` returned; gives "direct", the adapter on the strong model without a change of basis.
        transferred: artefacts by the name of their row: "transferred", "ridge", "refined", ...
        weak_parameters: the weak model's size, for the cost of "eft".
        seed: decides the bootstrap.

    Returns:
        Rows named "weak", "weak_finetuned", "strong", "eft", "direct", and those of `transferred`.

    Raises:
        InvalidTensorError: if shapes do not match, values are not finite, or a label is no class.
    """
    known = [len(part) for part in (weak, strong, finetuned_logits) if part is not None]
    if not known or set(known) != {len(labels)}:
        raise InvalidTensorError(f"{len(labels)} labels for models on {known} images.")
    artefacts = dict(transferred or {})
    some = next(iter([*artefacts.values(), *([fitted] if fitted else [])]), None)
    classes = some.correction.classes if some else int(labels.max()) + 1
    if finetuned_logits is not None:
        classes = finetuned_logits.shape[1]
    check_labels(labels, len(labels), classes)

    def row(logits: Tensor, **cost: Any) -> Row:
        return Row(*accuracy(hits(logits, labels), seed), **cost)

    weak_logits = zero_shot_logits(weak)[:, :classes] if weak else None
    strong_logits = zero_shot_logits(strong) if strong else None
    rows: dict[str, Row] = {}
    if weak_logits is not None:
        rows["weak"] = row(weak_logits)
    if finetuned_logits is not None:
        rows["weak_finetuned"] = row(finetuned_logits, labels=True, gradients=True)
    if strong is None or strong_logits is None:
        return rows
    rows["strong"] = row(strong_logits[:, :classes])
    if weak_logits is not None and finetuned_logits is not None:
        both = None if weak_parameters is None else 2 * weak_parameters
        rows["eft"] = row(eft_logits(strong_logits[:, :classes], weak_logits, finetuned_logits), parameters=both)
    if fitted is not None:
        rows["direct"] = row(fitted(strong_logits), parameters=fitted.parameters_added)
    for name, artefact in artefacts.items():
        trained = artefact.stage == "refined"
        logits = artefact(strong_logits, strong.images)
        rows[name] = row(logits, parameters=artefact.parameters_added, labels=trained, gradients=trained)
    return rows


def check_labels(labels: Int[Tensor, " images"], images: int, classes: int) -> None:
    """Raise InvalidTensorError unless there is one class index for each image."""
    if labels.shape != (images,):
        raise InvalidTensorError(f"labels have shape {tuple(labels.shape)} for {images} images.")
    if not images:
        raise InvalidTensorError("there are no labelled images.")
    if torch.is_floating_point(labels) or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InvalidTensorError(f"labels must be class indices from 0 to {classes - 1}.")
