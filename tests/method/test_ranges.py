import math

import numpy as np
import pytest
import torch

from transmiter_cli.method.ranges import COUNT, SEED, Range, settings_of
from transmiter_cli.method.settings import FitSettings


@pytest.mark.parametrize("value", [0, 1.5, True, "1", None, math.nan, math.inf])
def test_a_count_is_a_whole_number_of_at_least_one(value: object):
    assert not COUNT.holds(value)
    assert COUNT.holds(1)


def test_bounds_are_within_unless_it_is_said_otherwise():
    assert Range(0, 1).holds(0)
    assert Range(0, 1).holds(1.0)
    assert not Range(0, 1, above=True).holds(0)
    assert not Range().holds(math.inf)
    assert not SEED.holds(2**63)
    assert COUNT.holds(10**400)
    assert Range(auto=True).holds("auto")
    assert not Range().holds("auto")


@pytest.mark.parametrize("wrong", [{"noise": -1.0}, {"warmup": 2.0}, {"epochs": 0}, {"seed": -1}, {"temperature": 0.0}])
def test_settings_out_of_their_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a"):
        FitSettings(**wrong)


def test_numbers_may_be_numpys_or_tensors():
    found = settings_of(FitSettings, {"epochs": np.int64(3), "noise": np.float32(0.25), "seed": torch.tensor(7)})
    assert found == FitSettings(epochs=3, noise=0.25, seed=7)
    assert all(type(value) in (int, float) for value in (found.epochs, found.noise, found.seed))


def test_ranges_are_told_in_words():
    assert str(SEED) == f"a whole number of at least 0 and at most {2**63 - 1}"
    assert str(Range(0, 1, above=True)) == "a finite number above 0 and at most 1"
