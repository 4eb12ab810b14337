"""Classes that no unlabelled image shows: what fine-tuning says of them, as a linear correction of strong logits.

The fine-tuned model has opinions of such classes on images of other ones. Let L be its row-centred logits (N x C) and
Z_w the zero-shot weak model's, k the slope of L against Z_w in the classes without images. Carried over is

- the *whole* of L, on a bridge: a ridge regression A of the weak embeddings X_w on the strong X, in which the texts of
  the vocabulary are further rows (each modality centred), so that directions in which no image varies are known, too;
  then L as a linear map of X_w, pulled towards what is known of it: the fine-tuned class embeddings, or k times the
  weak model's. Where L hardly differs from Z_w, fine-tuning taught nothing, and the strong model's own answers are
  better: it is added at the strength sqrt(1 - correlation^2);
- or what is *new* in it, L - k Z_w, by ridge regression on X.

How much to make of either is seen without labels by leaving classes out: classes that have images are put aside with
their images, and what the others teach of them is compared with the posterior of all models.

Classes with few images are told of in the same way, beside what their own images say: k and the correlation are then
those of the classes with images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transmiter_cli.method.consensus.experts import Expert, comparable
from transmiter_cli.method.embeddings import TINY, Embeddings, block_rows
from transmiter_cli.method.folds import all_rows, sampled_rows
from transmiter_cli.method.linear.classifier import Linear
from transmiter_cli.method.linear.ridge import solve_ridge
from transmiter_cli.method.paper.basis import centred_texts
from transmiter_cli.method.per_image import PerImage, centred

FEWEST_CLASSES = 4
"""Classes with images that are needed to leave some of them out."""
TRIALS_OF_THIRDS = 12
"""How often a third of the classes is left out."""
RHO = 0.1
"""Relative ridge strength from strong embeddings, as in ridge transfer."""
PULL = 1.0
"""Relative ridge strength with which the linear map of weak embeddings is pulled to what is known of it."""
TEXTS_WEIGH = 3.0
"""How much all texts together weigh beside all images."""


@dataclass(frozen=True)
class JointMoments:
    """Sums over images, float64, of x = [strong embedding, weak embedding] and the fine-tuned answers L.

    Products are taken in float32 within a block of images and summed over blocks in float64.

    Attributes:
        images: how many.
        width: of the strong model's embeddings, the first part of x.
        gram, cross: x'x and x'L, centred.
        mean, target_mean: the means of x and of L.
    """

    images: int
    width: int
    gram: Float[Tensor, "joint joint"]
    cross: Float[Tensor, "joint classes"]
    mean: Float[Tensor, " joint"]
    target_mean: Float[Tensor, " classes"]


def joint_moments(strong: Embeddings, teacher: Expert, rows: Int[Tensor, " rows"]) -> JointMoments:
    """The moments of some images, one at least, a block at a time.

    They are taken about the first image, so that no digit is lost to what all images have in common.
    """

    def embeddings(chosen: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen joint"]:
        return torch.cat([strong.unit_images(chosen), teacher.weak.unit_images(chosen)], 1)

    first, count = embeddings(rows[:1])[0], len(rows)
    gram = torch.zeros(len(first), len(first), dtype=torch.float64, device=first.device)
    cross = gram.new_zeros(len(first), teacher.classes)
    mean, target_mean = gram.new_zeros(len(first)), gram.new_zeros(teacher.classes)
    for block in rows.split(block_rows(max(len(first), teacher.classes))):
        both = embeddings(block) - first
        logits = centred(teacher.finetuned[block].double()).float()
        gram += both.T @ both
        cross += both.T @ logits
        mean += both.double().sum(0)
        target_mean += logits.double().sum(0)
    mean, target_mean = mean / count, target_mean / count
    gram -= count * torch.outer(mean, mean)
    cross -= count * torch.outer(mean, target_mean)
    return JointMoments(count, strong.images.shape[1], gram, cross, mean + first, target_mean)


@dataclass(frozen=True)
class Anchors:
    """Moments of the centred texts of the vocabulary, which both models know, float64.

    Attributes:
        texts: how many.
        gram: of the strong model's texts.
        cross: of the strong model's with the weak model's.
    """

    texts: int
    gram: Float[Tensor, "width width"]
    cross: Float[Tensor, "width weak_width"]


def text_anchors(strong: Embeddings, weak: Embeddings) -> Anchors:
    """The anchors of two models."""
    ours, theirs = (centred_texts(model.texts) for model in (strong, weak))
    return Anchors(len(ours), ours.T @ ours, ours.T @ theirs)


@dataclass(frozen=True)
class Novelty:
    """How the fine-tuned answers relate to the weak model's own, in the group of classes that each class belongs to.

    Attributes:
        slope: k, the least-squares slope of L against Z_w.
        share: sqrt(1 - correlation^2), what is new: 0 where fine-tuning only scaled the weak model's answers.
    """

    slope: Float[Tensor, " classes"]
    share: Float[Tensor, " classes"]


def novelty(teacher: Expert, seen: Bool[Tensor, " classes"], rows: Int[Tensor, " rows"]) -> Novelty:
    """The novelty of classes with images and of those without, on some images.

    Fine-tuning may have changed much in the one group, and nothing in the other. Each class less its mean, and each row
    less that of the group, or of all classes where the group is a single one.
    """
    logits = [centred(one[rows].double()) for one in (teacher.finetuned, teacher.weak_logits)]
    slope, share = (torch.zeros(len(seen), dtype=torch.float64, device=seen.device) for _ in range(2))
    for group in (seen, ~seen):
        after, before = (one[:, group] for one in logits)
        if after.shape[1] > 1:
            after, before = centred(after), centred(before)
        after, before = after - after.mean(0), before - before.mean(0)
        product, own = (after * before).sum(), before.square().sum()
        correlation = product / (after.norm() * before.norm()).clamp_min(TINY)
        slope[group] = product / own.clamp_min(TINY)
        varies = after.norm() > TINY * logits[0].norm()  # or it is the same for all: a mask
        share[group] = varies * (1 - correlation.clamp(0, 1).square()).sqrt()
    return Novelty(slope, share)


@dataclass(frozen=True)
class Corrections:
    """What may be added to the strong model's logits s X T'.

    Attributes:
        whole: the whole of L, as far as it is new.
        new: what is new in L.
    """

    whole: Linear
    new: Linear

    def mixed(self, whole: float) -> Linear:
        """Their mean, given how much the whole weighs."""
        return self.whole.scaled(whole) + self.new.scaled(1 - whole)


def weak_head(teacher: Expert, moments: JointMoments, new: Novelty) -> Float[Tensor, "weak_width classes"]:
    """L as a linear map of the weak embeddings, learned from some images and pulled to what is known of it."""
    d = moments.width
    known = teacher.head
    prior = new.slope * centred(teacher.weak_classifier().double().T) if known is None else centred(known.double().T)
    weak = moments.gram[d:, d:]
    return prior + solve_ridge(weak, moments.cross[d:] - weak @ prior, PULL)


def learn_corrections(anchors: Anchors, teacher: Expert, moments: JointMoments, new: Novelty) -> Corrections:
    """What is learned of L from the moments of some images."""
    d = moments.width
    gram, between = moments.gram[:d, :d], moments.gram[:d, d:]
    own = centred(teacher.weak_classifier().double().T)
    each = TEXTS_WEIGH * moments.images / anchors.texts
    bridge = solve_ridge(gram + each * anchors.gram, between + each * anchors.cross, RHO)
    whole = affine_with_mean(moments, bridge @ weak_head(teacher, moments, new), moments.target_mean).scaled(new.share)
    left = solve_ridge(gram, moments.cross[:d] - new.slope * (between @ own), RHO)
    return Corrections(
        whole, affine_with_mean(moments, left, moments.target_mean - new.slope * (moments.mean[d:] @ own))
    )


def affine_with_mean(
    moments: JointMoments, weight: Float[Tensor, "width classes"], mean: Float[Tensor, " classes"]
) -> Linear:
    """The linear map of strong embeddings with these weights and, over the images, this mean."""
    return Linear(weight.T, mean - moments.mean[: moments.width] @ weight)


def left_out(seen: Int[Tensor, " classes"], part: int, times: int) -> Iterator[Int[Tensor, " part"]]:
    """Random subsets of some classes, to be left out one after the other; all classes are about as often.

    Each has one class in `part` of them, and two at least. Random orders of the classes are cut into disjoint subsets
    until there are `times` of them, or more; if there are no more at all, each comes once.
    """
    size = max(2, len(seen) // part)
    if math.comb(len(seen), size) <= times:
        yield from torch.combinations(seen, size)
        return
    generator = torch.Generator().manual_seed(0)
    apart = len(seen) // size
    for _ in range(-(-times // apart)):
        order = torch.randperm(len(seen), generator=generator).to(seen.device)
        yield from seen[order[: apart * size]].split(size)


def trials(
    seen: Bool[Tensor, " classes"], predicted: Int[Tensor, " rows"], part: int, times: int
) -> Iterator[tuple[Bool[Tensor, " classes"], Bool[Tensor, " rows"]]]:
    """The classes that are left out in turn (`left_out`), and the images that go with them: some, but not all."""
    for classes in left_out(seen.nonzero().flatten(), part, times):
        held = torch.zeros_like(seen)
        held[classes] = True
        away = held[predicted]
        if bool(away.any()) and not bool(away.all()):
            yield held, away


def weight_of_whole(
    strong: Embeddings, teacher: Expert, anchors: Anchors, log_posterior: PerImage, seen: Bool[Tensor, " classes"]
) -> float:
    """How much the whole of L weighs beside what is new in it: 0 to 1, each weighing exp(-misses).

    A miss is an answer that is not the posterior's. Their number is the share of misses among the images of classes
    left out, of all times together, times the images that are looked at: where many images tell the two apart, the
    better one is taken, else their mean. Where too few classes have images to leave some out, it is the whole.

    Args:
        strong: the strong model on the unlabelled images.
        teacher: the fine-tuned model and its weak one on the same images.
        anchors: the texts of both.
        log_posterior: what all models together say of the images.
        seen: the classes that have images.
    """
    if int(seen.sum()) < FEWEST_CLASSES:
        return 1.0
    rows = sampled_rows(all_rows(strong), len(seen))
    posterior = log_posterior[rows]
    base = Linear.zero_shot(strong, len(seen))
    ahead, asked = 0, 0
    for held, away in trials(seen, posterior.argmax(-1), 3, TRIALS_OF_THIRDS):
        kept, images, answers = rows[~away], strong.unit_images(rows[away]), posterior[away][:, held].argmax(-1)
        moments, new = joint_moments(strong, teacher, kept), novelty(teacher, ~held, kept)
        learned = learn_corrections(anchors, teacher, moments, new)
        by_whole, by_new = ((base + one)(images)[:, held].argmax(-1) for one in (learned.whole, learned.new))
        ahead += int((by_whole == answers).sum() - (by_new == answers).sum())
        asked += len(answers)
    return torch.tensor(ahead / asked * len(rows), dtype=torch.float64).sigmoid().item() if asked else 1.0


@dataclass(frozen=True)
class Carrier:
    """How what one teacher says is carried over to the strong model.

    Attributes:
        teacher: the fine-tuned model and its weak one on the unlabelled images.
        anchors: the texts of the strong and the weak model.
        whole: how much the whole of its answers weighs beside what is new in them.
        trust: the teacher's reliability, 0 to 1.
        new: the `Novelty.share` of classes without images, 1 where all have some.
    """

    teacher: Expert
    anchors: Anchors
    whole: float
    trust: float
    new: float

    def known(self, share: Float[Tensor, " classes"]) -> Float[Tensor, " classes"]:
        """The `Novelty.share` of classes without images over that of classes that are left out in a trial, 1 at most.

        A teacher that was fine-tuned on classes with images alone knows those that are left out, but none without
        images: a trial would promise too much of these.

        Args:
            share: the `Novelty.share` of each class in the trial.
        """
        return (self.new / share.clamp_min(TINY)).clamp_max(1.0)

    def learn(self, strong: Embeddings, new: Novelty, rows: Int[Tensor, " rows"]) -> Linear:
        """What is added to the strong model's logits, learned from some images."""
        moments = joint_moments(strong, self.teacher, rows)
        return learn_corrections(self.anchors, self.teacher, moments, new).mixed(self.whole)


def carry(
    strong: Embeddings,
    teachers: Sequence[Expert],
    trust: Sequence[float],
    log_posterior: PerImage,
    seen: Bool[Tensor, " classes"],
) -> list[Carrier]:
    """How what each teacher that is trusted says of classes on images of others is carried over.

    Args:
        strong: the strong model on the unlabelled images.
        teachers: the fine-tuned models and their weak ones on the same images.
        trust: the reliability of each.
        log_posterior: what all models together say of the images.
        seen: the classes that have images.
    """
    found: list[Carrier] = []
    rows = sampled_rows(all_rows(strong), len(seen))
    for given, reliability in zip(teachers, trust, strict=True):
        if reliability:
            teacher = comparable(given, seen, rows)
            anchors = text_anchors(strong, teacher.weak)
            whole = weight_of_whole(strong, teacher, anchors, log_posterior, seen)
            share = novelty(teacher, seen, rows).share
            new = 1.0 if bool(seen.all()) else share[~seen][0].item()
            found.append(Carrier(teacher, anchors, whole, reliability, new))
    return found


def combined_correction(
    carriers: Sequence[Carrier], strong: Embeddings, seen: Bool[Tensor, " classes"], rows: Int[Tensor, " rows"]
) -> Linear:
    """What teachers add to the strong model's own scores.

    One teacher's correction is as strong as it is trusted. Several are averaged, each weighing as much as it is
    trusted, times the share of the variance of its answers that is new: a head that was fine-tuned on other classes
    alone says nothing of a class. Of classes that are left out in a trial, no more is made than of those that have
    no images (`Carrier.known`).

    Args:
        carriers: the teachers that are trusted at all.
        strong: the strong model on the unlabelled images.
        seen: the classes that have images.
        rows: the images to learn from.
    """
    result = Linear.zero_shot(strong, len(seen)).scaled(0.0)
    news = [novelty(one.teacher, seen, sampled_rows(rows, len(seen))) for one in carriers]
    says = [one.trust * new.share.square() for one, new in zip(carriers, news, strict=True)]
    for one, new, say in zip(carriers, news, says, strict=True):
        weight = one.trust * say / torch.stack(says).sum(0).clamp_min(TINY)
        weight = torch.where(seen, weight, weight * one.known(new.share))
        result += one.learn(strong, new, rows).scaled(weight)
    return result
