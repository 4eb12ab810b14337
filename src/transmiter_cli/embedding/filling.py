"""Encode the images that a store lacks: decoded in threads or processes, written a shard at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from transmiter_cli.embedding.choices import Decoding
from transmiter_cli.embedding.decoding import (
    Batch,
    Decoder,
    Skipped,
    decode_batch,
    decode_batches,
    map_batches,
    plan_batches,
    usable_processors,
)
from transmiter_cli.embedding.encoders.encoder import Encoder
from transmiter_cli.embedding.image_keys import image_key
from transmiter_cli.embedding.processes import CAN_FORK, deaths_explained, decode_in_processes
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.storage.contents import Contents, place_of
from transmiter_cli.embedding.storage.index import Digests, key_digests
from transmiter_cli.embedding.storage.store import EmbeddingStore
from transmiter_cli.files import SHELLS_OWN
from transmiter_cli.method.embeddings import require_finite

SHARD_ROWS = 4096
SHARD_SECONDS = 60.0
"""Images and seconds between two writes: what a killed run can lose."""
CPU_BATCH_PIXELS = 8 * 224 * 224
"""Pixels that a processor encodes at a time; the activations of larger batches fall out of its cache."""
FEWEST_FOR_PROCESSES = 1000
"""Images from which on the start of processes that decode is worth its half a second."""
CHANGED = "changed while it was read"


def copies_of_skipped(
    files: Sequence[ImageRecord],
    keys: Digests,
    tried: Bool[np.ndarray, " keys"],
    stored: Bool[np.ndarray, " keys"],
    skipped: Sequence[Skipped],
) -> list[Skipped]:
    """The images that were not tried, since another one of their key was, and was skipped: copies, or links to it."""
    reasons = {image.name: image.reason for image in skipped}
    of_key = {keys[i]: reasons[files[i].name] for i in np.flatnonzero(tried & ~stored).tolist()}
    others = np.flatnonzero((keys != b"") & ~stored & ~tried).tolist()
    return [Skipped(files[i].name, of_key[keys[i]]) for i in others]


@dataclass(frozen=True)
class ImageFiller:
    """A model that encodes images into its store.

    Attributes:
        batch_size: most images that are encoded at a time.
        workers: threads or processes that decode; as many as there are processors if None.
    """

    encoder: Encoder
    store: EmbeddingStore
    decoding: Decoding
    batch_size: int
    workers: int | None

    def fill(
        self,
        files: Sequence[ImageRecord],
        contents: Contents,
        missing: Bool[np.ndarray, " images"],
        advance: Callable[[int], None],
    ) -> list[Skipped]:
        """Encode what is missing; whatever was encoded is kept, also when this fails.

        Args:
            files: images.
            contents: what they hold.
            missing: which of them to encode.
            advance: told how many of all images are done.

        Returns:
            The images that could not be decoded, or changed meanwhile.
        """
        done = len(files) - int(missing.sum())
        skipped: list[Skipped] = []
        with deaths_explained(), self.store.gathering(SHARD_ROWS, SHARD_SECONDS) as add:
            for batch, rows in self.encoded_batches(files, missing.tolist()):
                if rows is not None:
                    require_finite(f"the image embeddings of {self.encoder.spec.name}", rows)
                    names = [self.key_if_unchanged(files[i], contents, i) for i in batch.positions]
                    add([name for name in names if name], rows[[name is not None for name in names]])
                    changed = compress(batch.positions, [name is None for name in names])
                    skipped += [Skipped(files[i].name, CHANGED) for i in changed]
                skipped += batch.skipped
                done += len(batch.positions) + len(batch.skipped)
                advance(done)
        return skipped

    def encoded_batches(
        self, files: Sequence[ImageRecord], missing: Sequence[bool]
    ) -> Iterator[tuple[Batch, Tensor | None]]:
        """The missing images in batches, with their embeddings; None for a batch that cannot be decoded at all."""
        encoder = self.encoder
        decoder = Decoder(encoder.preprocess, encoder.side, self.decoding)
        workers = self.workers or usable_processors()

        def encoded(batch: Batch) -> tuple[Batch, Tensor | None]:
            return batch, None if batch.images is None else encoder.encode_images(batch.images)

        if encoder.device.type == "cpu":
            batches = plan_batches(missing, min(self.batch_size, max(1, CPU_BATCH_PIXELS // encoder.side**2)))
            yield from map_batches(lambda positions: encoded(decode_batch(files, positions, decoder)), batches, workers)
        else:
            batches = plan_batches(missing, self.batch_size)
            worth_processes = CAN_FORK and workers > 1 and sum(missing) >= FEWEST_FOR_PROCESSES
            decode = decode_in_processes if worth_processes else decode_batches
            yield from map(encoded, decode(files, batches, decoder, workers))

    def key_if_unchanged(self, file: ImageRecord, contents: Contents, position: int) -> str | None:
        """What the store knows an image by; None if its file is no longer what it was at its position."""
        now, fingerprint = place_of(file), contents.fingerprints[position]
        if not isinstance(now, str) or key_digests([now])[0] != contents.places[position]:
            return None
        if not fingerprint and not now.startswith(SHELLS_OWN):  # it could not be read when it was looked at
            return None
        return image_key(file, contents.places[position], fingerprint, self.decoding)
