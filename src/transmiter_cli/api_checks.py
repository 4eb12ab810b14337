"""What the tensor API checks of its arguments before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from transmiter_cli.artefact import Artefact
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.embeddings import (
    Embeddings,
    InvalidTensorError,
    check_teacher,
    kind_of,
    require_embeddings,
    require_images,
    require_same_device,
    require_tensor,
)
from transmiter_cli.method.paper.adapter import Adapter
from transmiter_cli.method.ranges import STRENGTH, one_or_several, within
from transmiter_cli.method.settings import HEEDED_BY, Auto, Method


def names_of(vocabulary: Any, texts: int) -> tuple[str, ...]:
    """Names of so many text embeddings; their numbers for None.

    Raises:
        InvalidTensorError: if there are more names, or fewer.
        ValueError: if these are no sequence of names.
    """
    if vocabulary is None:
        return tuple(map(str, range(texts)))
    if isinstance(vocabulary, str) or not isinstance(vocabulary, Iterable):
        what = f"the single text {vocabulary!r}" if isinstance(vocabulary, str) else kind_of(vocabulary)
        raise ValueError(f"the vocabulary is a sequence of names, not {what}.")
    names = tuple(map(str, vocabulary))
    if len(names) != texts:
        raise InvalidTensorError(f"{len(names)} vocabulary names for {texts} text embeddings.")
    return names


def require_progress(value: object) -> None:
    """Raise ValueError unless a value can be called, or is None."""
    if value is not None and not callable(value):
        raise ValueError(f"progress must be a function of two numbers, not {kind_of(value)}.")


def require_heeded(method: Method, **given: bool) -> None:
    """Raise ValueError if an option of HEEDED_BY is given that a method would ignore."""
    for name, is_given in given.items():
        if is_given and method != HEEDED_BY[name]:
            raise ValueError(f"{name} is for method {HEEDED_BY[name]!r}, not {method!r}.")


def strength_of(name: str, value: Any) -> float | Auto:
    """A strength as a float, or "auto".

    Raises:
        ValueError: if it is neither, not positive, or not finite.
    """
    found = within(name, value, STRENGTH)
    return "auto" if found == "auto" else float(found)


def teachers_given(
    finetuned_logits: Float[Tensor, "images classes"] | None,
    teachers: Sequence[Teacher] | Teacher,
    weak: Embeddings,
    classes: int,
    method: Method,
) -> list[Teacher]:
    """The fine-tuned models that `transfer` was given; those of bare logits have its weak model.

    Raises:
        InvalidTensorError: if the first has other images than the weak model, or other classes than the fitted adapter.
        ValueError: if one is no teacher, there are several for "ridge", any for "adapter", or none for another method.
    """
    own = [] if finetuned_logits is None else [Teacher(finetuned_logits, weak)]
    every = [*own, *one_or_several(teachers)]
    for teacher in every:
        require_teacher(teacher)
    if method == "adapter":
        if every:
            option = "teachers" if finetuned_logits is None else "finetuned_logits"
            raise ValueError(f"{option} are for method='discriminant' or 'ridge'; 'adapter' needs none.")
        return []
    if not every:
        raise ValueError(f"method {method!r} needs finetuned_logits, the fine-tuned weak model on the same images.")
    check_teacher(weak, every[0].finetuned)
    if every[0].classes != classes:
        counts = f"{every[0].classes} classes, the fitted adapter {classes}"
        raise InvalidTensorError(f"the fine-tuned logits have {counts}.")
    if method == "ridge" and len(every) > 1:
        raise ValueError(f"method 'ridge' takes one fine-tuned model, not {len(every)}.")
    return every


def require_teacher(value: object) -> None:
    """Raise ValueError unless a value is a teacher, as its logits alone are not."""
    if not isinstance(value, Teacher):
        raise ValueError(f"teachers are Teacher(finetuned_logits, weak), not {kind_of(value)}.")


def check_transfer(fitted: object, models: Sequence[Embeddings]) -> tuple[Artefact, Adapter]:
    """What was fitted and its adapter, on the models' device, if it can be transferred between these models.

    Raises:
        InvalidTensorError: if a model has another vocabulary or fewer than two images, they are on different devices,
            or the first is not the one that was fitted.
        ValueError: if `fitted` is no fitted adapter.
    """
    if not isinstance(fitted, Artefact) or fitted.stage != "weak" or not isinstance(fitted.correction, Adapter):
        raise ValueError("transfer starts from a fitted adapter, as fit returns it.")
    for place, model in enumerate(models):
        require_embeddings("strong" if place else "weak", model)
        if len(model.texts) != len(fitted.vocabulary):
            sizes = f"{len(model.texts)} text embeddings for a vocabulary of {len(fitted.vocabulary)} entries"
            raise InvalidTensorError(f"there are {sizes}.")
        require_images(model)
        require_same_device(models[0], model)
    widths = [model.texts.shape[1] for model in (models[0], fitted)]
    if widths[0] != widths[1]:
        said = f"the weak model's embeddings have {widths[0]} numbers, those that fit saw {widths[1]}"
        raise InvalidTensorError(f"{said}: weak comes before strong.")
    fitted = fitted.to(models[0].images.device)
    fitted.require_model(models[0])
    assert isinstance(fitted.correction, Adapter)
    return fitted, fitted.correction


def images_of(given: Float[Tensor, "images width"] | Embeddings, artefact: Artefact) -> Float[Tensor, "images width"]:
    """Image embeddings, which may come with their model.

    Raises:
        InvalidTensorError: if they are no tensor, or their model is not the artefact's.
    """
    if isinstance(given, Embeddings):
        artefact.require_model(given)
        return given.images
    require_tensor("image embeddings", given)
    return given
