from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import World, random_embeddings
from transmiter_cli.method import embeddings
from transmiter_cli.method.embeddings import InvalidTensorError
from transmiter_cli.method.logits import zero_shot_logits
from transmiter_cli.method.paper import distillation, learned_basis
from transmiter_cli.method.paper.distillation import (
    add_noise,
    cosine_with_warmup,
    distillation_loss,
    fit_adapter,
    new_adapter,
    schedule_batches,
    train,
)
from transmiter_cli.method.paper.learned_basis import LearnedBasis
from transmiter_cli.method.settings import FitSettings


def test_the_loss_is_the_divergence_from_the_sharpened_teacher():
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    p, log_q = F.softmax(teacher / 0.5, -1), F.log_softmax(student, -1)
    expected = 0.5 * (p * (p.log() - log_q)).sum(-1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, 0.5), expected)
    assert distillation_loss(teacher / 0.5, teacher, 0.5).abs() < 1e-6


@pytest.mark.parametrize("basis", ["compact", "paper"])
def test_the_adapter_learns_the_fine_tuned_answers_on_images_it_has_not_seen(world: World, basis):
    train, test = slice(0, 300), slice(300, None)
    settings = FitSettings(basis=basis, batch_size=32)
    adapter = fit_adapter(world.part(world.weak, train), world.finetuned_logits[train], settings)
    logits = zero_shot_logits(world.part(world.weak, test))

    def rate(answers: torch.Tensor) -> float:
        return (answers.argmax(-1) == world.labels[test]).float().mean().item()

    with torch.no_grad():
        assert rate(adapter(logits)) > rate(logits[:, : world.classes]) + 0.1


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(world: World):
    first, second, third = (
        fit_adapter(world.weak, world.finetuned_logits, FitSettings(epochs=1, seed=seed)).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize(
    "change",
    [
        *({"basis": "paper"}, {"epochs": 2}, {"batch_size": 64}, {"learning_rate": 1e-4}, {"weight_decay": 0.5}),
        *({"temperature": 1.0}, {"noise": 0.1}, {"noise_rate": 0.0}, {"warmup": 0.5}),
    ],
    ids=str,
)
def test_every_setting_is_heeded(world: World, change: dict[str, Any]):
    usual = FitSettings(epochs=1)
    first, second = (
        fit_adapter(world.weak, world.finetuned_logits, settings).correction.state_dict()
        for settings in (usual, replace(usual, **change))
    )
    assert any(first[name].shape != second[name].shape or not torch.equal(first[name], second[name]) for name in first)


def test_each_step_goes_by_the_gradient_of_its_own_batch(world: World):
    fitted = fit_adapter(world.weak, world.finetuned_logits, FitSettings(epochs=1))
    assert all(parameter.grad is None for parameter in fitted.parameters()), "none is left to add to"


def test_fitting_leaves_the_global_random_state_alone(world: World):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit_adapter(world.weak, world.finetuned_logits, FitSettings(epochs=1))
    assert torch.equal(torch.rand(1), expected)


def test_each_epoch_visits_every_image_once():
    rows = [batch.rows for batch in schedule_batches(10, FitSettings(epochs=2, batch_size=4))]
    assert [len(part) for part in rows] == [4, 4, 2, 4, 4, 2]
    assert sorted(torch.cat(rows[:3]).tolist()) == list(range(10))
    assert torch.cat(rows[:3]).tolist() != torch.cat(rows[3:]).tolist()


def test_noise_comes_at_its_rate():
    def rate(**settings: float) -> float:
        batches = schedule_batches(4000, FitSettings(batch_size=1, epochs=1, **settings))
        return sum(batch.noisy for batch in batches) / len(batches)

    assert rate(noise_rate=0.3) == pytest.approx(0.3, abs=0.03)
    assert rate(noise=0.0) == 0


def test_the_learned_basis_is_learned_and_orthogonal(world: World):
    basis = fit_adapter(world.weak, world.finetuned_logits, FitSettings(basis="paper", batch_size=32)).basis
    identity = torch.eye(len(basis))
    assert (basis - identity).abs().max() > 1e-2
    torch.testing.assert_close(basis @ basis.T, identity, atol=1e-5, rtol=0)


class NothingReadBack(TorchDispatchMode):
    """Fails on every operation whose result the host must wait for; `tolist` fails on the meta device, below."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])
        if name in self.WAITING or by_mask:
            raise AssertionError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


def test_the_net_that_catches_host_syncs_has_no_hole():
    values = torch.ones(3)
    for wait in (
        lambda: values.sum().item(),
        lambda: bool(values.any()),
        lambda: values[values > 0],
        lambda: float(values[0]),
    ):
        with pytest.raises(AssertionError, match="waits for the device"), NothingReadBack():
            wait()


@pytest.mark.parametrize("basis", ["compact", "paper"])
def test_the_training_loop_reads_nothing_back(world: World, basis):
    settings = FitSettings(basis=basis, epochs=2, batch_size=64)
    adapter = new_adapter(world.weak.texts, world.classes, settings)
    batches = schedule_batches(len(world.weak), settings)
    loop = partial(train, adapter, world.weak, world.finetuned_logits, settings, batches)
    if basis == "paper":  # once, after the last step
        with patch.object(LearnedBasis, "freeze"), NothingReadBack():
            loop()
    else:
        with NothingReadBack():
            loop()
    assert any(batch.noisy for batch in batches)


@pytest.mark.parametrize("basis", ["compact", "paper"])
def test_the_training_loop_computes_where_its_inputs_are(world: World, basis, monkeypatch: pytest.MonkeyPatch):
    """On the meta device, an operation with a tensor of the CPU fails, and so does any look at a value."""
    own_generator = torch.Generator()  # there is none for meta
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": own_generator)
    # After the loop, it looks at its condition.
    monkeypatch.setattr(learned_basis, "polar_factor", lambda matrix: matrix)
    settings = FitSettings(basis=basis, epochs=1, batch_size=64)
    adapter = new_adapter(world.weak.texts, world.classes, settings).to("meta")
    weak = copy(world.weak)
    for name in ("images", "texts"):
        object.__setattr__(weak, name, getattr(weak, name).to("meta"))
    batches = schedule_batches(len(weak), settings)
    train(adapter, weak, world.finetuned_logits.to("meta"), settings, batches)
    assert {parameter.device.type for parameter in adapter.parameters()} == {"meta"}
    with pytest.raises(RuntimeError, match="device"):
        train(adapter, weak, world.finetuned_logits, settings, batches)


@pytest.mark.parametrize("basis", ["compact", "paper"])
def test_bfloat16_products_learn_as_well(world: World, basis, monkeypatch: pytest.MonkeyPatch):
    """What CUDA devices compute in, tried with the CPU's autocast."""

    def rate(adapter: torch.nn.Module) -> float:
        logits = zero_shot_logits(world.part(world.weak, slice(300, None)))
        with torch.no_grad():
            return (adapter(logits).argmax(-1) == world.labels[300:]).float().mean().item()

    train_part = (world.part(world.weak, slice(0, 300)), world.finetuned_logits[:300])
    settings = FitSettings(basis=basis, batch_size=32)
    single = rate(fit_adapter(*train_part, settings))
    monkeypatch.setattr(distillation, "mixed_precision", lambda device: torch.autocast("cpu", torch.bfloat16))
    half = fit_adapter(*train_part, settings)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert rate(half) > single - 0.03


def test_noise_has_each_rows_own_deviation():
    logits = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [10.0]])
    noise = add_noise(logits, 0.5, torch.Generator().manual_seed(1)) - logits
    torch.testing.assert_close(noise.std(-1), torch.tensor([0.5, 5.0]), rtol=0.05, atol=0)


def test_the_learning_rate_rises_and_falls_to_zero():
    factor = cosine_with_warmup(100, 0.05)
    rates = [factor(step) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[100] == pytest.approx(0)


@pytest.mark.parametrize(
    ("images", "shape", "said"),
    [
        (5, (4, 3), r"shape \(4, 3\), but there are 5 images"),
        (1, (1, 3), "at least two images"),
        (5, (5, 1), "at least two classes"),
        (5, (5, 9), "9 classes do not fit a vocabulary of 8"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(images: int, shape: tuple[int, int], said: str):
    with pytest.raises(InvalidTensorError, match=said):
        fit_adapter(random_embeddings(images, 8, 4, 0), torch.zeros(shape), FitSettings())


def test_nan_logits_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embeddings, "CHECKED", 2)  # row 3 is the second one of its block
    teacher = torch.zeros(5, 3)
    teacher[3, 1] = torch.nan
    with pytest.raises(InvalidTensorError, match="row 3"):
        fit_adapter(random_embeddings(5, 8, 4, 0), teacher, FitSettings())


def test_numbers_beyond_any_logit_are_refused():
    with pytest.raises(InvalidTensorError, match="beyond 1e"):
        fit_adapter(random_embeddings(5, 8, 4, 0), torch.full((5, 3), -1e19), FitSettings())
