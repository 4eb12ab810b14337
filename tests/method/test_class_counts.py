import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from transmiter_cli.method.class_counts import ROUNDS, believed_log_prior, class_counts, evenness
from transmiter_cli.method.consensus.posterior import doubted


def test_class_counts_are_all_images_and_empty_an_absent_class():
    labels = torch.randint(3, (300,), generator=torch.Generator().manual_seed(0))
    posterior = 0.9 * F.one_hot(labels, 4) + 0.025
    counts = class_counts(posterior.double().log())
    assert counts.sum() == pytest.approx(300)
    assert counts[3] < 0.5 < posterior.sum(0)[3]
    assert (counts[:3] - torch.bincount(labels)).abs().max() < 5


def test_class_counts_are_those_of_a_prior_with_an_image_more_of_each_class():
    posterior = F.softmax(2 * torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).double(), -1)
    counts = torch.full((4,), 5.0).double()
    for _ in range(ROUNDS):
        joint = posterior * (counts + 1) / (20 + 4)
        counts = (joint / joint.sum(-1, keepdim=True)).sum(0)
    torch.testing.assert_close(class_counts(posterior.log()), counts)


@pytest.mark.parametrize("trust", [0.1, 0.5, 0.9])
def test_unlikely_classes_of_an_image_need_not_be_told_apart(trust: float):
    """Half of the classes have no image. What no model says of an image is spread over all classes alike."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(100, (2000,), generator=generator)
    models = [8.0 * F.one_hot(labels, 200) + torch.randn(2000, 200, generator=generator) for _ in range(2)]
    pooled = torch.stack([doubted(one, trust).log() for one in models]).sum(0)
    few, every = (class_counts(pooled, likeliest) for likeliest in (32, 200))
    assert few.sum() == pytest.approx(2000)
    assert (few - every).abs().max() < 0.5
    assert few[100:].sum() < 0.1 * 2000


def test_classes_that_are_not_told_apart_share_what_the_likeliest_leave():
    torch.testing.assert_close(class_counts(torch.zeros(1000, 8), likeliest=2), torch.full((8,), 125.0).double())


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=30))
def test_evenness_is_the_share_of_classes_that_count(counts: list[float]):
    found = evenness(torch.tensor(counts).double()).item()
    assert 1 / len(counts) - 1e-9 <= found <= 1 + 1e-9
    assert evenness(torch.full((7,), counts[0]).double()) == pytest.approx(1)
    assert evenness(torch.tensor([counts[0]] * 3 + [0.0] * 7).double()) == pytest.approx(0.3)


def test_of_even_counts_nothing_is_believed_and_of_very_uneven_ones_nearly_all():
    even, uneven = torch.full((5,), 40.0).double(), torch.tensor([1e6, 1e3, 1.0, 1.0, 1.0]).double()
    assert torch.equal(believed_log_prior(even), torch.zeros(5).double())
    found = believed_log_prior(uneven).diff()
    torch.testing.assert_close(found, 0.8**2 * (uneven + 1).log().diff(), atol=0.05, rtol=0.01)
