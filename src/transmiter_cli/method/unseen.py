"""Classes that no unlabelled image shows: what fine-tuning says of them, as a linear correction of strong logits.

The fine-tuned model has opinions of such classes on images of other ones. With L its row-centred logits (N x C) and
Z_w the zero-shot weak model's, an opinion is carried over in one of four ways: along one of two routes,

- *direct*: ridge regression of L on the strong embeddings X;
- *bridged*: a ridge regression A of the weak embeddings X_w on X, in which the texts of the vocabulary are further
  rows (each modality centred), so that directions in which no image varies are known, too; then L as a linear map of
  X_w, pulled towards what is known of it: the fine-tuned class embeddings, or k times the weak model's;

and either the *whole* of L or what is *new* in it, L - k Z_w, k being the slope of L against Z_w in the classes without
images. Where L hardly differs from Z_w there, fine-tuning taught nothing, and the strong model's own answers are
better: the whole of L is added at the strength sqrt(1 - correlation^2).

How much to make of each way is seen without labels by leaving classes out: classes that have images are put aside
with their images, and what the others teach of them is compared with the posterior of all models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transmiter_cli.method.discriminant import JUDGED, TINY, Linear
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.experts import Teacher
from transmiter_cli.method.ridge import solve_ridge

Route = Literal["direct", "bridged"]
Share = Literal["whole", "new"]
Way = tuple[Route, Share]
WAYS: tuple[Way, ...] = tuple((route, share) for route in get_args(Route) for share in get_args(Share))
UNTESTED: Way = ("bridged", "whole")
"""The way where too few classes have images to leave some of them out."""
FEWEST = 4
"""Classes with images that are needed to leave some of them out."""
REPEATS = 12
"""How often a third of the classes is left out."""
RHO = 0.1
"""Relative ridge strength from strong embeddings, as in ridge transfer."""
PULL = 1.0
"""Relative ridge strength with which the linear map of weak embeddings is pulled to what is known of it."""
TEXTS_WEIGH = 3.0
"""How much all texts together weigh beside all images."""
NUMBERS = 2**26
"""Most logits that leaving classes out looks at at a time."""


@dataclass(frozen=True)
class JointMoments:
    """Sums over images, float64, of x = [strong embedding, weak embedding] and the fine-tuned answers L.

    Attributes:
        images: how many.
        width: of the strong model's embeddings, the first part of x.
        gram, cross: x'x and x'L, centred.
        mean, answers: the means of x and of L.
    """

    images: int
    width: int
    gram: Float[Tensor, "joint joint"]
    cross: Float[Tensor, "joint classes"]
    mean: Float[Tensor, " joint"]
    answers: Float[Tensor, " classes"]

    def without(self, part: JointMoments) -> JointMoments:
        """The moments of the images that are not in a part of them."""
        count, rest = self.images, self.images - part.images
        mean = (count * self.mean - part.images * part.mean) / rest
        answers = (count * self.answers - part.images * part.answers) / rest
        apart, share = self.mean - part.mean, count * part.images / rest
        gram = self.gram - part.gram - share * torch.outer(apart, apart)
        cross = self.cross - part.cross - share * torch.outer(apart, self.answers - part.answers)
        return JointMoments(rest, self.width, gram, cross, mean, answers)


def joint_moments(strong: Embeddings, teacher: Teacher, rows: Int[Tensor, " rows"]) -> JointMoments:
    """The moments of some images, a block at a time."""
    width, classes = strong.images.shape[1], teacher.finetuned.shape[1]
    joint = width + teacher.weak.images.shape[1]
    device = strong.images.device
    gram = torch.zeros(joint, joint, dtype=torch.float64, device=device)
    cross = torch.zeros(joint, classes, dtype=torch.float64, device=device)
    mean, answers = gram.new_zeros(joint), gram.new_zeros(classes)
    for block in strong.blocks(max(joint, classes)):
        chosen = rows[block]
        both = torch.cat([strong.unit_images(chosen), teacher.weak.unit_images(chosen)], 1).double()
        said = centred(teacher.finetuned[chosen].double())
        gram += both.T @ both
        cross += both.T @ said
        mean += both.sum(0)
        answers += said.sum(0)
    count = len(rows)
    mean, answers = mean / count, answers / count
    gram -= count * torch.outer(mean, mean)
    cross -= count * torch.outer(mean, answers)
    return JointMoments(count, width, gram, cross, mean, answers)


def centred(logits: Float[Tensor, "rows classes"]) -> Float[Tensor, "rows classes"]:
    """Rows less their means, which no softmax sees."""
    return logits - logits.mean(-1, keepdim=True)


@dataclass(frozen=True)
class Novelty:
    """How the fine-tuned answers in classes without images relate to the weak model's own.

    Attributes:
        slope: k, the least-squares slope of L against Z_w.
        share: sqrt(1 - correlation^2), what is new: 0 where fine-tuning only scaled the weak model's answers.
    """

    slope: float
    share: float


def novelty(teacher: Teacher, unseen: Bool[Tensor, " classes"], rows: Int[Tensor, " rows"]) -> Novelty:
    """The novelty of some classes on some images; each row and each class less its mean."""
    after, before = (logits[rows][:, unseen].double() for logits in (teacher.finetuned, teacher.weak_logits))
    if after.shape[1] > 1:
        after, before = centred(after), centred(before)
    after, before = after - after.mean(0), before - before.mean(0)
    both, own = (after * before).sum(), before.square().sum()
    correlation = both / (after.norm() * before.norm()).clamp_min(TINY)
    new = (1 - correlation.clamp(0, 1).square()).sqrt()
    return Novelty((both / own.clamp_min(TINY)).item(), new.item())


def corrections(strong: Embeddings, teacher: Teacher, moments: JointMoments, new: Novelty) -> dict[Way, Linear]:
    """What each way adds to the strong model's logits s X T'."""
    d = moments.width
    gram, between, weak = moments.gram[:d, :d], moments.gram[:d, d:], moments.gram[d:, d:]
    own = teacher.weak_heads().double()
    own = (own - own.mean(0)).T
    prior = new.slope * own if teacher.heads is None else (teacher.heads.double() - teacher.heads.double().mean(0)).T
    texts, theirs = (model.unit_texts().double() for model in (strong, teacher.weak))
    texts, theirs = texts - texts.mean(0), theirs - theirs.mean(0)
    each = TEXTS_WEIGH * moments.images / len(texts)
    bridge = solve_ridge(gram + each * texts.T @ texts, between + each * texts.T @ theirs, RHO)
    head = prior + solve_ridge(weak, moments.cross[d:] - weak @ prior, PULL)
    direct, direct_known = solve_ridge(gram, torch.cat([moments.cross[:d], between @ own], 1), RHO).chunk(2, 1)
    answers = {"direct": direct, "bridged": bridge @ head}
    known = {"direct": direct_known, "bridged": bridge @ own}
    result: dict[Way, Linear] = {}
    for route, share in WAYS:
        strength, slope = (new.share, 0.0) if share == "whole" else (1.0, new.slope)
        weight = strength * (answers[route] - slope * known[route])
        offset = strength * (moments.answers - slope * moments.mean[d:] @ own)
        result[route, share] = Linear(weight.T, offset - moments.mean[:d] @ weight)
    return result


def zero_shot(strong: Embeddings, classes: int) -> Linear:
    """The strong model's own logits s X T' as a linear classifier."""
    weight = strong.logit_scale * strong.unit_texts()[:classes].double()
    return Linear(weight, weight.new_zeros(classes))


def added(first: Linear, second: Linear) -> Linear:
    """The scores of both."""
    return Linear(first.weight + second.weight, first.bias + second.bias)


def all_rows(strong: Embeddings) -> Int[Tensor, " rows"]:
    """The numbers of all images."""
    return torch.arange(len(strong), device=strong.images.device)


def some_rows(rows: Int[Tensor, " rows"], classes: int) -> Int[Tensor, " some"]:
    """A random choice of images, as many as can be looked at at once."""
    most = min(JUDGED, max(1, NUMBERS // classes))
    generator = torch.Generator().manual_seed(0)
    return rows[torch.randperm(len(rows), generator=generator)[:most].to(rows.device)]


def left_out(seen: Int[Tensor, " classes"], part: int, times: int) -> Iterator[Int[Tensor, " part"]]:
    """A random one of so many parts of some classes, two classes at least, several times."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(times):
        order = torch.randperm(len(seen), generator=generator).to(seen.device)
        yield seen[order[: max(2, len(seen) // part)]]


def way_weights(
    strong: Embeddings, teacher: Teacher, log_posterior: Float[Tensor, "images classes"], seen: Bool[Tensor, " classes"]
) -> dict[Way, float]:
    """The weight of each way: exp(-misses), normalised. A miss is an answer that is not the posterior's.

    Their number is the share of misses among the images of classes left out, of all times together, times the images
    that are looked at: ways that many images tell apart exclude each other, others are averaged.

    Args:
        strong: the strong model on the unlabelled images.
        teacher: the fine-tuned model and its weak twin on the same images.
        log_posterior: what all models together say of them.
        seen: the classes that have images.
    """
    if int(seen.sum()) < FEWEST:
        return {UNTESTED: 1.0}
    rows = some_rows(all_rows(strong), len(seen))
    answers = log_posterior[rows].argmax(-1)
    base, whole = zero_shot(strong, len(seen)), joint_moments(strong, teacher, rows)
    misses, asked = torch.zeros(len(WAYS), dtype=torch.float64), 0
    for held in left_out(seen.nonzero().flatten(), 3, REPEATS):
        away = torch.isin(answers, held)
        if bool(away.all()) or not bool(away.any()):
            continue
        unseen = torch.zeros_like(seen)
        unseen[held] = True
        moments = whole.without(joint_moments(strong, teacher, rows[away]))
        found = corrections(strong, teacher, moments, novelty(teacher, unseen, rows[~away]))
        images, wanted = strong.unit_images(rows[away]), log_posterior[rows[away]][:, held].argmax(-1)
        for place, way in enumerate(WAYS):
            misses[place] += (added(base, found[way])(images)[:, held].argmax(-1) != wanted).sum().item()
        asked += len(wanted)
    if not asked:
        return {UNTESTED: 1.0}
    weights = F.softmax(-misses / asked * len(rows), 0)
    return dict(zip(WAYS, weights.tolist(), strict=True))


@dataclass(frozen=True)
class Carrier:
    """How what one teacher says of classes without images is carried over to the strong model.

    Attributes:
        teacher: the fine-tuned model and its weak twin on the unlabelled images.
        weights: the weight of each way.
        strength: what its correction is multiplied with, 0 to 1.
    """

    teacher: Teacher
    weights: dict[Way, float]
    strength: float

    def correction(self, strong: Embeddings, unseen: Bool[Tensor, " classes"], rows: Int[Tensor, " rows"]) -> Linear:
        """What is added to the strong model's logits, learned from some images; the mean of all ways."""
        new = novelty(self.teacher, unseen, some_rows(rows, len(unseen)))
        found = corrections(strong, self.teacher, joint_moments(strong, self.teacher, rows), new)
        shares = [(self.strength * weight, found[way]) for way, weight in self.weights.items()]
        weight = torch.stack([share * one.weight for share, one in shares]).sum(0)
        return Linear(weight, torch.stack([share * one.bias for share, one in shares]).sum(0))


def carriers(
    strong: Embeddings,
    teachers: Sequence[Teacher],
    trust: Sequence[float],
    log_posterior: Float[Tensor, "images classes"],
    seen: Bool[Tensor, " classes"],
) -> list[Carrier]:
    """The teachers that have something to say of classes without images.

    A correction is as strong as its teacher is trusted. Several are averaged, each weighing as much as it is trusted
    and says anything new of these classes: a head that was fine-tuned on other classes alone says nothing.

    Args:
        strong: the strong model on the unlabelled images.
        teachers: the fine-tuned models and their weak twins on the same images.
        trust: the reliability of each, 0 to 1.
        log_posterior: what all models together say of the images.
        seen: the classes that have images.
    """
    rows = some_rows(all_rows(strong), len(seen))
    says = [own * novelty(teacher, ~seen, rows).share for own, teacher in zip(trust, teachers, strict=True)]
    return [
        Carrier(teacher, way_weights(strong, teacher, log_posterior, seen), own * say / sum(says))
        for teacher, own, say in zip(teachers, trust, says, strict=True)
        if say
    ]


def unseen_classifier(
    strong: Embeddings, found: Sequence[Carrier], unseen: Bool[Tensor, " classes"], rows: Int[Tensor, " rows"]
) -> Linear:
    """The classifier for classes without images: the strong model's own scores and what teachers say of other images.

    Args:
        strong: the strong model on the unlabelled images.
        found: the teachers that say anything (`carriers`).
        unseen: the classes without images.
        rows: the images to learn from.
    """
    result = zero_shot(strong, len(unseen))
    for carrier in found:
        result = added(result, carrier.correction(strong, unseen, rows))
    return result
