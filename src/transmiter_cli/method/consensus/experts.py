"""The fine-tuned models that are asked, and what makes their logits comparable with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import (
    TINY,
    Chosen,
    Embeddings,
    InvalidTensorError,
    check_teacher,
    chosen_rows,
    require_embeddings,
    require_finite,
    require_logits,
    require_matrix,
    require_same_device,
)
from transmiter_cli.method.per_image import Computed, PerImage, Rows, centred, computed_zero_shot_logits

LEAST_WIDTH = 0.5
"""Fine-tuned logits vary so far beside the weak model's, at least."""
MOSTLY = 0.5
"""A class whose logit is raised on more than this share of the images is taken for masked."""


@dataclass(frozen=True, eq=False)
class Expert:
    """What a fine-tuned weak model and its zero-shot weak model say of the unlabelled images.

    Attributes:
        finetuned: the fine-tuned model's logits of the classes.
        weak: the model that it was fine-tuned from, with the strong model's vocabulary.
        head: what it multiplies image embeddings with, its logit scale included, where that is known and as wide as
            the weak model's embeddings.
    """

    finetuned: PerImage
    weak: Embeddings
    head: Float[Tensor, "classes width"] | None = None

    @property
    def classes(self) -> int:
        """C, the number of task classes."""
        return self.finetuned.shape[1]

    def weak_classifier(self) -> Float[Tensor, "classes width"]:
        """What the weak model multiplies image embeddings with: s T[:C]."""
        return self.weak.classifier(self.classes)

    @cached_property
    def weak_logits(self) -> Computed:
        """The weak model's zero-shot logits of the classes."""
        return computed_zero_shot_logits(self.weak, self.classes)


@dataclass(frozen=True, eq=False)
class Teacher(Expert):
    """A fine-tuned model, and the zero-shot model that it was fine-tuned from, on the same unlabelled images.

    Attributes:
        finetuned: the fine-tuned model's logits, images x classes; a probe's bias belongs in these alone.
        weak: the zero-shot model on these images and the strong model's vocabulary, the classes first.
        head: what the fine-tuned model multiplies unit-norm image embeddings with, classes x width of `weak`, its logit
            scale included: a probe's weight, or the scale times tuned text features. None where it is not known, or
            fine-tuning changed the image embeddings. "discriminant" uses it for classes that no image shows.

    Raises:
        InvalidTensorError: if the logits or the head are no tensor, or the weak model is no Embeddings.
    """

    finetuned: Float[Tensor, "images classes"]

    def __post_init__(self) -> None:
        require_logits(self.finetuned)
        require_embeddings("a teacher's weak model", self.weak)
        if self.head is not None:
            require_matrix("the fine-tuned head", self.head)

    def __repr__(self) -> str:
        """Shapes, without the numbers."""
        head = "" if self.head is None else f", head {len(self.head)} x {self.head.shape[1]}"
        return f"<Teacher: {len(self.finetuned)} images, {self.classes} classes{head}; weak {self.weak!r}>"

    def only(self, rows: Chosen) -> Teacher:
        """The same teacher on some of the images, chosen as in `Embeddings.only`."""
        chosen = chosen_rows(rows, len(self.finetuned), self.finetuned.device)
        return replace(self, finetuned=self.finetuned[chosen], weak=self.weak.only(chosen))


def deviation_ratio(teacher: Expert, rows: Int[Tensor, " rows"], among: Bool[Tensor, " classes"]) -> float:
    """The deviation of the weak model's logits among some classes, on some images, over the fine-tuned model's."""
    finetuned, weak = (centred(one[rows].double()[:, among]).std() for one in (teacher.finetuned, teacher.weak_logits))
    return (weak / finetuned.clamp_min(TINY)).item()


def widened(teacher: Expert, rows: Int[Tensor, " rows"]) -> Expert:
    """A teacher whose logits vary, among the classes it answers, at least as far as those of its weak model.

    Cosines, and logits that were divided by a temperature or learned from noisy labels, would have less say than they
    deserve: no softmax is sure of them, however right they are.
    """
    answered = torch.bincount(teacher.finetuned[rows].argmax(-1), minlength=teacher.classes) > 0
    factor = deviation_ratio(teacher, rows, answered | (answered.sum() < 2))
    if factor <= 1:
        return teacher

    def wide(rows: Rows) -> Float[Tensor, "rows classes"]:
        logits = teacher.finetuned[rows].double()
        return (factor * (logits - logits.amax(-1, keepdim=True))).float()

    logits = Computed((len(teacher.weak), teacher.classes), wide)
    return Expert(logits, teacher.weak)


def comparable(teacher: Expert, seen: Bool[Tensor, " classes"], rows: Int[Tensor, " rows"]) -> Expert:
    """A teacher with logits that can be added to zero-shot ones, also in classes without images.

    1. Scale: among classes with images they vary at most as far as the weak model's own, and at least LEAST_WIDTH as
       far; else one of the two would drown in the other.
    2. Masks: fine-tuned models may have -100 for classes that they do not know. No logit is further below the highest
       of the classes with images than the largest gap there is: of such a class on any image, or of the weak model's.
    3. A class that is raised so on most images is taken for masked, and gets the mean of the classes without images
       that are not, if there are any: nothing is said of it beside these.

    Args:
        teacher: a fine-tuned model and its weak one.
        seen: the classes that have images.
        rows: images to look at.
    """
    answers = teacher.finetuned[rows].argmax(-1)
    answered = seen & (torch.bincount(answers, minlength=len(seen)) > 0)
    answered = answered if bool(answered.any()) else seen
    ratio = deviation_ratio(teacher, rows, answered | (answered.sum() < 2))  # one class alone does not vary: all tell
    factor = ratio if ratio < 1 else max(LEAST_WIDTH * ratio, 1.0)

    def scaled(chosen: Rows) -> Float[Tensor, "chosen classes"]:
        return factor * teacher.finetuned[chosen].double()

    gap = max(widest(scaled(rows)[:, answered]), widest(teacher.weak_logits[rows].double()))

    def raised(chosen: Rows) -> Float[Tensor, "chosen classes"]:
        logits = scaled(chosen)
        return torch.where(answered, logits, logits.maximum(logits[:, answered].amax(-1, keepdim=True) - gap))

    masked = (raised(rows) > scaled(rows)).double().mean(0) > MOSTLY
    others = ~answered & ~masked

    def neutral(chosen: Rows) -> Float[Tensor, "chosen classes"]:
        logits = raised(chosen)
        return torch.where(masked, logits[:, others].mean(-1, keepdim=True), logits)

    logits = Computed((len(teacher.weak), teacher.classes), neutral if bool(others.any()) else raised)
    return Expert(logits, teacher.weak, None if teacher.head is None else factor * teacher.head.double())


def widest(logits: Float[Tensor, "rows classes"]) -> float:
    """The largest gap between the highest and the lowest logit of an image."""
    return (logits.amax(-1) - logits.amin(-1)).max().item()


def check_teachers(strong: Embeddings, teachers: Sequence[Teacher]) -> int:
    """The number of classes, on which all teachers must agree.

    Raises:
        InvalidTensorError: if rows or classes do not match, values are not finite, or there is no teacher.
    """
    if not teachers:
        raise InvalidTensorError("there is no fine-tuned model to transfer from.")
    for teacher in teachers:
        check_teacher(strong, teacher.finetuned)
        check_beside(strong, teacher)
    counts = sorted({teacher.classes for teacher in teachers})
    if len(counts) > 1:
        raise InvalidTensorError(f"the fine-tuned logits have {counts} classes; they must have the same.")
    return counts[0]


def check_beside(strong: Embeddings, teacher: Teacher) -> None:
    """Raise InvalidTensorError if a teacher's weak model or head does not belong to its logits and the strong model."""
    weak = teacher.weak
    require_same_device(strong, weak)
    if len(weak) != len(strong):
        raise InvalidTensorError(f"there are {len(strong)} strong image embeddings but {len(weak)} weak ones.")
    if len(weak.texts) != len(strong.texts):
        sizes = f"{len(strong.texts)} strong and {len(weak.texts)} weak text embeddings"
        raise InvalidTensorError(f"there are {sizes}; both models need the same vocabulary.")
    if teacher.head is None:
        return
    if teacher.head.shape != (teacher.classes, weak.images.shape[1]):
        raise InvalidTensorError(
            f"the fine-tuned head has shape {tuple(teacher.head.shape)}; {teacher.classes} classes and weak "
            f"embeddings of {weak.images.shape[1]} numbers are expected."
        )
    require_finite("the weights of the fine-tuned head", teacher.head)
