"""How far the answers of models can be trusted, from unlabelled images alone.

Where a fine-tuned model and two zero-shot ones differ, no label says who is right, and two against one is no proof:
zero-shot models share the names of the classes, and what they get wrong by them. Beside names that say little, a right
teacher looks much as one does whose classes are mixed up. Three signs tell them apart:

- *predictable*: a discriminant of strong embeddings, trained on other images, predicts its answers, or zero-shot ones
  agree with it as well as with that discriminant. Not with a teacher that was trained on random labels.
- *as fine*: its answers tell the weak model's ones, whatever they are called, as well as the strong model's do. Not
  those of a teacher that takes several classes for one. Where names say little, zero-shot models do that.
- *named alike*: what zero-shot answers tell of its answers, they tell by the same name. Not those of a teacher with
  mixed-up classes. Where names say little, they tell little, by whatever name; but they agree by these names more often
  than by most others.

The last two ask zero-shot models, which know nothing where names say nothing. Callers that know that leave them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transmiter_cli.method.agreement import (
    agreement,
    beyond_chance,
    beyond_chance_of,
    kappa,
    named_alike,
    order_evidence,
    predictability,
)
from transmiter_cli.method.consensus.experts import Expert
from transmiter_cli.method.embeddings import TINY, Embeddings
from transmiter_cli.method.folds import Folds
from transmiter_cli.method.linear.discriminant import SHRINKAGE, about_mean, out_of_fold_scores
from transmiter_cli.method.linear.moments import fold_moments, total
from transmiter_cli.method.per_image import PerImage, predictions, softmax_of

SLACK = 0.1
"""Added to both of two rates that are compared, at least: small ones differ by chance."""
DEVIATIONS = 1.0 - 1e-6
"""By so many standard deviations of random orders, at least, names agree more often than they would in these: with two
classes one deviation is all there is."""
FEW_ANSWERS = 5
"""So many answers of a class count as much as the answers of all classes, for how often they are right."""


class Reliability(NamedTuple):
    """How far a fine-tuned model can be trusted.

    Attributes:
        trust: how often it is right, beyond chance: 0 to 1.
        named: how far zero-shot models do not contradict the names of its classes, named_s named_w; 0 where these agree
            no more often than mixed-up ones would (`order_evidence`).
        consistent: a_ts beside f_t f_s, 1 at most: how often it and the strong model agree, beside how often they would
            if what predicts their answers were right. Low where embeddings predict wrong answers well.
    """

    trust: float
    named: float
    consistent: float


class Reliabilities(NamedTuple):
    """How far the zero-shot strong model and the fine-tuned ones can be trusted.

    Attributes:
        strong_trust: how often the strong model is right, beyond chance; this and the next two as the most trusted
            teacher tells.
        by_answer: how far each of its answers is trusted (`reliability_by_answer`).
        foretold: how many of the images that the teacher is asked of it answers with each class as a discriminant
            predicts.
        teachers: what is known of each fine-tuned model.
    """

    strong_trust: float
    by_answer: Float[Tensor, " classes"]
    foretold: Int[Tensor, " classes"]
    teachers: tuple[Reliability, ...]


def reliabilities(
    strong: Embeddings,
    zero_shot: PerImage,
    teachers: Sequence[Expert],
    known: Sequence[Bool[Tensor, " classes"]],
    folds: Folds,
    opaque_names: bool = False,
) -> Reliabilities:
    """How often the strong model and each teacher are right.

    A teacher t beside the strong model s and its weak model w is right as often as

        q_t = r_t min(1, (p_tw + e) / (p_sw + e)) named_s named_w,  named_z = min(1, (a_zt + h) / (p_zt + h)),

    r_t being its `estimated_accuracy`, a_xy the `kappa` of two models, p_xy the `predictability` of y's answers by
    x's, e = max(SLACK, N^-1/2) and h = SHARED. named_z is how much of what the zero-shot model z tells of t's
    answers it tells by the same name (`named_alike`). If t and s err independently of each other, they agree on q_t
    q_s of the images beyond chance. As far as t can be trusted, its agreement a_ts with s thus limits how often s
    is right, whose own answers are predicted f_s beyond chance:

        q_s = (1 - q_t) f_s + min(q_t f_s, a_ts)

    Of several teachers, the most trusted one tells q_s: of those that pass `order_evidence`, if any does. With
    opaque names q_t is r_t, and a teacher counts as named and consistent. One that knows some classes alone is
    asked of images that s answers with these.

    Args:
        strong: the strong model on the unlabelled images.
        zero_shot: its logits of the classes.
        teachers: one or several fine-tuned models, each with its zero-shot weak model, on the same images.
        known: the classes that each knows.
        folds: parts of the images, of which each is predicted by the others.
        opaque_names: whether the names of the classes say nothing to zero-shot models.
    """
    by_strong, classes = predictions(zero_shot), zero_shot.shape[1]
    predicted = beyond_chance(out_of_fold_agreement(strong, zero_shot, folds), classes)
    slack = max(SLACK, len(strong) ** -0.5)
    found: list[Reliabilities] = []
    for teacher, own_classes in zip(teachers, known, strict=True):
        by_teacher, by_weak = predictions(teacher.finetuned), predictions(teacher.weak_logits)
        every = (by_strong, by_teacher, by_weak, out_of_fold_predictions(strong, teacher.finetuned, folds))
        asked = own_classes[by_strong]
        asked |= ~asked.any()  # of all images, if the strong model predicts none of these classes
        chosen = Predictions(*(one[asked] for one in every))
        found.append(beside_teacher(chosen, predicted, slack, classes, opaque_names))
    best = max(found, key=lambda one: (one.teachers[0].named > 0, one.teachers[0].trust))
    return best._replace(teachers=tuple(one.teachers[0] for one in found))


class Predictions(NamedTuple):
    """Classes of the same images.

    Attributes:
        strong, weak: by the zero-shot models.
        teacher: by the fine-tuned one.
        discriminant: by one that was trained on what the teacher says of other images.
    """

    strong: Int[Tensor, " images"]
    teacher: Int[Tensor, " images"]
    weak: Int[Tensor, " images"]
    discriminant: Int[Tensor, " images"]


def beside_teacher(
    by: Predictions, predicted: float, slack: float, classes: int, opaque_names: bool = False
) -> Reliabilities:
    """The reliability of one teacher, and of the strong model beside it (`reliabilities`).

    Args:
        by: all predictions.
        predicted: f_s, how often the strong model's are predicted, beyond chance.
        slack: e.
        classes: how many there are to answer among.
        opaque_names: whether the names of the classes say nothing to zero-shot models.
    """
    trust = estimated_accuracy(by.strong, by.teacher, by.discriminant, classes)
    agreed = kappa(by.strong, by.teacher, classes)
    named = consistent = 1.0
    if not opaque_names:
        told, usual = (predictability(one, by.weak, classes) + slack for one in (by.teacher, by.strong))
        named = named_alike(by.strong, by.teacher, classes) * named_alike(by.weak, by.teacher, classes)
        trust *= min(1.0, told / usual) * named
        if order_evidence(torch.cat([by.strong, by.weak]), by.teacher.repeat(2), classes) < DEVIATIONS:
            named = 0.0
        consistent = min(agreed / max(kappa(by.teacher, by.discriminant, classes) * predicted, TINY), 1.0)
    limited = (1 - trust) * predicted + min(trust * predicted, agreed)
    by_answer = reliability_by_answer(by.strong, by.discriminant, predicted, trust, classes, opaque_names)
    foretold = torch.bincount(by.teacher[by.teacher == by.discriminant], minlength=classes)
    return Reliabilities(limited, by_answer, foretold, (Reliability(trust, named, consistent),))


def reliability_by_answer(
    strong: Int[Tensor, " images"],
    discriminant: Int[Tensor, " images"],
    predicted: float,
    trust: float,
    classes: int,
    opaque_names: bool = False,
) -> Float[Tensor, " classes"]:
    """How often the strong model is right where it answers a class, beyond chance, as far as a teacher is trusted.

    A name that says little of its class is answered wrongly again and again, for images of several others, so that the
    answer is as predictable as any. The discriminant that predicts the teacher has learned nothing from names: with a_c
    its agreement with answers c, smoothed by that of all classes,

        r_c = f_s + (1 - (1 - q_t)^2) named_c (a_c - f_s),  named_c = (a_c + e) / (most_c + e),

    most_c being how often it gives these images the one class that it gives them most, and e = SLACK: where that is
    another class, nearly always, the teacher's columns may be mixed up, and r_c stays near f_s. (a_c is not smoothed in
    named_c.) With opaque names named_c is 1.

    Args:
        strong: the strong model's predictions.
        discriminant: those of the discriminant that predicts the teacher's, each image by the others.
        predicted: f_s, how often the strong model's are predicted, beyond chance.
        trust: q_t, 0 to 1.
        classes: how many there are to answer among.
        opaque_names: whether the names of the classes say nothing to zero-shot models.
    """
    pairs, counts = torch.unique(strong * classes + discriminant, return_counts=True)
    given, same = (torch.bincount(one, minlength=classes) for one in (strong, strong[strong == discriminant]))
    likeliest = torch.zeros_like(given).scatter_reduce(0, pairs // classes, counts, "amax")
    given, same, likeliest = given.double(), same.double(), likeliest.double()
    overall = same.sum() / given.sum()
    agreed = beyond_chance_of((same + FEW_ANSWERS * overall) / (given + FEW_ANSWERS), classes)
    named, most = (beyond_chance_of(one / given.clamp_min(1), classes) for one in (same, likeliest))
    alike = torch.ones_like(agreed) if opaque_names else (named + SLACK) / (most + SLACK)
    return predicted + (1 - (1 - trust) ** 2) * alike * (agreed - predicted)


def estimated_accuracy(
    strong: Int[Tensor, " images"],
    teacher: Int[Tensor, " images"],
    discriminant: Int[Tensor, " images"],
    classes: int,
) -> float:
    """How often a teacher's answers are right, beyond chance, as far as two others show: 0 to 1.

    If the teacher t, the zero-shot model s and the discriminant d that predicts t err independently of each other, any
    two of them agree, beyond chance, as often as both are right, a_td = q_t q_d and so on: q_t^2 = a_td a_ts / a_sd. So
    q_t is more than a_td, how often t is predicted, where embeddings tell little of the classes and d itself is often
    wrong. The larger of both is taken, a_ts less what chance may add to it. But d has learned t's systematic errors,
    and s may share them; since d, an average, is right at least as often as t, q_t is sqrt(a_td) at most.
    """
    predicted = kappa(teacher, discriminant, classes)
    with_teacher = max(kappa(strong, teacher, classes) - len(teacher) ** -0.5, 0.0)
    with_discriminant = kappa(strong, discriminant, classes)
    return max(predicted, (predicted * min(with_teacher / max(with_discriminant, TINY), 1.0)) ** 0.5)


def out_of_fold_agreement(strong: Embeddings, logits: PerImage, folds: Folds) -> float:
    """How often a discriminant of strong embeddings, trained on other images, gives the answer of these logits."""
    return agreement(out_of_fold_predictions(strong, logits, folds), predictions(logits))


def out_of_fold_predictions(strong: Embeddings, logits: PerImage, folds: Folds) -> Int[Tensor, " images"]:
    """The answers of a discriminant of strong embeddings to each image, trained on what the logits say of others."""
    moments = fold_moments(strong, softmax_of(logits), folds)
    directions = about_mean(strong.unit_texts()[: logits.shape[1]].double(), total(moments).mass)
    return predictions(out_of_fold_scores(strong, moments, directions, folds, [SHRINKAGE])[0])
