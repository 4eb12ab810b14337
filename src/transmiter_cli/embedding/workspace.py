"""Encoders with their stores: every embedding is asked for here, and computed only if it never was before."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import compress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.embedding.choices import Decoding, Precision
from transmiter_cli.embedding.decoding import Skipped
from transmiter_cli.embedding.encoders.encoder import Encoder, EncoderFacts
from transmiter_cli.embedding.encoders.models import ModelSpec
from transmiter_cli.embedding.encoders.prompts import Templates
from transmiter_cli.embedding.filling import ImageFiller, copies_of_skipped
from transmiter_cli.embedding.found import ImageEmbeddings, NoImagesError, StoredImages
from transmiter_cli.embedding.image_keys import image_keys
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.storage.cache import ENCODERS, FACTS, WEIGHTS, default_cache
from transmiter_cli.embedding.storage.contents import Contents, ContentStore, KnownFiles
from transmiter_cli.embedding.storage.index import key_digests
from transmiter_cli.embedding.storage.store import EmbeddingStore, until_whole
from transmiter_cli.embedding.views import View
from transmiter_cli.errors import TransmiterError, listing
from transmiter_cli.files import canonical_json, digest, file_digest, file_identity, stored_json, write_if_possible
from transmiter_cli.method.embeddings import require_finite
from transmiter_cli.reporter import Reporter

TEXT_BATCH = 256
LISTED = 20
"""Skipped images that are named one by one."""


@dataclass(frozen=True)
class Workspace:
    """The cache, the device, and what to do with images that cannot be decoded.

    Attributes:
        strict: fail on an image that cannot be decoded instead of skipping it.
        decoding: how files are decoded; None for what fit did, or "full".
        workers: threads or processes that decode; as many as there are processors if None.
        precision: what image towers compute in; None for what fit did, or what is usual on the device.
    """

    cache: Path = field(default_factory=default_cache)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    reporter: Reporter = field(default_factory=Reporter)
    batch_size: int = 64
    strict: bool = False
    decoding: Decoding | None = None
    workers: int | None = None
    precision: Precision | None = None

    def like_fit(self, decoding: Decoding, precision: Precision | None) -> Workspace:
        """This workspace, decoding and encoding as fit did unless it was told otherwise."""
        return replace(self, decoding=self.decoding or decoding, precision=self.precision or precision)

    @property
    def method_device(self) -> torch.device:
        """Where the method computes: the CPU in place of MPS, which has no float64."""
        return torch.device("cpu") if self.device.type == "mps" else self.device

    @cached_property
    def contents(self) -> ContentStore:
        """What image files hold, for all models."""
        return ContentStore(self.cache, self.reporter, self.workers)

    def open(self, spec: ModelSpec) -> CachedEncoder:
        """A model with the store of its embeddings."""
        identity = file_identity(str(spec.weights))  # before their digest, so that a change meanwhile is noticed
        fingerprint = digest(spec.description(), self.weights_digest(spec.weights))[:32]
        return CachedEncoder(self, Encoder(spec, self.device, self.precision, identity), fingerprint)

    def weights_digest(self, weights: Path) -> str:
        """SHA-256 of a weight file, read again only when its state changed."""
        identity = file_identity(str(weights))
        memo = self.cache / WEIGHTS / digest(identity)[:32]
        with suppress(OSError):
            known = memo.read_bytes()
            if re.fullmatch(rb"[0-9a-f]{64}", known):  # else it is damaged
                return known.decode()
        found = file_digest(weights)
        if file_identity(str(weights)) == identity:
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
        precision = str(encoder.dtype).removeprefix("torch.")
        self.folder = workspace.cache / ENCODERS / fingerprint / precision

    @property
    def name(self) -> str:
        """The model's name, as the user wrote it."""
        return self.encoder.spec.name

    @property
    def decoding(self) -> Decoding:
        """How files are decoded."""
        return self.workspace.decoding or "full"

    @property
    def width(self) -> int:
        """How many numbers an embedding has."""
        return self.encoder.spec.model_config()["embed_dim"]

    @property
    def facts(self) -> EncoderFacts:
        """Logit scale and size; the model is loaded for them once."""
        known = stored_json(self.folder / FACTS) or {}
        if "image_parameters" in known:
            return EncoderFacts(known["logit_scale"], known["image_parameters"])
        return self._write_facts()

    def _write_facts(self) -> EncoderFacts:
        """The model's facts, written beside its store with its name."""
        found = self.encoder.facts()
        write_if_possible(self.folder / FACTS, canonical_json({**asdict(found), "name": self.name}).encode())
        return found

    def image_embeddings(self, files: Sequence[ImageRecord]) -> ImageEmbeddings:
        """Embeddings of images, from the store where it has them.

        Raises:
            NoImagesError: if no image at all can be decoded.
            TransmiterError: if the workspace is strict and any cannot be decoded.
        """
        contents = self._contents(files)
        with self._progress(len(files)) as advance:
            found = self._embed(files, contents, advance)
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
                chunk = files[start : start + size]
                contents = self.workspace.contents.of(chunk)
                found = self._embed(chunk, contents, lambda done, start=start: advance(start + done))
                kept, encoded = kept + len(found.kept), encoded + found.encoded
                skipped += found.skipped
                if skipped and self.workspace.strict:
                    break
                yield start, found
        self._report(len(files), kept, encoded, skipped)

    def lacks(self, files: Sequence[ImageRecord]) -> bool:
        """Whether the store lacks any of the images that are there."""
        return bool(self.images.lacking(image_keys(files, self._contents(files), self.decoding)).any())

    def store_images(self, files: Sequence[ImageRecord]) -> StoredImages:
        """Encode what the store lacks of any number of images, in one go and in bounded memory.

        Raises:
            NoImagesError: if no image at all can be decoded.
            TransmiterError: if the workspace is strict and any cannot be decoded.
        """
        contents = self._contents(files)
        with self._progress(len(files)) as advance:

            def stored() -> StoredImages:
                found = self._store(files, contents, advance)
                self.images.check(found.keys)
                return found

            found = until_whole(stored)
        self._report(len(files), int(found.stored.sum()), found.encoded, found.skipped)
        return found

    def text_embeddings(self, names: Sequence[str], templates: Templates) -> Float[Tensor, "names width"]:
        """Unit-norm embeddings of names, each the mean over its prompts."""
        prompts = [templates.prompts(name) for name in names]
        texts = [prompt for own in prompts for prompt in own]
        keys = key_digests(texts)

        def stored() -> Float[Tensor, "prompts width"]:
            if not self.texts.has(keys).all():
                with self.texts.writing():
                    self._encode_texts([*dict.fromkeys(compress(texts, ~self.texts.has(keys)))])
            return self.texts.read(keys)

        rows = until_whole(stored)
        parts = rows.float().split([len(own) for own in prompts])
        return F.normalize(torch.stack([part.mean(0) for part in parts]), dim=-1)

    @cached_property
    def images(self) -> EmbeddingStore:
        """The store of images."""
        return EmbeddingStore(self.folder / "images", self.workspace.reporter, self.workspace.cache)

    @cached_property
    def texts(self) -> EmbeddingStore:
        """The store of prompts."""
        return EmbeddingStore(self.folder / "texts", self.workspace.reporter, self.workspace.cache)

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
            images = "1 image" if kept == 1 else f"{kept:,} images"
            reporter.note(f"{self.name}: {images}{f' and {views:,} views of them' if views else ''}, {source}.")
        fails = bool(skipped) and (self.workspace.strict or not kept)
        done = "Cannot decode" if fails else "Skipped"
        for image in skipped[:LISTED]:
            reporter.warn(f"{done} {image.name}: {image.reason}.")
        if len(skipped) > LISTED:
            reporter.warn(f"{done} {len(skipped) - LISTED} more images{'' if fails else ' that cannot be decoded'}.")
        if fails:
            told = f"{len(skipped):,} of {asked:,} images cannot be decoded; the first is"
            told = f"{told} {skipped[0].name}: {skipped[0].reason}."
            if kept:
                raise TransmiterError(told, "mend or remove them, or leave --strict out")
            missing = skipped[0].reason == os.strerror(errno.ENOENT)
            raise NoImagesError(
                told, listing(Path(skipped[0].name)) if missing else "pass other images, or these as JPEG or PNG files"
            )

    def _contents(self, files: Sequence[ImageRecord]) -> Contents:
        """What images hold; shows how far the reading is."""
        return self.workspace.contents.of(files, self.workspace.reporter)

    def _embed(
        self, files: Sequence[ImageRecord], contents: Contents, advance: Callable[[int], None]
    ) -> ImageEmbeddings:
        """The images' rows, all of them at once."""

        def embedded() -> ImageEmbeddings:
            found = self._store(files, contents, advance)
            keys, positions = found.keys[found.stored], np.flatnonzero(found.stored).tolist()
            rows = self.images.read(keys) if positions else torch.empty(0, 0)
            known = KnownFiles(compress(files, found.stored.tolist()), contents.only(found.stored))
            return ImageEmbeddings(known, rows, positions, found.skipped, found.encoded)

        return until_whole(embedded)

    def _store(self, files: Sequence[ImageRecord], contents: Contents, advance: Callable[[int], None]) -> StoredImages:
        """Encode those of the images that the store lacks."""
        keys = image_keys(files, contents, self.decoding)
        if not self.images.lacking(keys).any():
            return StoredImages(keys, keys != b"", 0, [*contents.gone])
        if not (self.folder / FACTS).is_file():
            self._write_facts()  # before the images, so that the store has a name however far they get
        space = self.workspace
        filler = ImageFiller(self.encoder, self.images, self.decoding, space.batch_size, space.workers)
        with self.images.writing():
            missing = self.images.lacking(keys)
            undecoded = filler.fill(files, contents, missing, advance)
        stored, encoded = self.images.has(keys), int(missing.sum()) - len(undecoded)
        copies = copies_of_skipped(files, keys, missing, stored, undecoded)
        return StoredImages(keys, stored, encoded, [*contents.gone, *undecoded, *copies])

    def _encode_texts(self, prompts: Sequence[str]) -> None:
        with self.workspace.reporter.progress(f"Encoding prompts with {self.name}") as advance:
            for start in range(0, len(prompts), TEXT_BATCH):
                batch = prompts[start : start + TEXT_BATCH]
                rows = self.encoder.encode_texts(batch)
                require_finite(f"the text embeddings of {self.name}", rows)
                self.texts.append(batch, rows)
                advance(start + len(batch), len(prompts))
