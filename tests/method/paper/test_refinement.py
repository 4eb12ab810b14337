import copy
import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.folds import stratified_folds
from transmiter_cli.method.logits import zero_shot_logits
from transmiter_cli.method.paper import refinement
from transmiter_cli.method.paper.adapter import Adapter
from transmiter_cli.method.paper.cross_moment import cross_moment
from transmiter_cli.method.paper.distillation import fit_adapter
from transmiter_cli.method.paper.refinement import refine_adapter, total_loss
from transmiter_cli.method.paper.transfer import transfer_adapters
from transmiter_cli.method.settings import FitSettings, RefineSettings


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
def transferred(world: World) -> Adapter:
    """An adapter that is far from good: it hardly learned anything."""
    settings = FitSettings(epochs=1, batch_size=400, learning_rate=1e-4)
    fitted = fit_adapter(world.weak, world.finetuned_logits, settings)
    return transfer_adapters(fitted, [cross_moment(world.strong, world.weak)], [1.0])[0][0]


def labelled(world: World, rows: torch.Tensor) -> tuple[Embeddings, torch.Tensor]:
    return world.strong.only(rows), world.labels[rows]


def shots(world: World, count: int) -> torch.Tensor:
    return torch.cat([(world.labels == label).nonzero()[:count, 0] for label in range(world.classes)])


def same(first: Adapter, second: Adapter) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_labels_improve_images_that_were_not_labelled(world: World, transferred: Adapter):
    rows = shots(world, 16)
    refined = refine_adapter(transferred, *labelled(world, rows), RefineSettings(learning_rate=1e-2))[0]
    rest = torch.ones(len(world.labels), dtype=torch.bool)
    rest[rows] = False
    logits = zero_shot_logits(world.strong, rest)

    def rate(adapter: Adapter) -> float:
        return (adapter(logits).argmax(-1) == world.labels[rest]).float().mean().item()

    with torch.no_grad():
        assert rate(refined) > rate(transferred) + 0.05


def test_a_refinement_that_does_not_help_is_not_taken(world: World):
    fitted = fit_adapter(world.weak, world.finetuned_logits, FitSettings(epochs=30))
    good = transfer_adapters(fitted, [cross_moment(world.strong, world.weak)], [1.0])[0][0]
    settings = RefineSettings(learning_rate=30.0, epochs=3)
    refined, epochs = refine_adapter(good, *labelled(world, shots(world, 1)), settings)
    assert epochs == 0
    assert same(refined, good)


def test_labels_of_one_class_change_nothing(world: World, transferred: Adapter):
    rows = (world.labels == 0).nonzero()[:20, 0]
    refined, epochs = refine_adapter(transferred, *labelled(world, rows), RefineSettings())
    assert epochs == 0
    assert same(refined, transferred)


def test_the_transferred_adapter_is_not_touched(world: World, transferred: Adapter):
    before = copy.deepcopy(transferred)
    refine_adapter(transferred, *labelled(world, shots(world, 8)), RefineSettings(epochs=2))
    assert same(transferred, before)


def test_the_held_out_loss_of_blocks_is_that_of_all(world: World, transferred: Adapter, monkeypatch):
    model, labels = labelled(world, torch.arange(100))
    rows = torch.arange(7, 60)
    whole = total_loss(transferred, model, labels, rows)
    monkeypatch.setattr("transmiter_cli.method.paper.refinement.block_rows", lambda width: 10)
    torch.testing.assert_close(total_loss(transferred, model, labels, rows), whole)


def test_it_trains_where_gradients_are_off(world: World, transferred: Adapter):
    """As in a service that wraps all it does in no_grad."""
    settings = RefineSettings(learning_rate=1e-2, epochs=3)
    with torch.no_grad():
        _, epochs = refine_adapter(transferred, *labelled(world, shots(world, 8)), settings)
    assert epochs > 0


def test_a_number_of_epochs_whose_held_out_loss_is_no_number_is_not_taken(
    world: World, transferred: Adapter, monkeypatch: pytest.MonkeyPatch
):
    losses = itertools.cycle([3.0, 1.0, torch.nan])
    monkeypatch.setattr(refinement, "total_loss", lambda *_: torch.tensor(next(losses)))
    assert refine_adapter(transferred, world.strong, world.labels, RefineSettings(epochs=2))[1] == 1


def test_steps_become_small_towards_the_end(world: World, transferred: Adapter):
    every = torch.arange(len(world.labels))
    path = refinement.trajectory(transferred, world.strong, world.labels, every, RefineSettings(epochs=20))
    biases = [one.correction[-1].bias.detach().clone() for one in path]
    steps = [(after - before).abs().max().item() for before, after in itertools.pairwise(biases)]
    assert steps[-1] < 0.1 * max(steps)


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 8}, {"learning_rate": 1e-4}, {"weight_decay": 0.5}, {"warmup": 0.5}, {"seed": 1}],
    ids=str,
)
def test_every_setting_is_heeded(world: World, transferred: Adapter, change: dict[str, float]):
    usual, rows = RefineSettings(epochs=3), torch.arange(100)
    first, second = (
        list(refinement.trajectory(transferred, world.strong, world.labels, rows, settings))[-1]
        for settings in (usual, replace(usual, **change))
    )
    assert not same(first, second)
