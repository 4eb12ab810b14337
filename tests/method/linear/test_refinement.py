import math
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import World, random_embeddings
from transmiter_cli.method.folds import folds_of, stratified_folds
from transmiter_cli.method.linear import refinement as module
from transmiter_cli.method.linear.classifier import Linear
from transmiter_cli.method.linear.discriminant import isotropic, score_deviation
from transmiter_cli.method.linear.moments import total
from transmiter_cli.method.linear.refinement import (
    CHANCE,
    WORTHS,
    HeldOut,
    RefinedClassifier,
    calibrated_inverse_temperature,
    held_out_scores,
    labelled_moments,
    levelled_discriminant,
    most_likely,
    refine_linear,
    share_of,
)
from transmiter_cli.method.linear.ridge import ridge_moments, ridge_transfer
from transmiter_cli.method.metrics import negative_log_likelihood
from transmiter_cli.method.per_image import above_errors


def shots(world: World, count: int) -> torch.Tensor:
    return torch.cat([(world.labels == label).nonzero()[:count, 0] for label in range(world.classes)])


def rate(world: World, classifier: Linear, rows: torch.Tensor) -> float:
    answers = classifier(world.strong.unit_images(rows)).argmax(-1)
    return (answers == world.labels[rows]).float().mean().item()


def start(world: World, rho: float, factor: float = 1.0) -> Linear:
    moments = total(ridge_moments(world.strong, world.finetuned_logits, folds_of(world.strong)))
    return ridge_transfer(world.strong, moments, rho).scaled(factor)


def refined(world: World, rows: torch.Tensor, before: Linear, labels: torch.Tensor | None = None) -> RefinedClassifier:
    labelled = replace(world.strong, images=world.strong.images[rows])
    return refine_linear(labelled, world.labels[rows] if labels is None else labels, before, seed=0)


def test_labels_improve_images_that_were_not_labelled(world: World):
    rows, before = shots(world, 16), start(world, 300.0)
    after, share, _, _ = refined(world, rows, before)
    rest = torch.ones(len(world.labels), dtype=torch.bool)
    rest[rows] = False
    assert 0 < share < 1
    assert rate(world, after, rest) > rate(world, before, rest) + 0.05


@pytest.mark.parametrize("factor", [0.1, 100.0])
def test_labels_that_say_nothing_new_change_nothing(world: World, factor: float):
    """Every label is what it answers anyway, modestly or surely."""
    rows, before = shots(world, 16), start(world, 0.1, factor)
    after, share, times, _ = refined(world, rows, before, before(world.strong.unit_images(rows)).argmax(-1))
    assert share == 0
    assert times > 2 if factor == 0.1 else times == 1
    torch.testing.assert_close(after.weight, times * before.weight)
    torch.testing.assert_close(after.bias, times * before.bias)


@pytest.mark.parametrize("rho", [0.1, 300.0])
@pytest.mark.parametrize("known", [1, 2, 3])
def test_labels_of_some_classes_cost_neither_these_nor_the_others_much(world: World, known: int, rho: float):
    rows = (world.labels < known).nonzero()[:, 0][:20]
    before = start(world, rho)
    after, *_ = refined(world, rows, before)
    for those in (world.labels < known, world.labels >= known):
        chosen = those.nonzero()[:, 0]
        assert rate(world, after, chosen) >= rate(world, before, chosen) - (0.08 if known > 1 else 0)


def test_the_discriminants_scores_vary_as_far_as_those_of_the_classifier(world: World):
    """Labelled classes would else lose to the others, or win."""
    rows = shots(world, 8)
    labelled, labels = replace(world.strong, images=world.strong.images[rows]), world.labels[rows]
    (moments,) = labelled_moments(labelled, labels, world.classes, [torch.arange(len(rows))])
    for factor in (0.1, 10.0):
        before = start(world, 1.0, factor)
        found = levelled_discriminant(before, moments)
        assert score_deviation(found, moments) == pytest.approx(float(score_deviation(before, moments)))


def test_classes_without_a_label_keep_their_weights_and_the_others_their_mean(world: World):
    rows = (world.labels < 4).nonzero()[:, 0][:60]
    before = start(world, 300.0)
    after, share, factor, _ = refined(world, rows, before)
    assert (share > 0, factor) == (True, 1)
    for old, new in ((before.weight, after.weight), (before.bias, after.bias)):
        assert torch.equal(old[4:], new[4:])
        assert not torch.allclose(old[:4], new[:4])
        torch.testing.assert_close(old[:4].mean(0), new[:4].mean(0))


def test_where_a_class_has_no_label_modest_scores_stay_modest(world: World):
    rows, before = shots(world, 16), start(world, 0.1, 0.1)
    some = rows[world.labels[rows] < world.classes - 1]
    assert refined(world, rows, before).factor > 2
    assert refined(world, some, before).factor == 1


def test_labelled_images_have_beside_them_an_isotropic_one_of_each_class():
    labelled, labels = random_embeddings(23, 9, 7, 0), torch.arange(23) % 4
    parts = stratified_folds(labels, 5, 0)
    images, found = labelled.unit_images().double(), total(labelled_moments(labelled, labels, 4, parts))
    torch.testing.assert_close(found.gram - images.T @ images, 4 * isotropic(labelled), atol=1e-5, rtol=1e-5)
    assert found.mass.tolist() == labels.bincount().tolist()


def test_held_out_labels_are_told_by_a_discriminant_whose_share_is_that_of_the_images_it_saw(world: World):
    rows, before = shots(world, 3)[:17], start(world, 300.0)
    labelled, labels = world.strong.only(rows), world.labels[rows]
    with patch.object(module, "held_out_scores", wraps=held_out_scores) as scores:
        refined(world, rows, before)
    parts = stratified_folds(labels, 5, 0)
    moments = labelled_moments(labelled, labels, world.classes, parts)
    for worth, call in zip(WORTHS, scores.call_args_list, strict=False):
        for part, own, classifier in zip(parts, moments, call.args[2], strict=True):
            count = len(labels) - len(part)
            found = levelled_discriminant(before, total(moments) - own)
            expected = before.towards(found, count / (count + worth * world.classes))
            torch.testing.assert_close(classifier.weight, expected.weight)
            torch.testing.assert_close(classifier.bias, expected.bias)


def nll_of(held_out: HeldOut) -> float:
    return negative_log_likelihood(*held_out)


def nll(world: World, classifier: Linear, rows: torch.Tensor) -> float:
    return negative_log_likelihood(classifier(world.strong.unit_images(rows)), world.labels[rows])


@pytest.mark.parametrize("count", [1, 2, 8, 30])
@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("rho", [0.1, 300.0])
def test_calibration_never_costs_likelihood(world: World, rho: float, factor: float, count: int):
    rows = shots(world, count)
    rest = torch.ones(len(world.labels), dtype=torch.bool)
    rest[rows] = False
    chosen = rest.nonzero()[:, 0]
    after, _, times, _ = refined(world, rows, start(world, rho, factor))
    as_wide_as_before = after.scaled(1 / times)
    assert nll(world, after, chosen) < nll(world, as_wide_as_before, chosen) + 0.01
    if count == 30 and factor == 0.1:
        assert nll(world, after, chosen) < 0.5 * nll(world, as_wide_as_before, chosen)


def test_labels_that_all_contradict_the_scores_leave_their_order(world: World):
    rows, before = shots(world, 16), start(world, 0.1)
    labels = before(world.strong.unit_images(rows)).argmin(-1)
    for wide in (1.0, 1e9):
        refined_to = refined(world, rows, before.scaled(wide), labels).classifier
        assert bool((refined_to.weight.abs().sum(-1) > 0).all())
    after = refined(world, rows, before, labels).classifier
    assert len(after(world.strong.unit_images(rows)).argmax(-1).unique()) > 1


def test_of_more_labels_than_are_looked_at_each_class_has_its_share(world: World, monkeypatch: pytest.MonkeyPatch):
    """Folds list images by class. The last class is always told wrongly, so the scores must become modest."""
    monkeypatch.setattr("transmiter_cli.method.linear.refinement.JUDGED", 60)
    rows, right = shots(world, 30), start(world, 0.1)
    bias = right.bias - 1e3 * F.one_hot(torch.tensor(world.classes - 1), world.classes)
    labelled, parts = world.strong.only(rows), stratified_folds(world.labels[rows], 5, 0)
    held_out = held_out_scores(labelled, world.labels[rows], [Linear(right.weight, bias)] * 5, parts)
    factor = calibrated_inverse_temperature(held_out)
    assert factor < 0.1


@settings(max_examples=15)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 12))
def test_the_more_it_counts_the_nearer_it_stays(seed: int, count: int):
    world = World(seed % 5, images=200)
    rows, before = shots(world, count), start(world, 1.0)
    labelled, labels = replace(world.strong, images=world.strong.images[rows]), world.labels[rows]
    parts = stratified_folds(labels, 5, seed)
    moments = labelled_moments(labelled, labels, world.classes, parts)
    found = levelled_discriminant(before, total(moments))
    mixed = [before.towards(found, share_of(len(labels), worth, world.classes)) for worth in WORTHS]
    moved = [(one.weight - before.weight).norm().item() for one in mixed]
    assert moved[0] == 0
    assert moved == sorted(moved)


@pytest.mark.parametrize(
    ("gained", "lost", "found"),
    [(0, 0, False), (1, 0, False), (3, 0, False), (4, 0, True), (6, 2, False), (9, 1, True)],
)
def test_a_few_answers_more_may_be_chance(gained: int, lost: int, found: bool):
    differences = torch.zeros(100)
    differences[:gained], differences[50 : 50 + lost] = 1, -1
    assert above_errors(differences, CHANCE) is found


def told(answers: int, margin: float) -> HeldOut:
    """Of a hundred images of two classes, so many are answered rightly, all by the same margin."""
    labels = torch.arange(100) % 2
    wrong = torch.arange(100) >= answers
    return HeldOut(margin * F.one_hot(labels ^ wrong.long(), 2).double(), labels)


def test_of_labels_that_are_all_told_no_rarer_error_than_one_more_is_excluded():
    losses = told(100, 3.0).losses()
    torch.testing.assert_close(losses, torch.full((100,), -math.log(1 - 0.5 / 101)).double(), atol=1e-4, rtol=0)


def test_of_several_the_one_that_makes_labels_likeliest_is_taken_however_sure_it_is():
    """As they are, without calibration, the scores of the last ones are likelier than those of the best."""
    answers = dict(zip(WORTHS, (70, 72, 80, 90, 85, 80), strict=True))
    margin = dict(zip(WORTHS, (0.1, 0.1, 0.1, 0.1, 1.0, 1.0), strict=True))
    plain = {worth: nll_of(told(answers[worth], margin[worth])) for worth in WORTHS}
    assert min(plain, key=lambda worth: plain[worth]) == 3.0
    assert most_likely(lambda worth: told(answers[worth], margin[worth]))[0] == 10.0


@pytest.mark.parametrize(("answers", "found"), [(81, math.inf), (83, math.inf), (86, 1.0)])
def test_likelihood_must_rise_beyond_chance(answers: int, found: float):
    assert most_likely(lambda worth: told(answers if worth == 1.0 else 80, 1.0))[0] == found


@pytest.mark.parametrize("below", [10.0, 1e3, 1e6])
def test_classes_without_a_label_have_no_say_in_how_sure_scores_are(below: float):
    """However far below the others their scores lie."""
    answers = dict(zip(WORTHS, (70, 72, 80, 90, 85, 80), strict=True))

    def held_out(worth: float) -> HeldOut:
        scores, labels = told(answers[worth], 1.0)
        return HeldOut(torch.cat([scores, torch.full((100, 1), -below).double()], 1), labels)

    assert most_likely(held_out)[0] == 10.0


def test_where_fewer_answers_are_right_nothing_changes():
    """The labels are likelier, though: wrong answers are hardly wrong."""
    labels = torch.arange(100) % 2
    sure, unsure = torch.full((100,), 4.0), torch.full((100,), 4.0)
    sure[:20], unsure[:25] = -4.0, -0.01

    def held_out(worth: float) -> HeldOut:
        margin = sure if worth == math.inf else unsure
        return HeldOut(margin[:, None].double() * F.one_hot(labels, 2), labels)

    assert held_out(1.0).losses().mean() < held_out(math.inf).losses().mean() - 0.1
    assert most_likely(held_out)[0] == math.inf


def test_one_label_per_class_and_one_label_in_all_do_not_hurt(world: World):
    everything, before = torch.arange(len(world.labels)), start(world, 0.1)
    for rows in (shots(world, 1), torch.tensor([0])):
        after, *_ = refined(world, rows, before)
        assert rate(world, after, everything) >= rate(world, before, everything) - 0.01


def test_zero_shot_takes_the_place_of_what_is_clearly_worse_where_each_class_has_a_label(world: World):
    """What was transferred answers each class by the name of the next."""
    zero_shot = Linear.zero_shot(world.strong, world.classes)
    useless = Linear(zero_shot.weight.roll(1, 0), zero_shot.bias)
    everything = torch.arange(len(world.labels))
    found = refined(world, shots(world, 1), useless)
    assert found.zero_shot
    assert rate(world, found.classifier, everything) >= rate(world, zero_shot, everything)
    some = shots(world, 1)
    assert not refined(world, some[world.labels[some] > 0], useless).zero_shot
    assert not refined(world, shots(world, 1), zero_shot).zero_shot


def test_images_that_are_all_the_same_give_numbers(world: World):
    labelled = replace(world.strong, images=world.strong.images[:1].expand(12, -1))
    after, *_ = refine_linear(labelled, torch.arange(12) % 2, start(world, 0.1), seed=0)
    assert bool(after.weight.isfinite().all())


def test_labels_that_contradict_scores_of_any_width_leave_a_factor_above_zero():
    model, labels = random_embeddings(40, 3, 6, 0), torch.arange(40) % 2
    weight = torch.linalg.lstsq(model.unit_images().double(), 1e7 * F.one_hot(1 - labels, 2).double()).solution.T
    wrong = Linear(weight, torch.zeros(2).double())
    held_out = held_out_scores(model, labels, [wrong] * 2, [torch.arange(20), torch.arange(20, 40)])
    assert calibrated_inverse_temperature(held_out) > 0


def test_a_held_out_answer_that_a_class_without_a_label_takes_is_wrong():
    """Two of six classes have labels, which tell them apart; but the others win most of their images."""
    world = World(0)
    plain, known = start(world, 30.0), world.labels < 2
    before = Linear(plain.weight, plain.bias + 6 * (torch.arange(6) >= 2))
    rows = shots(world, 16)[:32]
    known[rows] = False
    after, *_ = refined(world, rows, before)
    assert rate(world, after, known) >= rate(world, before, known)
