import torch
import torch.nn.functional as F

from transmiter_cli.method.baselines import eft_logits
from transmiter_cli.method.metrics import accuracy, hits


def test_top1_counts_the_highest_logit():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    assert hits(logits, torch.tensor([1, 0, 0, 0])).tolist() == [True, True, False, True]
    assert accuracy(hits(logits, torch.tensor([1, 0, 0, 0]))).top1 == 0.75


def test_the_interval_is_that_of_resampled_images():
    correct = torch.arange(400) % 5 != 0
    found = accuracy(correct)
    draws = torch.randint(400, (4000, 400), generator=torch.Generator().manual_seed(1))
    rates = correct[draws].double().mean(1)
    low, high = torch.quantile(rates, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    assert abs(found.low - low) < 0.006
    assert abs(found.high - high) < 0.006
    assert found.low < found.top1 < found.high


def test_certainty_has_no_interval():
    assert accuracy(torch.ones(10, dtype=torch.bool)) == (1.0, 1.0, 1.0)


def test_eft_adds_the_gap_to_the_strong_models_log_probabilities():
    strong, weak, finetuned = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 4)
    expected = F.log_softmax(strong, -1) + 0.5 * (F.log_softmax(finetuned, -1) - F.log_softmax(weak, -1))
    torch.testing.assert_close(eft_logits(strong, weak, finetuned, 0.5), expected)
    torch.testing.assert_close(eft_logits(strong, weak, weak), F.log_softmax(strong, -1))
