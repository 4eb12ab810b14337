"""transmiter cache: what is in the cache, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from transmiter_cli.embedding.encoders.models import lasting_model_name
from transmiter_cli.embedding.storage.cache import CONTENTS, ENCODERS, FACTS, FLOPS, WEIGHTS
from transmiter_cli.embedding.storage.shard import DamagedShardError, read_keys
from transmiter_cli.errors import TransmiterError
from transmiter_cli.files import LOCK, held_lock, stored_json
from transmiter_cli.reporter import Reporter

WRITTEN = re.compile(
    rf"[0-9a-f]{{32}}(\.safetensors|\.damaged)?|{re.escape(FACTS)}|{re.escape(FLOPS)}|{re.escape(LOCK)}|\..*\.tmp"
)
"""The names of the cache's files: $TRANSMITER_CACHE may be a folder in which others lie, too."""


@dataclass(frozen=True)
class CachedModel:
    """What the cache holds of one model in one precision.

    Attributes:
        name: the model's name when it was first used.
        fingerprint: of its weights, architecture and preprocessing.
        size: bytes on the disk.
    """

    name: str
    fingerprint: str
    precision: str
    images: int
    texts: int
    size: int

    def is_called(self, name: str) -> bool:
        """Whether that is the model's name, or begins its fingerprint with six letters or more."""
        begins = len(name) >= 6 and self.fingerprint.startswith(name)
        return begins or self.name in (name, lasting_model_name(name))


def list_cache(cache: Path) -> list[CachedModel]:
    """What the cache holds, by model."""
    found: list[CachedModel] = []
    for folder in model_folders(cache):
        facts = stored_json(folder / FACTS) or {"name": "?"}
        images, texts = (count_rows(folder / kind) for kind in ("images", "texts"))
        size = sum(path.stat().st_size for path in folder.rglob("*") if WRITTEN.fullmatch(path.name) and path.is_file())
        if size:  # else nothing but a lock, of a model that could not be loaded
            found.append(CachedModel(facts["name"], folder.parent.name, folder.name, images, texts, size))
    return sorted(found, key=lambda model: (model.name, model.fingerprint, model.precision))


def count_rows(folder: Path) -> int:
    """How many rows the whole shards of a store have."""
    count = 0
    for shard in folder.glob("*.safetensors"):
        with suppress(DamagedShardError):
            count += len(read_keys(shard))
    return count


def verify_cache(cache: Path, reporter: Reporter) -> tuple[int, list[Path]]:
    """Read every shard; return how many there are, and those whose rows are not what was written."""
    from transmiter_cli.embedding.storage.store import read_rows  # and torch, which listing the cache does without

    shards = [shard for room in (ENCODERS, CONTENTS) for shard in sorted((cache / room).rglob("*.safetensors"))]
    damaged: list[Path] = []
    with reporter.progress("Verifying shards") as advance:
        for number, shard in enumerate(shards):
            try:
                read_rows(shard)
            except DamagedShardError:
                damaged.append(shard)
            advance(number + 1, len(shards))
    return len(shards), damaged


def remove_from_cache(cache: Path, model: str | None) -> list[CachedModel]:
    """Remove what is there of one model, by name or beginning of its fingerprint, or all; return the models that went.

    Fingerprints of images, and digests of weight files, go with all.

    Raises:
        TransmiterError: if a folder cannot be removed, or another process is writing to one: then nothing is.
    """
    gone = [entry for entry in list_cache(cache) if model is None or entry.is_called(model)]
    folders = [cache / room for room in (ENCODERS, CONTENTS, WEIGHTS)]
    if model is not None:
        folders = [cache / ENCODERS / entry.fingerprint / entry.precision for entry in gone]
    with holding_locks(folders):
        for folder in folders:
            try:
                remove_written(folder)
            except OSError as error:
                raise TransmiterError(
                    f"{folder} cannot be removed: {error.strerror}.", f"ls -ld {shlex.quote(str(folder))}"
                ) from error
            if model is not None:
                with suppress(OSError):  # another precision is there
                    folder.parent.rmdir()
    return gone


def remove_written(folder: Path) -> None:
    """Remove the cache's files below a folder, and the folders that they leave empty; others' files stay.

    Raises:
        OSError: if a file cannot be removed.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.rmdir()
        elif WRITTEN.fullmatch(path.name):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def holding_locks(folders: Iterable[Path]) -> Generator[None]:
    """Hold the locks of all stores below some folders.

    Raises:
        TransmiterError: if another process holds one.
    """
    with ExitStack() as held:
        for lock in (lock for folder in folders for lock in folder.rglob(LOCK)):
            try:
                held.enter_context(held_lock(lock) or nullcontext())
            except TimeoutError as error:
                raise TransmiterError(
                    f"Another transmiter command is writing to {lock.parent}.", "wait for it, then cache rm again"
                ) from error
        yield


def model_folders(cache: Path) -> Iterator[Path]:
    """The folder of each model and precision."""
    yield from sorted(folder for folder in (cache / ENCODERS).glob("*/*") if folder.is_dir())
