import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import random_embeddings
from transmiter_cli.method.copies import COPY_DISTANCE, distinct
from transmiter_cli.method.embeddings import Embeddings


@given(seed=st.integers(0, 2**16), images=st.integers(1, 30), times=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_repeated_images_count_once(seed: int, images: int, times: int):
    rows = random_embeddings(images, 3, 16, seed).unit_images()
    noise = torch.randn(images * times, 16, generator=torch.Generator().manual_seed(seed))
    repeated = rows.repeat(times, 1) + 1e-7 * noise
    assert torch.equal(distinct(Embeddings(repeated, rows, 1.0)), torch.arange(images))


def test_copies_that_differ_by_the_rounding_of_half_precision_are_found():
    """Their projections lie on both sides of a cell's border now and then."""
    rows = random_embeddings(3000, 3, 256, 0).unit_images()
    noise = torch.randn(3000, 256, generator=torch.Generator().manual_seed(1))
    for deviation, missed in ((1e-7, 0), (1e-5, 0), (2e-5, 3)):
        found = distinct(Embeddings(torch.cat([rows, rows + deviation * noise]), rows, 1.0))
        assert 3000 <= len(found) <= 3000 + missed
        assert torch.equal(found[:3000], torch.arange(3000))


@pytest.mark.parametrize("spread", [0.02, 0.07])
def test_many_images_that_are_much_alike_are_no_copies(spread: float):
    """They fill the cells of the grids, but are further from each other than rounding moves them."""
    generator = torch.Generator().manual_seed(1)
    centre = F.normalize(torch.randn(512, generator=generator), dim=0)
    rows = centre + spread / 512**0.5 * torch.randn(5000, 512, generator=generator)
    assert len(distinct(Embeddings(rows, rows[:3], 1.0))) == 5000
    again = torch.cat([rows, rows[:1000].half().float()])
    assert len(distinct(Embeddings(again, rows[:3], 1.0))) <= 5010


def test_like_images_are_no_copies():
    rows = random_embeddings(300, 3, 256, 0).unit_images()
    noise = F.normalize(torch.randn(300, 256, generator=torch.Generator().manual_seed(1)), dim=-1)
    found = distinct(Embeddings(torch.cat([rows, rows + 0.1 * noise]), rows, 1.0))  # cosine 0.995
    assert len(found) == 600


def test_of_images_that_drift_one_stays_near_each():
    """A video of a slow turn: each frame is a copy of the one before, but not of the first."""
    first, way = torch.linalg.qr(torch.randn(512, 2, generator=torch.Generator().manual_seed(0)))[0].T
    angles = 0.3 * COPY_DISTANCE * torch.arange(200)[:, None]
    images = angles.cos() * first + angles.sin() * way
    kept = images[distinct(Embeddings(images, torch.eye(512), 1.0))]
    assert 10 < len(kept) < 200
    assert (torch.cdist(images.double(), kept.double()).amin(1) < 3 * COPY_DISTANCE).all()
