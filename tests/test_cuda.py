"""The method on a CUDA device gives what it gives on the CPU, the same bytes each time, and waits for nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch
from warnings import catch_warnings, simplefilter

import pytest
import torch
import torch.nn.functional as F

import transmiter_cli as tm
from tests.conftest import World
from transmiter_cli.embedding import filling
from transmiter_cli.embedding.encoders.encoder import Encoder
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.method.paper import cuda_graph
from transmiter_cli.method.paper.cross_moment import cross_moment
from transmiter_cli.method.paper.distillation import fit_adapter, new_adapter, schedule_batches, train
from transmiter_cli.method.paper.learned_basis import LearnedBasis
from transmiter_cli.method.paper.polar import polar_factor
from transmiter_cli.method.settings import FitSettings

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
CUDA = torch.device("cuda")
RECORDED = FitSettings(epochs=6, batch_size=32)
"""Enough steps that all kinds of batches are recorded but the last of an epoch."""


def on(device: str | torch.device, model: tm.Embeddings) -> tm.Embeddings:
    return tm.Embeddings(model.images.to(device), model.texts.to(device), model.logit_scale)


def transfer(fitted: tm.Artefact, weak: tm.Embeddings, strong: tm.Embeddings, method, teacher) -> tm.Artefact:
    given = {} if method == "adapter" else {"finetuned_logits": teacher}
    return tm.transfer(fitted, weak, strong, method, **given)


def state(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in module.state_dict().values()])


@pytest.mark.parametrize("method", ["adapter", "ridge", "discriminant"])
def test_fit_transfer_and_refine_agree_with_the_cpu(world: World, method):
    answers = {}
    for device in ("cpu", "cuda"):
        weak, strong = on(device, world.weak), on(device, world.strong)
        teacher, labels = world.finetuned_logits.to(device), world.labels.to(device)
        fitted = tm.fit(weak, teacher, epochs=3, noise=0.0)
        moved = transfer(fitted, weak, strong, method, teacher)
        if method != "adapter":
            assert tm.self_train(moved, strong.images).correction.weight.device.type == device
        refined = tm.refine(moved, strong.images[:60], labels[:60], epochs=5)
        logits = refined(tm.zero_shot_logits(strong), strong.images)
        assert logits.device.type == device
        answers[device] = logits.argmax(-1).cpu()
        rows = tm.evaluate(labels, weak=weak, finetuned_logits=teacher, strong=strong, transferred={"refined": refined})
        assert rows["refined"].top1 == pytest.approx((answers[device] == world.labels).double().mean().item())
    assert (answers["cpu"] == answers["cuda"]).float().mean() > 0.97


@pytest.mark.parametrize("basis", ["compact", "paper"])
def test_recorded_steps_train_as_plain_ones_do(world: World, basis, monkeypatch: pytest.MonkeyPatch):
    settings = FitSettings(basis=basis, epochs=RECORDED.epochs, batch_size=RECORDED.batch_size)
    fit: Callable[[], torch.Tensor] = lambda: state(  # noqa: E731
        fit_adapter(on(CUDA, world.weak), world.finetuned_logits.to(CUDA), settings)
    )
    real = cuda_graph.Recorder.record
    with patch.object(cuda_graph.Recorder, "record", autospec=True, side_effect=real) as record, catch_warnings():
        simplefilter("error")
        replayed = fit()
    assert record.call_count == 2  # full batches, with noise and without
    monkeypatch.setattr(cuda_graph, "PLAIN_STEPS", 10**6)
    torch.testing.assert_close(replayed, fit(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", ["adapter", "ridge", "discriminant"])
def test_the_same_seed_gives_the_same_bytes(world: World, method):
    def run() -> torch.Tensor:
        weak, strong, teacher = on(CUDA, world.weak), on(CUDA, world.strong), world.finetuned_logits.to(CUDA)
        fitted = tm.fit(weak, teacher, epochs=RECORDED.epochs, batch_size=RECORDED.batch_size)
        moved = transfer(fitted, weak, strong, method, teacher)
        return torch.cat([state(artefact.correction) for artefact in (fitted, moved)])

    assert torch.equal(run(), run())


@pytest.mark.parametrize("basis", ["compact", "paper"])
def test_the_training_loop_waits_for_nothing(world: World, basis):
    settings = FitSettings(basis=basis, epochs=RECORDED.epochs, batch_size=RECORDED.batch_size)
    weak, teacher = on(CUDA, world.weak), world.finetuned_logits.to(CUDA)
    adapter, batches = new_adapter(weak.texts, world.classes, settings), schedule_batches(len(weak), settings)
    loop = partial(train, adapter, weak, teacher, settings, batches)
    with patch.object(LearnedBasis, "freeze"):  # once, after the last step
        torch.cuda.set_sync_debug_mode("error")
        try:
            loop()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("condition", [1e1, 1e6, 1e9])
def test_the_polar_factor_is_that_of_singular_vectors(condition: float):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.linalg.qr(torch.randn(2, 3, 128, 128, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(0, -torch.tensor(condition).log10().item(), 128, dtype=torch.float64)
    factor = polar_factor((left * values @ right.mT).to(CUDA))
    identity = torch.eye(128, dtype=torch.float64, device=CUDA)
    assert (factor.mT @ factor - identity).abs().max() < 1e-10
    torch.testing.assert_close(factor.cpu(), left @ right.mT, atol=1e-13 * condition + 1e-12, rtol=0)


def test_moments_are_those_of_the_cpu(world: World):
    there = cross_moment(on(CUDA, world.strong), on(CUDA, world.weak)).sum.cpu()
    here = cross_moment(world.strong, world.weak).sum
    assert torch.linalg.norm(there - here) < 1e-5 * torch.linalg.norm(here)


def test_images_that_processes_decode_are_embedded_as_threads_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = open_images("demo-digits", "test").files[:300]
    found = []
    for name, fewest in (("threads", 10**6), ("processes", 1)):
        monkeypatch.setattr(filling, "FEWEST_FOR_PROCESSES", fewest)
        workspace = Workspace(cache=tmp_path / name, device=CUDA, workers=3)
        found.append(workspace.open(resolve_model("demo-strong")).image_embeddings(files).rows)
    assert torch.equal(*found)


@pytest.mark.parametrize(("precision", "closest"), [("full", 0.99999), ("half", 0.999), (None, 0.999)])
def test_embeddings_are_those_of_the_cpu(precision, closest: float):
    spec = resolve_model("demo-strong")
    side = Encoder(spec, torch.device("cpu")).side
    drawn = torch.randint(256, (5, side // 4, side // 4, 3), generator=torch.Generator().manual_seed(0))
    images = drawn.byte().repeat_interleave(4, 1).repeat_interleave(4, 2)
    here, there = (Encoder(spec, device, chosen) for device, chosen in ((torch.device("cpu"), None), (CUDA, precision)))
    assert torch.equal(here.input(images), there.input(images).cpu())
    assert there.dtype == (torch.float32 if precision == "full" else torch.float16)
    for one, other in (
        (here.encode_images(images), there.encode_images(images)),
        (here.encode_texts(["a cat", "three"]), there.encode_texts(["a cat", "three"])),
    ):
        assert F.cosine_similarity(one.float(), other.float()).min() > closest
