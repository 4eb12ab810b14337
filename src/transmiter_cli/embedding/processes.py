"""Decode image files in processes: threads of one Python wait for each other too much to keep a GPU busy."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from transmiter_cli.embedding.decoding import Batch, Decoder, Skipped, collect, decode_pictures, quiet_pillow
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.views import picture_of
from transmiter_cli.errors import TransmiterError, first_line

CAN_FORK = sys.platform == "linux"
"""Whether processes start with all that this one holds; elsewhere each would import torch first."""
PART = 8
"""Images that a process decodes at a time, at least; the views of a picture stay together."""

PR_SET_PDEATHSIG = 1
"""Linux: which signal a process gets when its parent dies (prctl(2))."""


class Pictures(Dataset[list[np.ndarray | Skipped]]):
    """What a model sees of records, by lists of their positions.

    As arrays, which go through a pipe: tensors would through shared memory, of which a container has 64 MB.
    """

    def __init__(self, records: Sequence[ImageRecord], decoder: Decoder) -> None:
        self.records = records
        self.decoder = decoder

    def __getitem__(self, positions: Sequence[int]) -> list[np.ndarray | Skipped]:
        """Decode the records at some positions."""
        results = decode_pictures(self.records, positions, self.decoder)
        return [one.numpy() if isinstance(one, Tensor) else one for one in results]


def decode_in_processes(
    records: Sequence[ImageRecord], batches: Iterable[Sequence[int]], decoder: Decoder, workers: int
) -> Iterator[Batch]:
    """`decode_batches` with processes in place of threads, where CAN_FORK; no batch may be empty.

    The thread that begins to iterate must live until the end: with it die the processes.
    """
    expected: deque[tuple[Sequence[int], int]] = deque()

    def parts() -> Iterator[list[int]]:
        for positions in batches:
            cut = list(cut_between_pictures(records, positions))
            expected.append((positions, len(cut)))
            yield from cut

    with quiet_pillow(1):
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*multi-threaded, use of fork")
        warnings.filterwarnings("ignore", module=r"torch\.utils\.data")  # that there are more workers than processors
        loader: DataLoader[Any] = DataLoader(
            Pictures(records, decoder),
            batch_size=None,
            sampler=parts(),
            num_workers=workers,
            collate_fn=list,
            worker_init_fn=obey_parent_alone,
            multiprocessing_context="fork",
            generator=torch.Generator(),
        )
        decoded = iter(loader)
        for first in decoded:
            positions, count = expected.popleft()
            results = [first, *(next(decoded) for _ in range(count - 1))]
            yield collect(positions, [[as_tensor(one) for one in part] for part in results])


@contextmanager
def deaths_explained() -> Generator[None]:
    """Say what happened when a process that decodes dies, which PyTorch tells whatever is done at that time.

    Raises:
        TransmiterError: if a process died.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise TransmiterError(
            f"A process that decodes images died: {first_line(error)}. What was encoded is kept.",
            "the same command with --workers 1, if the memory was too small",
        ) from error


def cut_between_pictures(records: Sequence[ImageRecord], positions: Sequence[int]) -> Iterator[list[int]]:
    """The positions in parts of PART or a little more, the views of one picture in one part."""
    part: list[int] = []
    for _, views in groupby(positions, key=lambda position: picture_of(records[position])):
        part += views
        if len(part) >= PART:
            yield part
            part = []
    if part:
        yield part


def as_tensor(result: np.ndarray | Skipped) -> Tensor | Skipped:
    """What a decoder returned, before it went through a pipe."""
    return result if isinstance(result, Skipped) else torch.from_numpy(result)


def obey_parent_alone(_: int) -> None:
    """Leave signals to a process group, as Ctrl-C and `timeout` send them, to the parent, and die with it.

    A parent that was killed says nothing to processes that wait until somebody reads their full pipe.
    """
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
