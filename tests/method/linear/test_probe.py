from dataclasses import replace

import torch

from tests.conftest import World
from transmiter_cli.method.linear.probe import linear_probe


def rate(weight: torch.Tensor, world: World, rows: slice) -> float:
    answers = (world.weak.unit_images(rows) @ weight.T).argmax(-1)
    return (answers == world.labels[rows]).float().mean().item()


def test_it_beats_the_zero_shot_classifier_on_images_it_has_not_seen(world: World):
    train, test = slice(0, 300), slice(300, None)
    weight = linear_probe(world.part(world.weak, train), world.labels[train], world.classes, seed=0)
    assert weight.shape == (world.classes, 32)
    assert rate(weight, world, test) > rate(world.weak.unit_texts()[: world.classes], world, test) + 0.1


def test_a_strong_penalty_leaves_the_zero_shot_classifier(world: World):
    weight = linear_probe(world.weak, world.labels, world.classes, seed=0, strengths=[1e6])
    expected = world.weak.logit_scale * world.weak.unit_texts()[: world.classes]
    torch.testing.assert_close(weight, expected, atol=1e-3, rtol=1e-3)


def test_a_class_without_images_gets_a_finite_classifier(world: World):
    rows = (world.labels != 2).nonzero()[:, 0]
    part = type(world.weak)(world.weak.images[rows], world.weak.texts, world.weak.logit_scale)
    weight = linear_probe(part, world.labels[rows], world.classes, seed=0)
    assert torch.isfinite(weight).all()


def test_the_penalty_is_chosen_on_images_that_training_has_not_seen(world: World):
    """Labels at random can be learned, and say nothing of others: the least penalty would be the best of them."""
    weak, labels = world.weak, torch.randint(6, (60,), generator=torch.Generator().manual_seed(7))
    weak = replace(weak.only(torch.arange(60)), logit_scale=1.0)
    chosen, loose = (linear_probe(weak, labels, 6, 0, strengths) for strengths in ((10.0, 1e-4), (1e-4,)))
    far, farther = (torch.linalg.norm(weight - weak.classifier(6)) for weight in (chosen, loose))
    assert far < farther / 3
