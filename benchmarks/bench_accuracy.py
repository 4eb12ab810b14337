"""Accuracy of the published recipe and of ours, on the bundled task and on real CLIP embeddings where they are here.

The real ones are named by $TRANSMITER_REAL_EMBEDDINGS or lie in a data folder beside the checkout, as for tests/real.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from benchmarks.beds import Bed, Trial
from benchmarks.measure import Row, device
from benchmarks.published import REG, published_fit, published_solve
from benchmarks.sources import Data, has_data, seen_by_bundled_models
from torch import Tensor

import transmiter_cli as tm
from transmiter_cli.method.logits import zero_shot_logits
from transmiter_cli.method.per_image import zero_shot_class_logits

SEEDS = 10
"""Tasks and single fits differ by more than the ways that are compared."""


def bundled_trial(seed: int) -> Trial:
    """All train digits to fit and transfer on; test digits are only measured on."""
    train, test = (seen_by_bundled_models("demo", part) for part in ("train", "test"))
    images = {name: torch.cat([value, test.tensors[name]]) for name, value in train.tensors.items() if "images" in name}
    both = Data(train.tensors | images, train.scales, torch.cat([train.labels, test.labels]))
    rows = (torch.arange(len(train.labels)), torch.arange(len(train.labels), len(both.labels)))
    return Bed("demo").split(both, rows, torch.Generator().manual_seed(seed), seed, "all")


def on_device(trial: Trial) -> Trial:
    """The same trial, all of its tensors where the benchmarks compute."""
    there = device()
    models = {
        name: tm.Embeddings(model.images.to(there), model.texts.to(there), model.logit_scale)
        for name, model in (("weak", trial.weak), ("strong", trial.strong))
    }
    tensors = {name: getattr(trial, name).to(there) for name in ("unlabelled", "test", "labels", "base")}
    teacher = replace(trial.teacher, images=trial.teacher.images.to(there), head=trial.teacher.head.to(there))
    return replace(trial, **models, **tensors, teacher=teacher)


@torch.no_grad()
def published(trial: Trial, seed: int) -> Tensor:
    """Test logits by the published recipe: fit with a learned W, then the solve over all logits."""
    weak, strong = (trial.model(name, trial.unlabelled) for name in ("weak", "strong"))
    with torch.enable_grad():
        teacher = trial.teacher.logits(trial.unlabelled)
        adapter = published_fit(weak.images, weak.texts, weak.logit_scale, teacher, seed=seed)
    pairs = ((model.images, model.texts) for model in (weak, strong))
    rotation = published_solve(*pairs, strong.logit_scale, adapter.rotation.weight)
    return adapter(zero_shot_logits(trial.model("strong", trial.test)), rotation)[:, : trial.classes]


def ours(trial: Trial, seed: int) -> dict[str, Tensor]:
    """Test logits by fit and transfer as the commands call them; the paper's basis with the paper's lambda, too."""
    models = [trial.model(name, trial.unlabelled) for name in ("weak", "strong")]
    teacher = trial.teacher.logits(trial.unlabelled)
    paper, compact = (tm.fit(models[0], teacher, seed=seed, basis=basis) for basis in ("paper", "compact"))
    moved = {
        "paper, lambda 500": tm.transfer(paper, *models, reg=REG / len(teacher)),
        "paper": tm.transfer(paper, *models, reg=1.0),
        "compact": tm.transfer(compact, *models, reg=1.0),
        "compact, reg auto": tm.transfer(compact, *models),
        "discriminant": tm.transfer(compact, *models, "discriminant", finetuned_logits=teacher),
    }
    return {name: one.class_logits(trial.strong.images[trial.test]) for name, one in moved.items()}


def scores(trial: Trial, seed: int) -> dict[str, dict[str, float]]:
    """What each way scores on the test images."""
    strong = zero_shot_class_logits(trial.model("strong", trial.test), trial.classes)
    ways = {"strong, zero-shot": strong, "published": published(trial, seed), **ours(trial, seed)}
    return {way: trial.score(logits) for way, logits in ways.items()}


def summary(task: str, way: str, measured: Sequence[Mapping[str, float]]) -> Row:
    """Means over seeds; of base-to-novel the harmonic mean, and base and novel classes beside it."""
    hm = "HM" in measured[0]
    values = [one["HM" if hm else "all"] for one in measured]
    parts = {name: statistics.mean(one[name] for one in measured) for name in ("base", "novel") if hm}
    return {"task": task, "way": way, "top-1 %": statistics.mean(values), "std": statistics.pstdev(values), **parts}


def bench(quick: bool) -> list[Row]:
    """Every way on every task, the same seeds for all."""
    tasks: dict[str, Callable[[int], Trial]] = {"bundled digits": bundled_trial}
    if has_data("real"):
        tasks["real, all classes"] = lambda seed: Bed("real").trial(seed, "all")
        tasks["real, base-to-novel (HM)"] = lambda seed: Bed("real").trial(seed, "novel")
    rows: list[Row] = []
    for task, trial in tasks.items():
        found = [scores(on_device(trial(seed)), seed) for seed in range(1 if quick else SEEDS)]
        rows += [summary(task, way, [one[way] for one in found]) for way in found[0]]
    return rows
