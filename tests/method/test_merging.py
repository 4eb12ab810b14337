import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World
from transmiter_cli.method.consensus import discriminant_transfer
from transmiter_cli.method.discriminant import Chosen, choose_discriminant, fold_moments, fold_rows, grams
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.experts import Teacher
from transmiter_cli.method.merging import CALMEST, best_threshold, blend, calming, find_lift, margins

TRAIN = slice(0, 300)


@pytest.fixture
def part(world: World) -> tuple[Embeddings, torch.Tensor, Chosen]:
    """The strong model on some images, their soft labels and the discriminant of these."""
    strong = world.part(world.strong, TRAIN)
    posterior = F.softmax(world.finetuned_logits[TRAIN].double(), -1)
    parts = fold_rows(len(strong))
    moments = fold_moments(strong, posterior, parts, grams(strong, parts))
    texts = strong.unit_texts()[: world.classes].double()
    return strong, posterior, choose_discriminant(strong, posterior, texts, parts, moments)


def share_of(classes: int, seen: int) -> torch.Tensor:
    return (torch.arange(classes) < seen).double()


@pytest.mark.parametrize("seen", [2, 3, None])
def test_nothing_is_lifted_where_no_class_can_be_left_out_or_need_be(
    part: tuple[Embeddings, torch.Tensor, Chosen], seen: int | None
):
    strong, posterior, chosen = part
    classes = posterior.shape[1]
    assert find_lift(strong, [], posterior, chosen, share_of(classes, seen or classes), -math.inf) == 0


def test_how_far_classes_without_images_are_lifted_is_judged_by_held_out_scores(
    part: tuple[Embeddings, torch.Tensor, Chosen],
):
    strong, posterior, chosen = part
    unsure = replace(strong, logit_scale=2.0)
    share = share_of(posterior.shape[1], posterior.shape[1] - 2)
    flat = replace(chosen, held_out=torch.zeros_like(chosen.held_out))
    lower, lift = (find_lift(unsure, [], posterior, one, share, -math.inf) for one in (flat, chosen))
    assert lower < lift
    assert find_lift(unsure, [], posterior, flat, share, lift) == lift


def test_scores_that_are_far_too_wide_do_not_drown_the_discriminant():
    """Every class has images; the strong model's logits are fifty times as wide as they should be."""
    world = World(3)
    wide = replace(world.part(world.strong, TRAIN), logit_scale=50 * world.strong.logit_scale)
    teacher = Teacher(world.finetuned_logits[TRAIN], world.part(world.weak, TRAIN))
    images, labels = world.strong.unit_images(slice(300, None)), world.labels[300:]
    right = []
    for model in (world.part(world.strong, TRAIN), wide):
        correction, _ = discriminant_transfer(model, [teacher])
        weight, bias = correction.fold(model.unit_texts(), model.logit_scale)
        right.append(((images @ weight.T + bias).argmax(-1) == labels).float().mean().item())
    assert right[1] > right[0] - 0.1


def test_only_scores_that_are_too_wide_are_calmed():
    posterior = F.softmax(torch.randn(200, 5, generator=torch.Generator().manual_seed(0)), -1)
    assert calming(0.9 * posterior.log(), posterior) == 1
    assert calming(10 * posterior.log(), posterior) == pytest.approx(0.1, abs=0.01)
    assert calming(-posterior.log(), posterior) == CALMEST


def test_classes_without_images_keep_the_differences_of_the_first():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(20, 5, generator=generator).double() for _ in range(2))
    mixed = blend(first, second, torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]).double())
    for classes, source in ((slice(0, 2), second), (slice(2, 5), first)):
        differences = (one[:, classes] - one[:, classes].mean(-1, keepdim=True) for one in (mixed, source))
        torch.testing.assert_close(*differences)


def test_margins_are_between_the_best_of_each_side():
    scores = torch.tensor([[1.0, 5.0, 2.0, 3.0]])
    first = torch.tensor([True, True, False, False])
    assert margins(scores, first, ~first).item() == 2


@given(
    below=st.lists(st.integers(-20, 20), min_size=1, max_size=30),
    above=st.lists(st.integers(-20, 20), min_size=1, max_size=30),
)
def test_no_threshold_has_fewer_on_the_wrong_side(below: list[int], above: list[int]):
    low, high = torch.tensor(below).double(), torch.tensor(above).double()

    def wrong(threshold: float) -> float:
        return ((low > threshold).double().mean() + (high < threshold).double().mean()).item()

    values = sorted({*below, *above})
    middles = [(a + b) / 2 for a, b in pairwise(values)] or values
    assert wrong(best_threshold(low, high)) <= min(map(wrong, middles)) + 1e-6


def test_a_gap_is_cut_in_the_middle():
    assert best_threshold(torch.tensor([-2.0, 0.0]), torch.tensor([4.0, 6.0])) == 2
