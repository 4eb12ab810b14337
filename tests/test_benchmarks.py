"""The rules that benchmarks/research.py compares still run, so that its tables can be made again."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest
import torch

from tests.conftest import World


@pytest.mark.parametrize("base", [4, 6], ids=["base-to-novel", "all classes"])
def test_every_rule_scores_every_test_image(base: int, world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    beds, rules = importlib.import_module("beds"), importlib.import_module("rules")
    heads = torch.linalg.lstsq(world.weak.images, world.finetuned_logits).solution.T
    rows = torch.arange(len(world.labels))
    trial = beds.Trial(
        weak=world.weak,
        strong=world.strong,
        teacher=beds.Teacher(world.weak.images, heads, world.weak.texts),
        unlabelled=rows[(rows % 2 == 0) & (world.labels < base)],
        test=rows[rows % 2 == 1],
        labels=world.labels,
        base=torch.arange(world.classes) < base,
    )
    for name, rule in (rules.RULES | rules.UNSEEN | rules.SELF_TRAINED).items():
        scores = trial.score(rule(trial))
        assert all(math.isfinite(score) for score in scores.values()), name
        assert scores["all"] > 100 / world.classes, name
