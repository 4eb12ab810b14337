"""Views: seeded random resized crops of images, mirrored half of the time, as the paper trains its adapters on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from PIL import Image, ImageOps

from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.files import digest

AREA = (0.08, 1.0)
"""Share of the picture that a crop has."""
RATIO = (3 / 4, 4 / 3)
"""Width through height of a crop."""
ATTEMPTS = 10


class Crop(NamedTuple):
    """A part of a picture, in pixels, and whether it is mirrored."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool


@dataclass(frozen=True, slots=True)
class View:
    """One random view of an image, the same for every model and in every run.

    Attributes:
        record: the image.
        number: which of its views, from 1.
        seed: decides, with the image's id and the number, what the view shows.
    """

    record: ImageRecord
    number: int
    seed: int

    @property
    def id(self) -> str:
        """See ImageRecord."""
        return self.record.id

    @property
    def label(self) -> str | None:
        """See ImageRecord."""
        return self.record.label

    @property
    def name(self) -> str:
        """See ImageRecord."""
        return self.record.name

    @property
    def shown(self) -> str:
        """What part of the image it shows, in words for the store's key."""
        return f"view {self.number} of {self.id} by seed {self.seed}"

    def place(self) -> str:
        """See ImageRecord; that of the image."""
        return self.record.place()

    def open(self) -> BinaryIO | Image.Image:
        """See ImageRecord; the whole picture."""
        return self.record.open()

    def crop(self, size: tuple[int, int]) -> Crop:
        """The part of an upright picture of `size` pixels that the view shows."""
        chance = random.Random(digest(self.id, str(self.number), str(self.seed)))
        width, height = size
        mirrored = chance.random() < 0.5
        for _ in range(ATTEMPTS):
            area = width * height * chance.uniform(*AREA)
            ratio = math.exp(chance.uniform(*map(math.log, RATIO)))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            left, top = chance.random(), chance.random()
            if 0 < across <= width and 0 < down <= height:
                return Crop(round(left * (width - across)), round(top * (height - down)), across, down, mirrored)
        side = min(size)
        return Crop((width - side) // 2, (height - side) // 2, side, side, mirrored)

    def of(self, picture: Image.Image, size: tuple[int, int], side: int) -> Image.Image:
        """The view, stretched to a square of `side` pixels.

        Args:
            picture: all of the image, perhaps decoded at a part of its size.
            size: the image's own width and height.
            side: pixels of the result in both directions.
        """
        left, top, width, height, mirrored = self.crop(size)
        x, y = picture.width / size[0], picture.height / size[1]
        box = (left * x, top * y, (left + width) * x, (top + height) * y)
        square = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
        return ImageOps.mirror(square) if mirrored else square


def with_views(files: Sequence[ImageRecord], views: int, seed: int) -> tuple[ImageRecord, ...]:
    """Each image, followed by `views` random views of it."""
    if not views:
        return tuple(files)
    return tuple(
        record for file in files for record in (file, *(View(file, number, seed) for number in range(1, views + 1)))
    )


def picture_of(record: ImageRecord) -> ImageRecord:
    """The image that a record shows, as a whole or a view of it."""
    return record.record if isinstance(record, View) else record
