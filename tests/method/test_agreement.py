from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.method.worlds import ANSWERS, answers
from transmiter_cli.method.agreement import (
    SHARED,
    beyond_chance,
    independent_shares,
    kappa,
    named_alike,
    order_evidence,
    predictability,
)


def test_agreement_is_one_with_oneself_and_zero_by_chance():
    labels = torch.randint(5, (20_000,), generator=torch.Generator().manual_seed(0))
    model = answers(labels, 0.7, 5, 1)
    assert kappa(model, model, 5) == 1
    assert kappa(model, answers(labels, 0.0, 5, 2), 5) < 0.02
    assert kappa(model, (model + 1) % 5, 5) == 0


@given(ANSWERS)
def test_an_answer_tells_another_where_most_other_images_say_so(pairs: list[tuple[int, int]]):
    first, second = torch.tensor(pairs).T
    right = 0
    for place, (one, two) in enumerate(pairs):
        others = [b for index, (a, b) in enumerate(pairs) if a == one and index != place]
        right += others.count(two) > max((others.count(other) for other in range(4) if other != two), default=0)
    assert predictability(first, second, 4) == pytest.approx(beyond_chance(right / len(pairs), 4))


@given(ANSWERS, st.permutations(range(4)))
def test_what_an_answer_tells_does_not_depend_on_names(pairs: list[tuple[int, int]], names: list[int]):
    first, second = torch.tensor(pairs).T
    assert predictability(torch.tensor(names)[first], second, 4) == predictability(first, second, 4)


def test_mixed_up_classes_are_not_named_alike_and_those_taken_for_one_nearly_are():
    labels = torch.arange(6).repeat(300)
    model = answers(labels, 0.9, 6, 1)
    assert named_alike(model, labels, 6) == 1
    assert named_alike(model, (labels + 1) % 6, 6) == pytest.approx(SHARED / (0.9 + SHARED), abs=0.02)
    assert named_alike(labels // 3 * 3, model, 6) > 0.9
    assert named_alike(labels // 3 * 3 + 1, (labels + 1) % 6, 6) > 0.5


@given(ANSWERS)
def test_the_order_of_classes_is_compared_with_all_others(pairs: list[tuple[int, int]]):
    first, second = torch.tensor(pairs).T
    agreed = [(torch.tensor(order)[first] == second).sum() for order in permutations(range(4))]
    deviation, mean = torch.std_mean(torch.stack(agreed).double(), correction=0)
    expected = ((first == second).sum() - mean) / deviation if deviation > 1e-9 else torch.tensor(0.0)
    assert order_evidence(first, second, 4) == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 5, 19])
@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_the_evidence_for_an_order_does_not_depend_on_how_often_models_agree(classes: int, rate: float):
    labels = torch.arange(classes).repeat(5_000)
    model = answers(labels, rate, classes, 1)
    assert order_evidence(model, labels, classes) == pytest.approx(classes - 1, rel=0.05)
    assert order_evidence(model, (labels + 1) % classes, classes) < 0


def test_uneven_classes_leave_less_evidence():
    labels = torch.tensor([0] * 97 + [1, 2, 3])
    assert 1 < order_evidence(labels, labels, 4) < 3


def test_models_that_repeat_each_other_share_what_they_say():
    classes, images = 4, torch.arange(256)
    first, second = images % 4, images // 4 % 4  # of all pairs of answers, each on as many images
    assert independent_shares([first], [0.6], classes) == [1.0]
    assert independent_shares([first, second], [0.6, 0.7], classes) == [1.0, 1.0]
    assert independent_shares([first, first], [0.6, 0.6], classes) == pytest.approx([1 / 2, 1 / 2])
    assert independent_shares([first, first, second], [0.6, 0.6, 0.7], classes) == pytest.approx([1 / 2, 1 / 2, 1.0])
    half = torch.where(images // 16 % 2 == 0, first, second)  # agrees with each on 5 / 8, half of it beyond chance
    shared = (0.5 - 0.25) / (1 - 0.25)
    assert independent_shares([first, half], [0.5, 0.5], classes) == pytest.approx([1 / (1 + shared)] * 2)
