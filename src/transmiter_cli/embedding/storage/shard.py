"""The header of a shard: which keys its rows have. Reading it needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

METADATA_KEY = "transmiter_embeddings"


class DamagedShardError(Exception):
    """A shard's rows are not those that were written."""


def read_keys(shard: Path) -> list[str]:
    """The keys of a shard's rows, from its header alone.

    Raises:
        DamagedShardError: if there is no whole header of ours.
    """
    try:
        with safe_open(shard, framework="numpy") as file:
            return list(json.loads((file.metadata() or {})[METADATA_KEY])["keys"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise DamagedShardError(f"{shard} is damaged: {error}") from error
