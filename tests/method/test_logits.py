import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import random_embeddings
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.logits import standardize, zero_shot_logits


def test_zero_shot_logits_are_scaled_cosines_whatever_the_rows_norms():
    unit = random_embeddings(5, 7, 4, seed=0)
    stretched = Embeddings(unit.images * 3.0, unit.texts * 0.5, unit.logit_scale)
    expected = 30.0 * unit.images @ unit.texts.T
    torch.testing.assert_close(zero_shot_logits(stretched), expected)


def test_chosen_rows_are_those_of_all_logits():
    embeddings = random_embeddings(5, 7, 4, seed=0)
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(zero_shot_logits(embeddings, rows), zero_shot_logits(embeddings)[rows])


@given(st.integers(0, 10_000), st.floats(0.1, 100), st.floats(-50, 50))
def test_standardized_rows_forget_scale_and_offset(seed: int, scale: float, offset: float):
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(seed))
    standard, mean, std = standardize(scale * logits + offset)
    torch.testing.assert_close(standard, standardize(logits).logits, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(standard * std + mean, scale * logits + offset, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("images", "texts", "scale", "said"),
    [
        (torch.full((3, 3), torch.nan), torch.ones(5, 3), 1.0, "image embeddings hold NaN"),
        (torch.ones(3, 3), torch.full((5, 3), torch.inf), 1.0, "text embeddings hold NaN or infinite"),
        (torch.tensor([[1.0], [-2e15], [torch.nan]]), torch.ones(5, 1), 1.0, r"values beyond 1e\+15 \(first in row 1"),
        (torch.ones(3, 3), torch.ones(5, 3), 0.0, "logit scale must be positive"),
        (torch.ones(3, 3), torch.ones(5, 3), float("inf"), "and finite, not inf"),
    ],
)
def test_what_cannot_be_worked_with_is_refused(images, texts, scale, said):
    with pytest.raises(InvalidTensorError, match=said):
        Embeddings(images, texts, scale)


def test_the_largest_numbers_that_are_taken_have_a_direction():
    model = Embeddings(torch.full((2, 4096), 9e14), torch.ones(3, 4096), 1.0)
    torch.testing.assert_close(model.unit_images(), torch.full((2, 4096), 1 / 64))
