"""The embedding store: rows of embeddings by key, in append-only safetensors shards, each computed once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from transmiter_cli.files import canonical_json, digest, write_atomically

METADATA_KEY = "transmiter"


class DamagedShardError(Exception):
    """A shard's rows are not those that were written."""


class EmbeddingStore:
    """Embeddings of one encoder in one folder.

    A shard is written under a temporary name, flushed and renamed, so a killed run leaves whole shards only,
    and the next run goes on behind them. Its name is the digest of its keys: two processes that encode the same
    images write the same shards. A shard that cannot be read is set aside, and its rows count as missing.

    Args:
        folder: where the shards lie; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set_aside: list[Path] = []
        self._index: dict[str, tuple[Path, int]] = {}
        for shard in sorted(folder.glob("*.safetensors")):
            self._read_index(shard)

    def __len__(self) -> int:
        return len(self._index)

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
        parts, positions = [], []
        for shard, places in wanted.items():
            where, rows = zip(*places, strict=True)
            parts.append(self._read_rows(shard)[list(rows)])
            positions += where
        gathered = torch.cat(parts)
        ordered = torch.empty_like(gathered)
        ordered[positions] = gathered
        return ordered

    def append(self, keys: Sequence[str], rows: Float[Tensor, "rows width"]) -> None:
        """Add rows; returns when they are safely on the disk."""
        tensor = rows.contiguous()
        checksum = digest(tensor.view(torch.uint8).numpy().tobytes())
        metadata = {METADATA_KEY: canonical_json({"keys": list(keys), "sha256": checksum})}
        shard = self.folder / f"{digest(*keys)[:32]}.safetensors"
        write_atomically(shard, save({"rows": tensor}, metadata))
        self._index.update((key, (shard, row)) for row, key in enumerate(keys))

    def _read_index(self, shard: Path) -> None:
        try:
            with safe_open(shard, framework="pt") as file:
                keys = json.loads((file.metadata() or {})[METADATA_KEY])["keys"]
        except (SafetensorError, OSError, KeyError, ValueError):
            self._set_aside(shard)
            return
        for row, key in enumerate(keys):
            self._index.setdefault(key, (shard, row))

    def _read_rows(self, shard: Path) -> Float[Tensor, "rows width"]:
        with safe_open(shard, framework="pt") as file:
            expected = json.loads(file.metadata()[METADATA_KEY])["sha256"]
            rows = file.get_tensor("rows")
        if digest(rows.view(torch.uint8).numpy().tobytes()) != expected:
            self._set_aside(shard)
            raise DamagedShardError(f"The shard {shard} is damaged.")
        return rows

    def _set_aside(self, shard: Path) -> None:
        self.set_aside.append(shard)
        shard.replace(shard.with_suffix(".damaged"))
        self._index = {key: place for key, place in self._index.items() if place[0] != shard}
