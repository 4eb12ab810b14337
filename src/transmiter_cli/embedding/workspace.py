"""Encoders with their stores: every embedding is asked for here, and computed only if it never was before."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.embedding.cache import default_cache
from transmiter_cli.embedding.decoding import Skipped, decode_batches, plan_batches
from transmiter_cli.embedding.encoder import Encoder, EncoderFacts
from transmiter_cli.embedding.models import ModelSpec
from transmiter_cli.embedding.prompts import Templates
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.store import DamagedShardError, EmbeddingStore
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import canonical_json, digest, file_digest, write_if_possible
from transmiter_cli.method.embeddings import require_finite
from transmiter_cli.reporter import Reporter

SHARD_ROWS = 4096
SHARD_SECONDS = 60.0
"""Images and seconds between two writes: what a killed run can lose."""
TEXT_BATCH = 256
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
class ImageEmbeddings:
    """Embeddings of the images that could be decoded.

    Attributes:
        rows: unit-norm, one per kept image.
        kept: their positions in the list that was asked for.
        skipped: the images that could not be decoded.
    """

    rows: Float[Tensor, "images width"]
    kept: list[int]
    skipped: list[Skipped]


@dataclass
class Workspace:
    """The cache, the device, and what to do with images that cannot be decoded.

    Attributes:
        strict: fail on an image that cannot be decoded instead of skipping it.
    """

    cache: Path = field(default_factory=default_cache)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    reporter: Reporter = field(default_factory=Reporter)
    batch_size: int = 64
    strict: bool = False

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
        places = [image_key(file) for file in files]
        skipped = [place for place in places if isinstance(place, Skipped)]
        present = [i for i, place in enumerate(places) if isinstance(place, str)]
        keys = [place for place in places if isinstance(place, str)]
        records = [files[i] for i in present]
        undecoded: list[Skipped] = []

        def encode(store: EmbeddingStore, missing: list[str]) -> None:
            undecoded[:] = self._encode_images(store, keys, records, set(missing))

        rows, kept, encoded = self._from_store("images", keys, encode)
        skipped += undecoded
        self._report(len(kept), encoded - len(undecoded), skipped)
        if skipped and (self.workspace.strict or not kept):
            first = f"{skipped[0].name}: {skipped[0].reason}"
            error = TransmiterError if kept else NoImagesError
            raise error(f"{len(skipped)} of {len(files)} images cannot be decoded; the first is {first}.")
        return ImageEmbeddings(rows, [present[i] for i in kept], skipped)

    def text_embeddings(self, names: Sequence[str], templates: Templates) -> Float[Tensor, "names width"]:
        """Unit-norm embeddings of names, each the mean over its prompts."""
        prompts = [templates.prompts(name) for name in names]
        rows, _, _ = self._from_store("texts", [prompt for own in prompts for prompt in own], self._encode_texts)
        parts = rows.float().split([len(own) for own in prompts])
        return F.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)

    def _from_store(
        self, kind: str, keys: Sequence[str], encode: Callable[[EmbeddingStore, list[str]], None]
    ) -> tuple[Float[Tensor, "rows width"], list[int], int]:
        """Rows of the keys that can be encoded, those keys' positions, and how many had to be encoded."""
        store = EmbeddingStore(self.folder / kind, self.workspace.reporter)
        encoded = 0
        while True:
            if store.missing(keys):
                with store.writing():
                    missing = store.missing(keys)
                    encode(store, missing)
                    encoded += len(missing)
            absent = set(store.missing(keys))
            kept = [i for i, key in enumerate(keys) if key not in absent]
            try:
                rows = store.read([keys[i] for i in kept]) if kept else torch.empty(0, 0)
            except DamagedShardError:  # it is set aside now, and its rows are missing
                continue
            require_finite(f"the {kind[:-1]} embeddings of {self.name}", rows)
            return rows, kept, encoded

    def _encode_images(
        self, store: EmbeddingStore, keys: list[str], records: Sequence[ImageRecord], missing: set[str]
    ) -> list[Skipped]:
        """Encode what is missing, a shard at a time; whatever was encoded is kept, also when this fails."""
        first = {key: i for i, key in reversed([*enumerate(keys)])}
        wanted = [key in missing and first[key] == i for i, key in enumerate(keys)]
        batches = plan_batches(wanted, self.workspace.batch_size)
        done_keys: list[str] = []
        done_rows: list[Tensor] = []
        skipped: list[Skipped] = []

        def flush() -> None:
            if done_keys:
                store.append(done_keys, torch.cat(done_rows))
                done_keys.clear()
                done_rows.clear()

        with self.workspace.reporter.progress(f"Encoding images with {self.name}") as advance:
            try:
                seen, flushed = 0, time.monotonic()
                for batch in decode_batches(records, batches, self.encoder.preprocess):
                    if batch.images is not None:
                        done_rows.append(self.encoder.encode_images(batch.images))
                        done_keys += [keys[i] for i in batch.positions]
                    skipped += batch.skipped
                    seen += len(batch.positions) + len(batch.skipped)
                    advance(seen, len(missing))
                    if len(done_keys) >= SHARD_ROWS or time.monotonic() - flushed > SHARD_SECONDS:
                        flush()
                        flushed = time.monotonic()
            finally:
                flush()
        return skipped

    def _encode_texts(self, store: EmbeddingStore, prompts: list[str]) -> None:
        with self.workspace.reporter.progress(f"Encoding prompts with {self.name}") as advance:
            for start in range(0, len(prompts), TEXT_BATCH):
                batch = prompts[start : start + TEXT_BATCH]
                store.append(batch, self.encoder.encode_texts(batch))
                advance(start + len(batch), len(prompts))

    def _report(self, images: int, decoded: int, skipped: Sequence[Skipped]) -> None:
        reporter = self.workspace.reporter
        source = "all from the cache, none decoded" if not decoded else f"{decoded:,} decoded and encoded"
        reporter.note(f"{self.name}: {images:,} images, {source}.")
        for image in skipped[:LISTED]:
            reporter.warn(f"Skipped {image.name}: {image.reason}.")
        if len(skipped) > LISTED:
            reporter.warn(f"Skipped {len(skipped) - LISTED} more images that cannot be decoded.")


def image_key(record: ImageRecord) -> str | Skipped:
    """What the store knows an image by, or why it is not there."""
    try:
        return record.key()
    except OSError as error:
        return Skipped(record.name, error.strerror or str(error))
