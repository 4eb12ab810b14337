"""Discriminant transfer: what strong and fine-tuned models agree on, as one linear classifier of strong embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.copies import distinct
from transmiter_cli.method.discriminant import choose_discriminant, held_out
from transmiter_cli.method.embeddings import (
    TINY,
    Embeddings,
    InvalidTensorError,
    check_teacher,
    require_embeddings,
    require_finite,
    require_same_device,
    require_tensor,
)
from transmiter_cli.method.experts import Teacher, widened
from transmiter_cli.method.folds import Folds, fold_moments, folds_of
from transmiter_cli.method.linear import Linear
from transmiter_cli.method.merging import ENOUGH, have_images, merge
from transmiter_cli.method.per_image import PerImage, agreement, computed_class_logits, predictions, softmax_of
from transmiter_cli.method.pool import CONFIRMED, known_classes, pooling, select_teachers, usable_trust
from transmiter_cli.method.posterior import class_counts
from transmiter_cli.method.reliability import Reliabilities, held_out_agreement, reliabilities
from transmiter_cli.method.unseen import all_rows, carry, some_rows

HELPFUL, RELIABLE = 0.75, CONFIRMED
"""A teacher with so much of the strong model's trust helps, if it is trusted so far itself. One whose names are not
confirmed is trusted less than RELIABLE, since that share of its trust is all they leave."""
CONSISTENT = 0.6
"""A teacher whose agreement with the strong model is less than this beside how well both are predicted: what predicts
them is wrong as often as they are."""
NEEDED = 20
"""Different images that are needed: of fewer, classes have no means and agreement is chance."""


@dataclass(frozen=True)
class Verdict:
    """Whether a transfer is expected to help, from unlabelled images alone.

    Attributes:
        strong_trust: how far the strong model's zero-shot answers are trusted, 0 (as good as chance) to 1.
        teacher_trust: the same for each fine-tuned model; 0 for one that is useless, or that the others do better
            without.
        gain: by how much the transferred model is expected to be right more often than the strong model
            (`expected_gain`), a fraction; 0 without a trusted teacher.
        images: how many different unlabelled images there were.
        unseen: the classes that hardly any of them belongs to.
        tested: whether enough classes have images to leave half of them out and see how these fare.
        named: whether zero-shot models confirm the names of the most trusted teacher's classes. If not, the names may
            say little, or be mixed up. True where names are known to say nothing.
        unknown: the classes that no trusted fine-tuned model seems to know (`known_classes`); the strong model alone
            tells which images are theirs.
        consistent: whether that teacher and the strong model agree about as often as they would if both were right as
            often as they are predicted. If not, both may be wrong in a way that embeddings predict, and the gain is
            less than expected.
    """

    strong_trust: float
    teacher_trust: tuple[float, ...]
    gain: float
    images: int
    unseen: tuple[int, ...] = ()
    tested: bool = True
    named: bool = True
    unknown: tuple[int, ...] = ()
    consistent: bool = True

    @property
    def word(self) -> str:
        """The verdict: "helps", "unsure" or "useless teacher"."""
        if self.images >= NEEDED and not any(self.teacher_trust):
            return "useless teacher"
        return "unsure" if self.doubt else "helps"

    @property
    def doubt(self) -> str:
        """Why it is not expected to help, the first reason there is; empty if it is, or no teacher is trusted."""
        best = max(self.teacher_trust)
        if self.images < NEEDED:
            return f"there are fewer than {NEEDED} different images"
        if not best:
            return ""
        if best < RELIABLE:
            return f"the fine-tuned model is trusted less than {RELIABLE:.2f}"
        if best < HELPFUL * self.strong_trust:
            return f"the fine-tuned model is trusted less than {HELPFUL:.2f} times as far as the strong one"
        if not self.consistent:
            return "the two models agree too rarely for both to be right as often as it looks"
        if self.unseen and not self.tested:
            return f"hardly any image seems to show some classes, and fewer than {ENOUGH} others are there to test on"
        return "" if self.gain > 0 else "no gain is expected"

    def as_json(self) -> dict[str, Any]:
        """What an artefact keeps of it."""
        trust = {"strong": self.strong_trust, "teachers": list(self.teacher_trust)}
        seen = {"different_images": self.images, "unseen": len(self.unseen), "unseen_classes": list(self.unseen)}
        doubts = {"named": self.named, "consistent": self.consistent, "unknown_classes": list(self.unknown)}
        return {"verdict": self.word, "doubt": self.doubt, **trust, "gain": self.gain, **seen, **doubts}


def named_and_consistent(found: Reliabilities, trust: Sequence[float]) -> tuple[bool, bool]:
    """Whether the teacher that is heard most, or else was trusted most, is `Verdict.named` and `Verdict.consistent`."""
    heard = trust if any(trust) else [one.trust for one in found.teachers]
    best = found.teachers[heard.index(max(heard))]
    return best.named >= CONFIRMED, best.consistent >= CONSISTENT


def check_teachers(strong: Embeddings, teachers: Sequence[Teacher]) -> int:
    """The number of classes, on which all teachers must agree.

    Raises:
        InvalidTensorError: if rows or classes do not match, values are not finite, or there is no teacher.
    """
    if not teachers:
        raise InvalidTensorError("there is no fine-tuned model to transfer from.")
    for teacher in teachers:
        check_teacher(strong, teacher.finetuned)
        check_twin(strong, teacher)
    counts = sorted({teacher.classes for teacher in teachers})
    if len(counts) > 1:
        raise InvalidTensorError(f"the fine-tuned logits have {counts} classes; they must have the same.")
    return counts[0]


def check_twin(strong: Embeddings, teacher: Teacher) -> None:
    """Raise InvalidTensorError if a teacher's weak model or head does not belong to its logits and the strong model."""
    weak = teacher.weak
    require_embeddings("a teacher's weak model", weak)
    require_same_device(strong, weak)
    if len(weak) != len(strong):
        raise InvalidTensorError(f"there are {len(strong)} strong image embeddings but {len(weak)} weak ones.")
    if len(weak.texts) != len(strong.texts):
        sizes = f"{len(strong.texts)} strong and {len(weak.texts)} weak text embeddings"
        raise InvalidTensorError(f"there are {sizes}; both models need the same vocabulary.")
    if teacher.head is None:
        return
    require_tensor("the fine-tuned head", teacher.head)
    if teacher.head.shape != (teacher.classes, weak.images.shape[1]):
        raise InvalidTensorError(
            f"the fine-tuned head has shape {tuple(teacher.head.shape)}; {teacher.classes} classes and weak "
            f"embeddings of {weak.images.shape[1]} numbers are expected."
        )
    require_finite("the weights of the fine-tuned head", teacher.head)


@dataclass(frozen=True)
class Consensus:
    """What all models that are trusted say in common of unlabelled images.

    Attributes:
        strong_trust: how far the strong model's zero-shot answers are trusted, 0 to 1.
        teacher_trust: the same for each fine-tuned model, 0 for those that are left aside.
        named, consistent, unknown: see `Verdict`.
        zero_shot: the strong model's logits.
        foretold: see `Reliabilities`; of no image if no teacher is trusted.
        log_posterior: of the classes, for each image.
        taught: the same by the teachers alone, if any is trusted.
    """

    strong_trust: float
    teacher_trust: tuple[float, ...]
    named: bool
    consistent: bool
    unknown: tuple[int, ...]
    zero_shot: PerImage
    foretold: Int[Tensor, " classes"]
    log_posterior: PerImage
    taught: PerImage | None


def consensus(
    strong: Embeddings, teachers: Sequence[Teacher], classes: int, folds: Folds, opaque_names: bool
) -> Consensus:
    """The answers of the strong model and of the teachers that are better together, each as sure as it is trusted."""
    zero_shot, rows = computed_class_logits(strong, classes), some_rows(all_rows(strong), classes)
    experts = [widened(teacher, rows) for teacher in teachers]
    counts, logits = class_counts(zero_shot), [expert.finetuned for expert in experts]
    known = [known_classes(predictions(one), counts) for one in logits]
    found = reliabilities(strong, zero_shot, experts, known, folds, opaque_names)
    trust = usable_trust(found)
    named, consistent = named_and_consistent(found, trust)
    pool = pooling(zero_shot, found, logits, known, trust)
    heard = select_teachers(lambda some: held_out_agreement(strong, pool.common(some), folds), trust, len(strong))
    trust = tuple(reliability if one in heard else 0.0 for one, reliability in enumerate(trust))
    common, none = pool.common(heard), 0 * found.foretold
    if not any(trust):
        return Consensus(found.strong_trust, trust, named, consistent, (), zero_shot, none, common, None)
    unknown = tuple((~torch.stack([known[one] for one in heard]).any(0)).nonzero().flatten().tolist())
    taught = pool.taught(heard)
    return Consensus(found.strong_trust, trust, named, consistent, unknown, zero_shot, found.foretold, common, taught)


def discriminant_transfer(
    strong: Embeddings, teachers: Sequence[Teacher], opaque_names: bool = False
) -> tuple[Linear, Verdict]:
    """One linear classifier of the strong model's embeddings from what all models say of unlabelled images.

    1. Each model's answers get a reliability without labels (`reliabilities`).
    2. Strong and fine-tuned answers, tempered by it, are multiplied into a posterior (`pooling`); of several
       teachers, those that are better together (`select_teachers`).
    3. The posterior is the soft label of a linear discriminant analysis of the strong embeddings; its covariance
       shrinkage and calibration are chosen by held-out cross-entropy (`choose_discriminant`).
    4. Classes that hardly any image belongs to, neither by the posterior nor, as far as a teacher is trusted, by the
       held-out answers, keep the strong model's own scores, corrected by what the fine-tuned answers on other images
       say of them, and lifted to where they compare with the others (`merge`). Classes with images go by both, the less
       by the strong model's scores the more images they have.

    Of fewer than NEEDED images nothing is learned: the strong model's zero-shot classifier is returned.

    Images that repeat others count once. Those that differ are in memory then, also if they were memory-mapped.

    Args:
        strong: the strong model on the unlabelled images.
        teachers: one or several fine-tuned models, each with its own weak twin, on the same images.
        opaque_names: whether the names of the classes say nothing to the zero-shot models, as codes do: no teacher is
            doubted then for answering by other names than these.

    Raises:
        InvalidTensorError: if rows or classes do not match or values are not finite.
    """
    classes = check_teachers(strong, teachers)
    strong, teachers = without_copies(strong, teachers)
    unchanged = Linear.zero_shot(strong, classes)
    if len(strong) < NEEDED:
        return unchanged, Verdict(0.0, (0.0,) * len(teachers), 0.0, len(strong))
    folds = folds_of(strong)
    found = consensus(strong, teachers, classes, folds, opaque_names)
    own, trust, log_posterior = found.strong_trust, found.teacher_trust, found.log_posterior
    verdict = Verdict(own, trust, 0.0, len(strong), named=found.named, consistent=found.consistent)
    if not max(own, *trust):
        return unchanged, verdict
    posterior = softmax_of(log_posterior)
    texts = strong.unit_texts()[:classes].double()
    moments = fold_moments(strong, posterior, folds)
    chosen = choose_discriminant(strong, posterior, texts, folds, moments)
    after = predictions(held_out(strong, moments, texts, folds, [chosen.shrinkage])[0])
    counts = images_of_classes(log_posterior, after, max(trust) or own, found.foretold)
    seen = have_images(counts, len(strong))
    # As given: what is carried over is compared with zero-shot logits, and gets a scale of its own.
    carriers = carry(strong, teachers, trust, log_posterior, seen)
    taught = None if found.taught is None else softmax_of(found.taught)
    merged = merge(strong, carriers, posterior, chosen, counts, min(max(trust) / max(own, TINY), 1.0), taught)
    unseen, tested = tuple((~seen).nonzero().flatten().tolist()), int(seen.sum()) >= ENOUGH
    verdict = replace(verdict, unseen=unseen, tested=tested, unknown=found.unknown)
    if taught is not None:
        before, common, told = (one[chosen.rows].argmax(-1) for one in (found.zero_shot, log_posterior, taught))
        gain = expected_gain(merged.held_out.argmax(-1), before, common, told, chosen.held_out.argmax(-1))
        verdict = replace(verdict, gain=gain)
    return merged.classifier, verdict


def without_copies(strong: Embeddings, teachers: Sequence[Teacher]) -> tuple[Embeddings, Sequence[Teacher]]:
    """The same models on images that differ from each other.

    Raises:
        InvalidTensorError: if there are fewer than two.
    """
    different = distinct(strong)
    if len(different) < 2:
        raise InvalidTensorError(f"at least two different images are needed, got {len(different)}.")
    if len(different) == len(strong):
        return strong, teachers
    return strong.only(different), [teacher.only(different) for teacher in teachers]


def images_of_classes(
    log_posterior: PerImage, after: Int[Tensor, " images"], trust: float, foretold: Int[Tensor, " classes"]
) -> Float[Tensor, " classes"]:
    """How many images each class has, by whatever finds most of them.

    That is the posterior, held-out answers, as far as its models are trusted, or answers of a teacher that others
    foretell. A class that the soft labels underrate gets its images back by these, since its mean lies where they are.
    But not of a single class: nothing tells a discriminant where the others are.
    """
    counts, answered = class_counts(log_posterior), torch.bincount(after, minlength=log_posterior.shape[1])
    several = int(have_images(counts, len(after)).sum()) > 1
    return torch.maximum(torch.maximum(counts, trust * answered.double()), foretold.double()) if several else counts


def expected_gain(
    after: Int[Tensor, " rows"],
    before: Int[Tensor, " rows"],
    common: Int[Tensor, " rows"],
    taught: Int[Tensor, " rows"],
    discriminant: Int[Tensor, " rows"],
) -> float:
    """By how much a transferred model's answers are right more often than zero-shot ones, a fraction.

    The mean of two estimates. They are right about as often as they are those of all models in common; zero-shot
    answers, which had a part in these, as often as those of a discriminant that did not see the images. Where common
    answers and the discriminant's are right, both rates are exact; where common answers are often wrong, this is too
    low. And both are right as they are the teachers', in which neither had a part: too low by the teachers' mistakes,
    too high by those that other images foretell. No gain is larger than the share of answers that changed.

    Args:
        after: the transferred model's answers, by a discriminant that did not see the images.
        before: zero-shot answers to the same images.
        common: those of all models in common.
        taught: those of the teachers alone.
        discriminant: those of the discriminant alone, which did not see the images either.
    """
    by_all = agreement(after, common) - agreement(before, discriminant)
    by_teachers = agreement(after, taught) - agreement(before, taught)
    changed = 1 - agreement(after, before)
    return min(max((by_all + by_teachers) / 2, -changed), changed)
