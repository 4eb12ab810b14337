"""The models that an evaluation compares: how their logits are computed, and what each costs at inference."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.artefact import Artefact, require_artefact
from transmiter_cli.layout import DIRECT, EFT_ROW
from transmiter_cli.method.baselines import eft_logits, product_logits
from transmiter_cli.method.embeddings import (
    Embeddings,
    InvalidTensorError,
    kind_of,
    require_embeddings,
    require_finite,
    require_logit_values,
    require_logits,
)
from transmiter_cli.method.per_image import zero_shot_class_logits
from transmiter_cli.method.ranges import COUNT, Range, one_or_several, within
from transmiter_cli.names import resembling

EFT_STRENGTHS = (0.5, 1.0, 1.5)
"""The strengths a of EFT that are shown: fixed, so that none is chosen on what is evaluated."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a row needs beside the model itself, and what went into it.

    Attributes:
        parameters: numbers needed at inference; None where it is not known.
        flops: floating-point operations per image, a multiplication and an addition being two; None if not known.
        models: further models that each image must go through.
        seconds: wall time from the embeddings of all images to the row's logits; none to speak of for given ones. Rows
            that differ in nothing else are equal.
        labels: whether labelled images went into it, the weak model's fine-tuning apart in all rows but its own.
        gradients: whether gradient descent went into it, the fit of the adapter on the weak model apart, too.
    """

    parameters: int | None = 0
    flops: int | None = 0
    models: int = 0
    seconds: float = field(default=0.0, compare=False)
    labels: bool = False
    gradients: bool = False


@dataclass(frozen=True)
class Candidate:
    """One model, its logits computed whenever they are asked for: of many models, those of one or two are in memory.

    Attributes:
        name: that of its row.
        compute: its logits of the task classes.
        cost: what it needs, but for the seconds.
    """

    name: str
    compute: Callable[[], Float[Tensor, "images classes"]]
    cost: Cost

    def timed(self) -> tuple[Float[Tensor, "images classes"], float]:
        """The logits, and how many seconds they took.

        Raises:
            InvalidTensorError: if they are not finite.
        """
        started = time.perf_counter()
        logits = self.compute()
        await_device(logits)
        seconds = time.perf_counter() - started
        require_finite(f"the logits of {self.name}", logits)
        return logits, seconds

    def logits(self) -> Float[Tensor, "images classes"]:
        """The logits alone; errors as in `timed`."""
        return self.timed()[0]

    def among(self, classes: Sequence[int]) -> Candidate:
        """The same model answering among some of the classes only."""
        return replace(self, compute=lambda: self.compute()[:, list(classes)])


class Parts(TypedDict, total=False):
    """What `candidates` takes, and `evaluate` passes on."""

    weak: Embeddings | None
    finetuned_logits: Float[Tensor, "images classes"] | None
    strong: Embeddings | None
    strong_finetuned_logits: Float[Tensor, "images classes"] | None
    fitted: Artefact | None
    transferred: Mapping[str, Artefact] | None
    weak_parameters: int | None
    weak_flops: int | None
    weak_models: int
    teacher_models: int
    classes: int | None
    eft: Sequence[float] | float


def require_parts(function: str, parts: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raise TypeError, naming those alike, if a function was given what is no part.

    Args:
        function: its name.
        parts: what it was given by name.
        others: what it takes beside parts.
    """
    known = [*Parts.__annotations__, *others]
    for name in parts:
        if name not in known:
            raise TypeError(f"{function} takes no {name!r}.{resembling(name, known)}")


def candidates(
    *,
    weak: Embeddings | None = None,
    finetuned_logits: Float[Tensor, "images classes"] | None = None,
    strong: Embeddings | None = None,
    strong_finetuned_logits: Float[Tensor, "images classes"] | None = None,
    fitted: Artefact | None = None,
    transferred: Mapping[str, Artefact] | None = None,
    weak_parameters: int | None = None,
    weak_flops: int | None = None,
    weak_models: int = 2,
    teacher_models: int = 1,
    classes: int | None = None,
    eft: Sequence[float] | float = EFT_STRENGTHS,
) -> dict[str, Candidate]:
    """Every model that the given parts allow, by the name of its row; see `evaluate` for the arguments.

    Raises:
        InvalidTensorError: if shapes do not match, or given logits are not finite.
        ValueError: if `fitted` is no artefact or was transferred already, `transferred` has no names or one that is
            that of another row, there are such parts without `strong`, or a strength of EFT is below 0.
    """
    require_costs(
        weak_models=weak_models, teacher_models=teacher_models, weak_flops=weak_flops, weak_parameters=weak_parameters
    )
    strengths: list[float] = [within("a strength of EFT", a, Range()) for a in one_or_several(eft)]
    logits = [part for part in (finetuned_logits, strong_finetuned_logits) if part is not None]
    models = {name: model for name, model in (("weak", weak), ("strong", strong)) if model is not None}
    require_usable(models, logits)
    corrections = corrections_of(fitted, transferred, strong)
    if strong is None and (corrections or strong_finetuned_logits is not None):
        needing = "fitted, transferred and strong_finetuned_logits"
        raise ValueError(f"{needing} need strong, the zero-shot strong model on the same images.")
    classes = count_classes(classes, list(models.values()), logits, list(corrections.values()))
    found: dict[str, Candidate] = {}
    for model in models.values():
        await_device(model.images)
    if weak is not None:
        found["weak"] = zero_shot_candidate("weak", weak, classes)
    if finetuned_logits is not None:
        found["weak_finetuned"] = given_candidate("weak_finetuned", finetuned_logits)
    if strong is None:
        return found
    found["strong"] = zero_shot_candidate("strong", strong, classes)
    if finetuned_logits is not None:
        one = {"parameters": weak_parameters, "flops": weak_flops, "models": 1}
        if weak is not None:
            cost = several(weak_models, one)
            found |= eft_candidates(found["strong"], found["weak"], finetuned_logits, strengths, **cost)
        found["product"] = product_candidate(found["strong"], finetuned_logits, **several(teacher_models, one))
    taken = sorted({*found, "strong_finetuned"} & corrections.keys())
    if taken:
        raise ValueError(f"{taken[0]!r} in transferred is the name of another row.")
    found |= {name: artefact_candidate(name, artefact, strong) for name, artefact in corrections.items()}
    if strong_finetuned_logits is not None:
        found["strong_finetuned"] = given_candidate("strong_finetuned", strong_finetuned_logits)
    return found


def corrections_of(
    fitted: Artefact | None, transferred: Mapping[str, Artefact] | None, strong: Embeddings | None
) -> dict[str, Artefact]:
    """What corrects the strong model, by the name of its row: "direct" is what was fitted, as if made for that model.

    Raises:
        ValueError: if `fitted` is no artefact or was transferred already, or `transferred` has no names, or "direct".
    """
    require_named_artefacts(transferred)
    named = dict(transferred or {})
    if fitted is None:
        return named
    require_artefact("fitted", fitted)
    if fitted.stage != "weak":
        raise ValueError(f"fitted is what fit returned, and not of stage {fitted.stage!r}: name it in transferred.")
    if DIRECT in named:
        raise ValueError(f"{DIRECT!r} in transferred is the name of another row.")
    return {DIRECT: fitted if strong is None else replace(fitted, texts=strong.texts), **named}


def require_usable(models: Mapping[str, Embeddings], logits: Sequence[Tensor]) -> None:
    """Raise InvalidTensorError unless these are models and fine-tuned logits of the same images."""
    for part in logits:
        require_logits(part)
        require_logit_values(part)
    for name, model in models.items():
        require_embeddings(name, model)
    require_same_images([*models.values(), *logits])


def require_costs(**costs: int | None) -> None:
    """Raise ValueError unless the costs of the weak model are whole numbers, or None."""
    for name, cost in costs.items():
        if cost is not None:
            within(name, cost, Range(whole=True))


def require_named_artefacts(transferred: object) -> None:
    """Raise ValueError unless these are artefacts by the names of their rows, or None."""
    named = {} if transferred is None else transferred
    wrong: list[object] = [named]
    if isinstance(named, Mapping):
        wrong = [one for one in named.values() if not isinstance(one, Artefact)]
        wrong += [name for name in named if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"transferred is artefacts by the names of their rows, not {kind_of(wrong[0])}.")


def await_device(tensor: Tensor) -> None:
    """Wait for what the GPU of a tensor has still to do: its work goes on after the call that asked for it."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def zero_shot_candidate(name: str, model: Embeddings, classes: int) -> Candidate:
    """A model as it is."""
    return Candidate(name, partial(zero_shot_class_logits, model, classes), Cost())


def given_candidate(name: str, logits: Float[Tensor, "images classes"]) -> Candidate:
    """A fine-tuned model by its logits."""
    return Candidate(name, lambda: logits, Cost(labels=True, gradients=True))


def artefact_candidate(name: str, artefact: Artefact, strong: Embeddings) -> Candidate:
    """What was transferred, or made of it."""
    refined = artefact.stage == "refined"
    inputs = {"labels": refined, "gradients": refined and artefact.method == "adapter"}
    cost = Cost(parameters=artefact.parameters_added, flops=artefact.flops_added, **inputs)
    return Candidate(name, partial(artefact.adapt, strong), cost)


def several(models: int, cost: Mapping[str, int | None]) -> dict[str, int | None]:
    """The cost of several models alike, as far as that of one is known."""
    return {what: None if one is None else models * one for what, one in cost.items()}


def eft_candidates(
    strong: Candidate,
    weak: Candidate,
    finetuned: Float[Tensor, "images classes"],
    strengths: Sequence[float],
    **cost: Any,
) -> dict[str, Candidate]:
    """EFT at each strength."""

    def compute(strength: float) -> Float[Tensor, "images classes"]:
        return eft_logits(strong.logits(), weak.logits(), finetuned, strength)

    return {eft_name(a): Candidate(eft_name(a), partial(compute, a), Cost(**cost)) for a in strengths}


def product_candidate(strong: Candidate, finetuned: Float[Tensor, "images classes"], **cost: Any) -> Candidate:
    """The probabilities of the strong and the fine-tuned model multiplied."""
    return Candidate("product", lambda: product_logits(strong.logits(), finetuned), Cost(**cost))


def eft_name(strength: float) -> str:
    """The row of one strength of EFT: "eft" for a = 1, else "eft_0.5" and so on."""
    return "eft" if strength == 1 else f"{EFT_ROW}{strength:.15g}"


def require_same_images(parts: Sequence[Embeddings | Tensor]) -> None:
    """Raise InvalidTensorError unless all models saw the same number of images."""
    counts = {len(part) for part in parts}
    if len(counts) > 1:
        raise InvalidTensorError(f"the models were given {sorted(counts)} images; they must be the same.")


def count_classes(
    given: int | None, models: Sequence[Embeddings], logits: Sequence[Tensor], artefacts: Sequence[Artefact]
) -> int:
    """C, on which all that tells it must agree; all texts are classes where nothing does.

    Raises:
        InvalidTensorError: if they do not agree, there are fewer texts, or nothing was given.
        ValueError: if `given` is no number of classes.
    """
    texts = {len(model.texts) for model in models}
    counts = {artefact.correction.classes for artefact in artefacts} | {rows.shape[1] for rows in logits}
    if given is not None:
        asked: int = within("classes", given, COUNT)
        counts.add(asked)
        if asked > min(texts, default=asked):
            raise InvalidTensorError(f"there are no {asked} classes among {min(texts, default=0)} texts.")
    if not counts:
        counts = texts
    if not counts:
        raise InvalidTensorError("there is no model to evaluate.")
    if len(counts) != 1:
        raise InvalidTensorError(f"the parts have {sorted(counts)} classes; they must have the same.")
    return counts.pop()
