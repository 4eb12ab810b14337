"""Whether images that are evaluated on were used before: by the content of their files, wherever they lie now."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from transmiter_cli.embedding.index import key_digests
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.store import EmbeddingStore
from transmiter_cli.embedding.workspace import Workspace, image_key
from transmiter_cli.files import write_atomically
from transmiter_cli.run import Run

Use = Literal["fit", "refine"]
FILES: dict[Use, str] = {"fit": "seen-by-fit.txt", "refine": "seen-by-refine.txt"}
"""Where a run keeps the fingerprints of the images that a command used, one a line."""
CHUNK = 4096
WORDS = 4
"""A fingerprint is so many 32-bit numbers; the store keeps them as float64, which holds them exactly."""


def remember(use: Use, files: Sequence[ImageRecord], run: Run, workspace: Workspace) -> None:
    """Write down which images a command used; a new fit forgets what refined an earlier one."""
    lines = "".join(f"{fingerprint}\n" for fingerprint in sorted(set(fingerprints(files, workspace))))
    write_atomically(run.path / FILES[use], lines.encode())
    if use == "fit":
        (run.path / FILES["refine"]).unlink(missing_ok=True)


def overlap(files: Sequence[ImageRecord], run: Run, workspace: Workspace) -> dict[Use, int] | None:
    """How many of the images each command of the run used; None if the run does not say which it used."""
    seen: dict[Use, Path] = {use: run.path / name for use, name in FILES.items() if (run.path / name).is_file()}
    if "fit" not in seen:
        return None
    asked = fingerprints(files, workspace)
    used: dict[Use, set[str]] = {use: set(path.read_text(encoding="ascii").split()) for use, path in seen.items()}
    return {use: sum(fingerprint in known for fingerprint in asked) for use, known in used.items()}


def fingerprints(files: Sequence[ImageRecord], workspace: Workspace) -> list[str]:
    """SHA-256 of the images' contents, the first 128 bits; each file is read once, as long as it does not change.

    Images that cannot be read are left out.
    """
    store = EmbeddingStore(workspace.cache / "contents", workspace.reporter)
    places = [image_key(file) for file in files]
    records = {place: file for place, file in zip(places, files, strict=True) if isinstance(place, str)}
    missing = [*compress(records, ~store.has(key_digests(records)))]
    with workspace.reporter.progress("Fingerprinting images") as advance, store.writing():
        for start in range(0, len(missing), CHUNK):
            found = {key: read_words(records[key]) for key in missing[start : start + CHUNK]}
            readable = {key: words for key, words in found.items() if words is not None}
            if readable:
                store.append(list(readable), torch.tensor([*readable.values()], dtype=torch.float64))
            advance(start + len(found), len(missing))
    keys = key_digests(place for place in places if isinstance(place, str))
    there = keys[store.has(keys)]
    rows = store.read(there).long().tolist() if len(there) else []
    return ["".join(f"{word:08x}" for word in row) for row in rows]


def read_words(record: ImageRecord) -> list[int] | None:
    """The fingerprint of one image as numbers; None if it cannot be read."""
    try:
        with record.open() as opened:
            if isinstance(opened, Image.Image):
                found = hashlib.sha256(f"{opened.mode} {opened.size}".encode() + opened.tobytes())
            else:
                found = hashlib.sha256(opened.read())
    except OSError:
        return None
    content = found.digest()
    return [int.from_bytes(content[4 * i : 4 * i + 4], "big") for i in range(WORDS)]
