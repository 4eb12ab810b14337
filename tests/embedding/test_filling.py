from pathlib import Path

import torch

from transmiter_cli.embedding.filling import lacking
from transmiter_cli.embedding.index import key_digests
from transmiter_cli.embedding.store import EmbeddingStore


def test_each_key_that_has_no_row_is_encoded_once_and_files_that_are_gone_never(tmp_path: Path):
    store = EmbeddingStore(tmp_path)
    keys = key_digests(["b", "a", None, "c", "b", "c"])
    assert lacking(store, keys).tolist() == [True, True, False, True, False, False]
    store.append(["a", "c"], torch.randn(2, 3))
    assert lacking(store, keys).tolist() == [True, False, False, False, False, False]
