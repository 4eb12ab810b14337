"""Decode image files in threads, a few batches ahead of the encoder."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Skipped:
    """An image that could not be decoded, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Batch:
    """Decoded images, the indices of their files, and the files that could not be decoded."""

    images: Float[Tensor, "images 3 pixel_rows pixel_columns"] | None
    indices: list[int]
    skipped: list[Skipped]


def decode(path: Path, preprocess: Callable[[Image.Image], Tensor]) -> Tensor | Skipped:
    """One image, upright and preprocessed, or why it cannot be had."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return preprocess(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Skipped(path, "too many pixels to be decoded safely")
    except Image.UnidentifiedImageError:
        return Skipped(path, "empty file" if not path.stat().st_size else "not an image")
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        return Skipped(path, str(error) or type(error).__name__)


def decode_batches(
    paths: Sequence[Path], preprocess: Callable[[Image.Image], Tensor], batch_size: int, workers: int | None = None
) -> Iterator[Batch]:
    """Decode `paths` in order, BATCHES_AHEAD batches ahead of whoever iterates."""
    workers = workers or min(32, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[tuple[int, list[Future[Tensor | Skipped]]]] = deque()
        for start in range(0, len(paths), batch_size):
            futures = [pool.submit(decode, path, preprocess) for path in paths[start : start + batch_size]]
            pending.append((start, futures))
            if len(pending) > BATCHES_AHEAD:
                yield collect(*pending.popleft())
        while pending:
            yield collect(*pending.popleft())


def collect(start: int, futures: list[Future[Tensor | Skipped]]) -> Batch:
    """Wait for one batch."""
    results = [future.result() for future in futures]
    good = [(start + i, result) for i, result in enumerate(results) if isinstance(result, Tensor)]
    skipped = [result for result in results if isinstance(result, Skipped)]
    images = torch.stack([image for _, image in good]) if good else None
    return Batch(images, [index for index, _ in good], skipped)
