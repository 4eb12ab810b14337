import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import World, random_embeddings
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.folds import folds_of
from transmiter_cli.method.linear.moments import total
from transmiter_cli.method.linear.ridge import ridge_moments, ridge_path, ridge_transfer, solve_ridge
from transmiter_cli.method.logits import zero_shot_logits


@settings(max_examples=20)
@given(st.floats(1e-3, 10), st.integers(0, 1000))
def test_it_solves_the_normal_equations(rho: float, seed: int):
    strong = random_embeddings(30, 12, 8, seed)
    teacher = torch.randn(30, 5, generator=torch.Generator().manual_seed(seed))
    weight = (
        ridge_transfer(strong, total(ridge_moments(strong, teacher, folds_of(strong))), rho).weight
        - strong.classifier(5).double()
    ).T
    centred = F.log_softmax(teacher, -1).double()
    centred = centred - centred.mean(-1, keepdim=True)
    images = strong.unit_images().double()
    gram = images.T @ images
    residual = (gram + rho * gram.diagonal().mean() * torch.eye(8)) @ weight - images.T @ centred
    assert residual.abs().max() < 1e-4


def test_a_path_is_what_each_strength_gives_alone(world: World):
    (moments, *_), rhos = ridge_moments(world.strong, world.finetuned_logits, folds_of(world.strong)), [1e-3, 0.1, 10.0]
    for rho, found in zip(rhos, ridge_path(moments.gram, moments.sums.T, rhos), strict=True):
        torch.testing.assert_close(found, solve_ridge(moments.gram, moments.sums.T, rho))


def test_a_direction_that_rounding_made_negative_counts_as_one_in_which_no_image_varies():
    gram, identity = torch.diag(torch.tensor([2.0, -1e-4])).double(), torch.eye(2).double()
    (found,) = ridge_path(gram, identity, [1e-4])
    torch.testing.assert_close(found, solve_ridge(gram.clamp_min(0), identity, 1e-4))


def test_it_helps_on_images_it_has_not_seen(world: World):
    train, test = slice(0, 300), slice(300, None)
    strong = world.part(world.strong, train)
    classifier = ridge_transfer(
        strong, total(ridge_moments(strong, world.finetuned_logits[train], folds_of(strong))), 0.1
    )
    unseen: Embeddings = world.part(world.strong, test)
    logits = zero_shot_logits(unseen)
    before = (logits[:, : world.classes].argmax(-1) == world.labels[test]).float().mean()
    after = (classifier(unseen.unit_images()).argmax(-1) == world.labels[test]).float().mean()
    assert after > before + 0.1
