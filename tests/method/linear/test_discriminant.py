from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import World, random_embeddings
from transmiter_cli.method.embeddings import Embeddings, InvalidTensorError
from transmiter_cli.method.folds import evenly_spaced, fold_rows, folds_of
from transmiter_cli.method.linear import discriminant
from transmiter_cli.method.linear.discriminant import (
    LEAST_WITHIN,
    MOST_PRIOR,
    SHRINKAGES,
    about_mean,
    choose_discriminant,
    class_means,
    discriminants,
    fit_inverse_temperature,
    out_of_fold_scores,
    smoothed_labels,
)
from transmiter_cli.method.linear.moments import Moments, fold_moments, total


def problem(seed: int, images: int = 60, classes: int = 4, width: int = 8):
    model = random_embeddings(images, 12, width, seed)
    generator = torch.Generator().manual_seed(seed)
    posterior = F.softmax(3 * torch.randn(images, classes, generator=generator), -1).double()
    return model, posterior, model.unit_texts()[:classes].double()


@given(st.integers(1, 40), st.integers(2, 6))
def test_folds_are_disjoint_and_complete(images: int, folds: int):
    parts = fold_rows(images, folds)
    assert sorted(torch.cat(parts).tolist()) == list(range(images))
    assert len(parts) == min(images, folds)


@given(st.integers(1, 100), st.integers(1, 100))
def test_rows_that_are_looked_at_are_spread_over_all(images: int, most: int):
    found = evenly_spaced(torch.arange(images), most).tolist()
    gaps = [after - before for before, after in zip(found, [*found[1:], images], strict=True)]
    assert found[0] == 0
    assert len(found) == min(images, most)
    assert 1 <= min(gaps) <= max(gaps) <= min(gaps) + 1


@settings(max_examples=15)
@given(st.integers(0, 20), st.integers(2, 4))
def test_no_error_that_is_rarer_than_the_images_are_many_is_believed_in(seed: int, classes: int):
    images = 20 * classes
    labels = torch.arange(images) % classes
    model = random_embeddings(images, classes, 8, seed)
    apart = replace(model, images=F.one_hot(labels, 8).float() + 0.01 * F.normalize(model.images, dim=-1))
    posterior, folds = F.one_hot(labels, classes).double(), folds_of(apart)
    moments = fold_moments(apart, posterior, folds)
    chosen = choose_discriminant(apart, posterior, apart.unit_texts().double(), folds, moments)
    wrong = 1 - F.softmax(chosen.held_out.double(), -1).gather(1, labels[chosen.rows][:, None])
    assert 0.1 / images < wrong.mean().item() < 2 / images


@patch.object(discriminant, "JUDGED", 60)
def test_every_class_is_judged_where_images_are_sorted_by_class():
    world = World()
    order = world.labels.argsort()
    model = replace(world.strong, images=world.strong.images[order])
    folds = folds_of(model)
    posterior = F.softmax(world.finetuned_logits[order], -1).double()
    texts = model.unit_texts()[: world.classes].double()
    moments = fold_moments(model, posterior, folds)
    chosen = choose_discriminant(model, posterior, texts, folds, moments)
    counts = world.labels[order][chosen.rows].bincount(minlength=world.classes)
    assert len(chosen.rows) == 60
    assert counts.min() >= 5


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_hard_labels_and_texts_that_say_nothing_give_fishers_discriminant_with_means_drawn_together(seed: int):
    model, _, texts = problem(seed)
    texts = torch.zeros_like(texts)
    labels = torch.randint(4, (60,), generator=torch.Generator().manual_seed(seed))
    posterior = F.one_hot(labels, 4).double()
    folds = folds_of(model)
    moments = total(fold_moments(model, posterior, folds))
    means, within = class_means(moments, texts)
    images = model.unit_images().double()
    plain = torch.stack([images[labels == c].mean(0) for c in range(4)])
    expected = sum((images[labels == c] - plain[c]).T @ (images[labels == c] - plain[c]) for c in range(4)) / 60
    torch.testing.assert_close(within, expected)
    mean = images.mean(0)
    left = (means - mean).norm(dim=-1) / (plain - mean).norm(dim=-1)
    prior = posterior.sum(0) * (1 / left - 1)
    torch.testing.assert_close(means - mean, left[:, None] * (plain - mean))
    torch.testing.assert_close(prior, prior.mean().expand(4), atol=1e-6, rtol=1e-4)
    assert prior.mean() > 0
    share = 0.3
    covariance = (1 - share) * within + share * within.diagonal().mean() * torch.eye(8)
    found = discriminants(moments, texts, [share])[0]
    torch.testing.assert_close(found.weight @ covariance, means, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(found.bias, -0.5 * (found.weight * means).sum(-1))


def test_texts_that_point_the_wrong_way_say_nothing_of_a_class_without_mass():
    model, posterior, _ = problem(0)
    posterior[:, 3] = 0
    posterior = posterior / posterior.sum(-1, keepdim=True)
    moments = total(fold_moments(model, posterior, folds_of(model)))
    plain = moments.sums / moments.mass[:, None].clamp_min(1e-9)
    means, _ = class_means(moments, -plain)
    torch.testing.assert_close(means[3], model.unit_images().double().mean(0))


def test_a_class_without_mass_stands_where_its_text_says():
    model, posterior, texts = problem(0)
    posterior[:, 3] = 0
    posterior = posterior / posterior.sum(-1, keepdim=True)
    folds = folds_of(model)
    moments = total(fold_moments(model, posterior, folds))
    directions = texts - (moments.mass[:, None] * texts).sum(0) / 60
    means, _ = class_means(moments, about_mean(texts, moments.mass))
    offset = means[3] - model.unit_images().double().mean(0)
    assert offset.norm() < 1e-9 or abs(F.cosine_similarity(offset, directions[3], dim=0) - 1) < 1e-6


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_temperature_is_the_least_of_a_grid(seed: int):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(50, 4, generator=generator).double()
    posterior = F.softmax(2 * scores + torch.randn(50, 4, generator=generator), -1)
    factor, loss = fit_inverse_temperature(scores, posterior)

    def at(value: float) -> float:
        return -(posterior * F.log_softmax(value * scores, -1)).sum(-1).mean().item()

    assert abs(at(factor) - loss) < 1e-6
    assert loss <= min(at(value) for value in torch.linspace(0, 5, 101).tolist()) + 1e-6


def test_a_step_that_leads_too_far_is_shortened():
    """Most scores are small, and a few are very large: Newton's first step is 1.5 times too long."""
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(20, 50, generator=generator).double() ** 5
    posterior = F.softmax(3 * torch.randn(20, 50, generator=generator).double() + 0.1 * scores, -1)
    _, lowest = fit_inverse_temperature(scores, posterior)
    every = [-(posterior * F.log_softmax(one * scores, -1)).sum(-1).mean() for one in torch.linspace(0, 0.2, 101)]
    assert lowest <= min(every) + 1e-6


def test_scores_that_contradict_get_no_weight():
    scores = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double()
    assert fit_inverse_temperature(scores, F.softmax(-scores, -1))[0] == 0


def test_held_out_scores_do_not_see_their_own_labels():
    model, posterior, texts = problem(1)
    folds = folds_of(model)
    changed = posterior.clone()
    first = folds.rows[0]
    changed[first] = changed[first].roll(1, -1)
    before, after = (
        out_of_fold_scores(model, fold_moments(model, one, folds), texts, folds, [0.3])[0][:]
        for one in (posterior, changed)
    )
    others = torch.cat(folds.rows[1:])
    torch.testing.assert_close(before[first], after[first])
    assert not torch.allclose(before[others], after[others])


def test_each_image_is_scored_by_a_classifier_that_has_not_seen_it():
    model, posterior, texts = problem(3)
    folds = folds_of(model)
    moments = fold_moments(model, posterior, folds)
    (found,) = out_of_fold_scores(model, moments, texts, folds, [0.3])
    for part, own in zip(folds.rows, moments, strict=True):
        classifier = discriminants(total(moments) - own, texts, [0.3])[0].centred()
        torch.testing.assert_close(found[part], classifier(model.unit_images(part)))
    torch.testing.assert_close(found[10:20], found[:][10:20])


def test_the_chosen_classifier_is_the_best_of_the_candidates(world: World):
    model, posterior = world.strong, F.softmax(world.finetuned_logits, -1)
    texts, folds = model.unit_texts()[: world.classes].double(), folds_of(model)
    moments = fold_moments(model, posterior, folds)
    chosen = choose_discriminant(model, posterior, texts, folds, moments)
    wanted = smoothed_labels(posterior[chosen.rows])
    own = -(wanted * F.log_softmax(chosen.held_out, -1)).sum(-1).mean()
    losses = [
        fit_inverse_temperature(out_of_fold_scores(model, moments, texts, folds, [share])[0][chosen.rows], wanted)[1]
        for share in SHRINKAGES
    ]
    assert own == pytest.approx(min(losses), abs=1e-6)
    assert max(losses) > min(losses) + 1e-4, "they differ, so that one is chosen"


def test_the_chosen_classifier_is_that_of_all_images():
    model, posterior, texts = problem(2)
    folds = folds_of(model)
    moments = fold_moments(model, posterior, folds)
    chosen = choose_discriminant(model, posterior, texts, folds, moments)
    expected = discriminants(total(moments), texts, [chosen.shrinkage])[0].scaled(chosen.factor)
    assert chosen.factor > 0
    torch.testing.assert_close(chosen.classifier.weight, expected.weight)
    torch.testing.assert_close(chosen.classifier.bias, expected.bias)


def test_fewer_images_choose_where_there_are_many_classes(world: World):
    folds = folds_of(world.strong)
    posterior = F.softmax(world.finetuned_logits, -1)
    moments = fold_moments(world.strong, posterior, folds)
    texts = world.strong.unit_texts()[: world.classes].double()
    with patch.object(discriminant, "NUMBERS", 100 * world.classes * len(discriminant.SHRINKAGES)):
        chosen = choose_discriminant(world.strong, posterior, texts, folds, moments)
    assert len(chosen.rows) == 100


def test_a_prior_is_shared_among_the_folds():
    model, prior = random_embeddings(23, 5, 4, 0), 7.0 * torch.eye(4).double()
    images = model.unit_images().double()
    whole = torch.stack(list(folds_of(model, prior=prior).grams)).sum(0)
    torch.testing.assert_close(whole, images.T @ images + prior, atol=1e-5, rtol=1e-5)


def test_texts_weigh_no_more_than_so_many_images_where_class_means_differ_by_chance():
    model = random_embeddings(400, 4, 8, 3)
    moments = total(fold_moments(model, F.one_hot(torch.arange(400) % 4, 4).double(), folds_of(model)))
    means, _ = class_means(moments, torch.zeros(4, 8).double())  # all are expected at the mean of the images
    raw, mean = moments.sums / moments.mass[:, None], moments.sums.sum(0) / 400
    torch.testing.assert_close(means - mean, (raw - mean) * 100 / (100 + MOST_PRIOR))


def test_of_images_all_alike_the_variance_is_a_small_part_of_their_mean_square():
    image, mass = 2 * F.one_hot(torch.tensor(1), 8).double(), torch.tensor([5.0, 3.0]).double()
    moments = Moments(mass.sum() * torch.outer(image, image), torch.outer(mass, image), mass)
    (found,) = discriminants(moments, torch.zeros(2, 8).double(), [0.5])
    torch.testing.assert_close(0.5 * LEAST_WITHIN * 4 * found.weight, image.expand(2, -1))


def test_scores_of_images_in_a_narrow_cone_keep_their_digits():
    """What all classes have in common is thousands of times their differences there, and float32 would lose these."""
    model, posterior, texts = problem(0, images=200)
    cone = replace(model, images=F.normalize(model.images, dim=-1) + 3.0)
    folds = folds_of(cone)
    moments = fold_moments(cone, posterior, folds)
    (found,) = out_of_fold_scores(cone, moments, texts, folds, [0.02])
    exact = torch.empty(200, 4).double()
    for part, own in zip(folds.rows, moments, strict=True):
        exact[part] = discriminants(total(moments) - own, texts, [0.02])[0](cone.unit_images(part).double())
    exact -= exact.mean(-1, keepdim=True)
    error = (found[:] - found[:].mean(-1, keepdim=True) - exact).abs().max()
    assert error < 1e-3 * exact.std()


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Products whose sums are as long as a block: one thread of some libraries cuts them shorter, and rounds less."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_equal_soft_labels_of_images_that_hardly_differ_leave_a_positive_covariance():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(6, (9000,), generator=generator)
    texts = F.normalize(torch.randn(6, 256, generator=generator), dim=-1)
    common = 30 * F.normalize(torch.randn(256, generator=generator), dim=0)  # cosines of 0.999
    rows = common + texts[labels] + 0.5 * torch.randn(9000, 256, generator=generator) / 16
    strong, posterior = Embeddings(rows, texts, 100.0), F.softmax(8 * F.one_hot(labels, 6).float(), -1)
    moments = total(fold_moments(strong, posterior, folds_of(strong)))
    for classifier in discriminants(moments, texts.double(), SHRINKAGES):
        assert (classifier.centred()(strong.unit_images().double()).argmax(-1) == labels).double().mean() > 0.99


def test_a_covariance_that_is_not_positive_is_told():
    gram = torch.diag(torch.tensor([1.0, -1e-3])).double()
    with pytest.raises(InvalidTensorError, match="differ too little for a discriminant"):
        discriminants(Moments(gram, torch.zeros(2, 2).double(), torch.ones(2).double()), torch.eye(2).double(), [1e-6])
