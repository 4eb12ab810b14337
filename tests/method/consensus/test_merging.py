from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World
from transmiter_cli.method.class_counts import evenness
from transmiter_cli.method.consensus import merging
from transmiter_cli.method.consensus.discriminant_transfer import discriminant_transfer
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.consensus.merging import (
    ALONE,
    CALMEST,
    ENOUGH,
    SCARCE,
    STRAY,
    TRIALS_OF_HALVES,
    UNSEEN_DISCOUNT,
    MergeInputs,
    best_lift,
    calming_factor,
    deviation,
    have_images,
    margins,
    margins_left_out,
    matching_factor,
    merge,
    raised_shares,
    shares_of_images,
    unseen_lift,
)
from transmiter_cli.method.consensus.unseen import carry, combined_correction, left_out
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.folds import all_rows, folds_of
from transmiter_cli.method.linear.classifier import Linear, blend
from transmiter_cli.method.linear.discriminant import CalibratedDiscriminant, about_mean, choose_discriminant
from transmiter_cli.method.linear.moments import fold_moments

TRAIN = slice(0, 300)


def known(world: World) -> tuple[Embeddings, torch.Tensor, CalibratedDiscriminant]:
    """The strong model on some images, their soft labels and the discriminant of these."""
    strong = world.part(world.strong, TRAIN)
    posterior = F.softmax(world.finetuned_logits[TRAIN].double(), -1)
    folds = folds_of(strong)
    moments = fold_moments(strong, posterior, folds)
    directions = about_mean(strong.unit_texts()[: world.classes].double(), posterior.sum(0))
    return strong, posterior, choose_discriminant(strong, posterior, directions, folds, moments)


@pytest.fixture
def part(world: World) -> tuple[Embeddings, torch.Tensor, CalibratedDiscriminant]:
    return known(world)


def counts_of(classes: int, seen: int) -> torch.Tensor:
    """So many images that classes that have any go by these alone."""
    return 1e9 * (torch.arange(classes) < seen).double()


def test_a_class_goes_by_its_own_images_unless_they_are_few_or_stray():
    many, few = 600, 6
    stray = torch.tensor([1000.0, STRAY * many / 3, 0.0]).double()
    torch.testing.assert_close(
        shares_of_images(stray, stray, many, 1.0),
        (1 - UNSEEN_DISCOUNT * 2 / 3) * torch.tensor([1.0, 0.5, 0.0]).double(),
        atol=0.01,
        rtol=0,
    )
    assert have_images(stray + torch.tensor([0, 1, 0]), many).tolist() == [True, True, False]
    assert have_images(stray, many).tolist() == [True, False, False]
    some = torch.tensor([3.0, SCARCE, 1.0]).double()
    assert have_images(some, few).all()
    expected = evenness(some) * torch.tensor([0.8, 0.5, 4 / 13]).double()
    torch.testing.assert_close(shares_of_images(some, some, few, 1.0), expected)


@pytest.mark.parametrize(("trust", "half"), [(1.0, SCARCE), (0.5, 2 * SCARCE), (0.01, ALONE), (0.0, ALONE)])
def test_a_class_needs_more_images_where_teachers_are_trusted_less(trust: float, half: float):
    counts = torch.tensor([half, 3 * half]).double()
    expected = 0.8 * torch.tensor([0.5, 0.9]).double()  # (1 + 3)^2 / (2 (1 + 9)) is their evenness
    torch.testing.assert_close(shares_of_images(counts, counts, 0, trust), expected)


def test_how_even_classes_are_is_told_by_soft_labels_and_not_by_how_many_images_are_found_of_each():
    """Expectation maximisation gives nearly all images to one class where models are poor."""
    found, labelled = torch.tensor([5000.0, 500.0, 500.0]).double(), torch.full((3,), 2000.0).double()
    torch.testing.assert_close(shares_of_images(found, found, 0, 1.0), evenness(found).expand(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(shares_of_images(found, labelled, 0, 1.0), torch.ones(3).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("noise", "raised"), [(0.3, False), (10.0, True)])
def test_classes_go_by_their_own_images_alone_where_strong_scores_tell_nothing_of_the_taught(
    noise: float, raised: bool
):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (600,), generator=generator)
    truth = F.one_hot(labels, 4).double()
    scores, held_out = (3 * truth + by * torch.randn(600, 4, generator=generator) for by in (noise, 2.0))
    seen, share = torch.tensor([True, True, True, False]), torch.tensor([0.5, 0.6, 0.7, 0.2]).double()
    found = raised_shares(share, seen, scores, held_out, truth)
    most = torch.tensor([*[1 - UNSEEN_DISCOUNT / 4] * 3, 0.2]).double()
    torch.testing.assert_close(found, most if raised else share)


@pytest.mark.parametrize("times", [1, 100])
def test_shares_are_not_raised_for_what_may_be_chance(times: int):
    generator = torch.Generator().manual_seed(5)
    truth = F.one_hot(torch.randint(2, (40,), generator=generator), 2).double()
    both = (2 * truth + 2 * torch.randn(40, 2, generator=generator) for _ in range(2))
    scores, held_out, told = (one.repeat(times, 1) for one in (*both, truth))
    share = torch.tensor([0.5, 0.5]).double()
    found = raised_shares(share, torch.tensor([True, True]), scores, held_out, told)
    assert bool((found > share).all()) is (times > 1)


@pytest.mark.parametrize("seen", [2, ENOUGH - 1, None])
def test_nothing_is_left_out_where_no_class_can_be_or_need_be(
    part: tuple[Embeddings, torch.Tensor, CalibratedDiscriminant], seen: int | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(merging, "evenness", lambda _: 1.0)
    strong, posterior, chosen = part
    counts = counts_of(posterior.shape[1], seen or posterior.shape[1])
    nothing = Linear.zero_shot(strong, len(counts)).scaled(0.0)
    found = margins_left_out(
        MergeInputs(strong, [], posterior, chosen), counts > 0, (counts > 0).double(), 1.0, nothing
    )
    assert len(found) == 0
    merged = merge(MergeInputs(strong, [], posterior, chosen), counts, 0.0)
    scores = merged.classifier(strong.unit_images(chosen.rows))
    own = chosen.classifier(strong.unit_images(chosen.rows))
    if seen is None:
        torch.testing.assert_close(scores - scores.mean(-1, keepdim=True), own - own.mean(-1, keepdim=True))


@pytest.mark.parametrize("trust", [0.0, 1.0])
def test_held_out_scores_are_merged_as_the_classifier_is(
    part: tuple[Embeddings, torch.Tensor, CalibratedDiscriminant], trust: float
):
    strong, posterior, chosen = part
    images = strong.unit_images(chosen.rows)
    known = replace(chosen, held_out=chosen.classifier(images))
    classes = posterior.shape[1]
    counts = counts_of(classes, classes - 2)
    merged = merge(MergeInputs(strong, [], posterior, known), counts, trust)
    torch.testing.assert_close(merged.held_out, merged.classifier(images).double(), atol=1e-3, rtol=1e-4)


def test_margins_are_those_of_what_is_said_without_images_of_the_classes_left_out(
    world: World, part: tuple[Embeddings, torch.Tensor, CalibratedDiscriminant]
):
    strong, posterior, chosen = part
    classes, width = posterior.shape[1], 0.7
    counts = torch.tensor([1000.0, 40.0, 25.0, 55.0, 30.0, 4.0]).double()
    share = shares_of_images(counts, posterior.sum(0), len(strong), 1.0)
    seen = have_images(counts, len(strong))
    teacher = Teacher(world.finetuned_logits[TRAIN], world.part(world.weak, TRAIN))
    says = carry(strong, [teacher], [0.7], posterior.log(), seen)
    assert len(says) == 1
    answers = posterior.argmax(-1)[chosen.rows]
    own_scores = Linear.zero_shot(strong, classes)
    added = combined_correction(says, strong, seen, all_rows(strong))
    mean = strong.unit_images(chosen.rows).mean(0, keepdim=True)
    expected: list[float] = []
    for held in left_out(seen.nonzero().flatten(), 2, TRIALS_OF_HALVES):
        kept = torch.tensor([one for one in range(classes) if seen[one] and one not in held])
        out = torch.isin(torch.arange(classes), held)
        away = torch.isin(answers, held)
        without = combined_correction(says, strong, ~out, chosen.rows[~away])
        first, shift = own_scores + without, added(mean)[:, ~seen].mean() - without(mean)[:, out].mean()
        some = share.clone()
        some[held] = 0
        for image, own in zip(strong.unit_images(chosen.rows[away]), chosen.held_out[away], strict=True):
            scores = blend(width * (first(image[None]) + shift * out), own[None], some)[0]
            expected.append(max(scores[kept].tolist()) - max(scores[out].tolist()))
    found = margins_left_out(MergeInputs(strong, says, posterior, chosen), seen, share, width, added)
    torch.testing.assert_close(found.sort().values, torch.tensor(expected).double().sort().values, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("trust", [0.0, 0.7])
@pytest.mark.parametrize("seen", [ENOUGH - 1, ENOUGH])
def test_the_lift_weighs_what_is_won_against_what_images_of_other_classes_lose(seen: int, trust: float):
    world = World(3)
    strong, posterior, chosen = known(world)
    counts, images = counts_of(posterior.shape[1], seen), strong.unit_images(chosen.rows)
    has = counts > 0
    teacher = Teacher(world.finetuned_logits[TRAIN], world.part(world.weak, TRAIN))
    says = carry(strong, [teacher], [trust], posterior.log(), has)
    added = combined_correction(says, strong, has, all_rows(strong))
    labels, scores = posterior[chosen.rows], (Linear.zero_shot(strong, len(has)) + added)(images)
    width = calming_factor(scores, labels, has)
    if seen < ENOUGH:
        assert width < matching_factor(scores, chosen.held_out, has)
        width = matching_factor(scores, chosen.held_out, has)
    share = shares_of_images(counts, posterior.sum(0), len(strong), trust)
    merged = blend(width * scores, chosen.held_out, share)
    won = margins_left_out(MergeInputs(strong, says, posterior, chosen), has, share, width, added)
    assert (len(won) > 0) == (seen >= ENOUGH)
    rows = labels.argmax(-1) < seen
    before = Linear.zero_shot(strong, len(has))(images[rows])
    lift = unseen_lift(won, merged[rows], before, has, trust > 0)
    after = merge(MergeInputs(strong, says, posterior, chosen), counts, trust).held_out
    torch.testing.assert_close(after - merged, (lift * ~has).double().expand_as(after), atol=1e-3, rtol=1e-3)


def test_scores_that_vary_more_than_the_discriminants_are_not_narrowed_to_these():
    strong, posterior, chosen = known(World(3))
    counts, images = counts_of(posterior.shape[1], ENOUGH - 1), strong.unit_images(chosen.rows)
    narrow = replace(chosen, held_out=1e-3 * chosen.held_out, classifier=chosen.classifier.scaled(1e-3))
    has, scores = counts > 0, Linear.zero_shot(strong, len(counts))(images)
    width = calming_factor(scores, posterior[chosen.rows], has)
    assert width > matching_factor(scores, narrow.held_out, has)
    share = shares_of_images(counts, posterior.sum(0), len(strong), 1.0)
    expected = blend(width * scores, narrow.held_out, share)[:, has]
    found = merge(MergeInputs(strong, [], posterior, narrow), counts, 1.0).held_out[:, has]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_nothing_is_widened_where_all_of_a_few_classes_have_images():
    strong, posterior, chosen = known(World(3, classes=4))
    strong = replace(strong, logit_scale=2.0)
    counts, every = torch.full((4,), 40.0).double(), torch.ones(4, dtype=torch.bool)
    first, share = Linear.zero_shot(strong, 4), shares_of_images(counts, posterior.sum(0), len(strong), 1.0)
    scores = first(strong.unit_images(chosen.rows))
    assert calming_factor(scores, posterior[chosen.rows], every) == 1 < matching_factor(scores, chosen.held_out, every)
    found = merge(MergeInputs(strong, [], posterior, chosen), counts, 1.0).held_out
    torch.testing.assert_close(found, blend(scores, chosen.held_out, share), atol=1e-3, rtol=1e-3)


def test_classes_without_images_are_lifted_less_where_they_would_take_images(
    part: tuple[Embeddings, torch.Tensor, CalibratedDiscriminant],
):
    strong, posterior, chosen = part
    strong = replace(strong, logit_scale=2.0)
    classes = posterior.shape[1]
    counts = counts_of(classes, classes - 1)

    def bias(some: CalibratedDiscriminant) -> float:
        return merge(MergeInputs(strong, [], posterior, some), counts, 0.0).classifier.bias[-1].item()

    unsure = replace(chosen, held_out=0.1 * chosen.held_out)
    assert bias(unsure) < bias(chosen) - 0.1


def test_scores_that_are_far_too_wide_do_not_drown_the_discriminant():
    """Every class has images; the strong model's logits are fifty times as wide as they should be."""
    world = World(3)
    wide = replace(world.part(world.strong, TRAIN), logit_scale=50 * world.strong.logit_scale)
    teacher = Teacher(world.finetuned_logits[TRAIN], world.part(world.weak, TRAIN))
    images, labels = world.strong.unit_images(slice(300, None)), world.labels[300:]
    right = []
    for model in (world.part(world.strong, TRAIN), wide):
        classifier, _ = discriminant_transfer(model, [teacher])
        right.append((classifier(images).argmax(-1) == labels).float().mean().item())
    assert right[1] > right[0] - 0.1


def test_only_scores_that_are_too_wide_are_calmed():
    posterior = F.softmax(torch.randn(200, 5, generator=torch.Generator().manual_seed(0)), -1)
    every = torch.ones(5, dtype=torch.bool)
    assert calming_factor(0.9 * posterior.log(), posterior, every) == 1
    assert calming_factor(10 * posterior.log(), posterior, every) == pytest.approx(0.1, abs=0.01)
    for width in (1, 1e6):
        opposite = -width * posterior.log()
        assert calming_factor(opposite, posterior, every) * opposite.std() == pytest.approx(CALMEST)


def test_how_wide_scores_are_is_seen_among_classes_with_images():
    posterior = F.softmax(torch.randn(200, 5, generator=torch.Generator().manual_seed(0)), -1)
    seen = torch.arange(5) < 3
    scores = posterior.log() + 50 * ~seen
    assert calming_factor(10 * scores, posterior, seen) == pytest.approx(0.1, abs=0.01)
    assert calming_factor(10 * scores, posterior, torch.arange(5) < 2) == pytest.approx(0.1, abs=0.01)
    assert calming_factor(10 * scores, posterior, torch.arange(5) < 1) == 1


@pytest.mark.parametrize("width", [1e-3, 1.0, 1e6])
def test_scores_are_made_as_wide_among_classes_with_images_as_wanted(width: float):
    generator = torch.Generator().manual_seed(0)
    scores, wanted = (torch.randn(200, 5, generator=generator).double() for _ in range(2))
    seen = torch.arange(5) < 3
    factor = matching_factor(width * scores + 50 * ~seen, wanted, seen)
    assert deviation(factor * width * scores[:, :3]) == pytest.approx(deviation(wanted[:, :3]))


def test_what_does_not_vary_is_not_widened():
    scores, flat = torch.randn(20, 5).double(), torch.ones(20, 5).double()
    assert matching_factor(scores, flat, torch.arange(5) < 3) == matching_factor(flat, scores, torch.arange(5) < 3) == 0
    assert matching_factor(scores, 2 * scores, torch.arange(5) < 1) == 0


def test_a_deviation_is_that_from_the_mean_score_of_an_image():
    assert deviation(torch.tensor([[5.0, 7.0], [-3.0, -3.0]])) == pytest.approx(0.5**0.5)


def test_classes_without_images_keep_the_differences_of_the_first():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(20, 5, generator=generator).double() for _ in range(2))
    mixed = blend(first, second, torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]).double())
    for classes, source in ((slice(0, 2), second), (slice(2, 5), first)):
        differences = (one[:, classes] - one[:, classes].mean(-1, keepdim=True) for one in (mixed, source))
        torch.testing.assert_close(*differences)


def test_margins_are_between_the_best_of_each_side():
    scores = torch.tensor([[1.0, 5.0, 2.0, 3.0]])
    first = torch.tensor([True, True, False, False])
    assert margins(scores, first, ~first).item() == 2


@given(
    won=st.lists(st.integers(-20, 20), min_size=1, max_size=200),
    lost=st.lists(st.integers(-20, 20), min_size=1, max_size=200),
    unseen=st.integers(1, 8),
)
def test_no_lift_has_fewer_errors(won: list[int], lost: list[int], unseen: int):
    low, high = torch.tensor(won).double(), torch.tensor(lost).double()

    def wrong(lift: float) -> float:
        return (unseen * (low > lift).double().mean() + 2 * (high < lift).double().mean()).item()

    values = sorted({*won, *lost})
    middles = [(a + b) / 2 for a, b in pairwise(values)] or values
    assert wrong(best_lift(low, high, unseen / (2 + unseen))) <= min(map(wrong, middles)) + 1e-6


def test_a_gap_is_cut_in_the_middle():
    assert best_lift(torch.tensor([-2.0, 0.0]), torch.tensor([4.0, 6.0]), 0.5) == 2


def test_of_lifts_with_as_few_errors_the_middle_one_is_taken():
    """0.5, 2.5 and 4.5 have as many."""
    assert best_lift(torch.tensor([-9.0, 0.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 5.0, 9.0]), 0.5) == 2.5


def test_images_that_are_met_more_often_count_for_more():
    won, kept = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0])
    assert best_lift(won, kept, 1 / 3) < 1 < 2 < best_lift(won, kept, 3 / 4)


NONE = torch.zeros(0)
KEPT = torch.arange(101) / 10
SEEN = torch.arange(10) < 1
SCORES, BEFORE = torch.full((2, 101, 10), -9.0)
SCORES[:, 0] = KEPT
SCORES[:, 1] = 0
BEFORE[:, 0] = torch.where(torch.arange(101) < 20, -1.0, 1.0)
BEFORE[:, 1] = 0
"""Of a hundred images or so of the first of ten classes, zero-shot answers lose the first twenty."""


def test_where_nothing_can_be_left_out_half_as_many_images_are_lost_as_by_zero_shot_answers():
    lift = unseen_lift(NONE, SCORES, BEFORE, SEEN, trusted=True)
    assert (lift > KEPT).double().mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(("won", "most"), [(1.4, None), (5.0, 2.0), (-5.0, 0.0)])
def test_what_leaving_out_tells_is_kept_between_none_and_the_zero_shot_loss(won: float, most: float | None):
    """Images of left out classes are all won from a lift of `won` on."""
    margins_won = torch.full((1000,), won)
    best = best_lift(margins_won, KEPT, 0.9)
    for trusted in (True, False):
        found = unseen_lift(margins_won, SCORES, BEFORE, SEEN, trusted)
        assert found == pytest.approx(best if most is None else most, abs=0.05)


@pytest.mark.parametrize("won", [-5.0, 5.0, None])
def test_nothing_is_lowered(won: float | None):
    """Not even where zero-shot answers lose fewer images than the discriminant alone."""
    nothing_lost = BEFORE.clone()
    nothing_lost[:, 0] = 1
    margins_won = NONE if won is None else torch.full((1000,), won)
    for trusted in (True, False):
        assert unseen_lift(margins_won, SCORES - 3 * SEEN, nothing_lost, SEEN, trusted) == 0


def test_nothing_is_lifted_without_images_on_either_side():
    for trusted in (True, False):
        assert unseen_lift(KEPT, SCORES[:0], BEFORE[:0], SEEN, trusted) == 0
        assert unseen_lift(KEPT, SCORES, BEFORE, torch.ones(10, dtype=torch.bool), trusted) == 0


def test_nothing_is_lifted_without_classes_left_out_and_without_a_trusted_teacher():
    assert unseen_lift(NONE, SCORES, BEFORE, SEEN, trusted=False) == 0
