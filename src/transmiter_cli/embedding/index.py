"""The store's index: where the row of each key lies, in sorted arrays, so that a million keys take 24 MB."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from jaxtyping import Int64, Shaped

DIGEST_BYTES = 16
Digests = Shaped[np.ndarray, " keys"]
"""128-bit digests of keys, one numpy byte string each; an empty one is no key's."""
ABSENT = -1


def key_digests(keys: Iterable[str | None]) -> Digests:
    """Digests of keys, which may hold file names that are not UTF-8; empty ones in place of None."""
    found = [
        b"" if key is None else blake2b(key.encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES).digest()
        for key in keys
    ]
    return np.array(found, dtype=f"S{DIGEST_BYTES}")


class RowIndex:
    """A map from a key's digest to a place: the number of a shard, and a row of it."""

    def __init__(self) -> None:
        self._digests: Digests = key_digests([])
        self._places: Int64[np.ndarray, "keys 2"] = np.empty((0, 2), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, digests: Digests, shard: int) -> None:
        """Take in the rows of a shard, in their order; a key that has a place already keeps it."""
        fresh, rows = np.unique(digests, return_index=True)
        absent = self.find(fresh)[:, 0] == ABSENT
        fresh, rows = fresh[absent], rows[absent]
        where = np.searchsorted(self._digests, fresh)
        places = np.stack([np.full_like(rows, shard), rows], axis=1)
        self._digests = np.insert(self._digests, where, fresh)
        self._places = np.insert(self._places, where, places, axis=0)

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
