"""Write rows of the store to a safetensors file of one's own, however many there are, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transmiter_cli.embedding.storage.index import Digests
from transmiter_cli.embedding.storage.store import EmbeddingStore
from transmiter_cli.files import canonical_json, write_atomically

CHUNK = 4096
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""What the safetensors format calls the types that encoders compute in."""
ALIGNMENT = 8
"""Bytes of which the header's length is a multiple."""


@dataclass(frozen=True)
class StoredRows:
    """A matrix that lies in a store.

    Attributes:
        keys: the key of each row.
    """

    store: EmbeddingStore
    keys: Digests

    @cached_property
    def first(self) -> Tensor:
        """The first row alone, for its width and type."""
        return self.store.read(self.keys[:1])

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return len(self.keys) * self.first.nbytes

    def content(self) -> Iterator[bytes]:
        """The bytes of all rows, CHUNK rows at a time."""
        for rows in self.store.stream(self.keys, CHUNK):
            yield rows.view(torch.uint8).numpy().tobytes()


def write_rows(path: Path, tensors: Mapping[str, StoredRows], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; see the format's description at github.com/huggingface/safetensors.

    Args:
        path: the file.
        tensors: what it holds, by name.
        metadata: texts to keep with them.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, rows in tensors.items():
        start, end = end, end + rows.size
        shape = [len(rows.keys), rows.first.shape[1]]
        header[name] = {"dtype": DTYPES[rows.first.dtype], "shape": shape, "data_offsets": [start, end]}
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    write_atomically(path, len(text).to_bytes(8, "little"), text, *(rows.content() for rows in tensors.values()))
