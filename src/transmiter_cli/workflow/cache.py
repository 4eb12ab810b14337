"""transmiter cache: what is in the cache, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transmiter_cli.embedding.store import DamagedShardError, EmbeddingStore, read_rows
from transmiter_cli.reporter import Reporter


@dataclass(frozen=True)
class CachedModel:
    """What the cache holds of one model in one precision.

    Attributes:
        name: the model's name when it was first used.
        fingerprint: of its weights, architecture and preprocessing.
        size: bytes on the disk.
    """

    name: str
    fingerprint: str
    precision: str
    images: int
    texts: int
    size: int


def list_cache(cache: Path) -> list[CachedModel]:
    """What the cache holds, by model."""
    found: list[CachedModel] = []
    for folder in model_folders(cache):
        facts = folder / "facts.json"
        name = json.loads(facts.read_text())["name"] if facts.is_file() else "?"
        images, texts = (len(EmbeddingStore(folder / kind)) for kind in ("images", "texts"))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        found.append(CachedModel(name, folder.parent.name, folder.name, images, texts, size))
    return sorted(found, key=lambda model: (model.name, model.fingerprint, model.precision))


def verify_cache(cache: Path, reporter: Reporter) -> tuple[int, list[Path]]:
    """Read every shard; return how many there are, and those whose rows are not what was written."""
    shards = [shard for folder in model_folders(cache) for shard in sorted(folder.rglob("*.safetensors"))]
    damaged: list[Path] = []
    with reporter.progress("Verifying shards") as advance:
        for number, shard in enumerate(shards):
            try:
                read_rows(shard)
            except DamagedShardError:
                damaged.append(shard)
            advance(number + 1, len(shards))
    return len(shards), damaged


def remove_from_cache(cache: Path, model: str | None) -> list[CachedModel]:
    """Remove what is there of one model, by name or beginning of its fingerprint, or of all; return what went."""
    gone = [
        entry
        for entry in list_cache(cache)
        if model is None or entry.name == model or (len(model) >= 6 and entry.fingerprint.startswith(model))
    ]
    for entry in gone:
        shutil.rmtree(cache / "encoders" / entry.fingerprint / entry.precision)
    return gone


def model_folders(cache: Path) -> Iterator[Path]:
    """The folder of each model and precision."""
    yield from sorted(folder for folder in (cache / "encoders").glob("*/*") if folder.is_dir())
