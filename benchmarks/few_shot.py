"""Few labels on the strong model: what refine makes of a transferred classifier, and the usual ways without transfer.

All see the same labelled images (the first `shots` of each class among the unlabelled ones) and choose what they must
choose by cross-validation on these alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from benchmarks.beds import Trial
from benchmarks.rules import teacher_of
from torch import Tensor, nn

from transmiter_cli.api import ridge_classifier
from transmiter_cli.method.consensus.discriminant_transfer import discriminant_transfer
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.folds import stratified_folds
from transmiter_cli.method.linear.probe import linear_probe
from transmiter_cli.method.linear.refinement import refine_linear
from transmiter_cli.method.metrics import calibration, negative_log_likelihood

SHOTS = (1, 2, 4, 8, 16)
SHARPNESS = 5.5
"""The published beta of Tip-Adapter's cache."""
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
RATIO = 0.2
"""The published share of CLIP-Adapter's own features."""


def cache_scores(test: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """exp(-beta (1 - x k')) one-hot."""
    return torch.exp(-SHARPNESS * (1 - test @ keys.T)) @ values


def tip_adapter(strong: Embeddings, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Zero-shot plus a cache of the labelled images (Zhang et al., ECCV 2022, without training)."""
    images, classifier = strong.unit_images(), strong.logit_scale * strong.unit_texts()[:classes]
    onehot = F.one_hot(labels, classes).float()
    losses = dict.fromkeys(WEIGHTS, 0.0)
    held = stratified_folds(labels, 5, 0)
    for part in held:
        rest = torch.ones(len(labels), dtype=torch.bool)
        rest[part] = False
        cached = cache_scores(images[part], images[rest], onehot[rest])
        for weight in WEIGHTS:
            scores = images[part] @ classifier.T + weight * cached
            losses[weight] += F.cross_entropy(scores, labels[part], reduction="sum").item()
    best = min(WEIGHTS, key=lambda weight: losses[weight])
    return test @ classifier.T + best * cache_scores(test, images, onehot)


def clip_adapter(strong: Embeddings, labels: Tensor, test: Tensor, classes: int, epochs: int = 100) -> Tensor:
    """A bottleneck on the image embeddings, mixed in at a fixed ratio (Gao et al., IJCV 2023)."""
    images, classifier = strong.unit_images(), strong.logit_scale * strong.unit_texts()[:classes]
    width = images.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bottleneck = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width), nn.ReLU())

    def scores(rows: Tensor) -> Tensor:
        return F.normalize(RATIO * bottleneck(rows) + (1 - RATIO) * rows, dim=-1) @ classifier.T

    optimizer = torch.optim.AdamW(bottleneck.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.arange(len(labels)).split(256):
            loss = F.cross_entropy(scores(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return scores(test)


def labelled(trial: Trial, shots: int) -> tuple[Embeddings, Tensor]:
    """The strong model on the first images of each class among the unlabelled ones, and their labels."""
    own = trial.labels[trial.unlabelled]
    chosen = torch.cat([trial.unlabelled[own == label][:shots] for label in range(trial.classes)])
    return trial.model("strong", chosen), trial.labels[chosen]


def few_shot_scores(trial: Trial) -> dict[str, list[float]]:
    """Top-1 of each way for each number of labels per class."""
    unlabelled, classes = trial.model("strong", trial.unlabelled), trial.classes
    finetuned, test = trial.teacher.logits(trial.unlabelled), trial.strong.unit_images()[trial.test]
    discriminant, _ = discriminant_transfer(unlabelled, [teacher_of(trial)])
    ridge = ridge_classifier(unlabelled, finetuned, 0.1)[0]
    rows: dict[str, list[float]] = {}
    for shots in SHOTS:
        strong, labels = labelled(trial, shots)
        classifier = strong.logit_scale * strong.unit_texts()[:classes]
        probe = linear_probe(strong, labels, classes, seed=0)
        logits = {
            "strong zero-shot": test @ classifier.T,
            "linear probe": test @ probe.T,
            "Tip-Adapter": tip_adapter(strong, labels, test, classes),
            "CLIP-Adapter": clip_adapter(strong, labels, test, classes),
            "ridge, refined": refine_linear(strong, labels, ridge, seed=0).classifier(test),
            "discriminant, no labels": discriminant(test),
            "discriminant, refined": refine_linear(strong, labels, discriminant, seed=0).classifier(test),
        }
        for name, found in logits.items():
            rows.setdefault(name, []).append(trial.score(found)["all"])
    return rows


def calibration_scores(trial: Trial) -> dict[str, list[float]]:
    """How sure the refined discriminant is, for each number of labels, with its calibrating factor and without."""
    discriminant, _ = discriminant_transfer(trial.model("strong", trial.unlabelled), [teacher_of(trial)])
    test, labels = trial.strong.unit_images()[trial.test], trial.labels[trial.test]
    rows: dict[str, list[float]] = {}
    for shots in SHOTS:
        found = refine_linear(*labelled(trial, shots), discriminant, seed=0)
        scores = found.classifier(test)
        for name, logits in (("as sure as before", scores / found.factor), ("calibrated", scores)):
            rows.setdefault(f"NLL in nats, {name}", []).append(negative_log_likelihood(logits, labels))
            rows.setdefault(f"ECE in %, {name}", []).append(100 * calibration(logits, labels).error)
    return rows
