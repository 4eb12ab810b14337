"""What the stores know images by: the key of each record, and how it is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from transmiter_cli.embedding.choices import Decoding
from transmiter_cli.embedding.decoding import SPARE, Skipped
from transmiter_cli.embedding.index import Digests, key_digests
from transmiter_cli.embedding.sources import ImageRecord


class KnownFiles(tuple[ImageRecord, ...]):
    """Images that were just looked for in a store: the next model need not ask the file system for them again.

    Attributes:
        keys: digests of what the store knows them by.
        decoding: how they were to be decoded.
    """

    keys: Digests
    decoding: Decoding

    def __new__(cls, files: Iterable[ImageRecord], keys: Digests, decoding: Decoding) -> KnownFiles:
        """Files with their keys."""
        known = super().__new__(cls, files)
        known.keys, known.decoding = keys, decoding
        return known


def image_key(record: ImageRecord, decoding: Decoding = "full") -> str | Skipped:
    """What a store knows an image by, or why it is not there."""
    try:
        key = record.key()
    except OSError as error:
        return Skipped(record.name, error.strerror or str(error))
    return key if decoding == "full" else f"{key}|{decoding} {SPARE}"


def image_keys(files: Sequence[ImageRecord], decoding: Decoding) -> tuple[Digests, list[Skipped]]:
    """Digests of what a store knows images by, empty where a file is gone, and the images that are gone."""
    if isinstance(files, KnownFiles) and files.decoding == decoding:
        return files.keys, []
    gone: list[Skipped] = []

    def keys() -> Iterator[str | None]:
        for file in files:
            key = image_key(file, decoding)
            if isinstance(key, Skipped):
                gone.append(key)
            yield key if isinstance(key, str) else None

    return key_digests(keys()), gone
