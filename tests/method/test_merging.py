import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World
from transmiter_cli.method.consensus import discriminant_transfer
from transmiter_cli.method.discriminant import (
    Chosen,
    Moments,
    choose_discriminant,
    discriminants,
    fold_moments,
    fold_rows,
    grams,
)
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.experts import Teacher
from transmiter_cli.method.merging import CALMEST, REPEATS, best_lift, blend, calming, margins, margins_left_out, merge
from transmiter_cli.method.unseen import left_out, zero_shot

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
def test_nothing_is_left_out_where_no_class_can_be_or_need_be(
    part: tuple[Embeddings, torch.Tensor, Chosen], seen: int | None
):
    strong, posterior, chosen = part
    share = share_of(posterior.shape[1], seen or posterior.shape[1])
    assert len(margins_left_out(strong, [], posterior, chosen, share, 1.0)) == 0
    merged = merge(strong, [], posterior, chosen, share, -math.inf)
    scores = merged.classifier(strong.unit_images(chosen.rows))
    own = chosen.classifier(strong.unit_images(chosen.rows))
    if seen is None:
        torch.testing.assert_close(scores - scores.mean(-1, keepdim=True), own - own.mean(-1, keepdim=True))


@pytest.mark.parametrize("least", [-math.inf, 3.0])
def test_held_out_scores_are_merged_as_the_classifier_is(part: tuple[Embeddings, torch.Tensor, Chosen], least: float):
    strong, posterior, chosen = part
    images = strong.unit_images(chosen.rows)
    known = replace(chosen, held_out=chosen.classifier(images))
    merged = merge(strong, [], posterior, known, share_of(posterior.shape[1], posterior.shape[1] - 2), least)
    torch.testing.assert_close(merged.held_out, merged.classifier(images).double(), atol=1e-3, rtol=1e-4)


def test_margins_are_those_of_classifiers_that_know_nothing_of_the_classes_left_out(
    part: tuple[Embeddings, torch.Tensor, Chosen],
):
    """Each of them made anew, of the other images alone and as if there were only their classes and those left out."""
    strong, posterior, chosen = part
    classes, calm = posterior.shape[1], 0.7
    share = torch.tensor([1.0, 0.9, 0.8, 0.95, 0.9, 0.1]).double()
    answers, seen = posterior.argmax(-1)[chosen.rows], share > 0.5
    expected: list[float] = []
    for held in left_out(seen.nonzero().flatten(), 2, REPEATS):
        kept = torch.tensor([one for one in range(classes) if seen[one] and one not in held])
        out = torch.isin(torch.arange(classes), held)
        away = torch.isin(answers, held)
        rows = chosen.rows[~away]
        labels = posterior[rows].clone()
        labels[:, held] = 0
        labels /= labels.sum(-1, keepdim=True)
        images = strong.unit_images(rows).double()
        moments = Moments(images.T @ images, labels.T @ images, labels.sum(0))
        texts = strong.unit_texts()[:classes].double()
        own = discriminants(moments, texts, [chosen.shrinkage])[0]
        first = zero_shot(strong, classes)
        some = share.clone()
        some[held] = 0
        for image in strong.unit_images(chosen.rows[away]):
            scores = blend(calm * first(image[None]), chosen.temperature * own(image[None]), some)[0]
            expected.append(max(scores[kept].tolist()) - max(scores[out].tolist()))
    found = margins_left_out(strong, [], posterior, chosen, share, calm)
    torch.testing.assert_close(found.sort().values, torch.tensor(expected).double().sort().values, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("least", [-math.inf, 0.0])
def test_the_lift_weighs_what_is_won_against_what_images_of_other_classes_lose(
    part: tuple[Embeddings, torch.Tensor, Chosen], least: float
):
    strong, posterior, chosen = part
    strong = replace(strong, logit_scale=100.0)
    seen = torch.arange(posterior.shape[1]) < posterior.shape[1] - 2
    share, images = seen.double(), strong.unit_images(chosen.rows)
    labels = posterior[chosen.rows]
    scores = zero_shot(strong, len(seen))(images)
    calm = calming(scores, labels, seen)
    assert calm < 0.9
    before = blend(calm * scores, chosen.held_out, share)
    won = margins_left_out(strong, [], posterior, chosen, share, calm)
    lift = max(best_lift(won, before[labels.argmax(-1) < int(seen.sum())], seen), least)
    after = merge(strong, [], posterior, chosen, share, least).held_out
    torch.testing.assert_close(after - before, (lift * ~seen).double().expand_as(after), atol=1e-4, rtol=1e-4)


def test_classes_without_images_are_lifted_less_where_they_would_take_images(
    part: tuple[Embeddings, torch.Tensor, Chosen],
):
    strong, posterior, chosen = part
    strong = replace(strong, logit_scale=2.0)
    share = share_of(posterior.shape[1], posterior.shape[1] - 2)

    def bias(some: Chosen, least: float = -math.inf) -> float:
        return merge(strong, [], posterior, some, share, least).classifier.bias[-1].item()

    unsure = replace(chosen, held_out=0.1 * chosen.held_out)
    assert bias(unsure) < bias(chosen) - 0.1
    assert bias(unsure, bias(unsure) + 1) == pytest.approx(bias(unsure) + 1)


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
    every = torch.ones(5, dtype=torch.bool)
    assert calming(0.9 * posterior.log(), posterior, every) == 1
    assert calming(10 * posterior.log(), posterior, every) == pytest.approx(0.1, abs=0.01)
    for width in (1, 1e6):
        opposite = -width * posterior.log()
        assert calming(opposite, posterior, every) * opposite.std() == pytest.approx(CALMEST)


def test_how_wide_scores_are_is_seen_among_classes_with_images():
    posterior = F.softmax(torch.randn(200, 5, generator=torch.Generator().manual_seed(0)), -1)
    seen = torch.arange(5) < 3
    scores = posterior.log() + 50 * ~seen
    assert calming(10 * scores, posterior, seen) == pytest.approx(0.1, abs=0.01)
    assert calming(10 * scores, posterior, torch.arange(5) < 1) == 1


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


def of_margins(lost: Sequence[float], unseen: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of two classes with images and some without, and which are which."""
    scores = torch.zeros(len(lost), 2 + unseen, dtype=torch.float64)
    scores[:, 1] = -100
    scores[:, 2:] = -torch.tensor(lost).double()[:, None]
    return scores, torch.arange(2 + unseen) < 2


@given(
    won=st.lists(st.integers(-20, 20), min_size=1, max_size=30),
    lost=st.lists(st.integers(-20, 20), min_size=1, max_size=30),
    unseen=st.integers(1, 8),
)
def test_no_lift_has_fewer_errors(won: list[int], lost: list[int], unseen: int):
    low, high = torch.tensor(won).double(), torch.tensor(lost).double()

    def wrong(lift: float) -> float:
        return (unseen * (low > lift).double().mean() + 2 * (high < lift).double().mean()).item()

    values = sorted({*won, *lost})
    middles = [(a + b) / 2 for a, b in pairwise(values)] or values
    assert wrong(best_lift(low, *of_margins(lost, unseen))) <= min(map(wrong, middles)) + 1e-6


def test_a_gap_is_cut_in_the_middle():
    assert best_lift(torch.tensor([-2.0, 0.0]).double(), *of_margins([4, 6], 2)) == 2


def test_images_that_are_met_more_often_count_for_more():
    won = torch.tensor([0.0, 2.0]).double()
    assert best_lift(won, *of_margins([1, 3], 1)) < 1 < 2 < best_lift(won, *of_margins([1, 3], 6))


def test_nothing_is_lifted_without_images_on_both_sides():
    some, none = torch.tensor([3.0]).double(), torch.tensor([]).double()
    assert best_lift(some, *of_margins([], 2)) == best_lift(none, *of_margins([1], 2)) == 0
