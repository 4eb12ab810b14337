import pytest
import torch

from tests.conftest import World
from tests.method.worlds import every, mask, teacher_of
from transmiter_cli.method.consensus.experts import Teacher, comparable, widened
from transmiter_cli.method.per_image import centred


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_logits_narrower_than_the_weak_twins_are_made_as_wide_whatever_is_masked(world: World, factor: float):
    given = Teacher((factor * world.finetuned_logits).index_fill(1, torch.tensor([5]), -1e6), world.weak)
    found = widened(given, torch.arange(len(world.labels)))
    logits, weak = (centred(one[:, :5].double()) for one in (found.finetuned[:], given.weak_logits[:]))
    assert logits.std() >= weak.std() - 1e-6
    assert (logits.std().item() == pytest.approx(weak.std().item(), rel=1e-5)) == (factor < 1)
    assert torch.equal(found.finetuned[:].argsort(-1), given.finetuned.argsort(-1))
    assert (found is given) == (factor > 1)


def test_beside_a_single_answer_logits_are_made_as_wide_among_all_classes(world: World):
    given = Teacher(1e-3 * (world.finetuned_logits + 20.0 * mask(world, 2)), world.weak)
    found = widened(given, torch.arange(len(world.labels)))
    logits, weak = (centred(one[:].double()) for one in (found.finetuned, given.weak_logits))
    assert logits.std().item() == pytest.approx(weak.std().item(), rel=1e-5)


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


def test_a_class_that_is_far_below_on_a_few_images_alone_is_not_masked(world: World):
    strong, teacher = teacher_of(world)
    seen = ~mask(world, 3, 4, 5)
    given = Teacher(teacher.finetuned.clone(), teacher.weak)
    given.finetuned[:10, 5] = -100.0
    found, before = (comparable(one, seen, every(strong)).finetuned[10:] for one in (given, teacher))
    torch.testing.assert_close(found, before)


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_beside_a_single_class_with_images_all_classes_tell_the_scale(world: World, factor: float):
    strong, teacher = teacher_of(world)
    given = Teacher(factor * (teacher.finetuned + 10.0 * mask(world, 2)), teacher.weak)
    for seen in (mask(world, 2), mask(world, 2, 3)):  # the teacher answers with the first alone
        found = comparable(given, seen, every(strong)).finetuned[:]
        assert 0 < centred(found).std() <= centred(teacher.weak_logits[:].double()).std() + 1e-6
