"""The method on a CUDA device gives what it gives on the CPU."""

import pytest
import torch

import transmiter_cli as tm
from tests.conftest import World

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


def on(device: str, model: tm.Embeddings) -> tm.Embeddings:
    return tm.Embeddings(model.images.to(device), model.texts.to(device), model.logit_scale)


@pytest.mark.parametrize("method", ["adapter", "ridge", "discriminant"])
def test_fit_transfer_and_refine_agree_with_the_cpu(world: World, method):
    answers = {}
    for device in ("cpu", "cuda"):
        weak, strong = on(device, world.weak), on(device, world.strong)
        teacher, labels = world.finetuned_logits.to(device), world.labels.to(device)
        fitted = tm.fit(weak, teacher, epochs=3, noise=0.0)
        moved = tm.transfer(fitted, weak, strong, method, finetuned_logits=teacher)
        if method != "adapter":
            assert tm.self_train(moved, strong.images).correction.weight.device.type == device
        refined = tm.refine(moved, strong.images[:60], labels[:60], epochs=5)
        logits = refined(tm.zero_shot_logits(strong), strong.images)
        assert logits.device.type == device
        answers[device] = logits.argmax(-1).cpu()
        rows = tm.evaluate(labels, weak=weak, finetuned_logits=teacher, strong=strong, transferred={"refined": refined})
        assert rows["refined"].top1 == pytest.approx((answers[device] == world.labels).double().mean().item())
    assert (answers["cpu"] == answers["cuda"]).float().mean() > 0.97
