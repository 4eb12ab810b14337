import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transmiter_cli.method.mix_up import claims, mixed_up

CLASSES = 12
LABELS = torch.arange(CLASSES).repeat_interleave(20)


def guesses(rate: float, seed: int) -> torch.Tensor:
    """Answers that are right at `rate`, and by chance."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randint(CLASSES, LABELS.shape, generator=generator)
    return torch.where(torch.rand(LABELS.shape, generator=generator) < rate, LABELS, wrong)


def renamed(order: list[int]) -> torch.Tensor:
    """Answers of a model whose column c stands for the class order[c], and that is right else."""
    return torch.tensor(order).argsort()[LABELS]


def moved(order: list[int]) -> dict[int, int]:
    """The columns that do not stand for their own class."""
    return {column: known for column, known in enumerate(order) if column != known}


@given(st.permutations(range(CLASSES)))
def test_columns_that_are_mixed_up_are_found(order: list[int]):
    wanted = moved(order)
    assert claims(renamed(order), LABELS, CLASSES) == wanted
    assert mixed_up(renamed(order), LABELS, CLASSES) == wanted


@pytest.mark.parametrize(("images", "found"), [(4, {}), (5, {3: 7, 7: 3})])
def test_two_swapped_columns_are_found_by_a_few_images_each(images: int, found: dict[int, int]):
    order = list(range(CLASSES))
    order[3], order[7] = 7, 3
    labels = torch.arange(CLASSES).repeat_interleave(images)
    assert mixed_up(torch.tensor(order)[labels], labels, CLASSES) == found


@pytest.mark.parametrize("seed", range(20))
def test_no_two_columns_look_swapped_by_chance(seed: int):
    assert mixed_up(LABELS, guesses(0.3, seed), CLASSES) == {}


@given(st.permutations(range(CLASSES)), st.integers(0, 5))
def test_what_is_said_of_columns_is_true_where_the_zero_shot_model_is_mediocre(order: list[int], seed: int):
    assert mixed_up(renamed(order), guesses(0.6, seed), CLASSES).items() <= moved(order).items()


@pytest.mark.parametrize("seed", range(5))
def test_names_sorted_as_text_where_they_were_numbers_are_found(seed: int):
    order = sorted(range(CLASSES), key=str)
    assert len(mixed_up(renamed(order), guesses(0.8, seed), CLASSES)) == 10


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_is_right_or_says_nothing_is_not_said_to_be_mixed_up(seed: int):
    zero_shot = guesses(0.6, seed)
    assert mixed_up(LABELS, zero_shot, CLASSES) == {}
    assert mixed_up(guesses(0.0, seed + 20), zero_shot, CLASSES) == {}
    assert mixed_up(LABELS // 3 * 3, zero_shot, CLASSES) == {}


@pytest.mark.parametrize(("mixed", "found"), [(9, 0), (10, 10)])
def test_less_than_a_quarter_of_the_columns_is_no_mix_up(mixed: int, found: int):
    order = torch.arange(40)
    order[:mixed] = order[:mixed].roll(1)
    labels = torch.arange(40).repeat_interleave(3)
    assert len(mixed_up(order.argsort()[labels], labels, 40)) == found


def test_a_name_that_several_columns_claim_is_nobodys():
    said = torch.tensor([0, 0, 1, 1, 2, 2])
    assert claims(said, torch.tensor([1, 1, 1, 1, 0, 0]), 3) == {2: 0}
    assert claims(said, torch.tensor([2, 2, 2, 2, 0, 0]), 3) == {2: 0}


def test_a_claim_takes_two_images_and_most_of_them():
    assert claims(torch.tensor([0, 1, 1]), torch.tensor([1, 0, 0]), 2) == {1: 0}
    assert claims(torch.tensor([0, 0, 0, 0]), torch.tensor([1, 1, 0, 0]), 2) == {}
