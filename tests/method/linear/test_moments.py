from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import random_embeddings
from transmiter_cli.method.folds import folds_of
from transmiter_cli.method.linear import moments as module
from transmiter_cli.method.linear.moments import fold_moments, total


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 50), st.integers(0, 1000))
def test_each_part_holds_the_direct_products_in_blocks_of_any_size(images: int, classes: int, block: int, seed: int):
    model = random_embeddings(images, 7, 5, seed)
    targets = torch.rand(images, classes, generator=torch.Generator().manual_seed(seed)).double()
    folds = folds_of(model)
    with patch.object(module, "block_rows", lambda _: block):
        found = fold_moments(model, targets, folds)
    for rows, part in zip(folds.rows, found, strict=True):
        x, p = model.unit_images(rows).double(), targets[rows]
        for one, direct in zip(vars(part).values(), (x.T @ x, p.T @ x, p.sum(0)), strict=True):
            torch.testing.assert_close(one, direct, atol=1e-5, rtol=1e-5)
            assert one.dtype is torch.float64


@settings(max_examples=20)
@given(st.integers(2, 40), st.integers(0, 1000))
def test_parts_add_up_to_all_images_and_what_is_taken_away_leaves_the_others(images: int, seed: int):
    model = random_embeddings(images, 7, 5, seed)
    targets = torch.rand(images, 3, generator=torch.Generator().manual_seed(seed)).double()
    (whole,) = fold_moments(model, targets, folds_of(model, [torch.arange(images)]))
    parts = fold_moments(model, targets, folds_of(model))
    torch.testing.assert_close(vars(total(parts)), vars(whole), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vars(whole - parts[0]), vars(total(parts[1:])), atol=1e-5, rtol=1e-5)
