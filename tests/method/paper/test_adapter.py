import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import random_embeddings
from transmiter_cli.method.logits import zero_shot_logits
from transmiter_cli.method.paper.adapter import Adapter, with_basis
from transmiter_cli.method.paper.basis import compact_basis


def trained_like(adapter: Adapter, seed: int = 0) -> Adapter:
    """The adapter with some last layer that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        last = adapter.correction[-1].weight
        last.copy_(0.1 * torch.randn(last.shape, generator=generator))
    return adapter


@settings(max_examples=20)
@given(st.integers(3, 50), st.integers(2, 16), st.integers(0, 1000))
def test_a_fresh_adapter_is_the_identity(vocabulary: int, width: int, seed: int):
    embeddings = random_embeddings(8, vocabulary, width, seed)
    logits = zero_shot_logits(embeddings)
    adapter = Adapter(compact_basis(embeddings.texts), classes=2)
    torch.testing.assert_close(adapter(logits), logits[:, :2], atol=1e-5, rtol=1e-5)


def test_a_trained_adapter_is_not():
    embeddings = random_embeddings(8, 20, 6, seed=0)
    logits = zero_shot_logits(embeddings)
    adapter = trained_like(Adapter(compact_basis(embeddings.texts), classes=5))
    assert (adapter(logits) - logits[:, :5]).abs().max() > 0.1


def test_another_basis_shares_nothing_with_the_original():
    first = trained_like(Adapter(torch.eye(6), classes=3))
    second = with_basis(first, torch.eye(6))
    with torch.no_grad():
        second.correction[-1].weight.zero_()
    assert first.correction[-1].weight.abs().max() > 0


def test_an_adapter_shares_no_memory_with_the_basis_it_is_made_of():
    basis = torch.eye(6)
    torch.nn.init.zeros_(Adapter(basis, classes=3).basis)
    assert basis.any()
