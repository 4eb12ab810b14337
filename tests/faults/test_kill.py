"""What the store holds after kill -9 at any moment, and with two processes at once."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.storage.store import EmbeddingStore
from transmiter_cli.embedding.workspace import Workspace

KILLS = 20
IMAGES = 45 * 16  # more shards of 16 than the two that each attempt may write
# One process imports and loads all, then forks a child for each attempt, waits until it has written a shard, and
# kills it a random moment later. Small shards, and a rest in each batch, so that a kill finds it in the middle; a
# child rests in its fifth batch until it is killed, however late a busy machine lets that be.
SCRIPT = """
import itertools, os, signal, sys, time
from pathlib import Path
from transmiter_cli.embedding import filling
from transmiter_cli.embedding.encoders.encoder import Encoder
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace

filling.SHARD_ROWS = 16
encode, rests = Encoder.encode_images, itertools.repeat(0.05)
Encoder.encode_images = lambda self, batch: (time.sleep(next(rests)), encode(self, batch))[1]
cache, folder, *waits = sys.argv[1:]
encoder = Workspace(cache=Path(cache), batch_size=8).open(resolve_model("demo-weak"))
encoder.encoder.preprocess
files = open_images(folder, None).files

def shards():
    return len(list(Path(cache).rglob("images/*.safetensors")))

for wait in map(float, waits):
    before = shards()
    child = os.fork()
    if not child:
        rests = iter([0.05] * 4 + [600])
        encoder.image_embeddings(files)
        os._exit(0)
    while shards() == before and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(shards(), flush=True)
encoder.image_embeddings(files)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for number in range(IMAGES):
        pixels = torch.randint(256, (8, 8), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number:03d}.png")
    (folder / "100.png").write_bytes(b"broken")  # an image that cannot be decoded must not shift the others
    return folder


def start(cache: Path, folder: Path, waits: Sequence[float] = ()) -> subprocess.Popen[str]:
    """A process that embeds the folder, after as many attempts as `waits` that it kills after so many seconds."""
    line = [sys.executable, "-c", SCRIPT, str(cache), str(folder), *map(str, waits)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True)


def rows_of(cache: Path, folder: Path) -> torch.Tensor:
    """All rows, read and not encoded."""
    encoder = Workspace(cache=cache).open(resolve_model("demo-weak"))
    found = encoder.image_embeddings(open_images(str(folder), None).files)
    assert len(found.kept) == IMAGES - 1
    return found.rows


def keys_written(cache: Path) -> list[str]:
    """The keys of all shards, duplicates too."""
    from transmiter_cli.embedding.storage.shard import read_keys

    return [key for shard in cache.rglob("images/*.safetensors") for key in read_keys(shard)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> torch.Tensor:
    """The rows of a run that nobody kills."""
    cache = tmp_path_factory.mktemp("undisturbed")
    assert start(cache, folder).wait(timeout=120) == 0
    return rows_of(cache, folder)


def test_a_run_killed_twenty_times_ends_as_if_nothing_had_happened(
    tmp_path: Path, folder: Path, undisturbed: torch.Tensor
):
    chance = random.Random(0)
    process = start(tmp_path, folder, [chance.uniform(0, 0.15) for _ in range(KILLS)])
    shards = [int(line) for line in process.stdout or ()]
    assert process.wait(timeout=240) == 0
    assert len(shards) == KILLS
    assert shards == sorted(shards), "a kill lost what was written"
    assert shards[-1] < IMAGES // 16, "the run had ended before the last kill"
    keys = keys_written(tmp_path)
    assert len(keys) == len(set(keys)) == IMAGES - 1
    assert torch.equal(rows_of(tmp_path, folder), undisturbed)


def test_two_processes_at_once_lose_nothing_and_write_nothing_twice(
    tmp_path: Path, folder: Path, undisturbed: torch.Tensor
):
    processes = [start(tmp_path, folder) for _ in range(2)]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    keys = keys_written(tmp_path)
    assert len(keys) == len(set(keys)) == IMAGES - 1
    assert torch.equal(rows_of(tmp_path, folder), undisturbed)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_disk_that_fills_up_keeps_the_run_going(
    tmp_path: Path, folder: Path, undisturbed: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("transmiter_cli.embedding.filling.SHARD_ROWS", 16)  # some shards fit on the disk
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this machine does not let a test mount a tmpfs")
    try:
        rows = Workspace(cache=disk, batch_size=8).open(resolve_model("demo-weak"))
        found = rows.image_embeddings(open_images(str(folder), None).files)
        torch.testing.assert_close(found.rows, undisturbed, atol=1e-5, rtol=1e-5)
        shards = [*disk.rglob("images/*.safetensors")]
        assert shards, "nothing was kept before the disk was full"
        assert all(len(EmbeddingStore(shard.parent)) > 0 for shard in shards)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_read_only_cache_is_used_as_far_as_it_goes(
    tmp_path: Path, folder: Path, undisturbed: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    half = tmp_path / "half"
    half.mkdir()
    for number in range(0, 100):
        shutil.copy2(folder / f"{number:03d}.png", half)
    cache = tmp_path / "cache"
    encoder = Workspace(cache=cache, batch_size=8).open(resolve_model("demo-weak"))
    encoder.image_embeddings(open_images(str(half), None).files[:50])
    encoder.facts  # noqa: B018 - kept with the embeddings
    before = sorted(cache.rglob("*"))

    def refuse(path: Path, *_: object) -> None:  # a mode would bind any user but root
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("transmiter_cli.embedding.storage.store.write_atomically", refuse)
    found = encoder.image_embeddings(open_images(str(half), None).files)
    torch.testing.assert_close(found.rows, undisturbed[:100], atol=1e-5, rtol=1e-5)
    assert sorted(cache.rglob("*")) == before
