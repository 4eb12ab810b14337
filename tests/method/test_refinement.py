import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World
from transmiter_cli.method.logits import zero_shot_logits
from transmiter_cli.method.refinement import RefineSettings, refine_correction, stratified_folds
from transmiter_cli.method.ridge import LinearCorrection, ridge_transfer


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(2, 6), st.integers(0, 100))
def test_folds_are_disjoint_complete_and_stratified(labels: list[int], folds: int, seed: int):
    tensor = torch.tensor(labels)
    parts = stratified_folds(tensor, folds, seed)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    for label in set(labels):
        counts = [int((tensor[part] == label).sum()) for part in parts]
        counts += [0] * (folds - len(parts))
        assert max(counts) - min(counts) <= 1


@pytest.fixture(scope="module")
def weakly_transferred(world: World) -> LinearCorrection:
    """A correction that is far from good: strong regularisation leaves most of it out."""
    return ridge_transfer(world.strong, world.finetuned_logits, rho=300.0)


def forward_on(world: World):
    logits = zero_shot_logits(world.strong)
    return lambda module, rows: module(logits[rows], world.strong.images[rows])


def test_labels_improve_images_that_were_not_labelled(world: World, weakly_transferred: LinearCorrection):
    rows = torch.cat([(world.labels == label).nonzero()[:16, 0] for label in range(world.classes)])
    logits = zero_shot_logits(world.strong)

    def forward(module, chosen):
        return module(logits[rows[chosen]], world.strong.images[rows[chosen]])

    settings = RefineSettings(learning_rate=0.1)
    refined = refine_correction(weakly_transferred, forward, world.labels[rows], settings)[0]
    rest = torch.ones(len(world.labels), dtype=torch.bool)
    rest[rows] = False

    def rate(module) -> float:
        return (module(logits[rest], world.strong.images[rest]).argmax(-1) == world.labels[rest]).float().mean().item()

    with torch.no_grad():
        assert rate(refined) > rate(weakly_transferred) + 0.05


def test_a_refinement_that_does_not_help_is_not_taken(world: World):
    good = ridge_transfer(world.strong, world.finetuned_logits, rho=0.1)
    forward = forward_on(world)
    rows = torch.cat([(world.labels == label).nonzero()[:1, 0] for label in range(world.classes)])
    settings = RefineSettings(learning_rate=30.0, epochs=3)
    refined, epochs = refine_correction(
        good, lambda module, chosen: forward(module, rows[chosen]), world.labels[rows], settings
    )
    assert epochs == 0
    assert torch.equal(refined.weight, good.weight)


def test_labels_of_one_class_change_nothing(world: World, weakly_transferred: LinearCorrection):
    rows, forward = (world.labels == 0).nonzero()[:20, 0], forward_on(world)
    refined, epochs = refine_correction(
        weakly_transferred, lambda module, chosen: forward(module, rows[chosen]), world.labels[rows], RefineSettings()
    )
    assert epochs == 0
    assert torch.equal(refined.weight, weakly_transferred.weight)


def test_the_transferred_correction_is_not_touched(world: World, weakly_transferred: LinearCorrection):
    before = weakly_transferred.weight.clone()
    refine_correction(weakly_transferred, forward_on(world), world.labels, RefineSettings(epochs=2))
    assert torch.equal(weakly_transferred.weight, before)
