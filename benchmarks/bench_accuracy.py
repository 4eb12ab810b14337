"""Accuracy of the published recipe and of ours, on the bundled task and on real CLIP embeddings where they are here.

The real ones are named by $TRANSMITER_REAL_EMBEDDINGS or lie in a data folder beside the checkout, as for tests/real.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from benchmarks.measure import Row
from benchmarks.published import REG, published_fit, published_solve
from safetensors import safe_open

import transmiter_cli as tm
from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import DataSpec, open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.method.logits import zero_shot_logits
from transmiter_cli.run import Run
from transmiter_cli.workflow.common import encode, finetuned_logits, finetuned_model
from transmiter_cli.workflow.demo import demo_run

VARIABLE, FILE = "TRANSMITER_REAL_EMBEDDINGS", "whurs19-rn50-to-b32.safetensors"
WORDS = 1005


@dataclass(frozen=True)
class Task:
    """Unlabelled images that fit and transfer see, labelled ones to measure on, and groups of classes to measure."""

    weak: tm.Embeddings
    strong: tm.Embeddings
    teacher: torch.Tensor
    test: torch.Tensor
    labels: torch.Tensor
    groups: tuple[torch.Tensor, ...]


def real_task(file: Path, seed: int, novel: bool) -> Task:
    """A random half to fit on; with `novel`, only its images of a random 10 of the 19 classes."""
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        scale = float(json.loads(opened.metadata()["bed"])["logit_scale"])
    generator = torch.Generator().manual_seed(seed)
    labels = tensors["labels"].long()
    order = torch.randperm(len(labels), generator=generator)
    train, test = order[: len(order) // 2], order[len(order) // 2 :]
    words = torch.randperm(len(tensors["weak.aux"]), generator=generator)[:WORDS]
    groups: tuple[torch.Tensor, ...] = (torch.arange(19),)
    if novel:
        classes = torch.randperm(19, generator=generator)
        groups = (classes[:10], classes[10:])
        train = train[torch.isin(labels[train], groups[0])]

    def model(name: str) -> tm.Embeddings:
        texts = torch.cat([tensors[f"{name}.text"], tensors[f"{name}.aux"][words]])
        return tm.Embeddings(tensors[f"{name}.images"][train].float(), texts.float(), scale)

    teacher = scale * tensors["finetuned.images"][train].float() @ tensors["finetuned.text"].float().T
    return Task(model("weak"), model("strong"), teacher, tensors["strong.images"][test].float(), labels[test], groups)


def bundled_task(seed: int) -> Task:
    """The demo's embeddings; test digits are only measured on."""
    with tempfile.TemporaryDirectory() as folder:
        run, workspace = Run(Path(folder) / "run"), Workspace(strict=True)
        demo_run(run, workspace, seed)
        task, words = run.task(), tm.load(run.path / "weak.safetensors").vocabulary
        models = [workspace.open(resolve_model(name)) for name in ("demo-weak", "demo-strong")]
        train, test = (open_images(DataSpec("demo-digits"), part) for part in ("train", "test"))
        weak, strong = (encode(model, train, words, task.templates).embeddings for model in models)
        teacher = finetuned_logits(finetuned_model(task, run, workspace, weak), train.files, weak)
        images = models[1].image_embeddings(test.files).rows
    return Task(weak, strong, teacher, images, torch.tensor(test.labels(task.labels)), (torch.arange(10),))


def rates(task: Task, logits: torch.Tensor) -> list[float]:
    """Top-1 in percent on each group of classes, among that group's classes."""
    found: list[float] = []
    for group in task.groups:
        rows = torch.isin(task.labels, group)
        answers = group[logits[rows][:, group].argmax(-1)]
        found.append(100 * (answers == task.labels[rows]).double().mean().item())
    return found


@torch.no_grad()
def published(task: Task, seed: int) -> torch.Tensor:
    """Test logits by the published recipe: fit with a learned W, then the solve over all logits."""
    weak, strong, classes = task.weak, task.strong, task.teacher.shape[1]
    with torch.enable_grad():
        adapter = published_fit(weak.images.float(), weak.texts.float(), weak.logit_scale, task.teacher, seed=seed)
    pairs = [(model.images.float(), model.texts.float()) for model in (weak, strong)]
    rotation = published_solve(*pairs, strong.logit_scale, adapter.rotation.weight)
    test = tm.Embeddings(task.test, strong.texts, strong.logit_scale)
    return adapter(zero_shot_logits(test), rotation)[:, :classes]


def ours(task: Task, seed: int) -> dict[str, torch.Tensor]:
    """Test logits by fit and transfer as the commands call them; the paper's basis with the paper's lambda, too."""
    paper, compact = (tm.fit(task.weak, task.teacher, seed=seed, basis=basis) for basis in ("paper", "compact"))
    models, teacher = (task.weak, task.strong), task.teacher
    moved = {
        "paper, lambda 500": tm.transfer(paper, *models, reg=REG / len(task.weak)),
        "paper": tm.transfer(paper, *models, reg=1.0),
        "compact": tm.transfer(compact, *models, reg=1.0),
        "discriminant": tm.transfer(compact, *models, "discriminant", finetuned_logits=teacher),
    }
    return {name: one.class_logits(task.test) for name, one in moved.items()}


def summary(name: str, way: str, measured: list[list[float]]) -> Row:
    """Means over seeds; with two groups, base, novel and their harmonic mean."""
    if len(measured[0]) == 1:
        values = [one[0] for one in measured]
        return {"task": name, "way": way, "top-1 %": statistics.mean(values), "std": statistics.pstdev(values)}
    means = [statistics.harmonic_mean(pair) for pair in measured]
    base, novel = (statistics.mean(pair[i] for pair in measured) for i in (0, 1))
    about = {"task": name, "way": way, "top-1 %": statistics.mean(means), "std": statistics.pstdev(means)}
    return {**about, "base": base, "novel": novel}


def bench(quick: bool) -> list[Row]:
    """Every way on every task, the same seeds for all."""
    named = os.environ.get(VARIABLE)
    beside = sorted(Path(__file__).parents[2].glob(f"*/data/{FILE}"))
    file = next((path for path in ([Path(named)] if named else beside) if path.is_file()), None)
    seeds = range(1 if quick else 3)
    tasks = {"bundled digits": [bundled_task(seed) for seed in seeds]}
    if file:
        tasks["real, all classes"] = [real_task(file, seed, novel=False) for seed in seeds]
        tasks["real, base-to-novel (HM)"] = [real_task(file, seed, novel=True) for seed in seeds]
    rows: list[Row] = []
    for name, of_seed in tasks.items():
        pairs = list(zip(seeds, of_seed, strict=True))
        strong = [
            rates(task, task.test @ task.strong.unit_texts()[: task.teacher.shape[1]].T.float()) for _, task in pairs
        ]
        rows.append(summary(name, "strong, zero-shot", strong))
        rows.append(summary(name, "published", [rates(task, published(task, seed)) for seed, task in pairs]))
        found = [{way: rates(task, logits) for way, logits in ours(task, seed).items()} for seed, task in pairs]
        rows += [summary(name, way, [one[way] for one in found]) for way in found[0]]
    return rows
