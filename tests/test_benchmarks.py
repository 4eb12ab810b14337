"""The benchmarks still run, so that the tables of docs/ can be made again."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.conftest import World

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
NEEDS_TOOLS = {"handwriting"}
"""Modules that need packages of the extra "tools"."""


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT)


def trial(world: World, base: int):
    """A world as one trial of the benchmarks."""
    beds = import_module("benchmarks.beds")
    head = torch.linalg.lstsq(world.weak.images, world.finetuned_logits).solution.T
    rows = torch.arange(len(world.labels))
    return beds.Trial(
        weak=world.weak,
        strong=world.strong,
        teacher=beds.Teacher(world.weak.images, head, world.weak.texts),
        unlabelled=rows[(rows % 2 == 0) & (world.labels < base)],
        test=rows[rows % 2 == 1],
        labels=world.labels,
        base=torch.arange(world.classes) < base,
    )


@pytest.mark.parametrize("name", [name for name in MODULES if name not in NEEDS_TOOLS])
def test_every_module_can_be_imported(name: str):
    assert isinstance(import_module(f"benchmarks.{name}"), ModuleType)


def test_every_subject_has_a_module():
    subjects = import_module("benchmarks.run").SUBJECTS
    assert {f"bench_{name}" for name in subjects} == {name for name in MODULES if name.startswith("bench_")}


@pytest.mark.parametrize("base", [4, 6], ids=["base-to-novel", "all classes"])
def test_every_rule_scores_every_test_image(base: int, world: World):
    rules = import_module("benchmarks.rules")
    task = trial(world, base)
    for name, rule in (rules.RULES | rules.UNSEEN | rules.SELF_TRAINED).items():
        scores = task.score(rule(task))
        assert all(math.isfinite(score) for score in scores.values()), name
        assert scores["all"] > 100 / world.classes, name


def test_accuracy_compares_the_published_recipe_with_ours(world: World):
    accuracy = import_module("benchmarks.bench_accuracy")
    found = accuracy.scores(trial(world, 4), 0)
    assert {"strong, zero-shot", "published", "paper", "compact", "discriminant"} <= {*found}
    rows = [accuracy.summary("world", way, [scores, scores]) for way, scores in found.items()]
    assert all(0 < row["novel"] <= 100 and row["std"] == 0 for row in rows)
