from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import World, random_embeddings
from tests.method.worlds import every, mask, teacher_of
from transmiter_cli.method.consensus import unseen as module
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.consensus.unseen import (
    PULL,
    RHO,
    TEXTS_WEIGH,
    Carrier,
    Novelty,
    carry,
    combined_correction,
    joint_moments,
    learn_corrections,
    left_out,
    novelty,
    text_anchors,
    weight_of_whole,
)
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.folds import NUMBERS, sampled_rows
from transmiter_cli.method.linear.classifier import Linear
from transmiter_cli.method.paper.basis import centred_texts
from transmiter_cli.method.per_image import centred


def whole(classes: int) -> Novelty:
    """The whole of what a teacher says is new."""
    return Novelty(slope=torch.zeros(classes).double(), share=torch.ones(classes).double())


def scores(carriers: list[Carrier], strong: Embeddings, seen: torch.Tensor) -> Linear:
    """The strong model's own scores, and what teachers add to them."""
    return Linear.zero_shot(strong, len(seen)) + combined_correction(carriers, strong, seen, every(strong))


@given(seed=st.integers(0, 2**16), images=st.integers(3, 40))
@settings(max_examples=20, deadline=None)
def test_joint_moments_are_covariances_of_both_embeddings_and_the_answers(seed: int, images: int):
    strong, weak = random_embeddings(images, 9, 7, seed), random_embeddings(images, 9, 5, seed + 1)
    logits = torch.randn(images, 4, generator=torch.Generator().manual_seed(seed))
    rows = every(strong)[: images - 1]
    found = joint_moments(strong, Teacher(logits, weak), rows)
    both = torch.cat([strong.unit_images(rows), weak.unit_images(rows)], 1).double()
    said = centred(logits[rows].double())
    torch.testing.assert_close(found.gram, (both - both.mean(0)).T @ (both - both.mean(0)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.cross, (both - both.mean(0)).T @ (said - said.mean(0)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.mean, both.mean(0), atol=1e-6, rtol=1e-6)


def test_the_bridge_is_two_centred_ridge_regressions_the_first_one_also_of_texts(world: World):
    strong, teacher = teacher_of(world)
    weak, said = teacher.weak, centred(teacher.finetuned.double())
    moments = joint_moments(strong, teacher, every(strong))
    found = learn_corrections(text_anchors(strong, weak), teacher, moments, whole(world.classes)).whole
    x, w = (model.unit_images().double() - model.unit_images().double().mean(0) for model in (strong, weak))
    weight = (TEXTS_WEIGH * len(x) / len(strong.texts)) ** 0.5
    both = [torch.cat([rows, weight * centred_texts(one.texts)]) for rows, one in ((x, strong), (w, weak))]
    expected = x @ ridge(*both, RHO) @ ridge(w, said - said.mean(0), PULL) + said.mean(0)
    torch.testing.assert_close(found(strong.unit_images().double()), expected, atol=1e-4, rtol=1e-4)


def test_what_is_new_is_learned_by_a_centred_ridge_regression_on_strong_embeddings(world: World):
    strong, teacher = teacher_of(world)
    slope = torch.linspace(0, 1, world.classes).double()
    new = Novelty(slope, torch.ones(world.classes).double())
    moments = joint_moments(strong, teacher, every(strong))
    found = learn_corrections(text_anchors(strong, teacher.weak), teacher, moments, new).new
    images = strong.unit_images().double()
    said = centred(teacher.finetuned.double()) - slope * centred(teacher.weak_logits[:].double())
    expected = (images - images.mean(0)) @ ridge(images - images.mean(0), said - said.mean(0), RHO) + said.mean(0)
    torch.testing.assert_close(found(images), expected, atol=1e-4, rtol=1e-4)


def ridge(x: torch.Tensor, y: torch.Tensor, rho: float) -> torch.Tensor:
    gram = x.T @ x
    return torch.linalg.solve(gram + rho * gram.diagonal().mean() * torch.eye(len(gram)).double(), x.T @ y)


def test_the_whole_is_as_strong_as_it_is_new(world: World):
    """The strength is sqrt(1 - correlation^2), of each group of classes its own."""
    strong, teacher = teacher_of(world)
    seen, rows = ~mask(world, 4, 5), every(strong)
    strength = torch.zeros(world.classes).double()
    for group in (seen, ~seen):
        both = [centred(one[rows].double()[:, group]) for one in (teacher.finetuned, teacher.weak_logits)]
        correlation = torch.corrcoef(torch.stack([(one - one.mean(0)).flatten() for one in both]))[0, 1]
        strength[group] = (1 - correlation.square()).sqrt()
    assert strength[0] != strength[5]
    new, anchors = novelty(teacher, seen, rows), text_anchors(strong, teacher.weak)
    moments = joint_moments(strong, teacher, rows)
    one = Novelty(new.slope, torch.ones(world.classes).double())
    found, unscaled = (learn_corrections(anchors, teacher, moments, some).whole for some in (new, one))
    torch.testing.assert_close(found.weight, strength[:, None] * unscaled.weight)
    torch.testing.assert_close(found.bias, strength * unscaled.bias)


def test_the_bridge_is_exact_between_rotations_of_the_same_embeddings():
    strong = random_embeddings(400, 30, 8, 0)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))[0]
    weak = Embeddings(strong.images @ turn, strong.texts @ turn, strong.logit_scale)
    head = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    teacher = Teacher(weak.unit_images() @ head.T, weak, head)
    moments = joint_moments(strong, teacher, every(strong))
    found = learn_corrections(text_anchors(strong, teacher.weak), teacher, moments, whole(5)).whole
    answers = centred(teacher.finetuned.double())
    scores = found(strong.unit_images())
    assert torch.corrcoef(torch.stack([scores.flatten(), answers.flatten()]))[0, 1] > 0.99


@given(factor=st.floats(0.1, 10), offset=st.floats(-5, 5))
@settings(max_examples=20, deadline=None)
def test_answers_that_are_only_scaled_are_nothing_new(factor: float, offset: float):
    weak = random_embeddings(50, 9, 5, 0)
    plain = Teacher(torch.zeros(50, 6), weak)
    unseen = torch.tensor([False, False, True, True, True, False])
    logits = factor * plain.weak_logits[:] + offset
    logits[:, ~unseen] = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    found = novelty(Teacher(logits, weak), ~unseen, torch.arange(50))
    assert found.slope[unseen].tolist() == pytest.approx([factor] * 3, rel=1e-3)
    assert (found.share[unseen] < 0.01).all()
    assert (found.share[~unseen] > 0.9).all()


@pytest.mark.parametrize("unseen", [(5,), (4, 5)])
def test_what_is_new_does_not_depend_on_what_is_added_to_all_logits_of_an_image(world: World, unseen: tuple[int, ...]):
    strong, teacher = teacher_of(world)
    seen, rows = ~mask(world, *unseen), every(strong)
    other = Teacher(teacher.finetuned + 5 * torch.randn(len(strong), 1), teacher.weak)
    found = novelty(teacher, seen, rows).share
    assert (found > 0.1).all()
    torch.testing.assert_close(found, novelty(other, seen, rows).share, atol=1e-5, rtol=0)


def test_answers_that_contradict_the_weak_models_own_are_all_new(world: World):
    strong, teacher = teacher_of(world)
    found = novelty(Teacher(-teacher.weak_logits[:], teacher.weak), ~mask(world, 4, 5), every(strong))
    torch.testing.assert_close(found.share, torch.ones(world.classes).double())


def test_a_teacher_that_learned_nothing_leaves_the_strong_models_answers(world: World):
    strong, teacher = teacher_of(world)
    same = Teacher(2 * teacher.weak_logits[:], teacher.weak)
    log_posterior = torch.log_softmax(teacher.finetuned.double(), -1)
    seen = ~mask(world, 4, 5)
    found = scores(carry(strong, [same], [1.0], log_posterior, seen), strong, seen)
    images = strong.unit_images()
    own = Linear.zero_shot(strong, world.classes)(images)[:, 4:6]
    torch.testing.assert_close(centred(found(images)[:, 4:6]), centred(own), atol=0.02 * own.std().item(), rtol=0.02)


def test_a_teacher_has_a_say_as_far_as_it_is_trusted(world: World):
    strong, teacher = teacher_of(world)
    log_posterior, seen = torch.log_softmax(teacher.finetuned.double(), -1), ~mask(world, 4, 5)
    none, *some = (carry(strong, [teacher], [trust], log_posterior, seen) for trust in (0.0, 0.4, 0.8))
    assert none == []
    half, whole = (combined_correction(one, strong, seen, every(strong)).weight for one in some)
    torch.testing.assert_close(2 * half, whole)


def test_a_teacher_that_says_nothing_new_does_not_water_another_down(world: World):
    strong, teacher = teacher_of(world)
    same = Teacher(2 * teacher.weak_logits[:], teacher.weak)
    log_posterior = torch.log_softmax(teacher.finetuned.double(), -1)
    seen = ~mask(world, 4, 5)
    alone, both = (
        scores(carry(strong, some, trust, log_posterior, seen), strong, seen)
        for some, trust in (([teacher], [0.9]), ([teacher, same], [0.9, 0.9]))
    )
    torch.testing.assert_close(both.weight, alone.weight, rtol=0.05, atol=0.05 * alone.weight.std().item())


def test_teachers_weigh_as_much_as_of_the_variance_of_their_answers_is_new(world: World):
    strong, teacher = teacher_of(world)
    hints = Teacher(teacher.weak_logits[:] + 0.8 * teacher.finetuned, teacher.weak)
    log_posterior, seen = torch.log_softmax(teacher.finetuned.double(), -1), ~mask(world, 4, 5)
    first, second, both = (
        scores(carry(strong, some, [0.9] * len(some), log_posterior, seen), strong, seen).weight
        for some in ([teacher], [hints], [teacher, hints])
    )
    asked = carry(strong, [teacher, hints], [0.9, 0.9], log_posterior, seen)
    new = [novelty(one.teacher, seen, every(strong)).share.square() for one in asked]
    share = (new[0] / (new[0] + new[1]))[:, None]
    assert 0.5 < share.min() < share.max() < 0.95
    torch.testing.assert_close(both, share * first + (1 - share) * second)


def test_what_is_the_same_for_all_images_is_nothing_new(world: World):
    strong, teacher = teacher_of(world)
    seen = ~mask(world, 4, 5)
    masked = Teacher(teacher.finetuned.masked_fill(~seen, -100.0), teacher.weak)
    found = novelty(masked, seen, every(strong)).share
    assert found[~seen].tolist() == [0, 0]
    assert (found[seen] > 0.5).all()


@pytest.mark.parametrize("blind", [False, True])
def test_of_classes_that_are_left_out_no_more_is_made_than_of_those_without_images(world: World, blind: bool):
    strong, teacher = teacher_of(world)
    seen, kept = ~mask(world, 4, 5), ~mask(world, 2, 3)
    log_posterior = torch.log_softmax(teacher.finetuned.double(), -1)
    if blind:
        logits = torch.where(seen, teacher.finetuned, teacher.weak_logits[:])
        teacher = Teacher(logits, teacher.weak)
    (carrier,) = carry(strong, [teacher], [1.0], log_posterior, seen)
    rows = every(strong)
    found = combined_correction([carrier], strong, kept, rows).weight
    whole = carrier.learn(strong, novelty(carrier.teacher, kept, rows), rows).weight
    said = found[2:4].norm() / whole[2:4].norm()
    assert said < 0.05 if blind else said > 0.9
    torch.testing.assert_close(found[:2], whole[:2], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("new", [True, False])
def test_leaving_classes_out_tells_which_part_of_the_answers_is_to_be_added(new: bool):
    """What is new, if the strong model knows all that the weak one does; the whole, if its own scores say nothing."""
    weak = random_embeddings(300, 40, 8, 0)
    strong = weak if new else replace(weak, texts=random_embeddings(1, 40, 8, 1).texts)
    known = centred(Linear.zero_shot(weak, 6)(weak.unit_images()))
    learned = centred(weak.unit_images() @ torch.randn(8, 6, generator=torch.Generator().manual_seed(2)))
    answers = known + 0.7 * known.std() / learned.std() * learned
    teacher, seen = Teacher(answers, weak), torch.ones(6, dtype=torch.bool)
    found = weight_of_whole(strong, teacher, text_anchors(weak, weak), answers.log_softmax(-1), seen)
    assert found < 0.1 if new else found > 0.9


@pytest.mark.parametrize("of_left_out", [True, False])
def test_what_is_said_on_images_that_are_left_out_is_no_part_of_their_trial(of_left_out: bool):
    strong, weak = random_embeddings(60, 12, 8, 0, scale=1.0), random_embeddings(60, 12, 6, 1, scale=1.0)
    generator = torch.Generator().manual_seed(2)
    log_posterior, answers, noise = (torch.randn(60, 6, generator=generator) for _ in range(3))
    held, seen = torch.tensor([0, 1]), torch.ones(6, dtype=torch.bool)
    away = torch.isin(log_posterior.argmax(-1), held)
    changed = answers + 10 * noise * (away if of_left_out else ~away)[:, None]
    with patch.object(module, "left_out", lambda *_: [held]):
        before, after = (
            weight_of_whole(strong, Teacher(one, weak), text_anchors(strong, weak), log_posterior, seen)
            for one in (answers, changed)
        )
    assert (before == after) is of_left_out


def test_trials_tell_a_share_of_misses_however_many_they_are():
    strong, weak = random_embeddings(60, 12, 8, 0, scale=1.0), random_embeddings(60, 12, 6, 1, scale=1.0)
    generator = torch.Generator().manual_seed(2)
    log_posterior, answers = (torch.randn(60, 6, generator=generator) for _ in range(2))
    given = (strong, Teacher(answers, weak), text_anchors(strong, weak), log_posterior, torch.ones(6, dtype=torch.bool))
    found: list[float] = []
    for times in (1, 3):
        with patch.object(module, "left_out", lambda *_, times=times: [torch.tensor([0, 1])] * times):
            found.append(weight_of_whole(*given))
    assert found[0] == found[1] != 0.5


def test_too_few_classes_to_leave_some_out(world: World):
    strong, teacher = teacher_of(world)
    log_posterior = torch.log_softmax(teacher.finetuned.double(), -1)
    anchors = text_anchors(strong, teacher.weak)
    assert weight_of_whole(strong, teacher, anchors, log_posterior, mask(world, 0, 1, 2)) == 1


@pytest.mark.parametrize(("classes", "rows"), [(2, 4096), (1000, 4096), (NUMBERS // 100, 100), (2 * NUMBERS, 1)])
def test_no_more_images_are_looked_at_than_there_is_room_for(classes: int, rows: int):
    chosen = sampled_rows(torch.arange(5000) + 7, classes)
    assert len(chosen.unique()) == rows
    assert 7 <= int(chosen.min()) <= int(chosen.max()) < 5007


def test_few_choices_of_classes_are_all_made_and_many_are_drawn():
    seen = torch.tensor([1, 4, 5, 8])
    every = [tuple(part.tolist()) for part in left_out(seen, 3, 12)]
    assert every == [(1, 4), (1, 5), (1, 8), (4, 5), (4, 8), (5, 8)]
    drawn = [part.tolist() for part in left_out(torch.arange(12), 3, 5)]
    assert [len(set(part)) for part in drawn] == [4] * 6
    assert torch.bincount(torch.tensor(drawn).flatten()).tolist() == [2] * 12
    assert drawn == [part.tolist() for part in left_out(torch.arange(12), 3, 5)] != [drawn[0]] * 6


def test_all_texts_together_weigh_the_same_however_many_they_are(world: World):
    strong, teacher = teacher_of(world)
    anchors, moments = text_anchors(strong, teacher.weak), joint_moments(strong, teacher, every(strong))
    twice = replace(anchors, texts=2 * anchors.texts, gram=2 * anchors.gram, cross=2 * anchors.cross)
    once, again = (
        learn_corrections(one, teacher, moments, whole(world.classes)).whole.weight for one in (anchors, twice)
    )
    torch.testing.assert_close(once, again)


def test_known_class_embeddings_tell_of_answers_that_few_images_do_not(world: World):
    strong, teacher = teacher_of(world)
    head = 30 * torch.randn(world.classes, 32, generator=torch.Generator().manual_seed(0))
    given = Teacher(teacher.weak.unit_images() @ head.T, teacher.weak, head)
    moments = joint_moments(strong, given, every(strong)[:20])
    anchors, wanted = text_anchors(strong, given.weak), centred(given.finetuned.double()).flatten()

    def told(one: Teacher) -> float:
        found = learn_corrections(anchors, one, moments, whole(world.classes)).whole
        answers = centred(found(strong.unit_images()).double()).flatten()
        return torch.corrcoef(torch.stack([answers, wanted]))[0, 1].item()

    assert told(given) > told(replace(given, head=None)) + 0.05
