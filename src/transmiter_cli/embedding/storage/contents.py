"""What image files hold: a fingerprint of each one's content, by which the stores know it wherever it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from transmiter_cli.embedding.decoding import Skipped, map_batches, usable_processors
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.storage.cache import CONTENTS
from transmiter_cli.embedding.storage.index import DIGEST_BYTES, Digests, key_digests
from transmiter_cli.embedding.storage.store import EmbeddingStore, until_whole
from transmiter_cli.files import SHELLS_OWN
from transmiter_cli.reporter import Reporter

CHUNK = 4096
"""Images that become one shard of fingerprints."""
PART = 64
"""Images that a thread reads at a time."""
READ_BYTES = 2**20
"""Bytes of a file that are in memory at a time."""
WORDS = 4
"""A fingerprint is so many 32-bit numbers; the store keeps them as float64, which holds them exactly."""
NOTHING = hashlib.sha256().digest()
"""The digest of an empty file."""


@dataclass(frozen=True)
class Contents:
    """Where images lie and what they hold.

    Attributes:
        places: digests of each file's place, size and times of change; empty where it is gone.
        fingerprints: 128 bits of SHA-256 of each file's content, or of a decoded picture's pixels; empty where it
            cannot be read, or holds nothing.
        gone: the images that are gone.
    """

    places: Digests
    fingerprints: Digests
    gone: tuple[Skipped, ...] = ()

    def only(self, chosen: Bool[np.ndarray, " images"]) -> Contents:
        """Those of some of the images that are there."""
        return Contents(self.places[chosen], self.fingerprints[chosen])


class KnownFiles(tuple[ImageRecord, ...]):
    """Images whose contents were just looked for: the next model need not ask the file system for them again."""

    contents: Contents

    def __new__(cls, files: Iterable[ImageRecord], contents: Contents) -> KnownFiles:
        """Files with their contents."""
        known = super().__new__(cls, files)
        known.contents = contents
        return known


class ContentStore:
    """The fingerprints of images, each file read once as long as its size and times of change stay what they are.

    Args:
        cache: the cache's folder.
        reporter: told what `EmbeddingStore` tells.
        workers: threads that read; as many as there are processors if None.
    """

    def __init__(self, cache: Path, reporter: Reporter, workers: int | None = None) -> None:
        self.store = EmbeddingStore(cache / CONTENTS, reporter, cache)
        self.workers = workers or usable_processors()

    def of(self, files: Sequence[ImageRecord], reporter: Reporter | None = None) -> Contents:
        """What images hold.

        Args:
            files: the images.
            reporter: shows how far the reading is; nobody if None, for few images while other progress is shown.
        """
        if isinstance(files, KnownFiles):
            return files.contents
        gone: list[Skipped] = []

        def found() -> Iterator[str | None]:
            for file in files:
                place = place_of(file)
                if isinstance(place, Skipped):
                    gone.append(place)
                yield place if isinstance(place, str) else None

        places = key_digests(found())

        def fingerprints() -> Digests:
            lacking = np.flatnonzero(self.store.lacking(places)).tolist()
            if lacking:
                self._read([files[i] for i in lacking], reporter or Reporter())
            known = self.store.has(places)
            result = np.zeros_like(places)
            if known.any():
                result[known] = as_digests(self.store.read(places[known]))
            return result

        return Contents(places, until_whole(fingerprints), tuple(gone))

    def _read(self, files: Sequence[ImageRecord], reporter: Reporter) -> None:
        """Read images and keep their fingerprints, also of those that were read before this fails.

        The store is locked only while they are written: two processes may read the same images, and both are right.
        """
        parts = (range(start, min(start + PART, len(files))) for start in range(0, len(files), PART))
        read: dict[str, list[int]] = {}
        try:
            with reporter.progress("Reading images") as advance:
                for part, words in map_batches(lambda part: (part, placed_words(files, part)), parts, self.workers):
                    read |= words
                    advance(part[-1] + 1, len(files))
                    if len(read) >= CHUNK:
                        self._keep(read)
                        read = {}
        finally:
            self._keep(read)

    def _keep(self, words: Mapping[str, list[int]]) -> None:
        """Write fingerprints, by their images' places."""
        if words:
            with self.store.writing():
                self.store.append([*words], torch.tensor([*words.values()], dtype=torch.float64))


def place_of(record: ImageRecord) -> str | Skipped:
    """Where an image lies, with the size and times of change of the file there, or why it is not there."""
    try:
        return record.place()
    except OSError as error:
        return Skipped(record.name, error.strerror or str(error))


def placed_words(files: Sequence[ImageRecord], positions: Sequence[int]) -> dict[str, list[int]]:
    """The fingerprints, as numbers, of those images that can be read, by their place.

    Not of pipes, which are read only once, nor of files that changed meanwhile.
    """
    found: dict[str, list[int]] = {}
    for file in (files[i] for i in positions):
        place = place_of(file)
        if isinstance(place, str) and not place.startswith(SHELLS_OWN):
            words = read_words(file)
            if words is not None and place_of(file) == place:
                found[place] = words
    return found


def read_words(record: ImageRecord) -> list[int] | None:
    """The fingerprint of one image as numbers; None if it cannot be read, or its file is empty."""
    try:
        with record.open() as opened:
            if isinstance(opened, Image.Image):
                found = hashlib.sha256(f"{opened.mode} {opened.size}".encode() + opened.tobytes())
            else:
                found = hashlib.sha256()
                while block := opened.read(READ_BYTES):
                    found.update(block)
    except OSError:
        return None
    digest = found.digest()
    if digest == NOTHING:  # files that broke off are no copies of each other
        return None
    return [int.from_bytes(digest[4 * i : 4 * i + 4], "big") for i in range(WORDS)]


def as_digests(words: Float[Tensor, "images words"]) -> Digests:
    """Fingerprints from their numbers."""
    return words.numpy().astype(">u4").view(f"S{DIGEST_BYTES}")[:, 0]


def as_text(digest: bytes) -> str:
    """A digest as 32 hexadecimal digits; NumPy leaves out zeros at the end of its bytes."""
    return digest.ljust(DIGEST_BYTES, b"\0").hex()
