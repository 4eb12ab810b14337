"""What the stores know images by: what each holds, what is shown of it, and how it is decoded."""

from __future__ import annotations

from collections.abc import Sequence

from transmiter_cli.embedding.choices import Decoding
from transmiter_cli.embedding.decoding import SPARE
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.storage.contents import Contents, as_text
from transmiter_cli.embedding.storage.index import Digests, key_digests
from transmiter_cli.embedding.views import View


def image_key(record: ImageRecord, place: bytes, fingerprint: bytes, decoding: Decoding) -> str | None:
    """What a store knows an image by; None if it is gone.

    It is known by its place only where it cannot be read, so that decoding it tells why, or is a pipe.
    """
    if not place:
        return None
    key = as_text(fingerprint) if fingerprint else f"at {as_text(place)}"
    if isinstance(record, View):
        key = f"{key}|{record.shown}"
    return key if decoding == "full" else f"{key}|{decoding} {SPARE}"


def image_keys(files: Sequence[ImageRecord], contents: Contents, decoding: Decoding) -> Digests:
    """Digests of what a store knows images by, empty where a file is gone."""
    found = zip(files, contents.places.tolist(), contents.fingerprints.tolist(), strict=True)
    return key_digests(image_key(file, place, fingerprint, decoding) for file, place, fingerprint in found)
