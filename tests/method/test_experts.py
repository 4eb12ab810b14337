import pytest
import torch
import torch.nn.functional as F

from tests.conftest import World
from tests.method.worlds import every, mask, teacher_of
from transmiter_cli.method.experts import (
    ROUNDS,
    SUREST,
    Teacher,
    class_counts,
    comparable,
    doubted,
    mixing_weight,
    pooled_log_posterior,
    widened,
)
from transmiter_cli.method.per_image import centred


def test_a_model_without_reliability_has_no_say():
    generator = torch.Generator().manual_seed(0)
    good, bad = (torch.randn(10, 4, generator=generator) for _ in range(2))
    pooled = F.softmax(pooled_log_posterior([good, bad], [1.0, 0.0])[:], -1)
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


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_logits_narrower_than_the_weak_twins_are_made_as_wide_whatever_is_masked(world: World, factor: float):
    given = Teacher((factor * world.finetuned_logits).index_fill(1, torch.tensor([5]), -1e6), world.weak)
    found = widened(given, torch.arange(len(world.labels)))
    logits, weak = (centred(one[:, :5].double()) for one in (found.finetuned[:], given.weak_logits[:]))
    assert logits.std() >= weak.std() - 1e-6
    assert (logits.std().item() == pytest.approx(weak.std().item(), rel=1e-5)) == (factor < 1)
    assert torch.equal(found.finetuned[:].argsort(-1), given.finetuned.argsort(-1))
    assert (found is given) == (factor > 1)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_logits_vary_at_most_as_the_weak_models_and_half_as_far_and_masks_do_not_count(world: World, factor: float):
    strong, teacher = teacher_of(world)
    seen = ~mask(world, 3, 4, 5)
    masked = factor * teacher.finetuned.masked_fill(mask(world, 4, 5), -1e6)
    masked[:, 3] -= 1e6  # masked, though it counts as a class with images
    head = torch.ones(world.classes, teacher.weak.images.shape[1])
    found = comparable(Teacher(masked, teacher.weak, head), seen | mask(world, 3), every(strong))
    assert found.head is not None
    logits, level = found.finetuned[:], found.head[0, 0].item()
    torch.testing.assert_close(logits[:, seen], level * masked[:, seen].double())
    weak = teacher.weak_logits[:].double()
    assert level == 1 if factor == 1 else (level < 1) == (factor > 1)
    width = (centred(logits[:, seen]).std() / centred(weak[:, seen]).std()).item()
    assert width == pytest.approx(min(max(width, 0.5), 1.0))
    told = logits[:, seen]
    most = max((one.amax(-1) - one.amin(-1)).max().item() for one in (told, weak))
    assert (told.amax(-1, keepdim=True) - logits[:, ~seen]).max().item() == pytest.approx(most)


def test_beside_classes_without_images_that_are_not_masked_a_masked_one_gets_their_mean(world: World):
    strong, teacher = teacher_of(world)
    seen = ~mask(world, 3, 4, 5)
    given = Teacher(teacher.finetuned.masked_fill(mask(world, 5), -100.0), teacher.weak)
    found = comparable(given, seen, every(strong)).finetuned[:]
    others = comparable(teacher, seen, every(strong)).finetuned[:][:, [3, 4]]
    torch.testing.assert_close(found[:, [3, 4]], others)
    torch.testing.assert_close(found[:, 5], others.mean(-1))


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_beside_a_single_class_with_images_all_classes_tell_the_scale(world: World, factor: float):
    strong, teacher = teacher_of(world)
    given = Teacher(factor * (teacher.finetuned + 10.0 * mask(world, 2)), teacher.weak)
    for seen in (mask(world, 2), mask(world, 2, 3)):  # the teacher answers with the first alone
        found = comparable(given, seen, every(strong)).finetuned[:]
        assert 0 < centred(found).std() <= centred(teacher.weak_logits[:].double()).std() + 1e-6


@pytest.mark.parametrize("trust", [0.0, 0.3, 0.6])
def test_a_tempered_model_is_as_sure_as_it_is_trusted(world: World, trust: float):
    logits = world.finetuned_logits
    found = pooled_log_posterior([logits], [mixing_weight(trust, logits, 1.0)])[:]
    sure = F.softmax(found, -1).amax(-1).mean().item()
    assert (world.classes * sure - 1) / (world.classes - 1) == pytest.approx(trust, abs=1e-6)


def test_a_model_that_doubts_itself_more_than_others_do_is_not_made_surer_than_it_is(world: World):
    unsure = 0.1 * world.finetuned_logits
    assert mixing_weight(0.9, unsure, 1.0) == 1.0
    assert mixing_weight(0.9, unsure, SUREST) == SUREST
    assert mixing_weight(0.97, unsure, SUREST) == 0.97
    assert mixing_weight(0.5, torch.zeros_like(unsure), SUREST) == SUREST


def test_class_counts_are_all_images_and_empty_an_absent_class():
    labels = torch.randint(3, (300,), generator=torch.Generator().manual_seed(0))
    posterior = 0.9 * F.one_hot(labels, 4) + 0.025
    counts = class_counts(posterior.double().log())
    assert counts.sum() == pytest.approx(300)
    assert counts[3] < 0.5 < posterior.sum(0)[3]
    assert (counts[:3] - torch.bincount(labels)).abs().max() < 5


def test_class_counts_are_those_of_a_prior_with_an_image_more_of_each_class():
    posterior = F.softmax(2 * torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).double(), -1)
    counts = torch.full((4,), 5.0).double()
    for _ in range(ROUNDS):
        joint = posterior * (counts + 1) / (20 + 4)
        counts = (joint / joint.sum(-1, keepdim=True)).sum(0)
    torch.testing.assert_close(class_counts(posterior.log()), counts)


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


def test_classes_that_are_not_told_apart_share_what_the_likeliest_leave():
    torch.testing.assert_close(class_counts(torch.zeros(1000, 8), likeliest=2), torch.full((8,), 125.0).double())
