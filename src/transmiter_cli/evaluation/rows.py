"""Numbers on labelled images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any, SupportsIndex, Unpack, get_args, get_type_hints

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from transmiter_cli.evaluation.candidates import Candidate, Cost, Parts, candidates, require_parts
from transmiter_cli.evaluation.protocols import BaseToNovel, base_to_novel
from transmiter_cli.method.embeddings import InvalidTensorError
from transmiter_cli.method.metrics import (
    accuracy,
    calibration,
    check_labels,
    compare,
    correct,
    harmonic_mean,
    mean_per_class,
    negative_log_likelihood,
    top_five,
)
from transmiter_cli.method.torch_state import plain_torch

ClassNumbers = Iterable[SupportsIndex] | Shaped[Tensor, "..."]
PARTS = ("base", "novel", "hm", "hm_of_means")
"""The columns of a base-to-novel evaluation."""
REFERENCE = "strong"
"""The row that the others are compared with unless another is named."""


@dataclass(frozen=True, kw_only=True)
class Row(Cost):
    """One model's line in an evaluation, with its `Cost`; rates are fractions.

    Attributes:
        top1: accuracy.
        low, high: its 95 % interval.
        top5: how often the label is among the five likeliest.
        per_class: the mean of the classes' accuracies.
        ece: expected calibration error in 15 bins.
        nll: mean negative log-likelihood of the labels, in nats.
        gain: top1 minus that of the row it is compared with, the zero-shot strong model's by default; None where
            there is none.
        gain_low, gain_high: its 95 % interval, by the pairs of answers.
        fixed: images that went from wrong to right against that row.
        broken: images that went from right to wrong.
        base, novel, hm: accuracy on base and on novel classes, each answered among its own, and their harmonic mean.
    """

    top1: float
    low: float
    high: float
    top5: float
    per_class: float
    ece: float
    nll: float
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    fixed: int | None = None
    broken: int | None = None
    base: float | None = None
    novel: float | None = None
    hm: float | None = None


@plain_torch()
def evaluate(
    labels: Int[Tensor, " images"],
    *,
    base: ClassNumbers | None = None,
    among: ClassNumbers | None = None,
    against: str = REFERENCE,
    **parts: Unpack[Parts],
) -> dict[str, Row]:
    """Every model that the given parts allow, on labelled test images.

    Args:
        labels: class indices of the test images.
        base: the base classes of a base-to-novel evaluation; all others are novel. None for none.
        among: the classes that may be answered; labels must be of these. None for all.
        against: the row that the others are compared with, "weak_finetuned" say.
        **parts: weak, strong: zero-shot models on the test images and the vocabulary (`Embeddings`);
            finetuned_logits, strong_finetuned_logits: the fine-tuned ones on the test images;
            fitted: what `fit` returned, for "direct", the adapter on the strong model without a change of basis;
            transferred: artefacts by the name of their row: "transferred", "ridge", "refined", ...;
            classes: how many of the texts, the first, are classes; all, where no logits or artefact tell;
            weak_parameters, weak_flops: the weak model's size and cost per image, for those of "eft" and "product";
            teacher_models: the models of that size behind the fine-tuned logits, which "product" runs: 1 if left out;
            weak_models: those that "eft" runs beside the strong one: 2, zero-shot and fine-tuned, or
            1 where the fine-tuned logits are a head's on the weak model's own embeddings;
            eft: strengths a of EFT, or a single one; 0.5, 1 and 1.5 if left out.

    Returns:
        Rows named "weak", "weak_finetuned", "strong", "eft" (a = 1; others "eft_0.5", ...), "product", "direct",
        those of `transferred`, and "strong_finetuned".

    Raises:
        InvalidTensorError: if shapes do not match, values are not finite, or a label is no class.
        ValueError: if `fitted` was transferred already, there are artefacts without a strong model, a number cannot
            be, or there is no row to be compared `against`.
        TypeError: if there is no such part; those that are spelled alike are named.
    """
    require_parts("evaluate", parts, ("base", "among", "against"))
    return measure(candidates(**parts), labels, base=base, among=among, against=against)


def measure(
    models: Mapping[str, Candidate],
    labels: Int[Tensor, " images"],
    *,
    base: ClassNumbers | None = None,
    among: ClassNumbers | None = None,
    against: str = REFERENCE,
) -> dict[str, Row]:
    """Rows of models; arguments and errors as in `evaluate`."""
    if against not in models and against != REFERENCE:
        raise ValueError(f"there is no row {against!r} to compare with, only {', '.join(models)}.")
    some_logits = next(iter(models.values())).logits()
    images, classes = some_logits.shape
    check_labels(labels, images, classes)
    labels = labels.to(some_logits.device)
    del some_logits
    base, among = class_numbers(base), class_numbers(among)
    if base is not None and among is not None:
        raise InvalidTensorError("base and novel classes are answered among their own, not among others: drop one.")
    parts = None if base is None else base_to_novel(labels, base, classes)
    if among is not None:
        labels = positions_among(labels, among, classes)
        models = {name: model.among(among) for name, model in models.items()}
    reference = correct(models[against].logits(), labels) if against in models else None
    rows = {name: measure_one(model, labels, reference, parts) for name, model in models.items()}
    if against in rows:  # which differs from itself by nothing, whatever the images
        rows[against] = replace(rows[against], gain_low=0.0, gain_high=0.0)
    return rows


def measure_one(
    model: Candidate,
    labels: Int[Tensor, " images"],
    reference: Bool[Tensor, " images"] | None,
    parts: BaseToNovel | None,
) -> Row:
    """One row; `reference` is where the model that it is compared with is right."""
    logits, seconds = model.timed()
    right = correct(logits, labels)
    found: dict[str, Any] = accuracy(right)._asdict()
    if reference is not None:
        gain = compare(right, reference)
        found |= {"gain": gain.gain, "gain_low": gain.low, "gain_high": gain.high}
        found |= {"fixed": gain.fixed, "broken": gain.broken}
    if parts is not None:
        found |= parts.rates(logits)._asdict()
    return Row(
        **found,
        top5=top_five(logits, labels),
        per_class=mean_per_class(right, labels),
        ece=calibration(logits, labels).error,
        nll=negative_log_likelihood(logits, labels),
        **vars(replace(model.cost, seconds=seconds)),
    )


def class_numbers(given: ClassNumbers | None) -> list[int] | None:
    """Classes as a list of numbers, whatever held them.

    Raises:
        InvalidTensorError: if they are no whole numbers one after the other, as a mask is not.
    """
    if given is None:
        return None
    as_list: Any = getattr(given, "tolist", None)
    listed: Any = as_list() if as_list else [*given] if hasattr(given, "__iter__") else None
    if not isinstance(listed, list) or not all(type(one) is not bool and isinstance(one, Integral) for one in listed):
        fix = "range(10) for the first ten, mask.nonzero()[:, 0] of a mask"
        raise InvalidTensorError("classes are whole numbers, one after the other.", fix)
    return [int(one) for one in listed]


def positions_among(labels: Int[Tensor, " images"], among: Sequence[int], classes: int) -> Int[Tensor, " images"]:
    """Labels as positions in `among`.

    Raises:
        InvalidTensorError: if `among` repeats a class or names none, or a label is not among them.
    """
    if len(set(among)) != len(among) or not among or min(among) < 0 or max(among) >= classes:
        raise InvalidTensorError(f"the classes to answer among must be distinct numbers from 0 to {classes - 1}.")
    place = torch.full((classes,), -1, device=labels.device)
    place[list(among)] = torch.arange(len(among), device=labels.device)
    found = place[labels.long()]
    if bool((found < 0).any()):
        raise InvalidTensorError("a label is none of the classes to answer among.")
    return found


@dataclass(frozen=True, kw_only=True)
class MeanRow:
    """One model's means over several data sets, each counting once.

    Attributes:
        top1: mean accuracy.
        gain: mean difference to the row that all are compared with.
        base, novel: mean accuracies on base and novel classes.
        hm, hm_of_means: the mean of the data sets' harmonic means, and the harmonic mean of `base` and `novel`: papers
            differ in which they print.
        sets: the number of data sets.
    """

    top1: float
    gain: float | None
    base: float | None
    novel: float | None
    hm: float | None
    hm_of_means: float | None
    sets: int


def mean_rows(tables: Sequence[Mapping[str, Row]]) -> dict[str, MeanRow]:
    """Means of the rows that all tables have."""
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: mean_row([table[name] for table in tables]) for name in names}


def mean_row(rows: Sequence[Row]) -> MeanRow:
    """The means of one model's rows."""

    def mean(column: str) -> float | None:
        values = [getattr(row, column) for row in rows]
        return None if None in values else sum(values) / len(values)

    base, novel = mean("base"), mean("novel")
    return MeanRow(
        top1=sum(row.top1 for row in rows) / len(rows),
        gain=mean("gain"),
        base=base,
        novel=novel,
        hm=mean("hm"),
        hm_of_means=None if base is None or novel is None else harmonic_mean(base, novel),
        sets=len(rows),
    )


def column_names(kind: type, parts: bool) -> list[str]:
    """The numbers of a kind of row; those of base and novel classes only where they are measured.

    Args:
        kind: `Row`, `MeanRow` or `Unlabelled`.
        parts: whether base and novel classes are measured.
    """
    kinds = {name: {*get_args(hint)} or {hint} for name, hint in get_type_hints(kind).items()}
    numbers = [one.name for one in fields(kind) if kinds[one.name] & {int, float, bool}]
    return [name for name in numbers if parts or name not in PARTS]
