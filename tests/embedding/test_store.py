from pathlib import Path

import pytest
import torch

from transmiter_cli.embedding.store import DamagedShardError, EmbeddingStore


def test_rows_come_back_in_any_order_from_any_process(tmp_path: Path):
    store = EmbeddingStore(tmp_path)
    rows = torch.randn(5, 3)
    store.append(["a", "b", "c"], rows[:3])
    store.append(["d", "e"], rows[3:])
    for reader in (store, EmbeddingStore(tmp_path)):
        assert len(reader) == 5
        assert torch.equal(reader.read(["e", "a", "c", "a"]), rows[[4, 0, 2, 0]])
        assert reader.missing(["x", "a", "y", "x"]) == ["x", "y"]


def test_half_precision_is_kept(tmp_path: Path):
    rows = torch.randn(2, 3).half()
    EmbeddingStore(tmp_path).append(["a", "b"], rows)
    assert torch.equal(EmbeddingStore(tmp_path).read(["a", "b"]), rows)


def test_the_same_rows_written_twice_are_one_shard(tmp_path: Path):
    rows = torch.randn(2, 3)
    for _ in range(2):
        EmbeddingStore(tmp_path).append(["a", "b"], rows)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_writer_leaves_behind_is_no_shard(tmp_path: Path):
    store = EmbeddingStore(tmp_path)
    store.append(["a"], torch.randn(1, 3))
    (tmp_path / ".half.safetensors-x.tmp").write_bytes(b"unfinished")
    assert len(EmbeddingStore(tmp_path)) == 1


def test_a_truncated_shard_is_set_aside_and_its_rows_are_missing(tmp_path: Path):
    store = EmbeddingStore(tmp_path)
    store.append(["a"], torch.randn(1, 3))
    store.append(["b"], torch.randn(1, 3))
    victim, _ = sorted(tmp_path.glob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-4])
    reader = EmbeddingStore(tmp_path)
    assert len(reader.missing(["a", "b"])) == 1
    assert reader.set_aside == [victim]
    assert victim.with_suffix(".damaged").is_file()


def test_flipped_bytes_are_noticed_and_the_shard_is_set_aside(tmp_path: Path):
    EmbeddingStore(tmp_path).append(["a", "b"], torch.randn(2, 3))
    (victim,) = tmp_path.glob("*.safetensors")
    content = bytearray(victim.read_bytes())
    content[-1] ^= 0x10
    victim.write_bytes(content)
    reader = EmbeddingStore(tmp_path)
    with pytest.raises(DamagedShardError, match="damaged"):
        reader.read(["a"])
    assert reader.missing(["a", "b"]) == ["a", "b"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    store = EmbeddingStore(tmp_path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.append(["a"], torch.randn(1, 3))
    assert list(tmp_path.iterdir()) == []
    assert store.missing(["a"]) == ["a"]
