"""Parts of the shared world, as tests of classes without images need them."""

import torch

from tests.conftest import World
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.experts import Teacher

TRAIN = slice(0, 300)


def teacher_of(world: World) -> tuple[Embeddings, Teacher]:
    return world.part(world.strong, TRAIN), Teacher(world.finetuned_logits[TRAIN], world.part(world.weak, TRAIN))


def every(model: Embeddings) -> torch.Tensor:
    return torch.arange(len(model))


def mask(world: World, *unseen: int) -> torch.Tensor:
    return torch.isin(torch.arange(world.classes), torch.tensor(unseen))


def all_of(world: World) -> torch.Tensor:
    return torch.ones(world.classes, dtype=torch.bool)
