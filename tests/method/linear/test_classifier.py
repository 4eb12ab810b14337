import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import random_embeddings
from transmiter_cli.method.linear.classifier import Linear, LinearClassifier, blend


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_a_classifier_gives_the_scores_of_unit_norm_images(seed: int, length: float):
    model = random_embeddings(5, 4, 6, seed, scale=30.0)
    found = Linear(model.unit_texts().double(), random_embeddings(1, 2, 4, seed + 1).images[0].double())
    with torch.no_grad():
        logits = LinearClassifier(found)(length * model.images)
    torch.testing.assert_close(logits.double(), found(model.unit_images().double()), atol=1e-5, rtol=1e-5)


def test_a_zero_shot_classifier_is_the_text_classifier_to_the_last_digit():
    model = random_embeddings(5, 8, 6, 0, scale=1e4)
    classifier = LinearClassifier(Linear.zero_shot(model, 4))
    assert torch.equal(classifier.weight, model.classifier(4))
    assert not classifier.bias.any()


def test_a_classifier_shares_no_memory_with_the_scores_it_is_made_of():
    found = Linear(torch.ones(3, 2), torch.zeros(3))
    torch.nn.init.zeros_(LinearClassifier(found).weight)
    assert found.weight.all()


@given(st.integers(0, 1000), st.floats(0.01, 1))
def test_a_blend_with_one_share_for_all_is_the_mean_up_to_what_no_softmax_sees(seed: int, share: float):
    one, other = (
        Linear(
            random_embeddings(4, 2, 6, seed + i).images.double(),
            random_embeddings(1, 2, 4, seed + i).images[0].double(),
        )
        for i in (0, 7)
    )
    found, expected = one.blended(other, torch.full((4,), share).double()), one.towards(other.centred(), share)
    for ours, theirs in ((found.weight, expected.weight), (found.bias, expected.bias)):
        torch.testing.assert_close(ours, theirs)


def test_classes_without_a_share_keep_their_weights_in_a_blend():
    one, other = (Linear(random_embeddings(4, 2, 6, seed).images.double(), torch.arange(4).double()) for seed in (0, 1))
    found = one.blended(other, torch.tensor([1.0, 1.0, 0.0, 0.5]).double())
    assert torch.equal(found.weight[2], one.weight[2])
    assert torch.equal(one.blended(other, torch.zeros(4).double()).weight, one.weight)
    torch.testing.assert_close(found.weight[0] - found.weight[1], other.weight[0] - other.weight[1])


@pytest.mark.parametrize("unseen", [-100.0, 0.0, 100.0])
def test_two_scales_meet_at_the_mean_score_by_shares(unseen: float):
    """The means are 2 and 8: a class without a share has no part in them."""
    first, second = torch.tensor([[1.0, 4.0, 7.0], [10.0, 4.0, unseen]]).double()
    found = blend(first, second, torch.tensor([1.0, 0.5, 0.0]).double())
    assert found.tolist() == [1 + ((10 - 8) - (1 - 2)), 4 + 0.5 * ((4 - 8) - (4 - 2)), 7]
