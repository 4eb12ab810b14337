from pathlib import Path

import torch
from safetensors.torch import load_file

from transmiter_cli.embedding.storage.export import StoredRows, write_rows
from transmiter_cli.embedding.storage.index import key_digests
from transmiter_cli.embedding.storage.store import EmbeddingStore


def test_rows_of_each_precision_are_written_as_they_are_stored(tmp_path: Path):
    stored = {"a": torch.randn(3, 5).half(), "b": torch.randn(3, 2)}
    for name, rows in stored.items():
        EmbeddingStore(tmp_path / name).append(["x", "y", "z"], rows)
    keys = key_digests(["x", "y", "z"])
    write_rows(tmp_path / "out", {name: StoredRows(EmbeddingStore(tmp_path / name), keys) for name in stored}, {})
    found = load_file(tmp_path / "out")
    assert {name: rows.dtype for name, rows in found.items()} == {"a": torch.float16, "b": torch.float32}
    assert all(torch.equal(found[name], rows) for name, rows in stored.items())
