"""What comes of asking for images: their rows, and the images that could not be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import ne

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from transmiter_cli.embedding.decoding import Skipped
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.storage.contents import KnownFiles
from transmiter_cli.embedding.storage.index import Digests
from transmiter_cli.errors import TransmiterError


def require_unchanged(files: Sequence[ImageRecord], before: Sequence[ImageRecord]) -> None:
    """Raise TransmiterError unless a model could read the very images that another one could."""
    if len(files) != len(before) or any(map(ne, files, before)):
        raise TransmiterError("Images changed while they were read.", "run the command again")


class NoImagesError(TransmiterError):
    """Not one of the images that were asked for can be decoded."""


@dataclass(frozen=True)
class StoredImages:
    """Images whose embeddings the store has, as far as they could be decoded.

    Attributes:
        keys: digests of what the store knows them by; empty where a file is gone.
        stored: which of the keys have a row.
        encoded: how many were not in the store before.
        skipped: the images that could not be decoded.
    """

    keys: Digests
    stored: Bool[np.ndarray, " keys"]
    encoded: int
    skipped: list[Skipped]


@dataclass(frozen=True)
class ImageEmbeddings:
    """Embeddings of the images that could be decoded.

    Attributes:
        files: the kept images.
        rows: unit-norm, one per kept image.
        kept: their positions in the list that was asked for.
        skipped: the images that could not be decoded.
        encoded: how many were not in the store before.
    """

    files: KnownFiles
    rows: Float[Tensor, "images width"]
    kept: list[int]
    skipped: list[Skipped]
    encoded: int
