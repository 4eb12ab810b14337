from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import random_embeddings
from transmiter_cli.method import embeddings as embeddings_module
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.folds import fold_rows
from transmiter_cli.method.logits import standardize
from transmiter_cli.method.paper.basis import compact_basis
from transmiter_cli.method.paper.cross_moment import CrossMoment, Standardizer, cross_moment, cross_moments


def coordinates(model: Embeddings, basis: torch.Tensor) -> torch.Tensor:
    """H from the logits themselves."""
    return standardize(model.logit_scale * unit(model.images) @ unit(model.texts).T).logits @ basis.double().T


def direct(target: Embeddings, source: Embeddings, basis: torch.Tensor) -> torch.Tensor:
    """H_t'H_s from the logits themselves."""
    return coordinates(target, basis).T @ coordinates(source, basis)


def unit(rows: torch.Tensor) -> torch.Tensor:
    return F.normalize(rows.double(), dim=-1)


@settings(max_examples=20)
@given(st.integers(2, 30), st.integers(3, 40), st.integers(2, 16), st.integers(2, 16), st.integers(0, 1000))
@example(16, 3, 2, 9, 160)
def test_it_equals_the_direct_product(images: int, vocabulary: int, width_t: int, width_s: int, seed: int):
    """As nearly as float32 has each image's part of it: where these cancel, their rounding stays."""
    target = random_embeddings(images, vocabulary, width_t, seed, scale=100.0)
    source = random_embeddings(images, vocabulary, width_s, seed + 1, scale=15.0)
    for basis in (compact_basis(source.texts), torch.eye(vocabulary)):
        expected = direct(target, source, basis)
        found = cross_moment(target, source).in_basis(basis)
        parts = coordinates(target, basis).norm(dim=-1) * coordinates(source, basis).norm(dim=-1)
        assert (found - expected).norm() <= 1e-5 * parts.sum()


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_add_up_to_the_one_shot_product(block: int, monkeypatch: pytest.MonkeyPatch):
    target, source = random_embeddings(100, 30, 12, 0), random_embeddings(100, 30, 8, 1)
    basis = compact_basis(source.texts)
    whole = cross_moment(target, source).in_basis(basis)
    monkeypatch.setattr(embeddings_module, "BLOCK", block)
    assert (cross_moment(target, source).in_basis(basis) - whole).norm() <= 1e-6 * whole.norm()


def test_blocks_from_anywhere_give_the_same_moment():
    """A stream need not hold the images; their order, blocks, lengths and precision do not matter."""
    target, source = random_embeddings(100, 30, 12, 0), random_embeddings(100, 30, 8, 1)
    basis = compact_basis(source.texts)
    whole = cross_moment(target, source)
    empty = (Embeddings(model.images[:0], model.texts, model.logit_scale) for model in (target, source))
    streamed = CrossMoment(*map(Standardizer, empty))
    for rows in torch.randperm(100, generator=torch.Generator().manual_seed(2)).split(17):
        streamed.add(3 * target.images[rows].double(), source.images[rows])
    assert streamed.images == whole.images == 100
    difference = streamed.in_basis(basis) - whole.in_basis(basis)
    assert difference.norm() <= 1e-6 * whole.in_basis(basis).norm()


def test_moments_of_parts_add_up_to_that_of_all_images():
    target, source = random_embeddings(100, 30, 12, 0), random_embeddings(100, 30, 8, 1)
    whole, parts = cross_moment(target, source), cross_moments(target, source, fold_rows(100, folds=3))
    assert [part.images for part in parts] == [34, 33, 33]
    together = reduce(add, parts)
    assert together.images == 100
    torch.testing.assert_close(together.sum, whole.sum, atol=1e-6 * whole.sum.norm().item(), rtol=0)
    alone = [cross_moment(target.only(rows), source.only(rows)) for rows in fold_rows(100, folds=3)]
    for part, one in zip(parts, alone, strict=True):
        torch.testing.assert_close(part.sum, one.sum)


def test_float32_blocks_lose_less_than_the_stated_error():
    """Half-precision embeddings with a large common part, as CLIP's have, over many blocks' worth of images."""
    generator = torch.Generator().manual_seed(0)

    def clip_like(width: int) -> Embeddings:
        common = torch.randn(width, generator=generator)
        rows, texts = (common + 0.5 * torch.randn(n, width, generator=generator) for n in (20_000, 200))
        return Embeddings(unit(rows).half(), unit(texts).half(), 100.0)

    target, source = clip_like(48), clip_like(32)
    basis = compact_basis(source.texts)
    expected = direct(target, source, basis)
    assert (cross_moment(target, source).in_basis(basis) - expected).norm() <= 2e-6 * expected.norm()


def test_a_memory_mapped_tensor_larger_than_a_block_is_taken(tmp_path: Path):
    rows = random_embeddings(20_000, 30, 8, 0).images
    mapped = torch.from_file(str(tmp_path / "rows"), shared=True, size=rows.numel()).view_as(rows)
    mapped.copy_(rows)
    texts = random_embeddings(2, 30, 8, 0).texts
    whole, other = Embeddings(rows, texts, 30.0), Embeddings(mapped, texts, 30.0)
    assert torch.equal(cross_moment(whole, whole).sum, cross_moment(other, other).sum)


class Products(TorchDispatchMode):
    """Keeps the largest number of rows or columns of each matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ == "mm":
            self.sizes.append(max(args[0].shape))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("device", "blocks", "strips"), [("cpu", 5, 8), ("meta", 3, 1)])
def test_few_and_large_products_are_started_on_a_gpu(device, blocks: int, strips: int, monkeypatch: pytest.MonkeyPatch):
    """The meta device stands for any that is no CPU; it holds no values to check."""
    monkeypatch.setattr(embeddings_module, "require_finite", lambda *_: None)
    models = (random_embeddings(20_000, 30, width, 0) for width in (16, 8))
    there = [replace(model, images=model.images.to(device), texts=model.texts.to(device)) for model in models]
    with Products() as products:
        cross_moment(*there)
    assert len(products.sizes) == blocks * (2 * strips + 1)
    assert max(products.sizes) == (4096 if device == "cpu" else 8192)


def test_an_image_without_length_has_no_part():
    target, source = random_embeddings(20, 12, 6, 0), random_embeddings(20, 12, 5, 1)
    rows = torch.arange(20) != 7
    expected = cross_moment(target.only(rows.nonzero()[:, 0]), source.only(rows.nonzero()[:, 0])).sum
    found = cross_moment(*(replace(model, images=model.images * rows[:, None]) for model in (target, source))).sum
    torch.testing.assert_close(found, expected)


def test_models_on_other_images_or_words_are_refused():
    model = random_embeddings(10, 8, 4, 0)
    with pytest.raises(InvalidTensorError, match="10 and 9 images"):
        cross_moment(model, random_embeddings(9, 8, 4, 0))
    with pytest.raises(InvalidTensorError, match="8 and 7 entries"):
        cross_moment(model, random_embeddings(10, 7, 4, 0))
