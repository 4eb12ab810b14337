import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transmiter_cli.method.mix_up import claims, cycles, mixed_up

CLASSES = 12
LABELS = torch.arange(CLASSES).repeat_interleave(20)


def guesses(rate: float, seed: int, labels: torch.Tensor = LABELS) -> torch.Tensor:
    """Answers that are right at `rate`, and by chance."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randint(CLASSES, labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < rate, labels, wrong)


def renamed(order: list[int], labels: torch.Tensor = LABELS) -> torch.Tensor:
    """Answers of a model whose column c stands for the class order[c], and that is right else."""
    return torch.tensor(order).argsort()[labels]


@given(st.permutations(range(CLASSES)), st.integers(0, 5))
def test_all_columns_that_are_mixed_up_are_found_and_no_other(order: list[int], seed: int):
    wanted = {column: known for column, known in enumerate(order) if column != known}
    assert mixed_up(renamed(order), [guesses(0.7, seed), guesses(0.8, seed + 10)], CLASSES) == wanted


def test_names_sorted_as_text_where_they_were_numbers_are_found():
    order = sorted(range(CLASSES), key=str)
    assert mixed_up(renamed(order), [guesses(0.7, 0)], CLASSES) == {c: n for c, n in enumerate(order) if c != n}


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_is_right_or_says_nothing_is_not_said_to_be_mixed_up(seed: int):
    zero_shot = [guesses(0.6, seed), guesses(0.6, seed + 10)]
    assert mixed_up(LABELS, zero_shot, CLASSES) == {}
    assert mixed_up(guesses(0.0, seed + 20), zero_shot, CLASSES) == {}
    assert mixed_up(LABELS // 3 * 3, zero_shot, CLASSES) == {}


@pytest.mark.parametrize("few", [2, 200])
def test_a_name_that_two_classes_go_by_is_no_mix_up(few: int):
    """Images of class 0 are called 1, which has few images of its own, or many."""
    labels = torch.tensor([0] * 100 + [1] * few)
    assert mixed_up(labels, [torch.ones_like(labels)], 2) == {}


def test_classes_that_no_image_shows_are_not_told_to_be_mixed_up():
    """Images of class 0 are called 1, and those of 1 by the name of a class without images."""
    labels = torch.tensor([0] * 20 + [1] * 20)
    assert mixed_up(labels, [labels + 1], 3) == {}


def test_one_image_claims_no_name():
    said, zero_shot = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 0, 2, 2])
    assert claims(said, [zero_shot], 3) == {2: 2}
    assert claims(said.repeat(2), [zero_shot.repeat(2)], 3) == {0: 1, 1: 0, 2: 2}


def test_cycles_are_closed_where_the_last_column_claims_no_name():
    assert list(cycles({0: 0, 1: 3, 3: 4, 2: 5, 5: 2}, 7)) == [[1, 3, 4], [2, 5]]
