import pytest
import torch
import torch.nn.functional as F

from tests.conftest import World
from transmiter_cli.method.experts import Teacher, class_counts, pooled_log_posterior, widened
from transmiter_cli.method.per_image import centred


def test_a_model_without_reliability_has_no_say():
    generator = torch.Generator().manual_seed(0)
    good, bad = (torch.randn(10, 4, generator=generator) for _ in range(2))
    pooled = F.softmax(pooled_log_posterior([good, bad], [1.0, 0.0])[:], -1)
    torch.testing.assert_close(pooled.float(), F.softmax(good, -1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_logits_narrower_than_the_weak_twins_are_made_as_wide_whatever_is_masked(world: World, factor: float):
    given = Teacher((factor * world.finetuned_logits).index_fill(1, torch.tensor([5]), -1e6), world.weak)
    found = widened(given, torch.arange(len(world.labels)))
    logits, weak = (centred(one[:, :5].double()) for one in (found.finetuned[:], given.weak_logits[:]))
    assert logits.std() >= weak.std() - 1e-6
    assert (logits.std().item() == pytest.approx(weak.std().item(), rel=1e-5)) == (factor < 1)
    assert torch.equal(found.finetuned[:].argsort(-1), given.finetuned.argsort(-1))
    assert (found is given) == (factor > 1)


def test_class_counts_are_all_images_and_empty_an_absent_class():
    labels = torch.randint(3, (300,), generator=torch.Generator().manual_seed(0))
    posterior = 0.9 * F.one_hot(labels, 4) + 0.025
    counts = class_counts(posterior.double().log())
    assert counts.sum() == pytest.approx(300)
    assert counts[3] < 0.5 < posterior.sum(0)[3]
    assert (counts[:3] - torch.bincount(labels)).abs().max() < 5


@pytest.mark.parametrize("trust", [0.1, 0.5, 0.9])
def test_unlikely_classes_of_an_image_need_not_be_told_apart(trust: float):
    """Half of the classes have no image. What no model says of an image is spread over all classes alike."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(100, (2000,), generator=generator)
    models = [8.0 * F.one_hot(labels, 200) + torch.randn(2000, 200, generator=generator) for _ in range(2)]
    pooled = pooled_log_posterior(models, [trust, trust])
    few, every = (class_counts(pooled, likeliest) for likeliest in (32, 200))
    assert few.sum() == pytest.approx(2000)
    assert (few - every).abs().max() < 0.5
    assert few[100:].sum() < 0.1 * 2000
