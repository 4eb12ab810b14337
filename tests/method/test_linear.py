import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import random_embeddings
from transmiter_cli.method.linear import Linear, LinearCorrection


@given(st.integers(0, 1000))
def test_the_correction_of_a_classifier_folds_into_it(seed: int):
    model = random_embeddings(5, 8, 6, seed, scale=30.0)
    weight, bias = random_embeddings(4, 4, 6, seed + 1).images, random_embeddings(1, 2, 4, seed + 2).images[0]
    correction = LinearCorrection.of_classifier(Linear(weight.double(), bias.double()), model)
    torch.testing.assert_close(correction.fold(model.unit_texts(), 30.0), (weight, bias))


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
    torch.testing.assert_close(found.weight[0] - found.weight[1], other.weight[0] - other.weight[1])
