"""transmiter cache: what is kept is listed, checked and removed, and nothing of it changes by being looked at."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path
from threading import Event, Thread

import pytest
from filelock import FileLock

from tests.cli.conftest import Cli
from tests.cli.test_errors import failed
from tests.cli.test_overlap import FIT, TRANSFER, digits
from transmiter_cli import demo
from transmiter_cli.task.finetuned import bundled_path


@pytest.fixture
def cache(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of two models, and of the images' fingerprints."""
    monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path / "cache"))
    digits(tmp_path / "data", 0)
    assert cli(*FIT, "--data", "data").code == 0
    assert cli(*TRANSFER).code == 0
    return tmp_path / "cache"


def listed(cli: Cli) -> dict[str, dict[str, int]]:
    return {model["name"]: model for model in json.loads(cli("cache", "ls", "--json").out)["models"]}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_an_empty_cache_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRANSMITER_CACHE", "nowhere")
    outcome = cli("cache", "ls")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "Nothing is kept in nowhere.\n")


def test_models_are_listed_and_a_look_changes_nothing(cli: Cli, cache: Path):
    assert {name: model["images"] for name, model in listed(cli).items()} == {"demo-weak": 20, "demo-strong": 20}
    shard = next(cache.glob("encoders/*/*/images/*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:50])
    (shard.parents[1] / "facts.json").write_text("{")
    before = files(cache)
    assert sorted(model["images"] for model in listed(cli).values()) == [0, 20]
    assert "?" in listed(cli)
    assert files(cache) == before


@pytest.mark.parametrize("kind", ["encoders", "contents"])
def test_damage_is_found_whatever_it_is_in(cli: Cli, cache: Path, kind: str):
    assert json.loads(cli("cache", "verify", "--json").out)["damaged"] == []
    shard = next((cache / kind).rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xff")
    outcome = cli("cache", "verify", "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out)["damaged"] == [str(shard)]


def test_a_model_that_could_not_be_loaded_is_not_listed(cli: Cli, cache: Path):
    line = ("embed", "--model", f"ViT-B-32:{bundled_path('demo-finetuned')}", "--data", "data")
    assert cli(*line).code == 1
    assert set(listed(cli)) == {"demo-weak", "demo-strong"}


def test_a_cache_that_cannot_be_written_to_is_warned_of_once(
    cli: Cli, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr("transmiter_cli.embedding.storage.store.write_atomically", refuse)
    outcome = cli(*TRANSFER)
    assert outcome.code == 0
    assert outcome.err.count(f"The cache {tmp_path / 'other'} cannot be used (Read-only file system)") == 1
    line = ("embed", "--model", "demo-weak", "--data", "data")
    failed(cli(*line), 1, "Embeddings were computed, but not all kept", "--out FILE.safetensors")
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path / "file"))
    refused = cli(*line)
    failed(refused, 1, "file cannot be written to", "--out FILE.safetensors")
    assert "encoded" not in refused.err, "before any image was"
    monkeypatch.setenv("TRANSMITER_CACHE", str(cache))
    assert cli(*line).code == 0, "all of them are there already"


def test_one_model_goes_alone_and_all_go_with_all_else(cli: Cli, cache: Path):
    assert cli("cache", "rm", "demo-weak").code == 0
    assert [*listed(cli)] == ["demo-strong"]
    assert len([*(cache / "encoders").iterdir()]) == 1
    unknown = cli("cache", "rm", "demo-weak")
    assert unknown.code == 2
    assert "holds demo-strong" in unknown.err
    assert cli("cache", "rm", "--all").code == 0
    assert files(cache) == set()
    assert cli("eval", "--data", "data", "--allow-overlap").code == 0


def test_files_of_others_stay(cli: Cli, cache: Path):
    others = {"contents/mine.txt", "weights/vit-b32.pt", "encoders/notes/mine/embeddings.safetensors"}
    for name in others:
        (cache / name).parent.mkdir(exist_ok=True, parents=True)
        (cache / name).write_text("mine")
    assert set(listed(cli)) == {"demo-weak", "demo-strong"}
    assert cli("cache", "rm", "--all").code == 0
    assert files(cache) == others


def test_a_model_goes_by_its_name_however_its_path_is_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path / "cache"))
    digits(tmp_path / "data", 0)
    (tmp_path / "mine").symlink_to(demo.FOLDER / "models" / "demo-weak")
    assert cli("embed", "--model", "local-dir:mine", "--data", "data").code == 0
    outcome = cli("cache", "rm", "local-dir:./mine")
    assert outcome.code == 0, outcome.err
    assert not listed(cli)


@pytest.mark.parametrize("what", ["demo-weak", "--all"])
def test_what_another_process_writes_to_is_not_removed(cli: Cli, cache: Path, what: str):
    (store,) = (path.parent for path in cache.glob("encoders/*/*/facts.json") if "demo-weak" in path.read_text())
    before = files(cache)
    with FileLock(store / "images/.lock"):
        failed(cli("cache", "rm", what), 1, f"is writing to {store / 'images'}", "Try: wait for it, then cache rm")
    assert files(cache) == before
    assert cli("cache", "rm", what).code == 0


def test_a_quiet_command_says_that_it_waits_for_another_process(cli: Cli, cache: Path, tmp_path: Path):
    digits(tmp_path / "more", 1)
    (store,) = (path.parent for path in cache.glob("encoders/*/*/facts.json") if "demo-weak" in path.read_text())
    held = Event()

    def hold() -> None:
        with FileLock(store / "images/.lock"):
            held.set()
            time.sleep(0.5)

    other = Thread(target=hold)
    other.start()
    held.wait()
    outcome = cli("embed", "--model", "demo-weak", "--data", "more", "--quiet")
    other.join()
    assert outcome.code == 0
    assert outcome.err == f"Warning: Waiting for another process that writes to {store / 'images'}.\n"


def test_caches_that_were_filled_apart_are_copied_into_one(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for part in range(2):
        monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path / f"cache-{part}"))
        assert cli("embed", "--model", "demo-weak", "--data", digits(tmp_path / f"part-{part}", 2 * part)).code == 0
        shutil.copytree(tmp_path / f"cache-{part}", tmp_path / "cache", dirs_exist_ok=True)
    monkeypatch.setenv("TRANSMITER_CACHE", str(tmp_path / "cache"))
    digits(tmp_path / "whole", 0, 4)
    assert "40 images, all from the cache" in cli("embed", "--model", "demo-weak", "--data", tmp_path / "whole").err
    assert json.loads(cli("cache", "verify", "--json").out)["damaged"] == []
