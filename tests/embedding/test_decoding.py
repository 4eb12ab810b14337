from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from transmiter_cli.embedding.decoding import as_rgb, plan_batches


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 9))
def test_every_missing_image_is_in_one_batch_of_at_most_the_size(missing: list[bool], size: int):
    batches = list(plan_batches(missing, size))
    assert sorted(i for batch in batches for i in batch) == [i for i, absent in enumerate(missing) if absent]
    assert all(0 < len(batch) <= size for batch in batches)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 8), st.sets(st.integers(0, 59), max_size=3))
def test_a_stopped_run_goes_on_with_the_batches_of_an_undisturbed_one(images: int, size: int, done: int, broken):
    """Also where images that cannot be decoded stay missing among those that were done."""
    undisturbed = list(plan_batches([True] * images, size))
    written = {i for batch in undisturbed[:done] for i in batch} - broken
    resumed = list(plan_batches([i not in written for i in range(images)], size))
    assert [batch for batch in undisturbed[done:] if batch not in resumed] == []


def saved(image: Image.Image, path: Path, **options: object) -> Image.Image:
    """What decoding makes of a picture that was saved."""
    image.save(path, **options)
    with Image.open(path) as opened:
        return as_rgb(opened)


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = np.asarray(saved(Image.fromarray(ramp), tmp_path / "x.png"))[..., 0].astype(int)
    assert np.abs(found - ramp.astype(int) // 256).max() <= 1


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
