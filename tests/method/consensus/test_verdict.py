from __future__ import annotations

import pytest
import torch

from transmiter_cli.cli.console import verdict_in_words
from transmiter_cli.method.consensus.verdict import Verdict, expected_gain


@pytest.mark.parametrize(("fixed", "broken"), [(0, 50), (20, 15), (15, 25), (20, 0)])
def test_the_expected_gain_is_exact_where_common_answers_and_the_discriminants_are_right(fixed: int, broken: int):
    """Answer 0 is right. Zero-shot misses the first images; the result mends some of them and breaks the last ones."""
    right, images = torch.zeros(100, dtype=torch.long), torch.arange(100)
    before = (images < 20).long()
    after = torch.where(images < 20, (images >= fixed).long(), 2 * (images >= 100 - broken).long())
    assert expected_gain(after, before, right, right, right) == pytest.approx((fixed - broken) / 100)


@pytest.mark.parametrize(
    ("strong", "teacher", "gain", "word"),
    [
        (0.8, 0.7, 0.1, "helps"),
        (0.8, 0.7, 0.0, "unsure"),
        (0.8, 0.5, 0.1, "unsure"),
        (0.0, 0.4, 0.5, "unsure"),
        (0.0, 0.6, 0.5, "helps"),
        (0.8, 0.0, 0.1, "useless teacher"),
    ],
)
def test_a_teacher_helps_that_is_trusted(strong: float, teacher: float, gain: float, word: str):
    assert Verdict(strong, (teacher,), gain, images=100).word == word


def test_no_teacher_is_said_to_help_where_no_class_could_be_left_out():
    said = {unseen: Verdict(0.8, (0.7,), 0.1, images=100, unseen=unseen, tested=False).word for unseen in ((), (3,))}
    assert said == {(): "helps", (3,): "unsure"}
    assert Verdict(0.8, (0.7,), 0.1, images=100, unseen=(3,)).word == "helps"


@pytest.mark.parametrize(
    ("verdict", "doubt"),
    [
        (Verdict(0.8, (0.7,), 0.1, images=100), ""),
        (Verdict(0.8, (0.0,), 0.0, images=100), ""),
        (Verdict(0.0, (0.0,), 0.0, images=19), "fewer than 20 different images"),
        (Verdict(0.4, (0.45, 0.0), 0.1, images=100), "trusted less than 0.50"),
        (Verdict(0.9, (0.0, 0.6), 0.1, images=100), "less than 0.75 times as far as the strong one"),
        (Verdict(0.8, (0.7,), 0.1, images=100, consistent=False), "agree too rarely"),
        (
            Verdict(0.8, (0.7,), 0.1, images=100, unseen=(3,), tested=False),
            "hardly any image seems to show some classes, and fewer than 5 others are there to test on",
        ),
        (Verdict(0.8, (0.7,), -0.1, images=100), "no gain is expected"),
    ],
)
def test_a_verdict_says_why_it_is_unsure(verdict: Verdict, doubt: str):
    assert doubt in verdict.doubt
    assert bool(verdict.doubt) == (verdict.word == "unsure")
    told = verdict_in_words(verdict.as_json())
    assert told.startswith(f"unsure: {verdict.doubt}" if doubt else verdict.word)
    assert ("expected gain" in told) == (any(verdict.teacher_trust) and verdict.consistent)


def test_no_teacher_is_said_to_help_that_agrees_too_little_with_the_strong_model():
    assert Verdict(0.8, (0.7,), 0.1, images=100, consistent=False).word == "unsure"


def test_no_gain_is_larger_than_the_share_of_answers_that_changed():
    zeros, ones = torch.zeros(100, dtype=torch.long), torch.ones(100, dtype=torch.long)
    some = (torch.arange(100) < 10).long()
    assert expected_gain(some, zeros, some, some, ones) == pytest.approx(0.1)
    assert expected_gain(some, zeros, 2 * ones, zeros, zeros) == pytest.approx(-0.1)


def test_the_expected_gain_is_the_mean_of_what_all_models_and_what_teachers_say():
    before, after, common, taught, foretold = torch.randint(3, (5, 200), generator=torch.Generator().manual_seed(0))

    def alike(first: torch.Tensor, second: torch.Tensor) -> float:
        return (first == second).double().mean().item()

    found = expected_gain(after, before, common, taught, foretold)
    by_all, by_teachers = alike(after, common) - alike(before, foretold), alike(after, taught) - alike(before, taught)
    assert found == pytest.approx((by_all + by_teachers) / 2)


def test_a_few_images_are_no_evidence_against_a_teacher():
    assert Verdict(1.0, (0.0,), -0.1, images=4).word == "unsure"
    assert Verdict(1.0, (0.0,), -0.1, images=100).word == "useless teacher"
