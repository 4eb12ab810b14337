import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World
from tests.method.worlds import all_of
from transmiter_cli.method.consensus.pool import (
    ANSWERED,
    CONFIRMED,
    CONTRADICTED,
    FEWEST_KNOWN,
    IGNORED,
    SHOWN,
    Pool,
    known_classes,
    pooling,
    select_teachers,
    usable_trust,
)
from transmiter_cli.method.consensus.posterior import SUREST, doubted, mixing_weight
from transmiter_cli.method.consensus.reliability import Reliabilities, Reliability
from transmiter_cli.method.per_image import zero_shot_class_logits


def test_useless_teachers_have_no_say():
    trusts, named = (0.11, 0.13, 0.59, 0.61, 0.9), (1.0, CONTRADICTED, 0.39, 0.1, 0.0)
    found = Reliabilities(
        0.6, torch.zeros(3), torch.zeros(3).long(), tuple(map(Reliability, trusts, named, (1.0,) * 5))
    )
    assert usable_trust(found) == (0.0, 0.13, 0.0, 0.61, 0.0)


def test_a_teacher_goes_whose_absence_helps():
    scores = {(0, 1, 2): 0.90, (0, 1): 0.95, (0, 2): 0.91, (0,): 0.94}
    assert select_teachers(lambda some: scores[some], [0.8, 0.7, 0.7], images=1000) == (0, 1)


def test_the_most_trusted_teacher_stays_whatever_the_others_do_without_it():
    scores = {(0, 1): 0.90, (1,): 0.85}
    assert select_teachers(lambda some: scores[some], [0.7, 0.8], images=1000) == (0, 1)


def test_no_teacher_goes_by_chance():
    scores = {(0, 1): 0.900, (0,): 0.905}
    assert select_teachers(lambda some: scores[some], [0.8, 0.7], images=1000) == (0, 1)
    assert select_teachers(lambda some: scores[some], [0.8, 0.7], images=10_000) == (0,)


def test_one_teacher_is_kept_without_a_look():
    assert select_teachers(lambda some: pytest.fail(str(some)), [0.0], images=100) == (0,)


def test_common_answers_are_tempered_where_trust_is_not_too_high(world: World):
    strong, told = zero_shot_class_logits(world.strong, world.classes), world.finetuned_logits

    by_answer = torch.linspace(0, 1, world.classes)

    def pooled(trust: float, named: float) -> torch.Tensor:
        found = Reliabilities(0.7, by_answer, torch.zeros(world.classes).long(), (Reliability(trust, named, 1.0),))
        return pooling(strong, found, [told], [all_of(world)], [trust]).common([0])[:]

    def plain(own: float | torch.Tensor, trust: float) -> torch.Tensor:
        return doubted(strong, own).log() + doubted(told, trust).log()

    surest = mixing_weight(0.6, told, SUREST)
    assert surest > 0.6
    torch.testing.assert_close(pooled(0.6, CONFIRMED), plain(by_answer, surest))
    torch.testing.assert_close(pooled(0.6, CONFIRMED - 0.01), plain(by_answer, 0.6))
    torch.testing.assert_close(pooled(0.0, 1.0), plain(mixing_weight(0.7, strong, 1.0), 0.0))


def known(answered: list[int], shown: list[float]) -> list[bool]:
    """Which classes a teacher knows that gives so many answers of each, where images show each so often."""
    answers = torch.arange(len(answered)).repeat_interleave(torch.tensor(answered))
    return known_classes(answers, torch.tensor(shown)).tolist()


def test_a_teacher_knows_what_it_answers_where_it_leaves_out_much_of_what_images_show():
    even = 100.0
    few, many = (round(ANSWERED * even + change) for change in (-1, 1))
    shown, hidden = SHOWN * even + 1, SHOWN * even - 1
    wide = 8 * 100 - 5 * many - few
    assert known([wide, many, many, many, many, many, few, 0], [shown] * 8) == [True] * 6 + [False] * 2
    assert known([wide, many, many, many, many, many, few, 0], [shown] * 7 + [hidden]) == [True] * 8, "a seventh"
    assert known([wide, many, many, many, many, many, few, 0], [shown] * 5 + [hidden] * 3) == [True] * 8, "none"
    assert known([wide + many, many, many, many, 0, 0, few, 0], [shown] * 8) == [True] * 8, "four are answered"
    assert (IGNORED, FEWEST_KNOWN) == (0.25, 5)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=12).filter(any), st.integers(0, 2**31))
def test_a_teacher_that_answers_as_often_as_images_show_knows_all_classes(answered: list[int], seed: int):
    order = torch.randperm(len(answered), generator=torch.Generator().manual_seed(seed)).tolist()
    found = known([answered[one] for one in order], [float(answered[one]) for one in order])
    assert all(found)


def part_of(world: World, share: float, trust: float = 0.9) -> tuple[Pool, torch.Tensor]:
    """The strong model, trusted differently by its answers, and a teacher of the first four classes; those."""
    some = torch.arange(world.classes) < 4
    own = torch.linspace(share, 1, world.classes)
    strong = zero_shot_class_logits(world.strong, world.classes)
    return Pool(strong, own, [world.finetuned_logits], [some], [trust], [trust]), some


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_teacher_of_some_classes_says_nothing_of_whether_an_image_is_of_these(world: World, share: float):
    pool, some = part_of(world, share)
    alone, common = pool.by_strong(slice(None)), pool.common([0])[:]
    before, after = (one.softmax(-1)[:, some].sum(-1) for one in (alone, common))
    torch.testing.assert_close(after, before)
    others = [one[:, ~some].softmax(-1) for one in (alone, common)]
    torch.testing.assert_close(*others)
    told = doubted(world.finetuned_logits, 0.9)[:, some].log() + alone[:, some]
    torch.testing.assert_close(common[:, some].softmax(-1), told.softmax(-1))


def test_a_teacher_that_has_no_say_changes_nothing_whatever_it_knows(world: World):
    pool, _ = part_of(world, 0.5, trust=0.0)
    found, alone = pool.common([0])[:].softmax(-1), pool.by_strong(slice(None)).softmax(-1)
    torch.testing.assert_close(found, alone, atol=1e-6, rtol=1e-5)
