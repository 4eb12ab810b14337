import errno
import os
import threading
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors import SafetensorError

from tests.embedding.conftest import ListReporter
from transmiter_cli.embedding.storage import store as store_module
from transmiter_cli.embedding.storage.index import key_digests
from transmiter_cli.embedding.storage.shard import DamagedShardError
from transmiter_cli.embedding.storage.store import EmbeddingStore, read_rows, until_whole
from transmiter_cli.files import write_atomically


def missing(store: EmbeddingStore, keys: list[str]) -> list[str]:
    return [key for key, there in zip(keys, store.has(key_digests(keys)), strict=True) if not there]


def test_rows_come_back_in_any_order_from_any_process(tmp_path: Path):
    store = EmbeddingStore(tmp_path)
    rows = torch.randn(5, 3)
    store.append(["a", "b", "c"], rows[:3])
    store.append(["d", "e"], rows[3:])
    for reader in (store, EmbeddingStore(tmp_path)):
        assert len(reader) == 5
        assert torch.equal(reader.read(key_digests(["e", "a", "c", "a"])), rows[[4, 0, 2, 0]])
        assert missing(reader, ["x", "a", "y", "x"]) == ["x", "y", "x"]


def test_a_stream_gives_the_same_rows_block_by_block(tmp_path: Path):
    store, rows = EmbeddingStore(tmp_path), torch.randn(7, 3)
    for start in range(0, 7, 3):
        store.append([str(i) for i in range(start, min(start + 3, 7))], rows[start : start + 3])
    blocks = list(store.stream(key_digests(map(str, range(7))), 2))
    assert [len(block) for block in blocks] == [2, 2, 2, 1]
    assert torch.equal(torch.cat(blocks), rows)


def test_half_precision_is_kept(tmp_path: Path):
    rows = torch.randn(2, 3).half()
    EmbeddingStore(tmp_path).append(["a", "b"], rows)
    assert torch.equal(EmbeddingStore(tmp_path).read(key_digests(["a", "b"])), rows)


def test_the_same_rows_written_twice_are_one_shard(tmp_path: Path):
    rows = torch.randn(2, 3)
    for _ in range(2):
        EmbeddingStore(tmp_path).append(["a", "b"], rows)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_shard_is_compared_with_its_digest_once(tmp_path: Path):
    EmbeddingStore(tmp_path).append(["a", "b"], torch.randn(2, 3))
    store = EmbeddingStore(tmp_path)
    with patch.object(store_module, "rows_digest", wraps=store_module.rows_digest) as digest:
        for key in ("a", "b", "a"):
            store.read(key_digests([key]))
    assert digest.call_count == 1


def test_gathered_rows_are_written_when_it_is_time(tmp_path: Path):
    with EmbeddingStore(tmp_path).gathering(100, 0.0) as add:
        add(["a"], torch.randn(1, 3))
        assert len(EmbeddingStore(tmp_path)) == 1


def test_what_a_killed_writer_leaves_behind_is_no_shard(tmp_path: Path):
    store = EmbeddingStore(tmp_path)
    store.append(["a"], torch.randn(1, 3))
    (tmp_path / ".half.safetensors-x.tmp").write_bytes(b"unfinished")
    assert len(EmbeddingStore(tmp_path)) == 1


def test_what_a_killed_writer_leaves_behind_goes_with_the_next_one(tmp_path: Path):
    left = tmp_path / ".x.safetensors-abcd.tmp"
    left.write_bytes(b"half")
    store = EmbeddingStore(tmp_path)
    assert left.exists()
    with store.writing():
        store.append(["a"], torch.ones(1, 2))
    assert not left.exists()
    assert len(EmbeddingStore(tmp_path)) == 1


def test_what_another_user_left_behind_keeps_nobody_from_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    (tmp_path / ".x.safetensors-abcd.tmp").write_bytes(b"half")
    monkeypatch.setattr(Path, "unlink", refuse)
    store = EmbeddingStore(tmp_path)
    with store.writing():
        store.append(["a"], torch.ones(1, 2))
    assert store.keeps


@pytest.mark.parametrize("error", [OSError(errno.ENODEV, "No such device"), SafetensorError("is not valid UTF-8")])
def test_a_cache_that_does_not_give_back_what_was_written_costs_one_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("transmiter_cli.embedding.storage.store.safe_open", refuse)
    reporter, rows, computed = ListReporter(), torch.randn(2, 3), []
    store = EmbeddingStore(tmp_path, reporter)

    def attempt() -> torch.Tensor:
        for key in missing(store, ["a", "b"]):
            computed.append(key)
            store.append([key], rows[["a", "b"].index(key)][None])
        return store.read(key_digests(["a", "b"]))

    assert torch.equal(until_whole(attempt), rows)
    assert len(computed) <= 4
    assert any("what is written there cannot be read" in warning for warning in reporter.warnings)
    assert not store.keeps


def test_a_truncated_shard_is_set_aside_and_its_rows_are_missing(tmp_path: Path):
    store = EmbeddingStore(tmp_path)
    store.append(["a"], torch.randn(1, 3))
    store.append(["b"], torch.randn(1, 3))
    victim, _ = sorted(tmp_path.glob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-4])
    reporter = ListReporter()
    reader = EmbeddingStore(tmp_path, reporter)
    assert len(missing(reader, ["a", "b"])) == 1
    assert str(victim) in reporter.warnings[0]
    assert victim.with_suffix(".damaged").is_file()


def test_flipped_bytes_are_noticed_and_the_shard_is_set_aside(tmp_path: Path):
    EmbeddingStore(tmp_path).append(["a", "b"], torch.randn(2, 3))
    (victim,) = tmp_path.glob("*.safetensors")
    content = bytearray(victim.read_bytes())
    content[-1] ^= 0x10
    victim.write_bytes(content)
    reader = EmbeddingStore(tmp_path)
    with pytest.raises(DamagedShardError, match="damaged"):
        reader.read(key_digests(["a"]))
    assert missing(reader, ["a", "b"]) == ["a", "b"]


def test_a_shard_that_only_this_process_cannot_read_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another user's file in a shared cache, or a disk that fails for a moment."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError("Permission denied")

    EmbeddingStore(tmp_path).append(["a"], torch.ones(1, 3))
    (shard,) = tmp_path.glob("*.safetensors")
    early = EmbeddingStore(tmp_path, ListReporter())
    with monkeypatch.context() as patched:
        for module in ("shard", "store"):
            patched.setattr(f"transmiter_cli.embedding.storage.{module}.safe_open", refused)
        late = EmbeddingStore(tmp_path, ListReporter())
        with pytest.raises(DamagedShardError):
            early.read(key_digests(["a"]))
    for store in (early, late):
        assert missing(store, ["a"]) == ["a"]
        assert "cannot be read (Permission denied)" in store.reporter.warnings[0]
    assert shard.is_file()
    assert len(EmbeddingStore(tmp_path)) == 1


def test_what_another_process_wrote_in_place_of_a_damaged_shard_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = torch.randn(1, 3)
    EmbeddingStore(tmp_path).append(["a"], rows)
    (shard,) = tmp_path.glob("*.safetensors")
    reader = EmbeddingStore(tmp_path)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

    def repaired_meanwhile(path: Path, check: bool = True) -> torch.Tensor:
        try:
            return read_rows(path, check)
        finally:
            write_atomically(path, whole)

    monkeypatch.setattr("transmiter_cli.embedding.storage.store.read_rows", repaired_meanwhile)
    with pytest.raises(DamagedShardError):
        reader.read(key_digests(["a"]))
    assert not list(tmp_path.glob("*.damaged"))
    reader.refresh()
    assert torch.equal(reader.read(key_digests(["a"])), rows)


def test_a_changed_key_is_noticed_where_rows_are_compared(tmp_path: Path):
    EmbeddingStore(tmp_path).append(["key-of-a", "key-of-b"], torch.randn(2, 3))
    (victim,) = tmp_path.glob("*.safetensors")
    victim.write_bytes(victim.read_bytes().replace(b"key-of-a", b"key-of-x"))
    with pytest.raises(DamagedShardError, match="rows or keys"):
        read_rows(victim)
    reader = EmbeddingStore(tmp_path)
    with pytest.raises(DamagedShardError, match="damaged"):
        reader.read(key_digests(["key-of-x"]))


def test_a_full_disk_costs_the_cache_but_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    reporter = ListReporter()
    store = EmbeddingStore(tmp_path, reporter)
    rows = torch.randn(3, 3)
    store.append(["a"], rows[:1])
    monkeypatch.setattr("os.fsync", full)
    store.append(["b"], rows[1:2])
    store.append(["c"], rows[2:])
    assert torch.equal(store.read(key_digests(["c", "a", "b"])), rows[[2, 0, 1]])
    assert len(reporter.warnings) == 1
    assert "No space left on device" in reporter.warnings[0]
    assert missing(EmbeddingStore(tmp_path), ["a", "b", "c"]) == ["b", "c"]
    assert not list(tmp_path.glob("*.tmp"))


def test_the_lock_keeps_the_second_writer_waiting_until_it_finds_the_rows(tmp_path: Path):
    rows = torch.randn(1, 3)
    first, second = EmbeddingStore(tmp_path), EmbeddingStore(tmp_path, ListReporter())
    inside, found = threading.Event(), []

    def write_slowly() -> None:
        with first.writing():
            inside.set()
            time.sleep(0.3)
            first.append(["a"], rows)

    writer = threading.Thread(target=write_slowly)
    writer.start()
    inside.wait()
    with second.writing():
        found.append(missing(second, ["a"]))
    writer.join()
    assert found == [[]]
    assert torch.equal(second.read(key_digests(["a"])), rows)
    assert "Waiting for another process" in second.reporter.warnings[0]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), NotImplementedError("no locks here")])
def test_a_folder_that_cannot_be_written_to_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    """Permissions do not bind root, as whom tests may run: the calls that they would stop fail."""
    rows = torch.randn(2, 3)
    EmbeddingStore(tmp_path).append(["a"], rows[:1])

    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("filelock.FileLock", refused)
    if isinstance(error, OSError):
        monkeypatch.setattr("transmiter_cli.embedding.storage.store.write_atomically", refused)
    store = EmbeddingStore(tmp_path, ListReporter())
    with store.writing():
        store.append(["b"], rows[1:])
    assert torch.equal(store.read(key_digests(["a", "b"])), rows)
    assert ["kept for this command only" in one for one in store.reporter.warnings] == [True] * isinstance(
        error, OSError
    )


def test_each_key_that_has_no_row_is_lacking_once_and_what_is_no_key_never(tmp_path: Path):
    store = EmbeddingStore(tmp_path)
    keys = key_digests(["b", "a", None, "c", "b", "c"])
    assert store.lacking(keys).tolist() == [True, True, False, True, False, False]
    store.append(["a", "c"], torch.randn(2, 3))
    assert store.lacking(keys).tolist() == [True, False, False, False, False, False]
