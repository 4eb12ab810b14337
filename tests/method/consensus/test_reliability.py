from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World, random_embeddings
from tests.method.worlds import ANSWERS, all_of, answers
from transmiter_cli.method.agreement import (
    SHARED,
    beyond_chance,
    kappa,
    predictability,
)
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.consensus.pool import CONFIRMED, CONTRADICTED, usable_trust
from transmiter_cli.method.consensus.reliability import (
    FEW_ANSWERS,
    SLACK,
    Predictions,
    Reliabilities,
    beside_teacher,
    estimated_accuracy,
    out_of_fold_agreement,
    out_of_fold_predictions,
    reliabilities,
    reliability_by_answer,
)
from transmiter_cli.method.consensus.verdict import CONSISTENT
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.folds import folds_of
from transmiter_cli.method.per_image import zero_shot_class_logits


def trust(world: World, teachers: list[Teacher], strong: Embeddings) -> Reliabilities:
    known = [all_of(world)] * len(teachers)
    return reliabilities(strong, zero_shot_class_logits(strong, world.classes), teachers, known, folds_of(strong))


def misnamed(model: Embeddings, names: list[int]) -> Embeddings:
    """A model with other texts in place of those of its first classes."""
    texts = model.texts.clone()
    texts[: len(names)] = model.texts[names]
    return Embeddings(model.images, texts, model.logit_scale)


@pytest.mark.parametrize("rate", [0.05, 0.9])
def test_of_two_classes_the_right_order_is_enough(rate: float):
    labels = torch.arange(2).repeat(500)
    strong, weak, told = (answers(labels, rate, 2, seed) for seed in (4, 5, 6))
    for teacher, named in ((labels, True), (1 - labels, False)):
        by = Predictions(strong, teacher, weak, torch.where(told == labels, teacher, 1 - teacher))
        assert bool(beside_teacher(by, 0.9, 0.1, 2).teachers[0].named) is named


def test_a_mixed_up_teacher_has_no_part_in_how_far_the_strong_model_is_trusted():
    world = World(0, images=800, classes=12)
    words = [*range(3), *range(30, 39)]
    weak, strong = (misnamed(model, words) for model in (world.weak, world.strong))
    good, mixed = (Teacher(logits, weak) for logits in (world.finetuned_logits, world.finetuned_logits.roll(1, -1)))
    alone, both = (trust(world, teachers, strong) for teachers in ([good], [mixed, good]))
    assert both.strong_trust == alone.strong_trust
    assert usable_trust(both) == (0, alone.teachers[0].trust)


@given(st.sampled_from([0.2, 0.5]), st.sampled_from([0.3, 0.6]), st.sampled_from([0.55, 0.9]), st.integers(0, 99))
def test_three_that_err_apart_tell_how_often_one_is_right(rate: float, strong: float, told: float, seed: int):
    labels = torch.randint(10, (20_000,), generator=torch.Generator().manual_seed(seed))
    rates = (strong, rate, told)
    found = estimated_accuracy(*(answers(labels, one, 10, seed + place) for place, one in enumerate(rates, 1)), 10)
    assert found == pytest.approx(rate, abs=0.07)


def test_a_teacher_that_nobody_agrees_with_is_right_as_often_as_it_is_foretold():
    labels = torch.arange(10).repeat(50)
    strong, chance = (answers(labels, 0.0, 10, seed) for seed in (1, 2))
    assert estimated_accuracy(strong, labels, answers(labels, 0.5, 10, 3), 10) == pytest.approx(0.5, abs=0.05)
    assert estimated_accuracy(strong, chance, labels, 10) < 0.1


def test_a_teacher_that_errs_as_the_strong_model_does_is_no_better_than_the_discriminant_allows():
    labels = torch.arange(10).repeat(200)
    teacher, told = answers(labels, 0.4, 10, 1), answers(labels, 0.4, 10, 2)
    agreed = kappa(teacher, told, 10)
    assert estimated_accuracy(teacher, teacher, told, 10) == pytest.approx(agreed**0.5)
    assert estimated_accuracy(teacher, teacher, (teacher + 1) % 10, 10) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_good_teacher_is_trusted_and_tells_how_often_the_strong_model_is_right(seed: int):
    world = World(seed)
    found = trust(world, [Teacher(world.finetuned_logits, world.weak)], world.strong)
    right = (zero_shot_class_logits(world.strong, world.classes).argmax(-1) == world.labels).double().mean().item()
    assert found.teachers[0].trust > 0.9
    assert found.teachers[0].named >= CONFIRMED
    assert found.strong_trust == pytest.approx(beyond_chance(right, world.classes), abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_beside_names_that_hardly_say_anything_a_right_teacher_is_trusted_and_a_mixed_up_one_not(seed: int):
    world = World(seed, images=800, classes=12)
    words = [*range(3), *range(30, 39)]
    weak, strong = (misnamed(model, words) for model in (world.weak, world.strong))
    right, mixed = (
        trust(world, [Teacher(logits, weak)], strong).teachers[0]
        for logits in (world.finetuned_logits, world.finetuned_logits.roll(1, -1))
    )
    assert right.trust > 0.3
    assert right.named > 0
    assert mixed.named == 0


@pytest.mark.parametrize("seed", range(3))
def test_half_of_the_names_that_say_nothing_cost_the_zero_shot_models_their_trust_and_not_the_teacher(seed: int):
    world = World(seed, images=800, classes=12)
    weak, strong = (misnamed(model, [*range(6), *range(30, 36)]) for model in (world.weak, world.strong))
    found = trust(world, [Teacher(world.finetuned_logits, weak)], strong)
    right = trust(world, [Teacher(world.finetuned_logits, world.weak)], world.strong)
    assert found.teachers[0].trust > 0.5
    assert found.strong_trust < right.strong_trust - 0.05
    assert found.teachers[0].named >= CONFIRMED


@pytest.mark.parametrize("names", [6, 9, 12], ids=lambda names: f"{names} of 12 names right")
@pytest.mark.parametrize("seed", range(3))
def test_a_teacher_with_mixed_up_classes_is_not_trusted_also_where_some_names_say_nothing(seed: int, names: int):
    world = World(seed, images=800, classes=12)
    words = [*range(names), *range(30, 30 + 12 - names)]
    weak, strong = (misnamed(model, words) for model in (world.weak, world.strong))
    found = trust(world, [Teacher(world.finetuned_logits.roll(1, -1), weak)], strong)
    assert found.teachers[0].trust < 0.5 * found.strong_trust
    assert found.teachers[0].named < CONTRADICTED


@pytest.mark.parametrize("kind", ["random", "coarse"])
def test_a_teacher_of_random_answers_or_of_fewer_classes_is_trusted_less(world: World, kind: str):
    logits = {
        "random": torch.randn(world.finetuned_logits.shape, generator=torch.Generator().manual_seed(0)),
        "coarse": 8.0 * torch.eye(world.classes)[world.labels // 3 * 3],
    }[kind]
    found = trust(world, [Teacher(logits, world.weak)], world.strong)
    assert found.teachers[0].trust < {"random": 0.3, "coarse": 0.7}[kind]


def test_of_several_teachers_the_most_trusted_one_is_heard_about_the_strong_model(world: World):
    mixed = world.finetuned_logits.roll(1, -1)
    mixed[:200] = world.finetuned_logits[:200]
    bad, good = (Teacher(logits, world.weak) for logits in (mixed, world.finetuned_logits))
    both, alone = trust(world, [bad, good], world.strong), trust(world, [good], world.strong)
    assert both.teachers[0].trust < both.teachers[1].trust == alone.teachers[0].trust
    assert both.strong_trust == alone.strong_trust


def test_as_far_as_a_teacher_is_trusted_the_strong_model_is_no_better_than_they_agree(world: World):
    teacher = Teacher(world.finetuned_logits, world.weak)
    found = trust(world, [teacher], world.strong)
    folds, logits = folds_of(world.strong), zero_shot_class_logits(world.strong, world.classes)
    alone = beyond_chance(out_of_fold_agreement(world.strong, logits, folds), world.classes)
    agreed, q = kappa(logits.argmax(-1), teacher.finetuned.argmax(-1), world.classes), found.teachers[0].trust
    assert agreed < q * alone
    assert found.strong_trust == pytest.approx((1 - q) * alone + agreed)


def test_trust_is_the_product_of_three_signs():
    """A teacher that takes two classes for one, and mixes up two others."""
    world = World(2)
    order = torch.tensor([0, 0, 2, 4, 3, 5])
    teacher = Teacher(8.0 * torch.eye(world.classes)[order[world.labels]], world.weak)
    found, classes = trust(world, [teacher], world.strong), world.classes
    folds, t = folds_of(world.strong), teacher.finetuned.argmax(-1)
    s, w = (zero_shot_class_logits(model, classes).argmax(-1) for model in (world.strong, world.weak))
    predicted = out_of_fold_agreement(world.strong, teacher.finetuned, folds)
    signs = [
        beyond_chance(predicted, classes),  # its estimated accuracy: zero-shot answers agree with it less
        (predictability(t, w, classes) + SLACK) / (predictability(s, w, classes) + SLACK),
        *((kappa(z, t, classes) + SHARED) / (predictability(z, t, classes) + SHARED) for z in (s, w)),
    ]
    assert all(sign < 0.95 for sign in signs[1:])
    assert found.teachers[0].trust == pytest.approx(signs[0] * signs[1] * signs[2] * signs[3])


def test_a_weak_model_that_says_nothing_is_no_witness(world: World):
    """Nothing can be said then of how fine the teacher's answers are: six classes that it takes for two."""
    coarse = Teacher(8.0 * torch.eye(world.classes)[world.labels // 3 * 3], world.weak)
    blind = replace(coarse, weak=random_embeddings(len(world.labels), len(world.weak.texts), 32, 0))
    known, unknown = (trust(world, [one], world.strong).teachers[0].trust for one in (coarse, blind))
    assert unknown > 1.5 * known


def test_a_teacher_is_consistent_whose_agreement_with_the_strong_model_bears_out_what_foretells_both(world: World):
    right = world.finetuned_logits
    both = [Teacher(logits, world.weak) for logits in (right, right.roll(1, -1))]
    consistent, mixed = trust(world, both, world.strong).teachers
    assert consistent.consistent > CONSISTENT
    assert mixed.consistent < 0.2


def test_how_consistent_a_teacher_is_goes_by_how_well_both_models_are_foretold(world: World):
    """A teacher that takes two classes for each other."""
    logits, classes, folds = zero_shot_class_logits(world.strong, world.classes), world.classes, folds_of(world.strong)
    mixed = world.finetuned_logits[:, [1, 0, 2, 3, 4, 5]]
    (found,) = trust(world, [Teacher(mixed, world.weak)], world.strong).teachers
    agreed = kappa(logits.argmax(-1), mixed.argmax(-1), classes)
    told, own = (
        kappa(one.argmax(-1), out_of_fold_predictions(world.strong, one, folds), classes) for one in (mixed, logits)
    )
    assert agreed < told * own < 0.95 * told
    assert found.consistent == pytest.approx(agreed / (told * own))


def test_of_fewer_than_a_hundred_images_rates_differ_more_by_chance():
    """A teacher that takes two classes for one tells less of the weak model than the strong one does."""
    world = World(2, images=49)
    coarse = torch.tensor([0, 0, 2, 3, 4, 5])[world.labels]
    (found,) = trust(world, [Teacher(8.0 * torch.eye(6)[coarse], world.weak)], world.strong).teachers
    s, w = (zero_shot_class_logits(model, 6).argmax(-1) for model in (world.strong, world.weak))
    said = out_of_fold_predictions(world.strong, 8.0 * torch.eye(6)[coarse], folds_of(world.strong))
    by_teacher, by_strong = (predictability(one, w, 6) for one in (coarse, s))
    assert by_teacher < by_strong
    expected = estimated_accuracy(s, coarse, said, 6) * found.named * (by_teacher + 1 / 7) / (by_strong + 1 / 7)
    assert found.trust == pytest.approx(expected)


def test_answers_are_trusted_as_far_as_images_say_the_same_and_a_teacher_is_heard():
    """Class 3 is answered for images of 0, 1 and 2 alike: its name says nothing."""
    labels = torch.arange(3).repeat(200)
    strong = torch.where(torch.arange(600) % 4 == 0, 3, labels)
    trusts = [reliability_by_answer(strong, labels, 0.8, trust, 4) for trust in (0.0, 0.5, 1.0)]
    assert trusts[0].tolist() == [0.8] * 4
    assert (trusts[2][:3] > 0.95).all()
    overall = 0.75
    smoothed = beyond_chance(FEW_ANSWERS * overall / (150 + FEW_ANSWERS), 4)
    most = beyond_chance(50 / 150, 4)
    assert trusts[2][3].item() == pytest.approx(0.8 + SLACK / (most + SLACK) * (smoothed - 0.8))
    torch.testing.assert_close(trusts[1], trusts[0] + 0.75 * (trusts[2] - trusts[0]))


def test_answers_that_images_give_another_name_may_be_right_unless_names_say_nothing():
    labels = torch.arange(4).repeat(100)
    mixed_up = (labels + 1) % 4
    found = reliability_by_answer(labels, mixed_up, 0.8, 0.6, 4)
    assert (found > 0.7).all()
    assert (reliability_by_answer(labels, mixed_up, 0.8, 0.6, 4, opaque_names=True) < 0.2).all()


@given(ANSWERS, st.floats(0, 1), st.floats(0, 1))
def test_the_trust_in_answers_is_a_share(pairs: list[tuple[int, int]], own: float, trust: float):
    found = reliability_by_answer(*torch.tensor(pairs).T, own, trust, 4)
    assert found.shape == (4,)
    assert ((found >= -1e-9) & (found <= 1 + 1e-9)).all()


def test_beside_names_that_say_nothing_the_trust_in_each_answer_is_nearer_to_how_often_it_is_right(world: World):
    strong, weak = (misnamed(model, [0, 1, 2, 20, 21, 22]) for model in (world.strong, world.weak))
    found = trust(world, [Teacher(world.finetuned_logits, weak)], strong)
    logits = zero_shot_class_logits(strong, world.classes)
    answered, right = logits.argmax(-1), logits.argmax(-1) == world.labels
    often = [one for one in range(world.classes) if (answered == one).sum() > 20]
    true = torch.tensor([beyond_chance(right[answered == one].double().mean().item(), world.classes) for one in often])
    everywhere = beyond_chance(out_of_fold_agreement(strong, logits, folds_of(strong)), world.classes)
    assert (found.by_answer[often] - true).abs().mean() < 0.75 * (everywhere - true).abs().mean()


def test_images_count_that_a_teacher_answers_as_others_foretell(world: World):
    found = trust(world, [Teacher(world.finetuned_logits, world.weak)], world.strong)
    said = out_of_fold_predictions(world.strong, world.finetuned_logits, folds_of(world.strong))
    after = world.finetuned_logits.argmax(-1)
    assert found.foretold.tolist() == [int(((after == one) & (said == one)).sum()) for one in range(world.classes)]


def test_a_teacher_of_some_classes_is_asked_of_images_that_the_strong_model_answers_with_these(world: World):
    some = torch.arange(world.classes) < 4
    logits = zero_shot_class_logits(world.strong, world.classes)
    taught = world.finetuned_logits.masked_fill(~some, -100.0)
    folds = folds_of(world.strong)
    every, known = (
        reliabilities(world.strong, logits, [Teacher(taught, world.weak)], [one], folds)
        for one in (all_of(world), some)
    )
    assert known.teachers[0].trust > every.teachers[0].trust + 0.1
    asked = some[logits.argmax(-1)]
    assert known.foretold.sum() <= asked.sum()
    right = (taught.argmax(-1) == world.labels)[asked].float().mean().item()
    assert known.teachers[0].trust == pytest.approx(beyond_chance(right, world.classes), abs=0.1)


def test_a_teacher_of_classes_that_the_strong_model_never_answers_is_asked_of_all_images(world: World):
    last = torch.arange(world.classes) == 5
    logits = zero_shot_class_logits(world.strong, world.classes).masked_fill(last, -1e3)
    teacher, folds = Teacher(world.finetuned_logits, world.weak), folds_of(world.strong)
    never, every = (reliabilities(world.strong, logits, [teacher], [one], folds) for one in (last, all_of(world)))
    assert never.teachers == every.teachers
