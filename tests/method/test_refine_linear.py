import math

import pytest
import torch

from tests.conftest import World
from transmiter_cli.method.refine_linear import CHANCE, above_errors, refine_linear
from transmiter_cli.method.ridge import ridge_transfer


def shots(world: World, count: int) -> torch.Tensor:
    return torch.cat([(world.labels == label).nonzero()[:count, 0] for label in range(world.classes)])


def rate(world: World, weight: torch.Tensor, bias: torch.Tensor, rows: torch.Tensor) -> float:
    answers = (world.strong.unit_images(rows) @ weight.T + bias).argmax(-1)
    return (answers == world.labels[rows]).float().mean().item()


def start(world: World, rho: float) -> tuple[torch.Tensor, torch.Tensor]:
    correction = ridge_transfer(world.strong, world.finetuned_logits, rho)
    weight, bias = correction.fold(world.strong.unit_texts(), world.strong.logit_scale)
    return weight.detach(), bias.detach()


def test_labels_improve_images_that_were_not_labelled(world: World):
    rows, before = shots(world, 16), start(world, 300.0)
    weight, bias, penalty = refine_linear(world.strong.unit_images(rows), world.labels[rows], *before, 20.0, seed=0)
    rest = torch.ones(len(world.labels), dtype=torch.bool)
    rest[rows] = False
    assert math.isfinite(penalty)
    assert rate(world, weight, bias, rest) > rate(world, *before, rest) + 0.05


def test_labels_that_say_nothing_new_change_nothing(world: World):
    rows, (weight, bias) = shots(world, 4), start(world, 0.1)
    before = (100 * weight, 100 * bias)  # certain of its answers
    answers = (world.strong.unit_images(rows) @ weight.T + bias).argmax(-1)
    *after, penalty = refine_linear(world.strong.unit_images(rows), answers, *before, 20.0, seed=0)
    assert math.isinf(penalty)
    torch.testing.assert_close(tuple(after), before)


def test_a_classifier_that_is_only_too_modest_stays_as_it_is(world: World):
    """Every label is what it answers anyway; cross-entropy would fall if it were surer."""
    rows, (weight, bias) = shots(world, 16), start(world, 0.1)
    answers = (world.strong.unit_images(rows) @ weight.T + bias).argmax(-1)
    *_, penalty = refine_linear(world.strong.unit_images(rows), answers, 0.1 * weight, 0.1 * bias, 20.0, seed=0)
    assert math.isinf(penalty)


@pytest.mark.parametrize("known", [1, 2])
def test_classes_without_a_label_keep_most_of_their_images(world: World, known: int):
    rows = (world.labels < known).nonzero()[:, 0][:20]
    before = start(world, 300.0)
    images = world.strong.unit_images(rows)
    *after, _ = refine_linear(images, world.labels[rows], *before, 20.0, seed=0)
    others = (world.labels >= known).nonzero()[:, 0]
    assert rate(world, *after, others) >= rate(world, *before, others) - (0.08 if known > 1 else 0)


@pytest.mark.parametrize(
    ("gained", "lost", "found"),
    [(0, 0, False), (1, 0, False), (2, 0, False), (3, 0, True), (5, 3, False), (9, 1, True)],
)
def test_a_few_answers_more_may_be_chance(gained: int, lost: int, found: bool):
    differences = torch.zeros(100)
    differences[:gained], differences[50 : 50 + lost] = 1, -1
    assert bool(above_errors(differences, CHANCE)) is found


def test_one_label_per_class_and_one_label_in_all_do_not_hurt(world: World):
    everything, before = torch.arange(len(world.labels)), start(world, 0.1)
    for rows in (shots(world, 1), torch.tensor([0])):
        images = world.strong.unit_images(rows)
        weight, bias, _ = refine_linear(images, world.labels[rows], *before, 20.0, seed=0)
        assert rate(world, weight, bias, everything) >= rate(world, *before, everything) - 0.01
