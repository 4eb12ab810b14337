from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from transmiter_cli.method.merging import best_threshold, blend, margins


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
