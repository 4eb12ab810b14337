from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from transmiter_cli.embedding.decoding import Decoder, share
from transmiter_cli.embedding.sources import ImageFile
from transmiter_cli.embedding.views import AREA, View, with_views

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


def view(number: int, seed: int = 0, name: str = "a.jpg") -> View:
    return View(ImageFile(Path("/nowhere"), name), number, seed)


@given(sizes, st.integers(1, 9), st.integers(0, 99))
def test_a_crop_lies_in_its_picture(size: tuple[int, int], number: int, seed: int):
    left, top, width, height, _ = view(number, seed).crop(size)
    assert left >= 0
    assert top >= 0
    assert 0 < width <= size[0] - left
    assert 0 < height <= size[1] - top


def test_crops_differ_by_image_number_and_seed_alone():
    crops = [view(n, s, name).crop((400, 300)) for n in (1, 2, 3) for s in (0, 1) for name in ("a.jpg", "b.jpg")]
    assert len(set(crops)) == len(crops)
    assert view(1).crop((400, 300)) == View(ImageFile(Path("/elsewhere"), "a.jpg"), 1, 0).crop((400, 300))


def test_areas_and_mirrors_are_spread_over_their_range():
    crops = [view(number).crop((1000, 1000)) for number in range(1, 1001)]
    areas = np.array([crop.width * crop.height for crop in crops]) / 1e6
    assert AREA[0] * 0.98 <= areas.min() <= 0.12
    assert areas.max() <= AREA[1]
    assert 0.4 < np.mean([crop.mirrored for crop in crops]) < 0.6


@pytest.mark.parametrize("size", [(300, 200), (200, 300)])
def test_the_share_of_a_view_is_that_of_the_side_of_which_it_shows_less(size: tuple[int, int]):
    for number in range(1, 20):
        crop = view(number).crop(size)
        assert share(view(number), size) == min(crop.width / size[0], crop.height / size[1])


def test_views_follow_their_image_and_show_parts_of_their_own(tmp_path: Path):
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    records = with_views([ImageFile(tmp_path, "a.png"), ImageFile(tmp_path, "b.png")], 2, 7)
    assert [record.id for record in records] == ["a.png"] * 3 + ["b.png"] * 3
    assert [record.place() for record in records[:3]] == [ImageFile(tmp_path, "a.png").place()] * 3
    assert len({record.shown for record in records if isinstance(record, View)}) == 4


def test_what_is_shown_tells_apart_what_the_crop_depends_on(tmp_path: Path):
    (tmp_path / "data").mkdir()
    Image.new("L", (40, 30)).save(tmp_path / "data" / "a.png")
    below, above = View(ImageFile(tmp_path / "data", "a.png"), 1, 0), View(ImageFile(tmp_path, "data/a.png"), 1, 0)
    assert below.place() == above.place()
    assert below.crop((40, 30)) != above.crop((40, 30))
    assert below.shown != above.shown


def test_what_is_decoded_with_an_image_does_not_change_it(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    decoder, records = Decoder(pil_to_tensor, 32, "scaled"), with_views([ImageFile(tmp_path, "a.jpg")], 12, 0)
    together, alone = decoder(records), [decoder([record])[0] for record in records]
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_view_shows_the_same_part_however_the_file_is_decoded(tmp_path: Path, orientation: int):
    ramp = np.add.outer(np.linspace(0, 100, 1200), np.linspace(0, 155, 1600)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(ramp).convert("RGB").save(tmp_path / "a.jpg", quality=95, exif=exif)
    records = list(with_views([ImageFile(tmp_path, "a.jpg")], 6, 0))
    full, scaled = (
        [shown.float() for shown in Decoder(pil_to_tensor, 32, decoding)(records)] for decoding in ("full", "scaled")
    )
    for exact, fast in zip(full[1:], scaled[1:], strict=True):
        assert exact.shape == (3, 32, 32)
        assert (exact - fast).abs().mean() < 1
    assert abs(full[0].mean() - full[1].mean()) > 1
