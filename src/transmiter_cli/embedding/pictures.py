"""From an image's file to an upright RGB picture, whatever kind of numbers the file holds."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager

from PIL import ExifTags, Image

from transmiter_cli.embedding.sources import ImageRecord

SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
DEEPEST = 2**16 - 1
"""White in a picture of integers."""


@contextmanager
def picture(record: ImageRecord) -> Generator[Image.Image]:
    """A record's picture, its file closed afterwards."""
    with record.open() as opened:
        if isinstance(opened, Image.Image):
            yield opened
        else:
            with Image.open(opened) as image:
                yield image


def is_empty(record: ImageRecord) -> bool:
    """Whether a record's file is there and has no content at all."""
    try:
        with record.open() as opened:
            return not isinstance(opened, Image.Image) and not opened.read(1)
    except OSError:
        return False


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a picture when it is turned as its EXIF orientation says."""
    width, height = image.size
    turned = image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    return (height, width) if turned else (width, height)


def shrink(image: Image.Image, side: float) -> None:
    """Let a JPEG file be decoded at a part of its size, its shorter side at least `side`; do nothing to others."""
    needed = math.ceil(side)
    image.draft(None, (needed, needed))  # type: ignore[arg-type]  None keeps the mode; Pillow's annotation says str


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture as it looks on white paper: 16 bits scaled to 8, transparent parts white."""
    if image.mode.startswith("I"):
        image = from_integers(image)
    if image.mode == "F":
        image = from_floats(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # a copy of a camera's picture takes 36 MB


def from_integers(image: Image.Image) -> Image.Image:
    """A picture of 16 bits, or of 32 that hold no more: a 256th of each number, but where 32 bits hold 8 alone.

    Raises:
        ValueError: if a number is below 0 or above 65535, so that nobody knows what is white.
    """
    numbers = image.convert("I")
    low, high = (int(bound) for bound in numbers.getextrema())  # type: ignore[arg-type]  of one band, two numbers
    if not 0 <= low <= high <= DEEPEST:
        raise ValueError(f"integer pixels from {low} to {high}; only 0 to {DEEPEST} are known")
    deep = image.mode != "I" or high > 255
    return (numbers.point(lambda value: value / 256) if deep else numbers).convert("L")


def from_floats(image: Image.Image) -> Image.Image:
    """A picture of floating-point numbers: those in 0 to 1 are brightness, those up to 255 grey levels.

    Raises:
        ValueError: if they are neither, so that nobody knows what is white.
    """
    low, high = (float(bound) for bound in image.getextrema())  # type: ignore[arg-type]
    if not 0 <= low <= high <= 255:
        raise ValueError(f"floating-point pixels from {low:g} to {high:g}; only 0 to 1 and 0 to 255 are known")
    return (image.point(lambda value: value * 255) if high <= 1 else image).convert("L")
