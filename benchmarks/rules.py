"""Candidate rules of label-free transfer: each maps a trial to logits of its test images. docs/research.md judges them.

Only `Trial.labels` are out of bounds. Most rules are linear classifiers of the strong model's embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from benchmarks.beds import Trial
from torch import Tensor

import transmiter_cli as tm
from transmiter_cli.api import ridge_classifier
from transmiter_cli.method.baselines import eft_logits
from transmiter_cli.method.consensus import unseen
from transmiter_cli.method.consensus.discriminant_transfer import discriminant_transfer
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.consensus.unseen import (
    carry,
    combined_correction,
    joint_moments,
    learn_corrections,
    novelty,
    weak_head,
)
from transmiter_cli.method.consensus.verdict import Verdict
from transmiter_cli.method.folds import folds_of
from transmiter_cli.method.linear.discriminant import about_mean, choose_discriminant, discriminants
from transmiter_cli.method.linear.moments import fold_moments, total
from transmiter_cli.method.linear.self_training import self_train_classifier
from transmiter_cli.method.per_image import zero_shot_class_logits

Rule = Callable[[Trial], Tensor]


def zero_shot(trial: Trial, name: str = "strong", rows: Tensor | None = None) -> Tensor:
    return zero_shot_class_logits(trial.model(name, trial.test if rows is None else rows), trial.classes).double()


def images(trial: Trial) -> tuple[Tensor, Tensor]:
    """The strong model's unlabelled and test images."""
    every = trial.strong.unit_images().double()
    return every[trial.unlabelled], every[trial.test]


def centred_log(logits: Tensor) -> Tensor:
    logs = F.log_softmax(logits.double(), -1)
    return logs - logs.mean(-1, keepdim=True)


def solve(x: Tensor, y: Tensor, rho: float, weights: Tensor | None = None) -> Tensor:
    weighted = x if weights is None else x * weights[:, None]
    gram = weighted.T @ x
    gram.diagonal().add_(rho * gram.diagonal().mean())
    return torch.linalg.solve(gram, weighted.T @ y)


def ridge_auto(trial: Trial) -> Tensor:
    """Ridge transfer with `--rho auto`."""
    logits = trial.teacher.logits(trial.unlabelled)
    return ridge_classifier(trial.model("strong", trial.unlabelled), logits, "auto")[0](images(trial)[1])


def finetuned(trial: Trial) -> Tensor:
    return trial.teacher.logits(trial.test)


def eft(trial: Trial) -> Tensor:
    return eft_logits(zero_shot(trial), zero_shot(trial, "weak"), finetuned(trial).double(), 1.0)


def product(trial: Trial) -> Tensor:
    return F.log_softmax(zero_shot(trial), -1) + F.log_softmax(finetuned(trial).double(), -1)


def ridge(
    trial: Trial, rho: float = 0.1, prior: float = 0.0, strength: float = 1.0, target: str = "L", centre: bool = False
) -> Tensor:
    """Z + strength * ridge of (L - prior * centred log p_strong), or of the gap L - centred log p_weak."""
    known, test = images(trial)
    wanted = centred_log(trial.teacher.logits(trial.unlabelled))
    if target == "gap":
        wanted = wanted - centred_log(zero_shot(trial, "weak", trial.unlabelled))
    wanted = wanted - prior * centred_log(zero_shot(trial, rows=trial.unlabelled))
    mean, offset = (known.mean(0), wanted.mean(0)) if centre else (0.0, 0.0)
    return zero_shot(trial) + strength * ((test - mean) @ solve(known - mean, wanted - offset, rho) + offset)


def leverage_ridge(trial: Trial, rho: float = 0.1) -> Tensor:
    """Ridge, each test image's correction times 1 - its predictive variance (leverage). Folds into no classifier."""
    known, test = images(trial)
    correction = ridge(trial, rho) - zero_shot(trial)
    gram = known.T @ known
    level = rho * gram.diagonal().mean()
    gram.diagonal().add_(level)
    variance = level * (test * torch.linalg.solve(gram, test.T).T).sum(-1)
    return zero_shot(trial) + (1 - variance).clamp(0, 1)[:, None] * correction


def kernel_ridge(trial: Trial, rho: float = 0.1) -> Tensor:
    """RBF kernel ridge of the residual: full correction near unlabelled images, none far away. Does not fold."""
    known, test = images(trial)
    distances = torch.cdist(known, known).square()
    width = distances.flatten().median()
    kernel = torch.exp(-distances / width)
    wanted = centred_log(trial.teacher.logits(trial.unlabelled)) - centred_log(zero_shot(trial, rows=trial.unlabelled))
    level = rho * torch.eye(len(kernel), dtype=kernel.dtype)
    weights = torch.linalg.solve(kernel + level, wanted)
    return 2 * zero_shot(trial) + torch.exp(-torch.cdist(test, known).square() / width) @ weights


def shared_through_texts(trial: Trial, rho: float = 0.1, smooth: float = 0.1) -> Tensor:
    """W = A T': the ridge's columns projected on the class texts, so that classes move with their neighbours."""
    texts = trial.strong.unit_texts()[: trial.classes].double()
    texts = texts - texts.mean(0)
    kernel = texts @ texts.T
    level = smooth * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=kernel.dtype)
    correction = ridge(trial, rho) - zero_shot(trial)
    return zero_shot(trial) + correction @ torch.linalg.solve(kernel + level, kernel)


def text_anchors(trial: Trial, weight: float = 1.0, rho: float = 0.1) -> Tensor:
    """The teacher's embeddings regressed on the strong ones, its texts as extra rows, each modality centred."""
    known, test = images(trial)
    assert trial.teacher.texts is not None
    theirs, texts = trial.teacher.images[trial.unlabelled].double(), trial.teacher.texts.double()
    ours = trial.strong.unit_texts().double()[: len(texts)]
    rows = torch.cat([known - known.mean(0), ours - ours.mean(0)])
    wanted = torch.cat([theirs - theirs.mean(0), texts - texts.mean(0)])
    weights = torch.ones(len(rows), dtype=torch.float64)
    weights[len(known) :] = weight * len(known) / len(texts)
    found = (test - known.mean(0)) @ solve(rows, wanted, rho, weights) + theirs.mean(0)
    return zero_shot(trial) + found @ trial.teacher.head.double().T


def text_anchors_by_weak(trial: Trial, weight: float = 1.0, rho: float = 0.1) -> Tensor:
    """Strong to weak embeddings with all texts as anchors, then weak to fine-tuned: the identity plus a ridge."""
    known, test = images(trial)
    weak, theirs = trial.weak.unit_images()[trial.unlabelled].double(), trial.teacher.images[trial.unlabelled].double()
    ours, texts = trial.strong.unit_texts().double(), trial.weak.unit_texts().double()
    rows = torch.cat([known - known.mean(0), ours - ours.mean(0)])
    weights = torch.ones(len(rows), dtype=torch.float64)
    weights[len(known) :] = weight * len(known) / len(texts)
    step = weak - weak.mean(0)
    found = (test - known.mean(0)) @ solve(rows, torch.cat([step, texts - texts.mean(0)]), rho, weights)
    kernel = step @ step.T
    kernel.diagonal().add_(kernel.diagonal().sum() / step.shape[1])
    found = found + (found @ step.T) @ torch.linalg.solve(kernel, theirs - theirs.mean(0) - step)
    return zero_shot(trial) + (found + theirs.mean(0)) @ trial.teacher.head.double().T


def prior_corrected(trial: Trial, strength: float = 0.5) -> Tensor:
    """Zero-shot logits less the mean of each class over the unlabelled images: no teacher."""
    return zero_shot(trial) - strength * zero_shot(trial, rows=trial.unlabelled).mean(0)


def whitened(trial: Trial, share: float = 0.9) -> Tensor:
    """Zero-shot in the metric of the unlabelled images' covariance: no teacher."""
    known, test = images(trial)
    texts = trial.strong.unit_texts()[: trial.classes].double()
    covariance = (known - known.mean(0)).T @ (known - known.mean(0)) / len(known)
    covariance = (1 - share) * covariance + share * covariance.diagonal().mean() * torch.eye(len(covariance)).double()
    return (test - known.mean(0)) @ torch.linalg.solve(covariance, (texts - texts.mean(0)).T)


def plain_discriminant(trial: Trial, labels: str = "both", shrinkage: float | None = None, rounds: int = 1) -> Tensor:
    """A discriminant from soft labels alone: no reliabilities, no care for classes without images.

    Args:
        labels: "strong", "finetuned" or "both" (their product).
        shrinkage: fixed, or chosen by held-out cross-entropy.
        rounds: more than one takes the held-out scores into the soft labels and starts again.
    """
    strong = trial.model("strong", trial.unlabelled)
    logits = {"strong": zero_shot(trial, rows=trial.unlabelled), "finetuned": trial.teacher.logits(trial.unlabelled)}
    chosen = [logits[name].double() for name in ((labels,) if labels in logits else logits)]
    log_posterior = torch.stack([F.log_softmax(one, -1) for one in chosen]).sum(0)
    texts = strong.unit_texts()[: trial.classes].double()
    folds = folds_of(strong)
    posterior = F.softmax(log_posterior, -1)
    for _ in range(rounds):
        moments = fold_moments(strong, posterior, folds)
        directions = about_mean(texts, total(moments).mass)
        if shrinkage is not None:
            return discriminants(total(moments), directions, [shrinkage])[0](images(trial)[1])
        found = choose_discriminant(strong, posterior, directions, folds, moments)
        scores = torch.empty_like(log_posterior)
        scores[found.rows] = found.held_out.double()
        posterior = F.softmax(log_posterior + F.log_softmax(scores, -1), -1)
    return found.classifier(images(trial)[1])


def teacher_of(trial: Trial, head: bool = True) -> Teacher:
    """The fine-tuned model and its weak twin on the unlabelled images."""
    known = trial.teacher.head if head and trial.teacher.open else None
    return Teacher(trial.teacher.logits(trial.unlabelled), trial.model("weak", trial.unlabelled), known)


def discriminant(trial: Trial, head: bool = True, opaque_names: bool = False) -> Tensor:
    """What `transfer --method discriminant` does; without its head, as where the teacher's logits alone are given."""
    return adapted(trial, [teacher_of(trial, head)], opaque_names)[0]


def adapted(trial: Trial, teachers: Sequence[Teacher], opaque_names: bool = False) -> tuple[Tensor, Verdict]:
    """Logits of the test images by what `transfer --method discriminant` makes of teachers, and its verdict."""
    found, verdict = discriminant_transfer(trial.model("strong", trial.unlabelled), teachers, opaque_names)
    return found(trial.strong.unit_images(trial.test)), verdict


def self_trained(trial: Trial, others: bool = False) -> Tensor:
    """`transfer`, then `self-train` on the test images, or on all other images: the strong model alone sees these."""
    start, _ = discriminant_transfer(trial.model("strong", trial.unlabelled), [teacher_of(trial)])
    rows = torch.ones(len(trial.labels), dtype=torch.bool)
    rows[trial.test] = False
    new = rows.nonzero().flatten() if others else trial.test
    return self_train_classifier(trial.model("strong", new), start)(images(trial)[1])


def carried(trial: Trial, whole: float | None = None) -> Tensor:
    """Z and what fine-tuning says of classes without images: all of it, what is new, or both as they are weighed."""
    strong, teacher = trial.model("strong", trial.unlabelled), teacher_of(trial)
    both = (zero_shot(trial, rows=trial.unlabelled), teacher.finetuned)
    posterior = torch.stack([F.log_softmax(one, -1) for one in both]).sum(0)
    counts = torch.bincount(posterior.argmax(-1), minlength=trial.classes)
    seen = counts >= 0.25 * len(posterior) / trial.classes
    rows = torch.arange(len(strong))
    if whole is None:
        found = combined_correction(carry(strong, [teacher], [1.0], posterior, seen), strong, seen, rows)
        return zero_shot(trial) + found(images(trial)[1])
    new = novelty(teacher, seen, rows)
    anchors, moments = unseen.text_anchors(strong, teacher.weak), joint_moments(strong, teacher, rows)
    return zero_shot(trial) + learn_corrections(anchors, teacher, moments, new).mixed(whole)(images(trial)[1])


def perfectly_bridged(trial: Trial) -> Tensor:
    """Z and the whole of L as a linear map of the weak embeddings, which are known of the test images, too."""
    teacher, rows = teacher_of(trial), torch.arange(len(trial.unlabelled))
    new = novelty(teacher, trial.base, rows)
    moments = joint_moments(trial.model("strong", trial.unlabelled), teacher, rows)
    weak = trial.weak.unit_images()[trial.test].double() - moments.mean[moments.width :]
    said = weak @ weak_head(teacher, moments, new) + moments.target_mean
    return zero_shot(trial) + new.share * said


def adapter(trial: Trial, reg: float | Literal["auto"] = 1.0, strength: float = 1.0, **settings: float) -> Tensor:
    """The paper's: fit on the weak model, rotate; `strength` < 1 averages it with the strong model's own logits."""
    weak, strong = trial.model("weak", trial.unlabelled), trial.model("strong", trial.unlabelled)
    fitted = tm.fit(weak, trial.teacher.logits(trial.unlabelled), **settings)
    moved = tm.transfer(fitted, weak, strong, "adapter", reg=reg)
    with torch.no_grad():
        found = moved.adapt(trial.model("strong", trial.test))
    return strength * found.double() + (1 - strength) * zero_shot(trial)


RULES: dict[str, Rule] = {
    "strong zero-shot": zero_shot,
    "fine-tuned weak": finetuned,
    "EFT (3 models)": eft,
    "log p_s + log p_ft (2 models)": product,
    "adapter": adapter,
    "ridge, rho 0.1": ridge,
    "ridge, rho 0.03": partial(ridge, rho=0.03),
    "ridge, rho 1": partial(ridge, rho=1.0),
    "ridge, rho auto": ridge_auto,
    "ridge, centred": partial(ridge, centre=True),
    "ridge, half strength": partial(ridge, rho=1.0, strength=0.5, centre=True),
    "ridge of the residual": partial(ridge, prior=1.0),
    "ridge of half the residual": partial(ridge, prior=0.5),
    "ridge of the gap": partial(ridge, target="gap"),
    "ridge, leverage shrinks": leverage_ridge,
    "RBF kernel ridge": kernel_ridge,
    "ridge through texts, W = A T'": shared_through_texts,
    "text anchors": partial(text_anchors, weight=0.1, rho=1.0),
    "text anchors by the weak model": text_anchors_by_weak,
    "prior-corrected zero-shot": prior_corrected,
    "whitened zero-shot": whitened,
    "discriminant of strong labels": partial(plain_discriminant, labels="strong"),
    "discriminant of fine-tuned labels": partial(plain_discriminant, labels="finetuned"),
    "discriminant, shrinkage 0.3": partial(plain_discriminant, shrinkage=0.3),
    "discriminant, plain": plain_discriminant,
    "discriminant, plain, 3 rounds": partial(plain_discriminant, rounds=3),
    "discriminant, logits alone": partial(discriminant, head=False),
    "discriminant": discriminant,
}
ADAPTERS: dict[str, Rule] = {
    "strong zero-shot": zero_shot,
    "adapter": adapter,
    "adapter, 5 epochs": partial(adapter, epochs=5),
    "adapter, weight decay 0.1": partial(adapter, weight_decay=0.1),
    "adapter, noise 1": partial(adapter, noise=1.0),
    "adapter, noise in all batches": partial(adapter, noise_rate=1.0),
    "adapter, temperature 1": partial(adapter, temperature=1.0),
    "adapter, lr 3e-4": partial(adapter, learning_rate=3e-4),
    "adapter, reg 0.1": partial(adapter, reg=0.1),
    "adapter, reg 10": partial(adapter, reg=10.0),
    "adapter, reg 100": partial(adapter, reg=100.0),
    "adapter, reg auto": partial(adapter, reg="auto"),
    "adapter, half strength": partial(adapter, strength=0.5),
}
UNSEEN: dict[str, Rule] = {
    "strong zero-shot": zero_shot,
    "EFT (3 models)": eft,
    "ridge, rho 1, half strength": partial(ridge, rho=1.0, strength=0.5, centre=True),
    "bridged, whole": partial(carried, whole=1.0),
    "bridged, whole, by a perfect bridge": perfectly_bridged,
    "direct, new": partial(carried, whole=0.0),
    "weighed by leaving classes out": carried,
}
"""What fine-tuning says of classes that no unlabelled image shows; to be read in the columns of novel classes."""
SELF_TRAINED: dict[str, Rule] = {
    "strong zero-shot": zero_shot,
    "EFT (3 models)": eft,
    "discriminant": discriminant,
    "self-trained on the test images": self_trained,
    "self-trained on other images": partial(self_trained, others=True),
}
"""What more unlabelled images of all classes give, which no teacher is asked about."""
AUTO: dict[str, Rule] = {
    **{f"ridge, rho {rho:g}": partial(ridge, rho=rho) for rho in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)},
    "ridge, rho auto": ridge_auto,
    **{f"adapter, reg {reg:g}": partial(adapter, reg=reg) for reg in (0.01, 0.1, 1.0, 10.0, 100.0)},
    "adapter, reg auto": partial(adapter, reg="auto"),
}
"""Strengths: fixed ones, and those chosen without labels."""
MAIN = (
    "strong zero-shot",
    "fine-tuned weak",
    "EFT (3 models)",
    "log p_s + log p_ft (2 models)",
    "adapter",
    "ridge, rho 0.1",
)
