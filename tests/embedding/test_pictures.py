from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from torchvision.transforms.functional import pil_to_tensor

from transmiter_cli.embedding.decoding import Decoder, Skipped
from transmiter_cli.embedding.pictures import as_rgb, upright_size
from transmiter_cli.embedding.sources import ImageFile


def saved(image: Image.Image, path: Path, **options: object) -> Image.Image:
    """What decoding makes of a picture that was saved."""
    image.save(path, **options)
    with Image.open(path) as opened:
        return as_rgb(opened)


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = np.asarray(saved(Image.fromarray(ramp), tmp_path / "x.png"))[..., 0].astype(int)
    assert np.abs(found - ramp.astype(int) // 256).max() <= 1


@pytest.mark.parametrize("level", [3, 255, 256, 25_600])
def test_what_sixteen_bits_become_does_not_depend_on_the_rest_of_the_picture(tmp_path: Path, level: int):
    found = np.asarray(saved(Image.fromarray(np.full((8, 8), level, dtype=np.uint16)), tmp_path / "x.png"))
    assert (found == level // 256).all()


def test_transparent_parts_are_white(tmp_path: Path):
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.putpixel((3, 3), (0, 0, 0, 255))
    for name in ("x.png", "x.webp"):
        found = saved(picture, tmp_path / name, lossless=True)
        assert found.getpixel((0, 0)) == (255, 255, 255)
        assert found.getpixel((3, 3)) == (0, 0, 0)
    palette = picture.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert saved(palette, tmp_path / "p.png").getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_and_animations_give_one_rgb_picture(tmp_path: Path):
    assert saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "x.jpg").mode == "RGB"
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    found = saved(frames[0], tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert found.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_a_picture_is_that_of_the_turned_one(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        assert upright_size(image) == ImageOps.exif_transpose(image).size


def test_floating_point_pixels_are_brightness_or_refused(tmp_path: Path):
    for scale in (1.0, 255.0):
        ramp = np.linspace(0, scale, 64, dtype=np.float32).reshape(8, 8)
        found = np.asarray(saved(Image.fromarray(ramp), tmp_path / "x.tif"))[..., 0]
        assert np.abs(found - ramp * 255 / scale).max() <= 1
    Image.fromarray(np.full((8, 8), 3000.0, dtype=np.float32)).save(tmp_path / "x.tif")
    (skipped,) = Decoder(pil_to_tensor, 16)([ImageFile(tmp_path, "x.tif")])
    assert isinstance(skipped, Skipped)
    assert "from 3000 to 3000" in skipped.reason


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
def test_sixteen_bits_may_come_in_any_order_of_bytes(mode: str):
    assert as_rgb(Image.new(mode, (2, 2))).getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(("low", "high"), [(-1000, 2000), (0, 70_000)])
def test_integers_that_are_no_grey_of_sixteen_bits_are_refused(tmp_path: Path, low: int, high: int):
    Image.fromarray(np.array([[low, high]] * 2, dtype=np.int32)).save(tmp_path / "x.tif")
    (skipped,) = Decoder(pil_to_tensor, 16)([ImageFile(tmp_path, "x.tif")])
    assert isinstance(skipped, Skipped)
    assert f"integer pixels from {low} to {high}; only 0 to 65535" in skipped.reason


@pytest.mark.parametrize(("high", "shown"), [(255, 255), (256, 1), (65_535, 255)])
def test_integers_of_thirty_two_bits_that_hold_less_are_grey(tmp_path: Path, high: int, shown: int):
    found = np.asarray(saved(Image.fromarray(np.array([[0, high]], dtype=np.int32)), tmp_path / "x.tif"))
    assert found[..., 0].tolist() == [[0, shown]]
