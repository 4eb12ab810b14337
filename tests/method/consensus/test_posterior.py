import pytest
import torch
import torch.nn.functional as F

from tests.conftest import World
from transmiter_cli.method.consensus.posterior import SUREST, doubted, mixing_weight


def test_a_model_without_reliability_has_no_say():
    generator = torch.Generator().manual_seed(0)
    good, bad = (torch.randn(10, 4, generator=generator) for _ in range(2))
    pooled = doubted(good, 1.0) * doubted(bad, 0.0)
    pooled /= pooled.sum(-1, keepdim=True)
    torch.testing.assert_close(pooled.float(), F.softmax(good, -1), atol=1e-5, rtol=1e-4)


def test_a_model_may_be_trusted_in_some_answers_more_than_in_others():
    logits = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    everywhere = torch.full((4,), 0.6)
    torch.testing.assert_close(doubted(logits, everywhere), doubted(logits, 0.6))
    chance, trust = F.softmax(logits, -1), torch.tensor([1.0, 0.0, 0.5, 1.0])
    found = doubted(logits, trust)
    torch.testing.assert_close(found.sum(-1), torch.ones(10))
    rest = (chance[:, 1] + chance[:, 2] / 2) / 4
    torch.testing.assert_close(found, trust * chance + rest[:, None])


@pytest.mark.parametrize("trust", [1.0, torch.ones(2)])
def test_no_answer_is_impossible(trust: float | torch.Tensor):
    assert (doubted(torch.tensor([[0.0, 500.0]]), trust) > 0).all()


@pytest.mark.parametrize("trust", [0.0, 0.3, 0.6])
def test_a_tempered_model_is_as_sure_as_it_is_trusted(world: World, trust: float):
    logits = world.finetuned_logits
    sure = doubted(logits, mixing_weight(trust, logits, 1.0)).amax(-1).mean().item()
    assert (world.classes * sure - 1) / (world.classes - 1) == pytest.approx(trust, abs=1e-6)


def test_a_model_that_doubts_itself_more_than_others_do_is_not_made_surer_than_it_is(world: World):
    unsure = 0.1 * world.finetuned_logits
    assert mixing_weight(0.9, unsure, 1.0) == 1.0
    assert mixing_weight(0.9, unsure, SUREST) == SUREST
    assert mixing_weight(0.97, unsure, SUREST) == 0.97
    assert mixing_weight(0.5, torch.zeros_like(unsure), SUREST) == SUREST
