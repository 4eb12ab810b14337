"""The verdict: whether a transfer is expected to help, from unlabelled images alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from transmiter_cli.method.agreement import agreement
from transmiter_cli.method.consensus.merging import ENOUGH
from transmiter_cli.method.consensus.pool import CONFIRMED
from transmiter_cli.method.consensus.reliability import Reliabilities

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
        unknown: the classes that no trusted fine-tuned model seems to know (`known_classes`), whether images show them
            or not; the strong model alone tells which images are theirs.
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


def expected_gain(
    transferred: Int[Tensor, " rows"],
    zero_shot: Int[Tensor, " rows"],
    common: Int[Tensor, " rows"],
    teachers: Int[Tensor, " rows"],
    discriminant: Int[Tensor, " rows"],
) -> float:
    """By how much a transferred model's predictions are right more often than zero-shot ones, a fraction.

    The mean of two estimates. Transferred predictions are right about as often as they agree with those of all models
    in common; zero-shot ones, which had a part in these, as often as they agree with a discriminant that did not see
    the images. Where common predictions and the discriminant's are right, both rates are exact; where common ones are
    often wrong, this is too low. And both are right as often as they agree with the teachers, in which neither had a
    part: too low by the teachers' mistakes, too high by those that other images foretell. No gain is larger than the
    share of predictions that changed.

    Args:
        transferred: the transferred model's predictions, by a discriminant that did not see the images.
        zero_shot: the strong model's own, on the same images.
        common: those of all models in common.
        teachers: those of the teachers alone.
        discriminant: those of the discriminant alone, which did not see the images either.
    """
    by_all = agreement(transferred, common) - agreement(zero_shot, discriminant)
    by_teachers = agreement(transferred, teachers) - agreement(zero_shot, teachers)
    changed = 1 - agreement(transferred, zero_shot)
    return min(max((by_all + by_teachers) / 2, -changed), changed)
