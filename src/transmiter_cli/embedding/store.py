"""The embedding store: rows of embeddings by key, in append-only safetensors shards, each computed once."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from transmiter_cli.files import canonical_json, digest, write_atomically
from transmiter_cli.reporter import Reporter

METADATA_KEY = "transmiter_embeddings"
Place = tuple[Path, int]
"""A shard and a row of it."""


class DamagedShardError(Exception):
    """A shard's rows are not those that were written."""


class EmbeddingStore:
    """Embeddings of one encoder in one folder.

    A shard is written under a temporary name, flushed and renamed, so a killed run leaves whole shards only,
    and the next run goes on behind them. A shard that cannot be read is set aside, and its rows count as missing.
    Where the folder cannot be written to, or the disk is full, rows are kept in memory for this run.

    Args:
        folder: where the shards lie; need not exist.
        reporter: told of shards set aside, of waiting for another process, and of a folder that cannot be written.
    """

    def __init__(self, folder: Path, reporter: Reporter | None = None) -> None:
        self.folder = folder
        self.reporter = reporter or Reporter()
        self._index: dict[str, Place] = {}
        self._known: set[Path] = set()
        self._memory: dict[Path, Tensor] = {}
        self.refresh()

    def __len__(self) -> int:
        return len(self._index)

    def refresh(self) -> None:
        """Take in the shards that were written since, by this process or another."""
        for shard in sorted(set(self.folder.glob("*.safetensors")) - self._known):
            self._known.add(shard)
            try:
                keys = read_keys(shard)
            except DamagedShardError:
                self._set_aside(shard)
                continue
            for row, key in enumerate(keys):
                self._index.setdefault(key, (shard, row))

    @contextmanager
    def writing(self) -> Generator[None]:
        """Hold the store's lock: another process that wants to write waits, and then finds what this one wrote.

        A folder that cannot be written to needs no lock.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self.reporter.note(f"Waiting for another process that writes to {self.folder}.")
                lock.acquire()
        except OSError:
            yield
            return
        try:
            self.refresh()
            yield
        finally:
            lock.release()

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that have no row, each once, in order."""
        return [key for key in dict.fromkeys(keys) if key not in self._index]

    def read(self, keys: Sequence[str]) -> Float[Tensor, "rows width"]:
        """The rows of the keys, in their order.

        Raises:
            KeyError: if a key has no row.
            DamagedShardError: if a shard does not hold what was written; it is set aside, its rows are now missing.
        """
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys):
            shard, row = self._index[key]
            wanted.setdefault(shard, []).append((position, row))
        parts: list[Tensor] = []
        positions: list[int] = []
        for shard, places in wanted.items():
            where, rows = zip(*places, strict=True)
            parts.append(self._read_shard(shard)[list(rows)])
            positions += where
        gathered = torch.cat(parts)
        ordered = torch.empty_like(gathered)
        ordered[positions] = gathered
        return ordered

    def stream(self, keys: Sequence[str], rows: int) -> Iterator[Float[Tensor, "rows width"]]:
        """The same a block of at most `rows` at a time, so that no more than a block and a shard are in memory.

        Raises:
            KeyError: if a key has no row.
            DamagedShardError: if a shard does not hold what was written; it is set aside, its rows are now missing.
        """
        for start in range(0, len(keys), rows):
            yield self.read(keys[start : start + rows])

    def append(self, keys: Sequence[str], rows: Float[Tensor, "rows width"]) -> None:
        """Add rows; returns when they are safely on the disk, or in memory where that is not possible."""
        tensor = rows.contiguous()
        metadata = {METADATA_KEY: canonical_json({"keys": list(keys), "sha256": rows_digest(tensor)})}
        shard = self.folder / f"{digest(*keys)[:32]}.safetensors"
        try:
            write_atomically(shard, save({"rows": tensor}, metadata))
        except OSError as error:
            if not self._memory:
                reason = f"{self.folder} cannot be written to ({error.strerror})"
                self.reporter.warn(f"{reason}: embeddings are kept for this run only. Set TRANSMITER_CACHE elsewhere.")
            self._memory[shard] = tensor
        self._known.add(shard)
        self._index.update((key, (shard, row)) for row, key in enumerate(keys))

    def _read_shard(self, shard: Path) -> Float[Tensor, "rows width"]:
        if shard in self._memory:
            return self._memory[shard]
        try:
            return read_rows(shard)
        except DamagedShardError:
            self._set_aside(shard)
            raise

    def _set_aside(self, shard: Path) -> None:
        """Take a damaged shard out of the way, so that nobody reads it again."""
        self._index = {key: place for key, place in self._index.items() if place[0] != shard}
        self.reporter.warn(f"The shard {shard} is damaged; it is set aside, and its embeddings are computed anew.")
        try:
            shard.replace(shard.with_suffix(".damaged"))
            self._known.discard(shard)
        except OSError:  # a read-only cache, or another process was faster
            self._known.add(shard)


def read_keys(shard: Path) -> list[str]:
    """The keys of a shard's rows, from its header alone.

    Raises:
        DamagedShardError: if there is no whole header of ours.
    """
    try:
        with safe_open(shard, framework="pt") as file:
            return list(json.loads((file.metadata() or {})[METADATA_KEY])["keys"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise DamagedShardError(f"{shard} is damaged: {error}") from error


def read_rows(shard: Path) -> Float[Tensor, "rows width"]:
    """A shard's rows, checked against their digest.

    Raises:
        DamagedShardError: if they are not those that were written.
    """
    try:
        with safe_open(shard, framework="pt") as file:
            expected = json.loads(file.metadata()[METADATA_KEY])["sha256"]
            rows = file.get_tensor("rows")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise DamagedShardError(f"{shard} is damaged: {error}") from error
    if rows_digest(rows) != expected:
        raise DamagedShardError(f"{shard} is damaged: its rows do not have their digest.")
    return rows


def rows_digest(rows: Tensor) -> str:
    """SHA-256 of the rows' bytes."""
    return digest(rows.view(torch.uint8).numpy().tobytes())
