"""What the strong model and the teachers say together, as far as each is trusted, and which teachers are heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transmiter_cli.method.agreement import independent_shares
from transmiter_cli.method.consensus.posterior import SUREST, doubted, mixing_weight
from transmiter_cli.method.consensus.reliability import Reliabilities
from transmiter_cli.method.per_image import Computed, PerImage, Rows, predictions

USELESS = 0.2
"""A teacher with less than this share of the strong model's trust is useless."""
CONTRADICTED, CONFIRMED = 0.4, 0.5
"""Factors that zero-shot models leave of a teacher's trust for the names of its classes: with less than the first it
must be trusted as much as the strong model; with less than the second its names are warned of."""
ANSWERED, SHOWN = 0.15, 0.5
"""A teacher hardly ever answers a class with less than the first share of its even share of the images; images show a
class that has more than the second."""
IGNORED, FEWEST_KNOWN = 0.25, 5
"""A teacher knows only a part of the classes that hardly ever answers this share of those that images show, and so many
others it does answer."""


def usable_trust(found: Reliabilities) -> tuple[float, ...]:
    """The trust in each teacher, 0 in one that is useless: its answers are left aside.

    That is one with less than USELESS of the strong model's trust; with less than all of it, if zero-shot models
    contradict the names of its classes; and any whose classes they would confirm as well if these were mixed up.
    """
    share = [USELESS if one.named >= CONTRADICTED else 1.0 for one in found.teachers]
    pairs = zip(found.teachers, share, strict=True)
    return tuple(one.trust if one.named and one.trust >= least * found.strong_trust else 0.0 for one, least in pairs)


def known_classes(answers: Int[Tensor, " images"], counts: Float[Tensor, " classes"]) -> Bool[Tensor, " classes"]:
    """The classes that a teacher knows: those that it answers, if it was fine-tuned on some alone; else all.

    Which it hardly ever answers may just have no images. So it is taken to know a part of the classes only where it
    leaves out many of those that images show to the strong model.

    Args:
        answers: the teacher's.
        counts: how many images each class has by the strong model alone (`class_counts`, which takes from classes
            without any the few that it gives them by mistake).
    """
    even = len(answers) / len(counts)
    answered = torch.bincount(answers, minlength=len(counts)).double() >= ANSWERED * even
    shown = counts > SHOWN * even
    ignored = int((shown & ~answered).sum()) / int(shown.sum())
    partial = ignored >= IGNORED and int(answered.sum()) >= FEWEST_KNOWN
    return answered if partial else torch.ones_like(answered)


@dataclass(frozen=True)
class Pool:
    """The strong model and all teachers, each as sure as it is trusted.

    Of teachers that repeat each other, as checkpoints of one training do, each has a share (`independent_shares`).

    Attributes:
        zero_shot: the strong model's logits.
        strong_trust: how far it is trusted, in all or where it answers each class.
        finetuned: the logits of each teacher.
        known: the classes that each knows (`known_classes`).
        teacher_trust: the reliability of each, 0 for those that are left aside.
        weights: what takes its place in the posterior.
    """

    zero_shot: PerImage
    strong_trust: float | Float[Tensor, " classes"]
    finetuned: Sequence[PerImage]
    known: Sequence[Bool[Tensor, " classes"]]
    teacher_trust: Sequence[float]
    weights: Sequence[float]

    @cached_property
    def teacher_predictions(self) -> list[Int[Tensor, " images"]]:
        """Of each teacher."""
        return [predictions(logits) for logits in self.finetuned]

    def shares(self, some: Sequence[int]) -> list[float]:
        """How much of what each of some teachers says is its own."""
        chosen = [self.teacher_predictions[one] for one in some], [self.teacher_trust[one] for one in some]
        return independent_shares(*chosen, self.zero_shot.shape[1])

    def by_strong(self, rows: Rows) -> Float[Tensor, "rows classes"]:
        """The log-posterior of the strong model alone."""
        return torch.log(doubted(self.zero_shot[rows], self.strong_trust))

    def by_teacher(self, teacher: int, share: float) -> Computed:
        """The log-likelihood of each class by one teacher, which counts so much.

        Classes that it does not know get one value in common for each image, by which the probability of all of them
        together stays what it is to the strong model alone.
        """
        logits, weight, known = self.finetuned[teacher], self.weights[teacher], self.known[teacher]
        images, classes = logits.shape

        def everywhere(rows: Rows) -> Float[Tensor, "rows classes"]:
            return share * torch.log(doubted(logits[rows], weight))

        def where_known(rows: Rows) -> Float[Tensor, "rows classes"]:
            likelihood, prior = everywhere(rows), self.by_strong(rows)[:, known]
            neutral = (prior + likelihood[:, known]).logsumexp(-1) - prior.logsumexp(-1)
            return torch.where(known, likelihood, neutral[:, None])

        return Computed((images, classes), everywhere if bool(known.all()) else where_known)

    def by_teachers(self, some: Sequence[int]) -> Computed:
        """The log-posterior of some teachers alone."""
        each = [self.by_teacher(one, share) for one, share in zip(some, self.shares(some), strict=True)]
        return Computed(each[0].shape, lambda rows: reduce(torch.add, (one[rows] for one in each)))

    def common(self, some: Sequence[int]) -> Computed:
        """The log-posterior of the strong model and some teachers."""
        by_teachers = self.by_teachers(some)
        return Computed(by_teachers.shape, lambda rows: self.by_strong(rows) + by_teachers[rows])


def pooling(
    strong: PerImage,
    found: Reliabilities,
    teachers: Sequence[PerImage],
    known: Sequence[Bool[Tensor, " classes"]],
    trust: Sequence[float],
) -> Pool:
    """What makes the posterior of the strong model and of teachers.

    A model's weight is its trust alone, in place of `mixing_weight`, where it is trusted too much rather than too
    little: the strong model beside a teacher, and a teacher whose names zero-shot models do not confirm.

    Args:
        strong: its zero-shot logits.
        found: the reliability of all models.
        teachers: the logits of each.
        known: the classes that each knows.
        trust: `usable_trust` of each.
    """
    own = found.by_answer if any(trust) else mixing_weight(found.strong_trust, strong, 1.0)
    weights = [
        mixing_weight(one, logits, SUREST) if reliability.named >= CONFIRMED else one
        for one, logits, reliability in zip(trust, teachers, found.teachers, strict=True)
    ]
    return Pool(strong, own, teachers, known, trust, weights)


def select_teachers(score: Callable[[tuple[int, ...]], float], trust: Sequence[float], images: int) -> tuple[int, ...]:
    """Which teachers to combine: from all of them, one after the other goes whose absence raises the score.

    It must rise by more than its standard error, and the most trusted teacher stays: common answers that are near to
    the strong model's own are predicted well, too, so that the best teacher may lower the score.

    Args:
        score: how often the common answers of some teachers are predicted, 0 to 1.
        trust: the reliability of each, 0 to 1.
        images: on how many images the score was found.
    """
    first = trust.index(max(trust))
    kept = tuple(one for one, reliability in enumerate(trust) if reliability) or (first,)
    best = score(kept) if len(kept) > 1 else 0.0
    while len(kept) > 1:
        smaller = [tuple(one for one in kept if one != gone) for gone in kept if gone != first]
        scores = {some: score(some) for some in smaller}
        found = max(scores, key=lambda some: scores[some])
        if scores[found] <= best + (best * (1 - best) / images) ** 0.5:
            break
        kept, best = found, scores[found]
    return kept
