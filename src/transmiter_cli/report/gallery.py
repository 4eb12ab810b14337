"""Thumbnails of real images, with what was answered before and after."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from jaxtyping import Float, Int
from PIL import Image, ImageOps
from torch import Tensor

from transmiter_cli.embedding.pictures import as_rgb, picture
from transmiter_cli.embedding.sources import ImageRecord

SIDE = 144
PIXELATED = 48
"""Pictures with no longer side are enlarged pixel by pixel."""
SHOWN = 12


@dataclass(frozen=True)
class Thumbnail:
    """One image of the gallery.

    Attributes:
        source: a data URI.
        label: its class; None without labels.
        before, after: what the zero-shot and the adapted strong model answer.
        sure_before, sure_after: how confident they are, in whole percent.
    """

    source: str
    name: str
    label: str | None
    before: str
    after: str
    sure_before: int
    sure_after: int
    pixelated: bool

    @property
    def alt(self) -> str:
        """What the picture stands for, in words."""
        shows = f"labelled {self.label}" if self.label is not None else "without label"
        answers = f"before {self.before} ({self.sure_before} %), after {self.after} ({self.sure_after} %)"
        return f"{self.name}, {shows}; {answers}"


def thumbnails(
    files: Sequence[ImageRecord],
    names: Sequence[str],
    labels: Int[Tensor, " images"] | None,
    before: Float[Tensor, "images classes"],
    after: Float[Tensor, "images classes"],
    among: Tensor,
) -> list[Thumbnail]:
    """Of some images, those on which the adapted model is most confident, from each class or answer in turn.

    Args:
        files: all images.
        names: the classes.
        labels: of all images.
        before, after: the models' logits on all images.
        among: which of the images to choose from, a mask.
    """
    sure, answer = after.softmax(-1).max(-1)
    earlier_sure, earlier = before.softmax(-1).max(-1)
    places = in_turn(among.nonzero()[:, 0].tolist(), sure, answer if labels is None else labels)
    found: list[Thumbnail] = []
    for i in places:
        if len(found) == SHOWN:
            break
        thumbnail = thumbnail_uri(files[i])
        if thumbnail is not None:
            label = None if labels is None else names[int(labels[i])]
            answers = names[int(earlier[i])], names[int(answer[i])]
            confidence = round(100 * float(earlier_sure[i])), round(100 * float(sure[i]))
            found.append(Thumbnail(thumbnail[0], files[i].id, label, *answers, *confidence, thumbnail[1]))
    return found


def in_turn(places: Sequence[int], sure: Tensor, groups: Tensor) -> list[int]:
    """The surest of each group, then the second surest of each, and so on."""
    ranks: dict[int, int] = {}
    order: list[tuple[int, float, int]] = []
    for place in sorted(places, key=lambda i: (-float(sure[i]), i)):
        group = int(groups[place])
        order.append((ranks.setdefault(group, 0), -float(sure[place]), place))
        ranks[group] += 1
    return [place for _, _, place in sorted(order)]


def thumbnail_uri(record: ImageRecord) -> tuple[str, bool] | None:
    """A small WebP as a data URI, and whether it shows single pixels; None for an image that has gone since."""
    try:
        with picture(record) as opened:
            image = as_rgb(ImageOps.exif_transpose(opened))
    except Exception:  # see Decoder: Pillow raises anything
        return None
    tiny = max(image.size) <= PIXELATED
    if tiny:
        factor = SIDE // max(image.size)
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = BytesIO()
    image.save(out, "WEBP", quality=82, method=4, lossless=tiny)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}", tiny
