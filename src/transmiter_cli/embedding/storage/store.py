"""The embedding store: rows of embeddings by key, in append-only safetensors shards, each computed once."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from transmiter_cli.embedding.storage.index import ABSENT, Digests, RowIndex, key_digests
from transmiter_cli.embedding.storage.shard import METADATA_KEY, DamagedShardError, read_keys
from transmiter_cli.files import LOCK, TEMPORARY, canonical_json, digest, file_identity, held_lock, write_atomically
from transmiter_cli.reporter import Reporter

Result = TypeVar("Result")


def until_whole(attempt: Callable[[], Result]) -> Result:
    """What an attempt to find or compute rows returns, made anew for each damaged shard that it meets.

    The shard is set aside before that, so that the next attempt finds its rows missing.
    """
    while True:
        with suppress(DamagedShardError):
            return attempt()


class EmbeddingStore:
    """Embeddings of one encoder in one folder.

    A shard is written under a temporary name, flushed and renamed, so a killed run leaves whole shards only,
    and the next run goes on behind them. A shard that cannot be read is set aside, and its rows count as missing.
    Where the folder cannot be written to, the disk is full, or what was written cannot be read, rows are kept in memory
    for this run.

    Args:
        folder: where the shards lie; need not exist.
        reporter: told of shards set aside, of waiting for another process, and of a folder that cannot be written.
        cache: the whole cache's folder, for messages; `folder` if None.
    """

    def __init__(self, folder: Path, reporter: Reporter | None = None, cache: Path | None = None) -> None:
        self.folder = folder
        self.cache = cache or folder
        self.reporter = reporter or Reporter()
        self._index = RowIndex()
        self._shards: list[Path] = []
        self._known: set[Path] = set()
        self._whole: set[str] = set()
        self._memory: dict[Path, Tensor] = {}
        self._written: set[Path] = set()
        self._gives_back = True
        self.refresh()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def keeps(self) -> bool:
        """Whether all rows that were added are on the disk."""
        return not self._memory

    def refresh(self) -> None:
        """Take in the shards that were written since, by this process or another."""
        found: dict[Path, Digests] = {}
        for shard in sorted(set(self.folder.glob("*.safetensors")) - self._known):
            identity = current_identity(shard)
            try:
                found[shard] = key_digests(read_keys(shard))
            except DamagedShardError as error:
                self._known.add(shard)
                self._set_aside(shard, identity, error)
        self._take_in(found)

    @contextmanager
    def writing(self) -> Generator[None]:
        """Hold the store's lock: another process that wants to write waits, and then finds what this one wrote.

        A folder that cannot be written to needs no lock.
        """
        lock = self._lock()
        if lock is None:
            yield
            return
        with lock:
            for left in self.folder.glob(TEMPORARY):  # by a process that was killed: nobody else writes now
                with suppress(OSError):  # that of another user, which is in nobody's way
                    left.unlink(missing_ok=True)
            self.refresh()
            yield

    def has(self, keys: Digests) -> Bool[np.ndarray, " keys"]:
        """Which of the keys have a row."""
        return self._index.find(keys)[:, 0] != ABSENT

    def lacking(self, keys: Digests) -> Bool[np.ndarray, " keys"]:
        """Which of the keys must be computed: those without a row, each where it comes first; not empty ones."""
        positions = np.flatnonzero((keys != b"") & ~self.has(keys))
        missing = np.zeros(len(keys), dtype=bool)
        missing[positions[np.unique(keys[positions], return_index=True)[1]]] = True
        return missing

    def read(self, keys: Digests) -> Float[Tensor, "rows width"]:
        """The rows of the keys, in their order.

        Raises:
            KeyError: if a key has no row.
            DamagedShardError: if a shard does not hold what was written; it is set aside, its rows are now missing.
        """
        shards, rows = self._index.find(keys).T
        if not len(keys) or shards.min() == ABSENT:
            raise KeyError("there is no row of some of the keys, or no key.")
        ordered: Tensor | None = None
        for shard in np.unique(shards):
            positions = np.flatnonzero(shards == shard)
            stored = self._read_shard(int(shard))
            if ordered is None:
                ordered = stored.new_empty(len(keys), stored.shape[1])
            row_bytes(ordered)[positions] = row_bytes(stored)[rows[positions]]
        assert ordered is not None
        return ordered

    def check(self, keys: Digests) -> None:
        """Compare the shards that hold the keys with their digests; this is done once for each.

        Raises:
            DamagedShardError: if one does not hold what was written; it is set aside, its rows are now missing.
        """
        for shard in np.unique(self._index.find(keys)[:, 0]):
            if shard != ABSENT:
                self._read_shard(int(shard))

    def stream(self, keys: Digests, rows: int) -> Iterator[Float[Tensor, "rows width"]]:
        """What `read` gives, at most `rows` rows at a time, so that no more than a block and a shard are in memory.

        Raises:
            KeyError: if a key has no row.
            DamagedShardError: if a shard does not hold what was written; it is set aside, its rows are now missing.
        """
        for start in range(0, len(keys), rows):
            yield self.read(keys[start : start + rows])

    def append(self, keys: Sequence[str], rows: Float[Tensor, "rows width"]) -> None:
        """Add rows; returns when they are written to the disk, or in memory where that is not possible."""
        tensor = rows.contiguous()
        metadata = {METADATA_KEY: canonical_json({"keys": list(keys), "sha256": rows_digest(tensor)})}
        shard = self.folder / shard_name(keys)
        try:
            self._write(shard, save({"rows": tensor}, metadata))
        except OSError as error:
            if not self._memory:
                self.reporter.warn(  # the same for all stores of a cache, for it is said once
                    f"The cache {self.cache} cannot be used ({error.strerror}): embeddings are kept for this command "
                    "only. Set TRANSMITER_CACHE elsewhere."
                )
            self._memory[shard] = tensor
        self._take_in({shard: key_digests(keys)})

    @contextmanager
    def gathering(self, rows: int, seconds: float) -> Generator[Callable[[Sequence[str], Tensor], None]]:
        """A function like `append` whose rows become a shard when there are so many of them, or after so many seconds.

        What is left is appended at the end, also where an exception is the end.
        """
        keys: list[str] = []
        parts: list[Tensor] = []
        started = time.monotonic()

        def flush() -> None:
            nonlocal started
            if keys:
                self.append(keys, torch.cat(parts))
            keys.clear()
            parts.clear()
            started = time.monotonic()

        def add(more: Sequence[str], embeddings: Tensor) -> None:
            keys.extend(more)
            parts.append(embeddings)
            if len(keys) >= rows or time.monotonic() - started > seconds:
                flush()

        try:
            yield add
        finally:
            flush()

    def _lock(self) -> AbstractContextManager[object] | None:
        """The store's lock, held; None if the folder cannot be written to, or its file system has no locks."""
        with suppress(OSError):  # of a folder that cannot be made, there is no lock either
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            return held_lock(self.folder / LOCK)
        except TimeoutError:
            self.reporter.warn(f"Waiting for another process that writes to {self.folder}.")
            return held_lock(self.folder / LOCK, timeout=-1)

    def _write(self, shard: Path, content: bytes) -> None:
        """Write a shard; raises OSError if it cannot be written, or none that was could be read."""
        if not self._gives_back:
            raise OSError(errno.EIO, "what is written there cannot be read")
        write_atomically(shard, content)
        self._written.add(shard)

    def _take_in(self, shards: Mapping[Path, Digests]) -> None:
        self._index.add([*shards.values()], len(self._shards))
        self._shards += shards
        self._known |= shards.keys()

    def _read_shard(self, number: int) -> Float[Tensor, "rows width"]:
        """A shard's rows; all of them are compared with their digest only once, unless the file changes."""
        shard = self._shards[number]
        if shard in self._memory:
            return self._memory[shard]
        identity = current_identity(shard)
        try:
            rows = read_rows(shard, check=identity not in self._whole)
        except DamagedShardError as error:
            if shard in self._written:  # to write its rows again would perhaps never end
                self._gives_back = False
            self._index.drop(number)
            self._set_aside(shard, identity, error)
            raise DamagedShardError(str(error)) from error
        if identity is not None:
            self._whole.add(identity)
        return rows

    def _set_aside(self, shard: Path, identity: str | None, error: DamagedShardError) -> None:
        """Take a damaged shard out of the way, so that nobody reads it again.

        But not one that only we cannot read, nor what another process wrote in its place since it had this identity.
        """
        if isinstance(error.__cause__, OSError):
            self.reporter.warn(f"Shards in {self.folder} cannot be read ({error.__cause__}): they are computed anew.")
            return
        self.reporter.warn(f"The shard {shard} is damaged; it is set aside, and its embeddings are computed anew.")
        with suppress(OSError):  # a read-only cache, or another process was faster
            if current_identity(shard) == identity:
                shard.replace(shard.with_suffix(".damaged"))
            self._known.discard(shard)


def current_identity(shard: Path) -> str | None:
    """A shard's `file_identity`; None if it is not there."""
    try:
        return file_identity(str(shard))
    except OSError:
        return None


def read_rows(shard: Path, check: bool = True) -> Float[Tensor, "rows width"]:
    """A shard's rows, mapped from the file.

    Args:
        shard: its file.
        check: compare them and their keys with their digests, for which all of them are read.

    Raises:
        DamagedShardError: if they, or their keys, are not those that were written.
    """
    try:
        with safe_open(shard, framework="pt") as file:
            rows = file.get_tensor("rows")
            whole = not check or has_digests(shard, rows, json.loads(file.metadata()[METADATA_KEY]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DamagedShardError(f"{shard} is damaged: {error}") from error
    if not whole:
        raise DamagedShardError(f"{shard} is damaged: its rows or keys do not have their digest.")
    return rows


def has_digests(shard: Path, rows: Tensor, written: Mapping[str, Any]) -> bool:
    """Whether a shard's rows and keys are those that were written: its header has the digest of the rows, and its name
    that of the keys.
    """
    return rows_digest(rows) == written["sha256"] and shard_name(written["keys"]) == shard.name


def shard_name(keys: Sequence[str]) -> str:
    """The file of a shard with rows of these keys, from their digest."""
    return f"{digest(*keys)[:32]}.safetensors"


def rows_digest(rows: Tensor) -> str:
    """SHA-256 of the rows' bytes."""
    return digest(row_bytes(rows).reshape(-1).data)


def row_bytes(rows: Tensor) -> UInt8[np.ndarray, "rows bytes"]:
    """The rows' memory. NumPy copies rows of it as memcpy does; torch wakes all its threads for each small copy."""
    return rows.view(torch.uint8).numpy()
