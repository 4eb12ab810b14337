"""Decode image files in threads, a few batches ahead of the encoder."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from transmiter_cli.embedding.sources import ImageRecord

BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Skipped:
    """An image that could not be decoded, by the name under which a user finds it, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Decoded images, their positions among the records, and those that could not be decoded."""

    images: Float[Tensor, "images 3 pixel_rows pixel_columns"] | None
    positions: list[int]
    skipped: list[Skipped]


def decode(record: ImageRecord, preprocess: Callable[[Image.Image], Tensor]) -> Tensor | Skipped:
    """One image, upright and preprocessed, or why it cannot be had."""
    try:
        with picture(record) as image:
            return preprocess(as_rgb(ImageOps.exif_transpose(image)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Skipped(record.name, "too many pixels to be decoded safely")
    except Image.UnidentifiedImageError:
        return Skipped(record.name, "empty file" if is_empty(record) else "not an image")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        return Skipped(record.name, getattr(error, "strerror", None) or str(error) or type(error).__name__)


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture as it looks on white paper: 16 bits scaled to 8, transparent parts white."""
    if image.mode.startswith("I"):
        image = image.convert("I")
        _, high = image.getextrema()
        if isinstance(high, (int, float)) and high > 255:
            image = image.point(lambda value: value / 256)
        image = image.convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


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
    """Whether a record's file has no content at all."""
    with record.open() as opened:
        return not isinstance(opened, Image.Image) and not opened.read(1)


def plan_batches(missing: Sequence[bool], size: int) -> list[list[int]]:
    """Positions of the missing images, in batches.

    The list is cut into blocks of `size` positions. A block that is missing as a whole is a batch of its own, so
    that a run that was stopped goes on with the very batches that an undisturbed run has, and with the same bits;
    what is missing from other blocks is gathered.
    """
    blocks = [list(range(start, min(start + size, len(missing)))) for start in range(0, len(missing), size)]
    whole = [block for block in blocks if all(missing[i] for i in block)]
    rest = [i for block in blocks if not all(missing[i] for i in block) for i in block if missing[i]]
    return [*whole, *(rest[start : start + size] for start in range(0, len(rest), size))]


def decode_batches(
    records: Sequence[ImageRecord],
    batches: Sequence[Sequence[int]],
    preprocess: Callable[[Image.Image], Tensor],
    workers: int | None = None,
) -> Iterator[Batch]:
    """Decode the records at the batches' positions, BATCHES_AHEAD batches ahead of whoever iterates."""
    workers = workers or min(32, os.cpu_count() or 1)
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        pending: deque[tuple[Sequence[int], list[Future[Tensor | Skipped]]]] = deque()
        for positions in batches:
            pending.append((positions, [pool.submit(decode, records[i], preprocess) for i in positions]))
            if len(pending) > BATCHES_AHEAD:
                yield collect(*pending.popleft())
        while pending:
            yield collect(*pending.popleft())


def collect(positions: Sequence[int], futures: Sequence[Future[Tensor | Skipped]]) -> Batch:
    """Wait for one batch."""
    results = [future.result() for future in futures]
    good = [(i, result) for i, result in zip(positions, results, strict=True) if isinstance(result, Tensor)]
    skipped = [result for result in results if isinstance(result, Skipped)]
    images = torch.stack([image for _, image in good]) if good else None
    return Batch(images, [i for i, _ in good], skipped)
