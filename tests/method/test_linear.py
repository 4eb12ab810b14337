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
