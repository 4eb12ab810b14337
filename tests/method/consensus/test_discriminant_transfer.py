from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import World, random_embeddings
from transmiter_cli.method.class_counts import class_counts
from transmiter_cli.method.consensus import discriminant_transfer as module
from transmiter_cli.method.consensus import merging
from transmiter_cli.method.consensus.discriminant_transfer import discriminant_transfer, images_of_classes
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.consensus.reliability import Reliabilities, Reliability
from transmiter_cli.method.consensus.verdict import NEEDED, Verdict
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.linear.classifier import Linear
from transmiter_cli.method.logits import zero_shot_logits

TRAIN, TEST = slice(0, 300), slice(300, None)


def teacher(world: World, logits: torch.Tensor, rows: slice = TRAIN) -> Teacher:
    return Teacher(logits[rows], world.part(world.weak, rows))


def rates(world: World, teachers: list[Teacher], **options: bool) -> tuple[float, float, Verdict]:
    """Top-1 on test images before and after, and the verdict."""
    classifier, verdict = discriminant_transfer(world.part(world.strong, TRAIN), teachers, **options)
    test = world.part(world.strong, TEST)
    logits = zero_shot_logits(test)
    before, after = logits[:, : world.classes], classifier(test.unit_images())
    return *((one.argmax(-1) == world.labels[TEST]).float().mean().item() for one in (before, after)), verdict


def test_it_helps_on_images_it_has_not_seen(world: World):
    before, after, verdict = rates(world, [teacher(world, world.finetuned_logits)])
    assert after > before + 0.1
    assert verdict.word != "useless teacher"


def test_copies_of_a_teacher_count_as_one(world: World):
    strong, own = world.part(world.strong, TRAIN), teacher(world, world.finetuned_logits)
    (alone, expected), (together, verdict) = (discriminant_transfer(strong, [own] * count) for count in (1, 3))
    assert verdict.gain == pytest.approx(expected.gain)
    test = world.part(world.strong, TEST).unit_images()
    torch.testing.assert_close(together(test), alone(test), atol=1e-3, rtol=1e-3)


def test_what_classes_without_images_take_from_the_others_lowers_the_expected_gain(world: World):
    seen = (world.labels < 4).nonzero()[:, 0]
    strong, weak = (replace(model, images=model.images[seen]) for model in (world.strong, world.weak))
    own = Teacher(world.finetuned_logits[seen], weak)
    _, sound = discriminant_transfer(strong, [own])
    with patch.object(merging, "unseen_lift", lambda *_: 100.0):
        _, harmful = discriminant_transfer(strong, [own])
    assert harmful.gain < -0.5 < sound.gain


def test_the_expected_gain_is_near_the_true_one():
    worlds = [World(seed, images=1000) for seed in range(3)]
    for world in worlds:
        before, after, verdict = rates(world, [teacher(world, world.finetuned_logits)])
        assert verdict.gain == pytest.approx(after - before, abs=0.12)


@pytest.mark.parametrize("kind", ["random", "permuted", "constant"])
def test_a_useless_teacher_is_found_out_and_does_no_harm(world: World, kind: str):
    generator = torch.Generator().manual_seed(0)
    logits = {
        "random": 5 * torch.randn(world.finetuned_logits.shape, generator=generator),
        "permuted": world.finetuned_logits.roll(1, -1),
        "constant": torch.zeros_like(world.finetuned_logits),
    }[kind]
    before, after, verdict = rates(world, [teacher(world, logits)])
    assert after >= before - 0.03
    assert verdict.word == "useless teacher"


def test_a_useless_teacher_does_no_harm_where_each_class_has_a_few_images():
    few, rest = slice(0, 36), slice(36, None)
    gains: list[float] = []
    for seed in range(5):
        world = World(seed, images=1000, classes=12)
        useless = teacher(world, world.finetuned_logits.roll(1, -1), few)
        classifier, verdict = discriminant_transfer(world.part(world.strong, few), [useless])
        test = world.part(world.strong, rest)
        logits = zero_shot_logits(test)
        before, after = logits[:, :12], classifier(test.unit_images())
        right = [(one.argmax(-1) == world.labels[rest]).float().mean().item() for one in (before, after)]
        gains.append(right[1] - right[0])
        assert verdict.word == "useless teacher"
    assert min(gains) > -0.02
    assert sum(gains) > 0


def test_classes_that_zero_shot_answers_underrate_gain_beside_a_useless_teacher():
    """Their names say little, but held-out answers tell that they have images."""
    gains: list[tuple[float, float]] = []
    for seed in range(6):
        world = World(seed, images=1600, classes=12)
        noise = torch.randn(3, 48, generator=torch.Generator().manual_seed(seed))
        texts = F.normalize(world.strong.texts, dim=-1)
        texts[:3] += 0.8 * F.normalize(noise, dim=-1)
        world.strong = replace(world.strong, texts=texts)
        seen, rest = slice(0, 800), slice(800, None)
        useless = teacher(world, world.finetuned_logits.roll(1, -1), seen)
        classifier, verdict = discriminant_transfer(world.part(world.strong, seen), [useless])
        assert verdict.word == "useless teacher"
        test, labels = world.part(world.strong, rest), world.labels[rest]
        logits = zero_shot_logits(test)
        before, after = (one.argmax(-1) == labels for one in (logits[:, :12], classifier(test.unit_images())))
        won = after.float() - before.float()
        gains.append((won.mean().item(), won[labels < 3].mean().item()))
    every, underrated = zip(*gains, strict=True)
    assert min(every) > 0.03
    assert min(underrated) > 0.03


def nothing(world: World) -> torch.Tensor:
    """No image of any class."""
    return torch.zeros(world.classes, dtype=torch.long)


def test_a_good_teacher_outweighs_a_bad_one(world: World):
    good, bad = teacher(world, world.finetuned_logits), teacher(world, world.finetuned_logits.roll(1, -1))
    _, alone, _ = rates(world, [good])
    _, together, verdict = rates(world, [bad, good])
    assert together >= alone - 0.03
    assert verdict.teacher_trust[1] > verdict.teacher_trust[0] + 0.5


def test_a_bad_teacher_does_not_cost_the_strong_model_its_trust(world: World):
    _, _, alone = rates(world, [teacher(world, world.finetuned_logits)])
    _, _, beside = rates(world, [teacher(world, world.finetuned_logits.roll(1, -1))])
    assert beside.strong_trust > 0.8 * alone.strong_trust


def test_a_large_class_keeps_most_of_its_images_beside_small_ones():
    """Soft labels give a part of it to the others: expected about their mean, all classes would lean towards it."""
    sizes, width, losses = torch.tensor([300, 60, 30, 20, 10, 10]), 64, []
    for seed in range(4):
        torch.manual_seed(seed)
        texts = torch.randn(206, width)
        labels = torch.arange(6).repeat_interleave(sizes)
        tested = labels[torch.randint(len(labels), (2000,))]
        strong, test = (
            Embeddings(texts[some] + 4 * torch.randn(len(some), width), texts, 100.0) for some in (labels, tested)
        )
        classifier, verdict = discriminant_transfer(strong, [Teacher(30 * torch.randn(len(labels), 6), strong)])
        assert verdict.word == "useless teacher"
        before, after = (one(test.unit_images()).argmax(-1) for one in (Linear.zero_shot(strong, 6), classifier))
        losses.append(((before == tested).double() - (after == tested).double()).mean().item())
    assert sum(losses) / 4 < 0.045  # 0.064 about the mean of the soft labels


def test_images_of_a_class_are_counted_by_soft_labels_trusted_answers_and_foretold_ones():
    log_posterior = F.one_hot(torch.tensor([0, 0, 0, 1]), 3).double().mul(50)
    answers = torch.tensor([0, 2, 2, 2])
    for foretold, found in ([0, 0, 0], [3.0, 1.0, 1.5]), ([1, 2, 1], [3.0, 2.0, 1.5]):
        counts = images_of_classes(class_counts(log_posterior), answers, 0.5, torch.tensor(foretold))
        torch.testing.assert_close(counts, torch.tensor(found).double(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("told", "trust", "relative"), [(0.6, 0.6, 6 / 7), (0.1, 0.7, 0.0), (0.9, 0.9, 1.0)])
def test_held_out_answers_count_as_far_as_the_most_trusted_model(
    world: World, told: float, trust: float, relative: float
):
    """The strong model, of 0.7, where the teacher is useless. Beside it, a teacher counts as much at most."""
    foretold = 1 + nothing(world)
    found = Reliabilities(0.7, torch.full((world.classes,), 0.7), foretold, (Reliability(told, 1.0, 1.0),))
    with (
        patch.object(module, "reliabilities", lambda *_: found),
        patch.object(module, "images_of_classes", wraps=images_of_classes) as counted,
        patch.object(module, "merge", wraps=module.merge) as merge,
    ):
        discriminant_transfer(world.part(world.strong, TRAIN), [teacher(world, world.finetuned_logits)])
    assert counted.call_args.args[2] == trust
    assert merge.call_args.args[2] == pytest.approx(relative)
    assert torch.equal(counted.call_args.args[3], foretold * (trust == told))


def test_beside_a_single_class_with_images_held_out_answers_say_nothing_of_the_others():
    log_posterior = F.one_hot(torch.zeros(4, dtype=torch.long), 3).double().mul(50)
    counts = images_of_classes(class_counts(log_posterior), torch.tensor([0, 1, 2, 2]), 1.0, torch.ones(3).long())
    torch.testing.assert_close(counts, torch.tensor([4.0, 0.0, 0.0]).double(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("scale", [0.01, 0.1])
def test_logits_as_narrow_as_cosines_say_as_much(world: World, scale: float):
    wide, narrow = (rates(world, [teacher(world, one * world.finetuned_logits)]) for one in (1.0, scale))
    assert narrow[1] == pytest.approx(wide[1], abs=0.02)
    assert narrow[2].word == wide[2].word


def test_a_class_with_a_few_images_of_many_is_one_without(world: World):
    rows = torch.cat([(world.labels < 5).nonzero()[:, 0], (world.labels == 5).nonzero()[:5, 0]])
    strong, weak = (replace(model, images=model.images[rows]) for model in (world.strong, world.weak))
    _, verdict = discriminant_transfer(strong, [Teacher(world.finetuned_logits[rows], weak)])
    assert verdict.unseen == (5,)
    assert verdict.tested
    few = world.labels < 4
    strong, weak = (replace(model, images=model.images[few]) for model in (world.strong, world.weak))
    _, verdict = discriminant_transfer(strong, [Teacher(world.finetuned_logits[few], weak)])
    assert (verdict.unseen, verdict.tested) == ((4, 5), False)


@pytest.mark.parametrize("trusted", [True, False])
def test_merging_knows_whether_a_teacher_is_trusted(world: World, trusted: bool):
    logits = world.finetuned_logits if trusted else world.finetuned_logits.roll(1, -1)
    with patch.object(module, "merge", wraps=module.merge) as merge:
        discriminant_transfer(world.part(world.strong, TRAIN), [teacher(world, logits)])
    *_, relative_trust, by_teachers = merge.call_args.args
    assert (relative_trust > 0) is trusted
    assert (by_teachers is not None) is trusted


def test_where_nobody_can_be_trusted_nothing_changes(world: World):
    strong = world.part(world.strong, TRAIN)
    nobody = Reliabilities(0.0, torch.zeros(world.classes), nothing(world), (Reliability(0.0, 0.0, 1.0),))
    with patch.object(module, "reliabilities", lambda *_: nobody):
        classifier, verdict = discriminant_transfer(strong, [teacher(world, world.finetuned_logits)])
    assert verdict.word == "useless teacher"
    assert torch.equal(classifier.weight, strong.classifier(world.classes).double())
    assert not classifier.bias.any()


@pytest.mark.parametrize("misnamed", [3, 6])
def test_names_that_say_little_do_not_hide_a_good_teacher(misnamed: int):
    """Some classes have the names of something else: the strong model is no judge there."""
    world = World(0, images=800, classes=12)
    names = torch.cat([torch.arange(12 - misnamed), 30 + torch.arange(misnamed)])
    for model in (world.strong, world.weak):
        model.texts[:12] = model.texts[names]
    before, after, verdict = rates(world, [teacher(world, world.finetuned_logits)])
    assert before < 0.7
    assert after > 0.9
    assert verdict.named


def test_names_that_are_known_to_say_nothing_do_not_hide_a_good_teacher_nor_excuse_a_random_one():
    world = World(0, images=800, classes=12)
    for model in (world.strong, world.weak):
        model.texts[:12] = model.texts[30:42]
    good = [teacher(world, world.finetuned_logits)]
    assert not rates(world, good)[2].named
    before, after, verdict = rates(world, good, opaque_names=True)
    assert before < 0.2
    assert verdict.strong_trust < 0.2
    assert after > 0.9
    assert verdict.word == "helps"
    noise = torch.randn(world.finetuned_logits.shape, generator=torch.Generator().manual_seed(0))
    assert rates(world, [teacher(world, noise)], opaque_names=True)[2].word == "useless teacher"


def test_unseen_classes_are_told_apart_no_worse_than_zero_shot():
    change = list[float]()
    for world in map(World, range(6)):
        seen = (world.labels < 3).nonzero()[:, 0]
        part = Embeddings(world.strong.images[seen], world.strong.texts, world.strong.logit_scale)
        weak = Embeddings(world.weak.images[seen], world.weak.texts, world.weak.logit_scale)
        classifier, _ = discriminant_transfer(part, [Teacher(world.finetuned_logits[seen], weak)])
        rows = (world.labels >= 3).nonzero()[:, 0]
        logits = zero_shot_logits(world.strong)[rows]
        answers = classifier(world.strong.unit_images(rows))
        right = [(one[:, 3:6].argmax(-1) + 3 == world.labels[rows]).float().mean().item() for one in (answers, logits)]
        change.append(right[0] - right[1])
    assert sum(change) / len(change) > -0.05


def few_classes(world: World, logits: torch.Tensor, seen: int = 6) -> tuple[float, float]:
    """Top-1 on test images of the other classes, before and after images of the first ones were shown."""
    rows = (world.labels[:800] < seen).nonzero()[:, 0]
    strong, weak = (replace(model, images=model.images[rows]) for model in (world.strong, world.weak))
    classifier, _ = discriminant_transfer(strong, [Teacher(logits[rows], weak)])
    test = world.part(world.strong, slice(800, None))
    others, before = world.labels[800:] >= seen, zero_shot_logits(test)
    right = [
        one[others].argmax(-1) == world.labels[800:][others]
        for one in (before[:, : world.classes], classifier(test.unit_images()))
    ]
    return right[0].float().mean().item(), right[1].float().mean().item()


@pytest.mark.parametrize(("mask", "seed"), [(-100.0, 0), (-1e4, 1), (-1e9, 2)])
def test_classes_that_a_teacher_masks_keep_their_images(mask: float, seed: int):
    world = World(seed, images=1600, classes=10)
    logits = world.finetuned_logits.clone()
    logits[:, 6:] = mask
    before, after = few_classes(world, logits)
    assert after > before - 0.1


def test_the_scale_of_a_teachers_logits_says_nothing_of_classes_without_images():
    for seed in range(3):
        world = World(seed, images=1600, classes=10)
        before, after = few_classes(world, world.finetuned_logits)
        _, sure = few_classes(world, 100 * world.finetuned_logits)
        assert after > before
        assert sure == pytest.approx(after, abs=0.04)


def test_images_that_are_far_fewer_than_their_dimensions_give_finite_classifiers():
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        strong, weak = (
            Embeddings(*(torch.randn(rows, width, generator=generator) for rows in (NEEDED, 9)), 30.0)
            for width in (128, 8)
        )
        noise = Teacher(torch.randn(NEEDED, 3, generator=generator), weak)
        assert discriminant_transfer(strong, [noise])[0].weight.isfinite().all()


def test_images_of_unseen_classes_are_not_lost_to_seen_ones():
    """A teacher that was fine-tuned on six of ten classes alone and gives it all other images, too."""
    generator = torch.Generator().manual_seed(1)
    means, apart = F.normalize(torch.randn(2, 10, 64, generator=generator), dim=-1)
    labels = torch.arange(600) % 10
    images = F.normalize(means[labels] + torch.randn(600, 64, generator=generator) / 8, dim=-1)
    texts, seen = F.normalize(means + apart, dim=-1), labels < 6
    answers = 30 * (F.one_hot(labels % 6, 10) + 0.3 * torch.randn(600, 10, generator=generator))
    answers[:, 6:] = -15
    weak = F.normalize(images + torch.randn(600, 64, generator=generator) / 16, dim=-1)
    strong, twin = (Embeddings(model[seen], texts, 50.0) for model in (images, weak))
    classifier, _ = discriminant_transfer(strong, [Teacher(answers[seen], twin)])
    right = classifier(images).argmax(-1) == labels
    assert right[seen].float().mean() > 0.98
    assert right[~seen].float().mean() > 0.85


@pytest.mark.parametrize(("kind", "loss"), [("permuted", 0.06), ("blind", 0.0)])
def test_among_all_classes_no_teacher_costs_what_the_strong_model_knows(kind: str, loss: float):
    """Images of six of ten classes; the blind teacher knows these alone."""
    world = World(1, images=1000, classes=10)
    rows = (world.labels[:500] < 6).nonzero().flatten()
    answers = world.finetuned_logits.roll(1, -1) if kind == "permuted" else world.finetuned_logits.clone()
    if kind == "blind":
        answers[:, 6:] = -8
    strong, weak = (
        Embeddings(model.images[rows], model.texts, model.logit_scale) for model in (world.strong, world.weak)
    )
    classifier, _ = discriminant_transfer(strong, [Teacher(answers[rows], weak)])
    test = world.part(world.strong, slice(500, None))
    logits = zero_shot_logits(test)
    before, after = (
        (one.argmax(-1) == world.labels[500:]).float().mean()
        for one in (logits[:, :10], classifier(test.unit_images()))
    )
    assert after > before - loss


@pytest.mark.parametrize("images", [2, 7, NEEDED - 1])
def test_of_too_few_images_nothing_is_learned(world: World, images: int):
    rows = slice(0, images)
    one = Teacher(world.finetuned_logits[rows], world.part(world.weak, rows))
    strong = world.part(world.strong, rows)
    classifier, verdict = discriminant_transfer(strong, [one])
    assert torch.equal(classifier.weight, strong.classifier(world.classes).double())
    assert not classifier.bias.any()
    assert verdict == Verdict(0.0, (0.0,), 0.0, images)
    assert verdict.word == "unsure"


def test_extreme_answers_give_finite_classifiers():
    strong, weak = (random_embeddings(NEEDED, 12, width, width) for width in (8, 6))
    logits = 1e4 * F.one_hot(torch.zeros(NEEDED, dtype=torch.long), 5).float()
    classifier, _ = discriminant_transfer(strong, [Teacher(logits, weak)])
    assert torch.isfinite(classifier.weight).all()
    assert torch.isfinite(classifier.bias).all()


def test_the_same_inputs_give_the_same_classifier(world: World):
    one, two = (
        discriminant_transfer(world.part(world.strong, TRAIN), [teacher(world, world.finetuned_logits)])[0]
        for _ in range(2)
    )
    assert torch.equal(one.weight, two.weight)


def test_teachers_must_match(world: World):
    good = teacher(world, world.finetuned_logits)
    with pytest.raises(InvalidTensorError, match="no fine-tuned model"):
        discriminant_transfer(world.strong, [])
    with pytest.raises(InvalidTensorError, match="400 images"):
        discriminant_transfer(world.strong, [good])
    with pytest.raises(InvalidTensorError, match="classes"):
        discriminant_transfer(world.part(world.strong, TRAIN), [good, Teacher(good.finetuned[:, :4], good.weak)])
    strong = world.part(world.strong, TRAIN)
    fewer = Embeddings(good.weak.images[:-1], good.weak.texts, good.weak.logit_scale)
    with pytest.raises(InvalidTensorError, match="299 weak ones"):
        discriminant_transfer(strong, [Teacher(good.finetuned, fewer)])
    shorter = Embeddings(good.weak.images, good.weak.texts[:-1], good.weak.logit_scale)
    with pytest.raises(InvalidTensorError, match="same vocabulary"):
        discriminant_transfer(strong, [Teacher(good.finetuned, shorter)])
    with pytest.raises(InvalidTensorError, match="head has shape"):
        discriminant_transfer(strong, [Teacher(good.finetuned, good.weak, torch.ones(6, 3))])


def test_a_verdict_says_where_a_teacher_agrees_too_little_with_the_strong_model(world: World):
    consistent = [
        rates(world, [teacher(world, logits)])[2].consistent
        for logits in (world.finetuned_logits, world.finetuned_logits.roll(1, -1))
    ]
    assert consistent == [True, False]


def test_a_verdict_doubts_the_teacher_that_is_heard():
    """The more trusted one is left aside for its names; those of the other are confirmed."""
    world = World(0)
    teachers = Reliability(0.37, 0.38, 0.1), Reliability(0.32, 1.0, 1.0)
    found = Reliabilities(0.97, torch.full((world.classes,), 0.97), nothing(world), teachers)
    with patch.object(module, "reliabilities", lambda *_: found):
        verdict = rates(world, [teacher(world, world.finetuned_logits)] * 2)[2]
    assert verdict.teacher_trust == (0.0, 0.32)
    assert (verdict.named, verdict.consistent) == (True, True)


def test_what_all_models_say_is_kept_where_a_discriminant_tells_all_images_apart():
    """Its scores could be as wide as one likes then, and a class with fewer images than others would lose them."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    labels = torch.arange(3).repeat_interleave(torch.tensor([35, 16, 25]))
    tested, width = torch.arange(3).repeat(200), 256
    centres = F.normalize(random(3, width), dim=-1)
    centres[1] = F.normalize(centres[0] + 0.3 * centres[1], dim=-1)
    common = F.normalize(random(width), dim=0)

    def pictures(of: torch.Tensor) -> torch.Tensor:
        return F.normalize(common + 0.6 * centres[of] + 0.3 * random(len(of), width) / width**0.5, dim=-1)

    texts = torch.cat([0.5 * centres, torch.zeros(40, width)]) + random(43, width) / width**0.5
    strong, images = Embeddings(pictures(labels), texts, 100.0), pictures(tested)
    sure = Teacher(50 * F.one_hot(labels, 3).float(), strong)
    classifier, _ = discriminant_transfer(strong, [sure])
    assert (classifier(images).argmax(-1) == tested).double().mean() > 0.95


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_teacher_of_some_classes_leaves_images_of_the_others_to_the_strong_model(seed: int, masked: bool):
    """It gives these to its own classes, sure of each."""
    world = World(seed, images=900, classes=12)
    some = torch.arange(12) < 6
    answers = world.finetuned_logits.clone()
    mistaken = torch.where(some[world.labels], world.labels, world.labels % 6)
    answers += 8.0 * (F.one_hot(mistaken, 12) - F.one_hot(world.labels, 12))
    answers[:, ~some] = -100.0 if masked else -4.0
    before, after, verdict = rates(world, [teacher(world, answers)])
    assert verdict.unknown == tuple((~some).nonzero().flatten().tolist())
    assert max(verdict.teacher_trust) > 0.7
    assert after > before + 0.1
    with patch.object(module, "self_train_classifier", lambda _, start: start):
        _, once, _ = rates(world, [teacher(world, answers)])
    assert after > once + 0.005 or after == once > 0.99
    with patch.object(module, "known_classes", lambda *_: torch.ones(12, dtype=torch.bool)):
        _, believed, verdict = rates(world, [teacher(world, answers)])
    assert verdict.unknown == ()
    assert after > believed + 0.04
