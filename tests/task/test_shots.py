from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transmiter_cli.errors import TransmiterError
from transmiter_cli.task.shots import choose_shots


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 50))
def test_each_class_gives_its_shots_or_all_it_has(labels: list[int], shots: int, seed: int):
    chosen = choose_shots(labels, shots, seed)
    assert chosen == sorted(set(chosen)) == choose_shots(labels, shots, seed)
    counts = Counter(labels[i] for i in chosen)
    assert counts == {label: min(shots, count) for label, count in Counter(labels).items()}


def test_all_images_without_a_number():
    assert choose_shots([1, 0, 1], None, 0) == [0, 1, 2]


def test_no_images_are_refused():
    with pytest.raises(TransmiterError, match="no labelled images"):
        choose_shots([], 4, 0)
