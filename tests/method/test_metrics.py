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


def answers_right(right: int, images: int) -> torch.Tensor:
    return torch.arange(images) < right


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    """docs/evaluation.md has these numbers: exact ones, of all that may come of 20 to 600 draws."""
    rates, held = torch.linspace(0.78, 0.99, 22, dtype=torch.float64), []
    for images in (*range(20, 100, 5), *range(100, 601, 100)):
        found = [accuracy(answers_right(right, images)) for right in range(images + 1)]
        assert all(0 <= one.low <= one.top1 <= one.high <= 1 for one in found)
        low, high = (torch.tensor([getattr(one, end) for one in found], dtype=torch.float64) for end in ("low", "high"))
        chances = torch.distributions.Binomial(images, rates[:, None]).log_prob(torch.arange(images + 1)).exp()
        held.append((chances * ((low <= rates[:, None]) & (rates[:, None] <= high))).sum(-1))
    coverage = torch.stack(held)
    assert coverage.mean().item() == pytest.approx(0.95, abs=0.005)
    assert coverage.min().item() == pytest.approx(0.89, abs=0.006)
    assert coverage.max().item() == pytest.approx(0.98, abs=0.006)


def test_percentiles_of_a_bootstrap_hold_less_than_they_say():
    """Why there is none, by the same document: those of a mean of zeros and ones are a binomial's."""
    binomial = pytest.importorskip("scipy.stats").binom
    held = []
    for images in (*range(20, 100, 5), *range(100, 601, 100)):
        right = torch.arange(images + 1).numpy()
        low, high = (binomial.ppf(level, images, right / images) / images for level in (0.025, 0.975))
        for rate in torch.linspace(0.78, 0.99, 22, dtype=torch.float64).tolist():
            held.append(binomial.pmf(right, images, rate)[(low <= rate) & (rate <= high)].sum())
    assert sum(held) / len(held) < 0.92
    assert min(held) < 0.5


@pytest.mark.parametrize("images", [20, 60])
def test_a_paired_interval_holds_the_truth_at_least_nearly_as_often_as_it_says(images: int):
    pairs = [(fixed, broken) for fixed in range(images + 1) for broken in range(images + 1 - fixed)]
    places = torch.arange(images)
    found = [compare(places < fixed, (places >= fixed) & (places < fixed + broken)) for fixed, broken in pairs]
    low, high = (torch.tensor([getattr(one, end) for one in found], dtype=torch.float64) for end in ("low", "high"))
    counts = torch.tensor([(fixed, broken, images - fixed - broken) for fixed, broken in pairs])
    ways = torch.lgamma(torch.tensor(images + 1.0)) - torch.lgamma(counts + 1.0).sum(-1)
    for fixed in (0.005, 0.02, 0.05, 0.1, 0.2):
        for broken in (0.0025, 0.01, 0.05, 0.1):
            shares = torch.tensor([fixed, broken, 1 - fixed - broken])
            chances = (ways + (counts * shares.log()).sum(-1)).exp()
            held = chances[(low <= fixed - broken) & (fixed - broken <= high)].sum().item()
            assert 0.94 < held < 1.001


def test_all_right_is_no_certainty():
    found = accuracy(torch.ones(60, dtype=torch.bool))
    assert found.top1 == found.high == 1
    assert found.low == pytest.approx(0.9398, abs=1e-4)  # Wilson's for 60 of 60


def test_eft_adds_the_gap_to_the_strong_models_log_probabilities():
    strong, weak, finetuned = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 4)
    expected = F.log_softmax(strong, -1) + 0.5 * (F.log_softmax(finetuned, -1) - F.log_softmax(weak, -1))
    torch.testing.assert_close(eft_logits(strong, weak, finetuned, 0.5), expected)
    torch.testing.assert_close(eft_logits(strong, weak, weak, 1.0), F.log_softmax(strong, -1))


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


@pytest.mark.parametrize(
    ("images", "fixed", "broken"), [(60, 0.2, 0.05), (60, 0.0, 0.3), (599, 0.02, 0.01), (599, 0.4, 0.05)]
)
def test_a_paired_interval_holds_the_truth_as_often_as_it_says(images: int, fixed: float, broken: float):
    torch.manual_seed(0)
    shares = torch.tensor([fixed, broken, 1 - fixed - broken])
    held = 0
    for answers in torch.multinomial(shares, 1000 * images, replacement=True).reshape(1000, images):
        found = compare(answers == 0, answers == 1)
        assert (found.fixed, found.broken) == (int((answers == 0).sum()), int((answers == 1).sum()))
        assert found.gain == pytest.approx((found.fixed - found.broken) / images)
        held += found.low <= fixed - broken <= found.high
    assert held / 1000 == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(("fixed", "broken", "chance"), [(12, 4, True), (9, 2, True), (4, 0, True), (16, 4, False)])
def test_a_gain_that_may_be_chance_is_not_above_zero(fixed: int, broken: int, chance: bool):
    places = torch.arange(599)
    found = compare(places < fixed, (places >= fixed) & (places < fixed + broken))
    assert (found.low <= 0) == chance  # McNemar's exact p is above 0.05, but for the last


def test_pairing_beats_two_intervals_where_models_err_on_the_same_images():
    reference = torch.arange(1000) % 4 != 0
    correct = reference | (torch.arange(1000) % 20 == 0)
    assert compare(correct, reference).low > 0 > accuracy(correct).low - accuracy(reference).high


def test_a_model_is_no_better_than_itself():
    right = torch.arange(10) % 2 == 0
    found = compare(right, right)
    assert (found.gain, found.fixed, found.broken) == (0, 0, 0)
    assert found.low == -found.high < 0
    found = compare(torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool))
    assert (found.gain, found.high, found.fixed, found.broken) == (1, 1, 5, 0)


def test_full_confidence_falls_into_the_last_bin():
    found = calibration(torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]), torch.tensor([0, 0]))
    assert found.images.tolist() == [0.0] * 14 + [2.0]
    assert found.error == 0.5


def test_the_harmonic_mean():
    assert harmonic_mean(0.5, 1.0) == pytest.approx(2 / 3)
    assert harmonic_mean(0.0, 1.0) == 0.0
