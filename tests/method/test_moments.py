import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import random_embeddings
from transmiter_cli.method import embeddings as embeddings_module
from transmiter_cli.method.basis import compact_basis
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.logits import standardize, zero_shot_logits
from transmiter_cli.method.moments import cross_moment


def direct(target: Embeddings, source: Embeddings, basis: torch.Tensor) -> torch.Tensor:
    """H_t'H_s from the logits themselves."""
    first, second = (
        standardize(zero_shot_logits(model)).logits.double() @ basis.double().T for model in (target, source)
    )
    return first.T @ second


@settings(max_examples=20)
@given(st.integers(2, 30), st.integers(3, 40), st.integers(2, 16), st.integers(2, 16), st.integers(0, 1000))
def test_it_equals_the_direct_product(images: int, vocabulary: int, width_t: int, width_s: int, seed: int):
    target = random_embeddings(images, vocabulary, width_t, seed, scale=100.0)
    source = random_embeddings(images, vocabulary, width_s, seed + 1, scale=15.0)
    for basis in (compact_basis(source.texts), torch.eye(vocabulary)):
        expected = direct(target, source, basis)
        torch.testing.assert_close(cross_moment(target, source, basis), expected, atol=1e-4 * images, rtol=1e-5)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_add_up_to_the_one_shot_product(block: int, monkeypatch: pytest.MonkeyPatch):
    target, source = random_embeddings(100, 30, 12, 0), random_embeddings(100, 30, 8, 1)
    basis = compact_basis(source.texts)
    whole = cross_moment(target, source, basis)
    monkeypatch.setattr(embeddings_module, "BLOCK", block)
    torch.testing.assert_close(cross_moment(target, source, basis), whole, atol=1e-9, rtol=1e-12)


def test_the_order_of_the_images_changes_nothing():
    target, source = random_embeddings(100, 30, 12, 0), random_embeddings(100, 30, 8, 1)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(2))
    basis = compact_basis(source.texts)
    shuffled = cross_moment(
        Embeddings(target.images[order], target.texts, target.logit_scale),
        Embeddings(source.images[order], source.texts, source.logit_scale),
        basis,
    )
    torch.testing.assert_close(shuffled, cross_moment(target, source, basis), atol=1e-9, rtol=1e-12)


def test_models_on_other_images_or_words_are_refused():
    model = random_embeddings(10, 8, 4, 0)
    basis = compact_basis(model.texts)
    with pytest.raises(InvalidTensorError, match="10 and 9 images"):
        cross_moment(model, random_embeddings(9, 8, 4, 0), basis)
    with pytest.raises(InvalidTensorError, match="8 and 7 entries"):
        cross_moment(model, random_embeddings(10, 7, 4, 0), basis)
