"""Discriminant transfer: what strong and fine-tuned models agree on, as one linear classifier of strong embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transmiter_cli.method.class_counts import class_counts
from transmiter_cli.method.consensus.experts import Teacher, check_teachers, widened
from transmiter_cli.method.consensus.merging import ENOUGH, MergedClassifier, MergeInputs, have_images, merge
from transmiter_cli.method.consensus.pool import known_classes, pooling, select_teachers, usable_trust
from transmiter_cli.method.consensus.reliability import out_of_fold_agreement, reliabilities
from transmiter_cli.method.consensus.unseen import carry
from transmiter_cli.method.consensus.verdict import NEEDED, Verdict, expected_gain, named_and_consistent
from transmiter_cli.method.copies import distinct
from transmiter_cli.method.embeddings import TINY, Embeddings, InvalidTensorError
from transmiter_cli.method.folds import Folds, all_rows, folds_of, sampled_rows
from transmiter_cli.method.linear.classifier import Linear
from transmiter_cli.method.linear.discriminant import (
    CalibratedDiscriminant,
    about_mean,
    choose_discriminant,
    out_of_fold_scores,
)
from transmiter_cli.method.linear.moments import fold_moments
from transmiter_cli.method.linear.self_training import self_train_classifier
from transmiter_cli.method.per_image import PerImage, computed_zero_shot_logits, predictions, softmax_of


@dataclass(frozen=True)
class Consensus:
    """What all models that are trusted say in common of unlabelled images.

    Attributes:
        verdict: how far each is trusted, and what is known of the most trusted teacher; without a gain yet.
        zero_shot: the strong model's logits.
        foretold: see `Reliabilities`; of no image if no teacher is trusted.
        log_posterior: of the classes, for each image.
        by_teachers: the posterior of the teachers alone, if any is trusted.
    """

    verdict: Verdict
    zero_shot: PerImage
    foretold: Int[Tensor, " classes"]
    log_posterior: PerImage
    by_teachers: PerImage | None

    def gain(self, merged: MergedClassifier, discriminant: CalibratedDiscriminant) -> float:
        """The `expected_gain` of a merged classifier, a fraction; 0 if no teacher is trusted."""
        if self.by_teachers is None:
            return 0.0
        models = (self.zero_shot, self.log_posterior, self.by_teachers)
        zero_shot, common, by_teachers = (one[discriminant.rows].argmax(-1) for one in models)
        transferred, alone = (one.held_out.argmax(-1) for one in (merged, discriminant))
        return expected_gain(transferred, zero_shot, common, by_teachers, alone)


def consensus(
    strong: Embeddings, teachers: Sequence[Teacher], classes: int, folds: Folds, opaque_names: bool
) -> Consensus:
    """The answers of the strong model and of the teachers that are better together, each as sure as it is trusted."""
    zero_shot, rows = computed_zero_shot_logits(strong, classes), sampled_rows(all_rows(strong), classes)
    experts = [widened(teacher, rows) for teacher in teachers]
    counts, logits = class_counts(zero_shot), [expert.finetuned for expert in experts]
    known = [known_classes(predictions(one), counts) for one in logits]
    found = reliabilities(strong, zero_shot, experts, known, folds, opaque_names)
    usable = usable_trust(found)
    named, consistent = named_and_consistent(found, usable)
    pool = pooling(zero_shot, found, logits, known, usable)
    heard = select_teachers(lambda some: out_of_fold_agreement(strong, pool.common(some), folds), usable, len(strong))
    trust = tuple(reliability if one in heard else 0.0 for one, reliability in enumerate(usable))
    verdict = Verdict(found.strong_trust, trust, 0.0, len(strong), named=named, consistent=consistent)
    common = pool.common(heard)
    if not any(trust):
        return Consensus(verdict, zero_shot, torch.zeros_like(found.foretold), common, None)
    unknown = ~torch.stack([known[one] for one in heard]).any(0)
    verdict = replace(verdict, unknown=tuple(unknown.nonzero().flatten().tolist()))
    return Consensus(verdict, zero_shot, found.foretold, common, softmax_of(pool.by_teachers(heard)))


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
    5. Where there are classes that no trusted teacher knows (`known_classes`), whose images the zero-shot strong model
       alone told from the others', the classifier tells them anew (`self_train_classifier`). The expected gain is that
       before it.

    Of fewer than NEEDED images nothing is learned: the strong model's zero-shot classifier is returned.

    Images that repeat others count once. Those that differ are in memory then, also if they were memory-mapped.

    Args:
        strong: the strong model on the unlabelled images.
        teachers: one or several fine-tuned models, each with its zero-shot weak model, on the same images.
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
    verdict, best_trust = found.verdict, max(found.verdict.teacher_trust)
    if not max(verdict.strong_trust, best_trust):
        return unchanged, verdict
    posterior, counted = softmax_of(found.log_posterior), class_counts(found.log_posterior)
    directions = about_mean(strong.unit_texts()[:classes].double(), counted)
    moments = fold_moments(strong, posterior, folds)
    discriminant = choose_discriminant(strong, posterior, directions, folds, moments)
    predicted = predictions(out_of_fold_scores(strong, moments, directions, folds, [discriminant.shrinkage])[0])
    counts = images_of_classes(counted, predicted, best_trust or verdict.strong_trust, found.foretold)
    seen = have_images(counts, len(strong))
    # As given: what is carried over is compared with zero-shot logits, and gets a scale of its own.
    carriers = carry(strong, teachers, verdict.teacher_trust, found.log_posterior, seen)
    relative_trust = min(best_trust / max(verdict.strong_trust, TINY), 1.0)
    merged = merge(MergeInputs(strong, carriers, posterior, discriminant), counts, relative_trust, found.by_teachers)
    unseen, tested = tuple((~seen).nonzero().flatten().tolist()), int(seen.sum()) >= ENOUGH
    classifier = self_train_classifier(strong, merged.classifier) if verdict.unknown else merged.classifier
    return classifier, replace(verdict, gain=found.gain(merged, discriminant), unseen=unseen, tested=tested)


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
    counted: Float[Tensor, " classes"],
    out_of_fold: Int[Tensor, " images"],
    trust: float,
    foretold: Int[Tensor, " classes"],
) -> Float[Tensor, " classes"]:
    """How many images each class has, by whatever finds most of them.

    A class that the soft labels underrate gets its images back by held-out predictions, since its mean lies where they
    are. But not of a single class: nothing tells a discriminant where the others are.

    Args:
        counted: by what all models say in common (`class_counts`).
        out_of_fold: what a discriminant that did not see the image predicts.
        trust: how far that is believed, 0 to 1.
        foretold: the same for what a teacher says, as far as a discriminant predicts it.
    """
    predicted = torch.bincount(out_of_fold, minlength=len(counted)).double()
    several = int(have_images(counted, len(out_of_fold)).sum()) > 1
    return torch.maximum(torch.maximum(counted, trust * predicted), foretold.double()) if several else counted
