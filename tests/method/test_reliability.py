from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World, random_embeddings
from transmiter_cli.method.discriminant import fold_rows, grams
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.experts import Teacher
from transmiter_cli.method.logits import class_logits
from transmiter_cli.method.reliability import LEAST, agreement, beyond_chance, foretold, reliabilities, renamed, tells

ANSWERS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def answers(labels: torch.Tensor, rate: float, classes: int, seed: int) -> torch.Tensor:
    """Answers that are right at `rate` beyond chance."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randint(classes, labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < rate, labels, wrong)


def trust(world: World, teachers: list[Teacher], strong: Embeddings) -> tuple[float, tuple[float, ...]]:
    parts = fold_rows(len(strong))
    return reliabilities(strong, class_logits(strong, world.classes), teachers, parts, grams(strong, parts))


def misnamed(model: Embeddings, names: list[int]) -> Embeddings:
    """A model with other texts in place of those of its first classes."""
    texts = model.texts.clone()
    texts[: len(names)] = model.texts[names]
    return Embeddings(model.images, texts, model.logit_scale)


def test_agreement_is_one_with_oneself_and_zero_by_chance():
    labels = torch.randint(5, (20_000,), generator=torch.Generator().manual_seed(0))
    model = answers(labels, 0.7, 5, 1)
    assert agreement(model, model, 5) == 1
    assert agreement(model, answers(labels, 0.0, 5, 2), 5) < 0.02
    assert agreement(model, (model + 1) % 5, 5) == 0


@given(ANSWERS)
def test_an_answer_tells_another_where_most_other_images_say_so(pairs: list[tuple[int, int]]):
    first, second = torch.tensor(pairs).T
    right = 0
    for place, (one, two) in enumerate(pairs):
        others = [b for index, (a, b) in enumerate(pairs) if a == one and index != place]
        right += others.count(two) > max((others.count(other) for other in range(4) if other != two), default=0)
    assert tells(first, second, 4) == pytest.approx(beyond_chance(right / len(pairs), 4))


@given(ANSWERS, st.permutations(range(4)))
def test_what_an_answer_tells_does_not_depend_on_names(pairs: list[tuple[int, int]], names: list[int]):
    first, second = torch.tensor(pairs).T
    assert tells(torch.tensor(names)[first], second, 4) == tells(first, second, 4)


@given(ANSWERS)
def test_classes_are_renamed_that_go_together_on_most_images_of_either(pairs: list[tuple[int, int]]):
    first, second = torch.tensor(pairs).T
    found = 0
    for one, two in product(range(4), repeat=2):
        both, ours, theirs = pairs.count((one, two)), (first == one).sum(), (second == two).sum()
        if one != two and both > 1 and both > ours / 2 and both > theirs / 2:
            found += both
    assert renamed(first, second, 4) == pytest.approx(found / len(pairs))


def test_classes_that_were_mixed_up_are_renamed_and_those_taken_for_one_are_not():
    labels = torch.randint(6, (2000,), generator=torch.Generator().manual_seed(0))
    model = answers(labels, 0.9, 6, 1)
    assert renamed(model, (labels + 1) % 6, 6) > 0.85
    assert renamed(model, labels // 3 * 3, 6) == 0
    assert renamed(model, model, 6) == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_good_teacher_is_trusted_and_tells_how_often_the_strong_model_is_right(seed: int):
    world = World(seed)
    own, (found,) = trust(world, [Teacher(world.finetuned_logits, world.weak)], world.strong)
    right = (class_logits(world.strong, world.classes).argmax(-1) == world.labels).double().mean().item()
    assert found > 0.9
    assert own == pytest.approx(beyond_chance(right, world.classes), abs=0.05)


@pytest.mark.parametrize("names", [[*range(6), *range(30, 36)], list(range(30, 42))])
def test_names_that_say_nothing_cost_the_zero_shot_models_their_trust_and_not_the_teacher(names: list[int]):
    world = World(0, images=800, classes=12)
    weak, strong = (misnamed(model, names) for model in (world.weak, world.strong))
    own, (found,) = trust(world, [Teacher(world.finetuned_logits, weak)], strong)
    assert found > 0.6
    assert own < 0.9 * found


def test_a_teacher_with_mixed_up_classes_is_not_trusted_and_costs_the_strong_model_nothing(world: World):
    right, mixed = (Teacher(world.finetuned_logits.roll(shift, -1), world.weak) for shift in (0, 1))
    own, (found,) = trust(world, [mixed], world.strong)
    alone, _ = trust(world, [right], world.strong)
    assert found < 0.3
    assert own > 0.9 * alone


@pytest.mark.parametrize("kind", ["random", "coarse"])
def test_a_teacher_of_random_answers_or_of_fewer_classes_is_trusted_less(world: World, kind: str):
    logits = {
        "random": torch.randn(world.finetuned_logits.shape, generator=torch.Generator().manual_seed(0)),
        "coarse": 8.0 * torch.eye(world.classes)[world.labels // 3 * 3],
    }[kind]
    _, (found,) = trust(world, [Teacher(logits, world.weak)], world.strong)
    assert found < {"random": 0.3, "coarse": 0.7}[kind]


def test_trust_is_the_product_of_three_signs_and_the_most_trusted_teacher_is_heard_about_the_strong_model(
    world: World,
):
    mixed = world.finetuned_logits.roll(1, -1)
    mixed[:200] = world.finetuned_logits[:200]
    teachers = [Teacher(logits, world.weak) for logits in (mixed, world.finetuned_logits)]
    own, found = trust(world, teachers, world.strong)
    parts = fold_rows(len(world.strong))
    gram = grams(world.strong, parts)
    logits = class_logits(world.strong, world.classes)
    before, weak = (class_logits(model, world.classes).argmax(-1) for model in (world.strong, world.weak))
    own_rate, classes = foretold(world.strong, logits, parts, gram), world.classes
    for teacher, q in zip(teachers, found, strict=True):
        after = teacher.finetuned.argmax(-1)
        fine = min(1.0, tells(after, weak, classes) / tells(before, weak, classes))
        named = max(0.0, 1 - renamed(after, before, classes) - renamed(after, weak, classes))
        assert q == pytest.approx(foretold(world.strong, teacher.finetuned, parts, gram) * fine * named)
    assert found[0] < found[1]
    agreed = agreement(before, teachers[1].finetuned.argmax(-1), classes)
    assert own == pytest.approx((1 - found[1]) * own_rate + min(found[1] * own_rate, agreed))


def test_a_weak_model_that_says_nothing_is_no_witness(world: World):
    """Nothing can be said then of how fine the teacher's answers are: six classes that it takes for two."""
    logits = 8.0 * torch.eye(world.classes)[world.labels // 3 * 3]
    blind = random_embeddings(len(world.labels), len(world.weak.texts), 32, 0)
    before, weak = (class_logits(model, world.classes).argmax(-1) for model in (world.strong, blind))
    assert tells(before, weak, world.classes) < LEAST
    named = 1 - renamed(logits.argmax(-1), before, world.classes)
    assert trust(world, [Teacher(logits, blind)], world.strong)[1][0] == pytest.approx(named, abs=0.02)
