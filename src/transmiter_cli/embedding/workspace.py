"""Encoders with their stores: every embedding is asked for here, and computed only if it never was before."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import compress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from transmiter_cli.embedding.cache import default_cache
from transmiter_cli.embedding.decoding import (
    SPARE,
    Batch,
    Decoder,
    Decoding,
    Skipped,
    decode_batch,
    decode_batches,
    map_batches,
    plan_batches,
    usable_processors,
)
from transmiter_cli.embedding.encoder import Encoder, EncoderFacts
from transmiter_cli.embedding.index import Digests, key_digests
from transmiter_cli.embedding.models import ModelSpec
from transmiter_cli.embedding.prompts import Templates
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.store import DamagedShardError, EmbeddingStore
from transmiter_cli.embedding.views import View
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import canonical_json, digest, file_digest, write_if_possible
from transmiter_cli.method.embeddings import require_finite
from transmiter_cli.reporter import Reporter

SHARD_ROWS = 4096
SHARD_SECONDS = 60.0
"""Images and seconds between two writes: what a killed run can lose."""
TEXT_BATCH = 256
CPU_BATCH_PIXELS = 8 * 224 * 224
"""Pixels that a processor encodes at a time; the activations of larger batches fall out of its cache."""
CHANGED = "changed while it was read"
LISTED = 20
"""Skipped images that are named one by one."""


def choose_device(name: str) -> torch.device:
    """The device of a --device value; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UsageError: if it does not exist here.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise UsageError(f"{name!r} is no device to compute on.", "--device cpu")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"There is no device {name!r} here: {str(error).splitlines()[0]}", "--device cpu") from error
    return device


class NoImagesError(TransmiterError):
    """Not one of the images that were asked for can be decoded."""


@dataclass(frozen=True)
class StoredImages:
    """Images whose embeddings the store has, as far as they could be decoded.

    Attributes:
        keys: digests of what the store knows them by; empty where a file is gone.
        encoded: how many were not in the store before.
        skipped: the images that could not be decoded.
    """

    keys: Digests
    encoded: int
    skipped: list[Skipped]


class KnownFiles(tuple[ImageRecord, ...]):
    """Images that were just looked for in a store: the next model need not ask the file system for them again.

    Attributes:
        keys: digests of what the store knows them by.
        decoding: how they were to be decoded.
    """

    keys: Digests
    decoding: Decoding

    @classmethod
    def of(cls, files: Iterable[ImageRecord], keys: Digests, decoding: Decoding) -> KnownFiles:
        """Files with their keys."""
        known = cls(files)
        known.keys, known.decoding = keys, decoding
        return known


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


@dataclass
class Workspace:
    """The cache, the device, and what to do with images that cannot be decoded.

    Attributes:
        strict: fail on an image that cannot be decoded instead of skipping it.
        decoding: how files are decoded; None for what fit did, or "full".
        workers: threads that decode; as many as there are processors if None.
    """

    cache: Path = field(default_factory=default_cache)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    reporter: Reporter = field(default_factory=Reporter)
    batch_size: int = 64
    strict: bool = False
    decoding: Decoding | None = None
    workers: int | None = None

    def like_fit(self, decoding: Decoding) -> Workspace:
        """This workspace, decoding as fit did unless it was told otherwise."""
        return replace(self, decoding=self.decoding or decoding)

    @property
    def method_device(self) -> torch.device:
        """Where the method computes: the CPU in place of MPS, which has no float64."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    def open(self, spec: ModelSpec) -> CachedEncoder:
        """A model with the store of its embeddings."""
        fingerprint = digest(spec.description(), self.weights_digest(spec.weights))[:32]
        return CachedEncoder(self, Encoder(spec, self.device), fingerprint)

    def weights_digest(self, weights: Path) -> str:
        """SHA-256 of a weight file, read again only when its size or time changed."""
        status = weights.stat()
        identity = digest(str(weights.resolve()), str(status.st_size), str(status.st_mtime_ns))
        memo = self.cache / "weights" / identity[:32]
        if memo.is_file():
            return memo.read_text()
        found = file_digest(weights)
        write_if_possible(memo, found.encode())
        return found


class CachedEncoder:
    """One model and the store of all it ever encoded.

    Args:
        workspace: cache, device and reporter.
        encoder: the model; loaded only when something is missing in the store.
        fingerprint: digest of architecture, weights and preprocessing.
    """

    def __init__(self, workspace: Workspace, encoder: Encoder, fingerprint: str) -> None:
        self.workspace = workspace
        self.encoder = encoder
        self.fingerprint = fingerprint
        precision = str(encoder.precision).removeprefix("torch.")
        self.folder = workspace.cache / "encoders" / fingerprint / precision

    @property
    def name(self) -> str:
        """The model's name, as the user wrote it."""
        return self.encoder.spec.name

    @property
    def facts(self) -> EncoderFacts:
        """Logit scale and size; the model is loaded for them once."""
        path = self.folder / "facts.json"
        if path.is_file():
            known = json.loads(path.read_text())
            return EncoderFacts(known["logit_scale"], known["parameters"])
        found = self.encoder.facts()
        write_if_possible(path, canonical_json({**asdict(found), "name": self.name}).encode())
        return found

    def image_embeddings(self, files: Sequence[ImageRecord]) -> ImageEmbeddings:
        """Embeddings of images, from the store where it has them.

        Raises:
            NoImagesError: if no image at all can be decoded.
            TransmiterError: if the workspace is strict and any cannot be decoded.
        """
        with self._progress(len(files)) as advance:
            found = self._embed(files, advance)
        asked, views = (sum(isinstance(file, View) for file in some) for some in (files, found.files))
        self._report(len(files) - asked, len(found.kept) - views, found.encoded, found.skipped, views)
        return found

    def image_chunks(self, files: Sequence[ImageRecord], size: int) -> Iterator[tuple[int, ImageEmbeddings]]:
        """The same for any number of images in bounded memory: `size` of them at a time, in their order.

        Each chunk comes with the position of its first image.

        Raises:
            NoImagesError: at the end, if no image at all could be decoded.
            TransmiterError: if the workspace is strict and any of a chunk cannot be decoded.
        """
        kept = encoded = 0
        skipped: list[Skipped] = []
        with self._progress(len(files)) as advance:
            for start in range(0, len(files), size):
                found = self._embed(files[start : start + size], lambda done, start=start: advance(start + done))
                kept, encoded = kept + len(found.kept), encoded + found.encoded
                skipped += found.skipped
                if skipped and self.workspace.strict:
                    break
                yield start, found
        self._report(len(files), kept, encoded, skipped)

    def store_images(self, files: Sequence[ImageRecord]) -> StoredImages:
        """Encode what the store lacks of any number of images, in one go and in bounded memory.

        Raises:
            NoImagesError: if no image at all can be decoded.
            TransmiterError: if the workspace is strict and any cannot be decoded.
        """
        with self._progress(len(files)) as advance:
            while True:
                found = self._store(files, advance)
                try:
                    self.images.check(found.keys)
                    break
                except DamagedShardError:  # it is set aside now, and its rows are missing
                    continue
        self._report(len(files), int(self.images.has(found.keys).sum()), found.encoded, found.skipped)
        return found

    def text_embeddings(self, names: Sequence[str], templates: Templates) -> Float[Tensor, "names width"]:
        """Unit-norm embeddings of names, each the mean over its prompts."""
        prompts = [templates.prompts(name) for name in names]
        texts = [prompt for own in prompts for prompt in own]
        keys = key_digests(texts)
        while True:
            if not self.texts.has(keys).all():
                with self.texts.writing():
                    self._encode_texts([*dict.fromkeys(compress(texts, ~self.texts.has(keys)))])
            try:
                rows = self.texts.read(keys)
                break
            except DamagedShardError:  # it is set aside now, and its rows are missing
                continue
        parts = rows.float().split([len(own) for own in prompts])
        return F.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)

    @cached_property
    def images(self) -> EmbeddingStore:
        """The store of images."""
        return EmbeddingStore(self.folder / "images", self.workspace.reporter)

    @cached_property
    def texts(self) -> EmbeddingStore:
        """The store of prompts."""
        return EmbeddingStore(self.folder / "texts", self.workspace.reporter)

    @contextmanager
    def _progress(self, total: int) -> Generator[Callable[[int], None]]:
        with self.workspace.reporter.progress(f"Encoding images with {self.name}") as advance:
            yield lambda done: advance(done, total)

    def _report(self, asked: int, kept: int, encoded: int, skipped: Sequence[Skipped], views: int = 0) -> None:
        """Say how many images there are and which were skipped; fail if those cannot be done without.

        Views of images are not among those that were asked for and kept.
        """
        reporter = self.workspace.reporter
        skipped = [*{image.name: image for image in skipped}.values()]  # once for all views of an image
        source = f"{encoded:,} decoded and encoded" if encoded else "all from the cache, none decoded"
        if kept:
            reporter.note(f"{self.name}: {kept:,} images{f' and {views:,} views of them' if views else ''}, {source}.")
        for image in skipped[:LISTED]:
            reporter.warn(f"Skipped {image.name}: {image.reason}.")
        if len(skipped) > LISTED:
            reporter.warn(f"Skipped {len(skipped) - LISTED} more images that cannot be decoded.")
        if skipped and (self.workspace.strict or not kept):
            first = f"{skipped[0].name}: {skipped[0].reason}"
            error = TransmiterError if kept else NoImagesError
            raise error(f"{len(skipped):,} of {asked:,} images cannot be decoded; the first is {first}.")

    def _embed(self, files: Sequence[ImageRecord], advance: Callable[[int], None]) -> ImageEmbeddings:
        """The images' rows, all of them at once."""
        while True:
            found = self._store(files, advance)
            kept = np.flatnonzero(self.images.has(found.keys))
            try:
                rows = self.images.read(found.keys[kept]) if len(kept) else torch.empty(0, 0)
            except DamagedShardError:  # it is set aside now, and its rows are missing
                continue
            positions: list[int] = kept.tolist()
            known = KnownFiles.of((files[i] for i in positions), found.keys[kept], self.decoding)
            return ImageEmbeddings(known, rows, positions, found.skipped, found.encoded)

    def _store(self, files: Sequence[ImageRecord], advance: Callable[[int], None]) -> StoredImages:
        """Encode those of the images that the store lacks."""
        keys, skipped = self.image_keys(files)
        encoded = 0
        if self._missing(keys).any():
            with self.images.writing():
                missing = self._missing(keys)
                undecoded = self._encode_images(files, keys, missing, advance)
                encoded = int(missing.sum()) - len(undecoded)
                skipped += undecoded
        return StoredImages(keys, encoded, skipped)

    def image_keys(self, files: Sequence[ImageRecord]) -> tuple[Digests, list[Skipped]]:
        """Digests of what the store knows images by, and the images that are not there."""
        if isinstance(files, KnownFiles) and files.decoding == self.decoding:
            return files.keys, []
        keys = [self.image_key(file) for file in files]
        gone = [key for key in keys if isinstance(key, Skipped)]
        return key_digests(key if isinstance(key, str) else None for key in keys), gone

    def image_key(self, record: ImageRecord) -> str | Skipped:
        """What the store knows an image by, or why it is not there."""
        key = image_key(record)
        return key if isinstance(key, Skipped) or self.decoding == "full" else f"{key}|{self.decoding} {SPARE}"

    @property
    def decoding(self) -> Decoding:
        """How files are decoded."""
        return self.workspace.decoding or "full"

    def _missing(self, keys: Digests) -> Bool[np.ndarray, " keys"]:
        """Which of the keys must be encoded: the first of each that has no row, and is one."""
        missing = np.zeros(len(keys), dtype=bool)
        missing[np.unique(keys, return_index=True)[1]] = True
        return missing & (keys != b"") & ~self.images.has(keys)

    def _encode_images(
        self,
        files: Sequence[ImageRecord],
        keys: Digests,
        missing: Bool[np.ndarray, " keys"],
        advance: Callable[[int], None],
    ) -> list[Skipped]:
        """Encode what is missing, a shard at a time; whatever was encoded is kept, also when this fails."""
        done = len(keys) - int(missing.sum())
        skipped: list[Skipped] = []
        with self.images.gathering(SHARD_ROWS, SHARD_SECONDS) as add:
            for batch, rows in self._encoded_batches(files, missing.tolist()):
                if rows is not None:
                    require_finite(f"the image embeddings of {self.name}", rows)
                    names = [self._unchanged(files[i], keys[i]) for i in batch.positions]
                    add([name for name in names if name], rows[[name is not None for name in names]])
                    changed = compress(batch.positions, [name is None for name in names])
                    skipped += [Skipped(files[i].name, CHANGED) for i in changed]
                skipped += batch.skipped
                done += len(batch.positions) + len(batch.skipped)
                advance(done)
        return skipped

    def _encoded_batches(
        self, files: Sequence[ImageRecord], missing: Sequence[bool]
    ) -> Iterator[tuple[Batch, Tensor | None]]:
        """The missing images in batches, with their embeddings; None for a batch that cannot be decoded at all."""
        encoder, size = self.encoder, self.workspace.batch_size
        decoder = Decoder(encoder.preprocess, encoder.side, self.decoding)
        workers = self.workspace.workers or usable_processors()

        def encoded(batch: Batch) -> tuple[Batch, Tensor | None]:
            return batch, None if batch.images is None else encoder.encode_images(batch.images)

        if encoder.device.type == "cpu":
            batches = plan_batches(missing, min(size, max(1, CPU_BATCH_PIXELS // encoder.side**2)))
            yield from map_batches(lambda positions: encoded(decode_batch(files, positions, decoder)), batches, workers)
        else:
            yield from map(encoded, decode_batches(files, plan_batches(missing, size), decoder, workers))

    def _unchanged(self, file: ImageRecord, key: np.bytes_) -> str | None:
        """What the store knows an image by; None if it is no longer the one that had this key."""
        name = self.image_key(file)
        return name if isinstance(name, str) and key_digests([name])[0] == key else None

    def _encode_texts(self, prompts: Sequence[str]) -> None:
        with self.workspace.reporter.progress(f"Encoding prompts with {self.name}") as advance:
            for start in range(0, len(prompts), TEXT_BATCH):
                batch = prompts[start : start + TEXT_BATCH]
                rows = self.encoder.encode_texts(batch)
                require_finite(f"the text embeddings of {self.name}", rows)
                self.texts.append(batch, rows)
                advance(start + len(batch), len(prompts))


def image_key(record: ImageRecord) -> str | Skipped:
    """A record's own key, or why it is not there."""
    try:
        return record.key()
    except OSError as error:
        return Skipped(record.name, error.strerror or str(error))
