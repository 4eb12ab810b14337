import pytest
import torch
import torch.nn.functional as F

from transmiter_cli.method.baselines import eft_logits
from transmiter_cli.method.metrics import (
    accuracy,
    calibration,
    compare,
    correct,
    harmonic_mean,
    mean_per_class,
    negative_log_likelihood,
    per_class,
    top_five,
)


def test_top1_counts_the_highest_logit():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    assert correct(logits, torch.tensor([1, 0, 0, 0])).tolist() == [True, True, False, True]
    assert accuracy(correct(logits, torch.tensor([1, 0, 0, 0]))).top1 == 0.75


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


@pytest.fixture
def answers() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(7, (500,), generator=generator)
    return 2 * torch.randn(500, 7, generator=generator) + 2 * F.one_hot(labels, 7), labels


def test_the_metrics_are_those_of_torchmetrics(answers):
    classification = pytest.importorskip("torchmetrics.functional.classification")
    logits, labels = answers
    right = correct(logits, labels)
    accuracy_of, ece = classification.multiclass_accuracy, classification.multiclass_calibration_error
    assert top_five(logits, labels) == pytest.approx(accuracy_of(logits, labels, 7, top_k=5, average="micro").item())
    assert mean_per_class(right, labels) == pytest.approx(accuracy_of(logits, labels, 7, average="macro").item())
    expected = ece(logits.softmax(-1), labels, 7, n_bins=15, norm="l1").item()
    assert calibration(logits, labels).error == pytest.approx(expected, abs=1e-6)
    assert negative_log_likelihood(logits, labels) == pytest.approx(F.cross_entropy(logits, labels).item())


def test_top5_of_few_classes_is_certain():
    assert top_five(torch.randn(4, 3), torch.tensor([0, 1, 2, 0])) == 1.0


def test_classes_without_images_do_not_count():
    right = torch.tensor([True, False, True])
    assert mean_per_class(right, torch.tensor([0, 0, 9])) == 0.75
    present, rates = per_class(right, torch.tensor([0, 0, 9]))
    assert (present.tolist(), rates.tolist()) == ([0, 9], [0.5, 1.0])


def test_a_paired_interval_is_that_of_resampled_images():
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(400, generator=generator) < 0.7
    correct = torch.where(torch.rand(400, generator=generator) < 0.3, ~reference, reference)
    found = compare(correct, reference)
    draws = torch.randint(400, (4000, 400), generator=generator)
    gains = correct[draws].double().mean(1) - reference[draws].double().mean(1)
    low, high = torch.quantile(gains, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    assert abs(found.low - low) < 0.008
    assert abs(found.high - high) < 0.008
    assert found.gain == pytest.approx((correct.double().mean() - reference.double().mean()).item())
    assert (found.fixed, found.broken) == (int((correct & ~reference).sum()), int((reference & ~correct).sum()))


def test_pairing_beats_two_intervals_where_models_err_on_the_same_images():
    reference = torch.arange(1000) % 4 != 0
    correct = reference | (torch.arange(1000) % 20 == 0)
    assert compare(correct, reference).low > 0 > accuracy(correct).low - accuracy(reference).high


def test_a_model_is_no_better_than_itself():
    right = torch.arange(10) % 2 == 0
    assert compare(right, right) == (0.0, 0.0, 0.0, 0, 0)
    assert compare(torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)) == (1.0, 1.0, 1.0, 5, 0)


def test_full_confidence_falls_into_the_last_bin():
    found = calibration(torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]), torch.tensor([0, 0]))
    assert found.images.tolist() == [0.0] * 14 + [2.0]
    assert found.error == 0.5


def test_the_harmonic_mean():
    assert harmonic_mean(0.5, 1.0) == pytest.approx(2 / 3)
    assert harmonic_mean(0.0, 1.0) == 0.0
