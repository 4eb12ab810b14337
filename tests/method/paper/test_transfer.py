import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import random_embeddings
from tests.method.paper.test_adapter import trained_like
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.logits import standardize, zero_shot_logits
from transmiter_cli.method.paper.adapter import Adapter
from transmiter_cli.method.paper.basis import compact_basis
from transmiter_cli.method.paper.cross_moment import cross_moment
from transmiter_cli.method.paper.transfer import basis_rotations, transfer_adapters


def rotation_between(strong: Embeddings, weak: Embeddings, basis: torch.Tensor, reg: float) -> torch.Tensor:
    return basis_rotations([cross_moment(strong, weak)], basis, [reg])[0, 0]


@settings(max_examples=20)
@given(st.integers(2, 40), st.integers(3, 40), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_the_rotation_is_orthogonal(images: int, vocabulary: int, reg: float, seed: int):
    weak, strong = random_embeddings(images, vocabulary, 8, seed), random_embeddings(images, vocabulary, 12, seed + 1)
    rotation = rotation_between(strong, weak, compact_basis(weak.texts), reg)
    identity = torch.eye(len(rotation), dtype=torch.float64)
    torch.testing.assert_close(rotation.T @ rotation, identity, atol=1e-5, rtol=0)


@settings(max_examples=20)
@given(st.floats(1e-6, 1e6), st.integers(0, 1000))
def test_transfer_to_the_same_model_changes_nothing(reg: float, seed: int):
    weak = random_embeddings(30, 25, 8, seed)
    adapter = trained_like(Adapter(compact_basis(weak.texts), classes=4))
    rotation = rotation_between(weak, weak, adapter.basis, reg)
    torch.testing.assert_close(rotation, torch.eye(len(rotation), dtype=torch.float64), atol=1e-6, rtol=0)
    logits = zero_shot_logits(weak)
    moved = transfer_adapters(adapter, [cross_moment(weak, weak)], [reg])[0][0]
    torch.testing.assert_close(moved(logits), adapter(logits), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("reflect", [False, True])
def test_an_orthogonal_change_of_the_basis_coordinates_is_recovered(reflect: bool):
    """The strong model's logits are B'QB times the weak's: the transferred adapter must undo exactly that."""
    weak = random_embeddings(200, 25, 8, seed=0)
    basis = compact_basis(weak.texts)
    size = len(basis)
    turn = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(1)))[0]
    if (torch.linalg.det(turn) < 0) != reflect:
        turn[0] *= -1
    logits = zero_shot_logits(weak)
    centred = logits - logits.mean(-1, keepdim=True)
    strong_logits = centred @ basis.T @ turn @ basis
    # An encoder with these very logits: its texts are basis vectors, its images are the turned coordinates.
    # Unit norms would change rows' scale, which standardisation forgets, and columns', so texts share one norm.
    strong_texts = torch.cat([basis.T, (1 - basis.square().sum(0)).sqrt()[:, None]], 1)
    strong_images = torch.cat([centred @ basis.T @ turn, torch.zeros(200, 1)], 1)
    strong = Embeddings(strong_images, strong_texts, 1.0)
    torch.testing.assert_close(
        standardize(zero_shot_logits(strong)).logits, standardize(strong_logits).logits, atol=1e-4, rtol=1e-4
    )
    rotation = rotation_between(strong, weak, basis, 1e-9)
    torch.testing.assert_close(rotation.float(), turn.T, atol=1e-4, rtol=0)
    adapter = trained_like(Adapter(basis, classes=25))
    moved = transfer_adapters(adapter, [cross_moment(strong, weak)], [1e-9])[0][0]
    # In the weak model's coordinates, the change that the adapter makes is the same for both models.
    change = standardize(moved(zero_shot_logits(strong))).logits @ basis.T @ turn.T
    expected = standardize(adapter(logits)).logits @ basis.T
    torch.testing.assert_close(change, expected, atol=1e-3, rtol=1e-3)


def test_more_regularisation_pulls_to_the_identity():
    weak, strong = random_embeddings(50, 25, 8, 0), random_embeddings(50, 25, 12, 1)
    basis = compact_basis(weak.texts)
    distances = [
        (rotation_between(strong, weak, basis, reg) - torch.eye(len(basis), dtype=torch.float64)).norm().item()
        for reg in (1e-3, 1.0, 1e3)
    ]
    assert distances[0] > distances[1] > distances[2]


def test_many_strong_models_and_strengths_are_one_solve_and_the_same_answers():
    weak = random_embeddings(50, 25, 8, 0)
    strong = [random_embeddings(images, 25, width, width) for images, width in ((50, 12), (30, 16))]
    adapter = trained_like(Adapter(compact_basis(weak.texts), classes=4))
    regs = [0.1, 1.0, 10.0]
    moments = [cross_moment(model, weak.only(torch.arange(len(model)))) for model in strong]
    together = transfer_adapters(adapter, moments, regs)
    for moment, moved in zip(moments, together, strict=True):
        for reg, one in zip(regs, moved, strict=True):
            alone = transfer_adapters(adapter, [moment], [reg])[0][0]
            torch.testing.assert_close(one.basis, alone.basis, atol=1e-6, rtol=0)
