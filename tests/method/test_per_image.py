from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import random_embeddings
from transmiter_cli.method import embeddings as embeddings_module
from transmiter_cli.method.per_image import (
    Computed,
    PerImage,
    blocks_of,
    computed_zero_shot_logits,
    predictions,
    probabilities,
    softmax_of,
    zero_shot_class_logits,
)

ROWS = [slice(3, 9), torch.tensor([5, 0, 5]), slice(None)]


@pytest.mark.parametrize("rows", ROWS)
def test_computed_logits_are_the_logits(rows: slice | torch.Tensor):
    model = random_embeddings(20, 9, 5, 0)
    whole = zero_shot_class_logits(model, 4)
    computed = computed_zero_shot_logits(model, 4)
    assert tuple(computed.shape) == tuple(whole.shape)
    torch.testing.assert_close(computed[rows], whole[rows])
    torch.testing.assert_close(softmax_of(computed)[rows], F.softmax(whole[rows], -1))


def test_a_tensor_and_what_computes_it_are_both_numbers_per_image():
    whole = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert isinstance(whole, PerImage)
    assert isinstance(Computed((6, 3), lambda rows: whole[rows]), PerImage)


@pytest.mark.parametrize("images", [1, 7, 8, 30])
def test_answers_look_at_a_block_at_a_time(images: int):
    whole = torch.randn(images, 2048, generator=torch.Generator().manual_seed(images))
    seen: list[int] = []

    def rows_of(rows: slice | torch.Tensor) -> torch.Tensor:
        seen.append(len(whole[rows]))
        return whole[rows]

    with patch.object(embeddings_module, "BLOCK", 8):
        assert torch.equal(predictions(Computed((images, 2048), rows_of)), whole.argmax(-1))
        assert [rows.stop - rows.start for rows in blocks_of(whole)] == seen
    assert sum(seen) == images
    assert max(seen) <= 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_probabilities_have_single_precision_at_least(dtype: torch.dtype):
    logits = torch.tensor([[1000.0, 999.0], [0.0, -60000.0]], dtype=dtype)
    found = probabilities(logits)
    assert found.dtype == (dtype if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, dtype=found.dtype))
