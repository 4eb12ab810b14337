import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch

import transmiter_cli as tm
from tests.conftest import World
from transmiter_cli.evaluation.candidates import Candidate, candidates, eft_name
from transmiter_cli.evaluation.protocols import accuracy_among, coop_base
from transmiter_cli.evaluation.rows import mean_rows, measure
from transmiter_cli.evaluation.unlabelled import MOVES, Move, describe, moves
from transmiter_cli.method.embeddings import InvalidTensorError
from transmiter_cli.method.metrics import harmonic_mean
from transmiter_cli.method.per_image import zero_shot_class_logits


@pytest.fixture(scope="module")
def parts(world: World) -> dict[str, object]:
    fitted = tm.fit(world.weak, world.finetuned_logits, epochs=2)
    moved = tm.transfer(fitted, world.weak, world.strong)
    models = {"weak": world.weak, "strong": world.strong, "finetuned_logits": world.finetuned_logits}
    return {**models, "fitted": fitted, "transferred": {"transferred": moved}}


def test_strengths_of_eft_that_differ_have_rows_of_their_own():
    assert [eft_name(a) for a in (1.0, 0.1, 0.5, 2.0, 1.0000001)] == [
        "eft", "eft_0.1", "eft_0.5", "eft_2", "eft_1.0000001"
    ]  # fmt: skip


def test_every_row_has_all_numbers(world: World, parts):
    rows = tm.evaluate(world.labels, **parts, weak_parameters=10, weak_flops=7, eft=(0.3, 1.0))
    assert list(rows) == ["weak", "weak_finetuned", "strong", "eft_0.3", "eft", "product", "direct", "transferred"]
    for row in rows.values():
        assert row.low <= row.top1 <= row.high
        assert row.top1 <= row.top5 <= 1
        assert 0 <= row.ece <= 1
        assert row.nll > 0
        assert row.gain_low <= row.gain <= row.gain_high
        assert row.gain == pytest.approx(row.top1 - rows["strong"].top1)
        assert (row.fixed - row.broken) / len(world.labels) == pytest.approx(row.gain)
        assert (row.base, row.novel, row.hm) == (None, None, None)
    eft, moved = rows["eft"], rows["transferred"]
    assert (eft.models, eft.parameters, eft.flops) == (2, 20, 14)
    classes, words, basis, width = 6, 60, len(parts["fitted"].correction.basis), 48
    assert moved.models == 0
    assert moved.parameters == words * width + basis * 66 + 8 * basis**2 + 7 * basis
    assert moved.flops == 2 * (words * width + basis * 66 + basis * 4 * basis * 2 + basis * classes)
    assert moved.seconds > 0


def test_the_seconds_of_an_ensemble_are_those_of_its_models_too(world: World, parts, monkeypatch: pytest.MonkeyPatch):
    def slow(model: tm.Embeddings, classes: int) -> torch.Tensor:
        time.sleep(0.05)
        return zero_shot_class_logits(model, classes)

    monkeypatch.setattr("transmiter_cli.evaluation.candidates.zero_shot_class_logits", slow)
    rows = tm.evaluate(world.labels, **parts)
    assert rows["strong"].seconds > 0.05
    assert rows["product"].seconds > 0.05
    assert rows["eft"].seconds > 0.1


def test_no_reference_no_comparison(world: World):
    (row,) = tm.evaluate(world.labels, finetuned_logits=world.finetuned_logits).values()
    assert (row.gain, row.fixed) == (None, None)


def test_rows_can_be_compared_with_any_other(world: World, parts):
    rows = tm.evaluate(world.labels, **parts, against="weak_finetuned")
    tuned = rows["weak_finetuned"]
    assert (tuned.gain, tuned.gain_low, tuned.gain_high, tuned.fixed, tuned.broken) == (0, 0, 0, 0, 0)
    for row in rows.values():
        assert row.gain == pytest.approx(row.top1 - tuned.top1)
    usual = tm.evaluate(world.labels, **parts)["weak_finetuned"]
    assert (rows["strong"].fixed, rows["strong"].broken) == (usual.broken, usual.fixed)
    with pytest.raises(ValueError, match="no row 'twin' to compare with, only weak, weak_finetuned, strong"):
        tm.evaluate(world.labels, **parts, against="twin")


def test_a_fine_tuned_strong_model_is_a_row(world: World):
    rows = tm.evaluate(world.labels, strong=world.strong, strong_finetuned_logits=world.finetuned_logits)
    assert list(rows) == ["strong", "strong_finetuned"]
    assert rows["strong_finetuned"].labels
    assert rows["strong_finetuned"].gain > 0


def test_base_and_novel_are_answered_among_their_own(world: World, parts):
    rows = tm.evaluate(world.labels, **parts, base=[0, 1, 2])
    logits = candidates(**parts)["transferred"].logits()
    for name, among in (("base", [0, 1, 2]), ("novel", [3, 4, 5])):
        images = [i for i, label in enumerate(world.labels.tolist()) if label in among]
        right = [among[int(logits[i, among].argmax())] == world.labels[i] for i in images]
        assert getattr(rows["transferred"], name) == pytest.approx(sum(map(float, right)) / len(right))
    row = rows["transferred"]
    assert row.hm == pytest.approx(harmonic_mean(row.base, row.novel))
    assert row.top1 <= max(row.base, row.novel)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_classes_may_be_a_tensor_but_no_mask(world: World, dtype: torch.dtype):
    few = world.labels < 3
    given, classes = {"finetuned_logits": world.finetuned_logits}, torch.tensor([0, 1, 2]).to(dtype)
    found, expected = (tm.evaluate(world.labels, **given, base=one) for one in (classes, {0, 1, 2}))
    assert found["weak_finetuned"].hm == expected["weak_finetuned"].hm
    logits = world.finetuned_logits[few]
    row = tm.evaluate(world.labels[few], finetuned_logits=logits, among=classes.flip(0).numpy()[::-1])["weak_finetuned"]
    assert row.top1 == pytest.approx(accuracy_among(logits, world.labels[few], [0, 1, 2]))
    for wrong in (torch.arange(6) < 3, torch.tensor(2), torch.zeros(2, 2, dtype=dtype), torch.zeros(2)):
        with pytest.raises(InvalidTensorError, match="whole numbers"):
            tm.evaluate(world.labels, **given, base=wrong)


@pytest.mark.parametrize("base", [[], [0, 1, 2, 3, 4, 5], [7], [-1]])
def test_a_base_that_is_no_part_of_the_classes_is_refused(world: World, base):
    with pytest.raises(InvalidTensorError, match="base classes must be"):
        tm.evaluate(world.labels, strong=world.strong, finetuned_logits=world.finetuned_logits, base=base)


def test_a_part_without_images_is_refused():
    with pytest.raises(InvalidTensorError, match="no images of the novel"):
        tm.evaluate(torch.tensor([0, 0]), finetuned_logits=torch.randn(2, 3), base=[0])


def test_coop_takes_the_first_half_rounded_up():
    assert coop_base(5) == [0, 1, 2]
    assert coop_base(2) == [0]


def test_both_harmonic_means_are_given():
    (row, *_) = tm.evaluate(torch.tensor([0, 1]), finetuned_logits=5 * torch.eye(2)).values()
    parts = ({"base": 0.9, "novel": 0.1, "hm": 0.18}, {"base": 0.5, "novel": 0.5, "hm": 0.5})
    found = mean_rows([{"weak_finetuned": replace(row, **part)} for part in parts])["weak_finetuned"]
    assert (found.sets, found.base, found.novel) == (2, pytest.approx(0.7), pytest.approx(0.3))
    assert found.hm == pytest.approx(0.34)
    assert found.hm_of_means == pytest.approx(harmonic_mean(0.7, 0.3))


def test_answers_among_some_classes_only(world: World, parts):
    chosen = world.labels % 2 == 0
    models = {name: tm.Embeddings(parts[name].images[chosen], parts[name].texts, 20.0) for name in ("weak", "strong")}
    given = {**models, "transferred": parts["transferred"]}
    rows = tm.evaluate(world.labels[chosen], **given, among=[4, 0, 2])
    logits = candidates(**given)["transferred"].logits()
    assert rows["transferred"].top1 == pytest.approx(accuracy_among(logits, world.labels[chosen], [0, 2, 4]))
    assert rows["transferred"].top5 == 1
    for among in ([0, 0], [], [9], [-1, 0], [1, 3, 5]):
        said = "a label is none of" if among == [1, 3, 5] else "must be distinct numbers"
        with pytest.raises(InvalidTensorError, match=said):
            tm.evaluate(world.labels[chosen], **given, among=among)


def test_base_classes_and_answers_among_others_exclude_each_other(world: World):
    with pytest.raises(InvalidTensorError, match="drop one"):
        tm.evaluate(world.labels, finetuned_logits=world.finetuned_logits, base=[0, 1, 2], among=range(6))


@pytest.mark.parametrize("look", [describe, lambda models: measure(models, torch.zeros(400, dtype=torch.long))])
def test_logits_of_one_model_at_a_time_are_in_memory(parts, look: Callable[[Mapping[str, Candidate]], object]):
    given: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def noted(model: Candidate) -> torch.Tensor:
        logits = model.compute().clone()
        given.append(weakref.ref(logits))
        alive.append(sum(one() is not None for one in given))
        return logits

    models = {name: replace(model, compute=partial(noted, model)) for name, model in candidates(**parts).items()}
    look(models)
    assert len(alive) >= len(models) > 5
    assert max(alive) <= 2, "one may still have a name while the next is computed"


def test_without_labels_agreement_and_moves_are_known(world: World, parts):
    rows = tm.evaluate_unlabelled(**parts)
    models = candidates(**parts)
    before, after = (models[name].logits().argmax(-1) for name in ("strong", "transferred"))
    moved = rows["transferred"]
    assert rows["strong"].agrees_strong == 1
    assert rows["strong"].moves == ()
    assert moved.changed == int((before != after).sum())
    assert moved.agrees_strong == pytest.approx(1 - moved.changed / 400)
    assert moved.agrees_finetuned > rows["strong"].agrees_finetuned
    assert moved.confidence_shift == pytest.approx(moved.confidence - rows["strong"].confidence)
    first = moved.moves[0]
    assert first == Move(first.before, first.after, int(((before == first.before) & (after == first.after)).sum()))
    assert sorted(moved.moves, key=lambda move: -move.images) == list(moved.moves)
    assert not hasattr(moved, "top1")


def test_the_most_frequent_moves_are_listed_and_no_more():
    before = torch.arange(2 * MOVES)
    assert len(moves(before, before.roll(1), 2 * MOVES)) == MOVES


def test_models_on_different_images_are_refused(world: World):
    some = world.part(world.weak, slice(0, 10))
    with pytest.raises(InvalidTensorError, match=r"\[10, 400\] images"):
        tm.evaluate_unlabelled(weak=some, strong=world.strong)


def test_nothing_to_evaluate_is_refused(world: World):
    with pytest.raises(InvalidTensorError, match="no model"):
        tm.evaluate(world.labels)
