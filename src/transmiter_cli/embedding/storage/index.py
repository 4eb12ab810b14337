"""The store's index: where the row of each key lies, in sorted arrays, so that a million keys take 32 MB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Int64, Shaped

DIGEST_BYTES = 16
Digests = Shaped[np.ndarray, " keys"]
"""128-bit digests of keys, one numpy byte string each; an empty one is no key's."""
ABSENT = -1
BLANK = blake2b(digest_size=DIGEST_BYTES)


def key_digests(keys: Iterable[str | None]) -> Digests:
    """Digests of keys, which may hold file names that are not UTF-8; empty ones in place of None."""
    found: list[bytes] = []
    for key in keys:
        state = BLANK.copy()  # faster than a new one
        state.update((key or "").encode("utf-8", "surrogateescape"))
        found.append(b"" if key is None else state.digest())
    return np.array(found, dtype=f"S{DIGEST_BYTES}")


class RowIndex:
    """A map from a key's digest to a place: the number of a shard, and a row of it."""

    def __init__(self) -> None:
        self._digests: Digests = key_digests([])
        self._places: Int64[np.ndarray, "keys 2"] = np.empty((0, 2), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, shards: Sequence[Shaped[np.ndarray, " _"]], first: int) -> None:
        """Take in the rows of shards, in their order; a key that has a place already keeps it.

        Args:
            shards: the digests of each shard's keys.
            first: the number of the first shard; those of the others follow it.
        """
        if not shards:
            return
        numbers = np.repeat(np.arange(first, first + len(shards)), [len(digests) for digests in shards])
        rows = np.concatenate([np.arange(len(digests)) for digests in shards])
        fresh, chosen = np.unique(np.concatenate(shards), return_index=True)
        absent = self.find(fresh)[:, 0] == ABSENT
        fresh, chosen = fresh[absent], chosen[absent]
        where = np.searchsorted(self._digests, fresh)
        self._digests = np.insert(self._digests, where, fresh)
        self._places = np.insert(self._places, where, np.stack([numbers, rows], axis=1)[chosen], axis=0)

    def find(self, digests: Digests) -> Int64[np.ndarray, "keys 2"]:
        """Shard and row of each key; ABSENT where it has none."""
        if not len(self):
            return np.full((len(digests), 2), ABSENT, dtype=np.int64)
        where = np.searchsorted(self._digests, digests).clip(max=len(self) - 1)
        found = self._digests[where] == digests
        return np.where(found[:, None], self._places[where], ABSENT)

    def drop(self, shard: int) -> None:
        """Forget all rows of a shard."""
        kept = self._places[:, 0] != shard
        self._digests, self._places = self._digests[kept], self._places[kept]
