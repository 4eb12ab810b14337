"""Parts of the shared world, and answers, as tests of the method need them."""

import torch
from hypothesis import strategies as st

from tests.conftest import World
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.embeddings import Embeddings

TRAIN = slice(0, 300)
ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
"""Pairs of answers of two models, among four classes."""


def teacher_of(world: World) -> tuple[Embeddings, Teacher]:
    return world.part(world.strong, TRAIN), Teacher(world.finetuned_logits[TRAIN], world.part(world.weak, TRAIN))


def every(model: Embeddings) -> torch.Tensor:
    return torch.arange(len(model))


def mask(world: World, *unseen: int) -> torch.Tensor:
    return torch.isin(torch.arange(world.classes), torch.tensor(unseen))


def all_of(world: World) -> torch.Tensor:
    return torch.ones(world.classes, dtype=torch.bool)


def answers(labels: torch.Tensor, rate: float, classes: int, seed: int) -> torch.Tensor:
    """Answers that are right at `rate` beyond chance."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randint(classes, labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < rate, labels, wrong)
