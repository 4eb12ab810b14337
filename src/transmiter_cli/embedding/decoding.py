"""Decode image files in threads, a few batches ahead of the encoder."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import torch
from jaxtyping import Shaped
from PIL import Image, ImageOps
from torch import Tensor

from transmiter_cli.embedding.choices import Decoding
from transmiter_cli.embedding.pictures import as_rgb, is_empty, picture, shrink, upright_size
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.views import View, picture_of
from transmiter_cli.errors import is_out_of_memory

Result = TypeVar("Result")
BATCHES_AHEAD = 2
"""Batches that are worked on before they are asked for; per thread where each thread has its own."""
SPARE = 1.5
"""How many times finer than the model's input a scaled picture must still be."""
CACHED_BLOCKS = 4
"""Blocks of 16 MB that Pillow keeps per thread in place of asking the system for each picture's memory anew."""


@dataclass(frozen=True)
class Skipped:
    """An image that could not be decoded, by the name under which a user finds it, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Decoded images, their positions among the records, and those that could not be decoded."""

    images: Shaped[Tensor, "images ..."] | None
    positions: list[int]
    skipped: list[Skipped]


@dataclass(frozen=True)
class Decoder:
    """From image records to the pixels that one model sees.

    Attributes:
        preprocess: what the model was trained with, up to pixels.
        side: height of its input in pixels.
        decoding: "full" computes every pixel of the file; "scaled" lets JPEG files be decoded at the smallest of 1/2,
            1/4 and 1/8 of their size that is still SPARE times finer than the input.
    """

    preprocess: Callable[[Image.Image], Tensor]
    side: int
    decoding: Decoding = "full"

    def __call__(self, records: Sequence[ImageRecord]) -> list[Tensor | Skipped]:
        """The picture that all the records show, as each of them shows it, or why it cannot be had."""
        record, *others = records
        if others and self.decoding == "scaled":  # each at a scale of its own, whatever else is asked for with it
            return [result for one in records for result in self([one])]
        try:
            with picture(record) as image:
                size = upright_size(image)
                if self.decoding == "scaled":
                    shrink(image, SPARE * self.side / share(record, size))
                ImageOps.exif_transpose(image, in_place=True)
                upright = as_rgb(image)
                return [self.preprocess(self.shown(view, upright, size)) for view in records]
        except Image.DecompressionBombError:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
            reason = f"more than {most} million pixels, which may be a decompression bomb"
        except Image.UnidentifiedImageError:
            reason = "empty file" if is_empty(record) else "not an image that Pillow reads"
        except Exception as error:  # of damaged files Pillow's plugins raise OSError, RuntimeError, struct.error, ...
            if is_out_of_memory(error):
                raise
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return [Skipped(record.name, reason)] * len(records)

    def shown(self, record: ImageRecord, upright: Image.Image, size: tuple[int, int]) -> Image.Image:
        """What a record shows of its picture, which has `size` pixels in its file."""
        return record.of(upright, size, self.side) if isinstance(record, View) else upright


def can_be_decoded(record: ImageRecord) -> bool:
    """Whether there is a picture in an image's file."""
    with quiet_pillow(threads=1):
        return not isinstance(Decoder(lambda image: torch.empty(0), side=1)([record])[0], Skipped)


def share(record: ImageRecord, size: tuple[int, int]) -> float:
    """The smaller of the shares that a record shows of its picture's width and height."""
    if not isinstance(record, View):
        return 1.0
    crop = record.crop(size)
    return min(crop.width / size[0], crop.height / size[1])


def plan_batches(missing: Sequence[bool], size: int) -> Iterator[list[int]]:
    """Positions of the missing images, in batches.

    The list is cut into blocks of `size` positions. A block that is missing as a whole is a batch of its own, so
    that a run that was stopped goes on with the very batches that an undisturbed run has, and with the same bits;
    what is missing from other blocks is gathered.
    """
    rest: list[int] = []
    for start in range(0, len(missing), size):
        block = [i for i in range(start, min(start + size, len(missing))) if missing[i]]
        if len(block) == min(size, len(missing) - start):
            yield block
            continue
        rest += block
        if len(rest) >= size:
            yield rest[:size]
            del rest[:size]
    if rest:
        yield rest


def decode_batches(
    records: Sequence[ImageRecord], batches: Iterable[Sequence[int]], decoder: Decoder, workers: int
) -> Iterator[Batch]:
    """Decode the records at the batches' positions, a picture per thread, ahead of whoever iterates.

    Args:
        records: images; the views of one picture that follow each other are decoded at once.
        batches: positions of records.
        decoder: makes what a model sees of them.
        workers: threads.
    """
    with decoding_threads(workers) as pool:
        started = ((p, [pool.submit(decoder, views) for views in by_picture(records, p)]) for p in batches)
        for positions, futures in lookahead(started, BATCHES_AHEAD):
            yield collect(positions, [future.result() for future in futures])


def map_batches(
    work: Callable[[Sequence[int]], Result], batches: Iterable[Sequence[int]], workers: int
) -> Iterator[Result]:
    """Do something with every batch in threads of one processor each; the results come in order.

    For an encoder on the CPU: where each thread decodes and encodes batches of its own, none waits for another, as
    the threads within one matrix product do whenever a decoder holds their processor.
    """
    threads = torch.get_num_threads()
    try:
        with decoding_threads(workers, lambda: torch.set_num_threads(1)) as pool:
            for future in lookahead((pool.submit(work, positions) for positions in batches), BATCHES_AHEAD * workers):
                yield future.result()
    finally:
        torch.set_num_threads(threads)  # what a thread sets, those that start later find


def lookahead(started: Iterable[Result], count: int) -> Iterator[Result]:
    """What was started, in its order, with `count` more started ahead of each."""
    waiting: deque[Result] = deque()
    for one in started:
        waiting.append(one)
        if len(waiting) > count:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def decode_batch(records: Sequence[ImageRecord], positions: Sequence[int], decoder: Decoder) -> Batch:
    """Decode the records at some positions, in this thread."""
    return collect(positions, [decode_pictures(records, positions, decoder)])


def decode_pictures(
    records: Sequence[ImageRecord], positions: Sequence[int], decoder: Decoder
) -> list[Tensor | Skipped]:
    """What a model sees of the records at some positions, or why that cannot be had."""
    return [result for views in by_picture(records, positions) for result in decoder(views)]


def by_picture(records: Sequence[ImageRecord], positions: Sequence[int]) -> list[list[ImageRecord]]:
    """The records at some positions, those together that show the same picture."""
    return [list(views) for _, views in groupby((records[i] for i in positions), key=picture_of)]


def collect(positions: Sequence[int], decoded: Sequence[Sequence[Tensor | Skipped]]) -> Batch:
    """One batch of what decoders made."""
    results = [result for views in decoded for result in views]
    good = [(i, result) for i, result in zip(positions, results, strict=True) if isinstance(result, Tensor)]
    skipped = [result for result in results if isinstance(result, Skipped)]
    images = torch.stack([image for _, image in good]) if good else None
    return Batch(images, [i for i, _ in good], skipped)


@contextmanager
def decoding_threads(workers: int, initializer: Callable[[], None] | None = None) -> Generator[ThreadPoolExecutor]:
    """Threads that decode."""
    with quiet_pillow(workers), ThreadPoolExecutor(workers, "decode", initializer) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, what waits in the queue is not begun


@contextmanager
def quiet_pillow(threads: int) -> Generator[None]:
    """Let Pillow warn of nothing, be it large or damaged, and keep memory for the next picture of each thread."""
    with warnings.catch_warnings(), cached_blocks(threads):
        warnings.filterwarnings("ignore", module="PIL")
        yield


def usable_processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def cached_blocks(threads: int) -> Generator[None]:
    """Let Pillow use the memory of one picture for the next: half of the time to copy one goes into page faults."""
    before = Image.core.get_blocks_max()
    Image.core.set_blocks_max(CACHED_BLOCKS * threads)
    try:
        yield
    finally:
        Image.core.set_blocks_max(before)
        Image.core.clear_cache()
