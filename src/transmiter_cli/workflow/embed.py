"""transmiter embed: encode images once, for all later commands or for a file of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import DataSpec
from transmiter_cli.embedding.storage.contents import KnownFiles
from transmiter_cli.embedding.storage.export import StoredRows, write_rows
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.files import canonical_json, require_writable
from transmiter_cli.workflow.run_data import open_told

KEPT_ELSEWHERE = "TRANSMITER_CACHE=FOLDER in the environment, or --out FILE.safetensors"


@dataclass(frozen=True)
class EmbedResult:
    """What one model encoded."""

    model: str
    images: int
    skipped: int
    width: int
    logit_scale: float


def embed_data(models: Sequence[str], data: DataSpec, out: Path | None, workspace: Workspace) -> list[EmbedResult]:
    """Encode all images of a split with each model.

    Args:
        models: model names.
        data: which images; the train part of data that have parts, if none is asked for.
        out: a safetensors file to write, with a tensor per model and the image ids as metadata; None for none.
        workspace: cache and device.

    Raises:
        TransmiterError: if neither the cache keeps the embeddings nor `out` holds them.
    """
    images = open_told(data, "train", workspace.reporter, labels=False)
    encoders = {name: workspace.open(resolve_model(name)) for name in models}
    if out is not None and (out.is_file() or not out.exists()):  # neither a device nor a FIFO
        require_writable(out.resolve().parent, "pass another --out")
    files = KnownFiles(images.files, workspace.contents.of(images.files, workspace.reporter))
    if out is None and any(encoder.lacks(files) for encoder in encoders.values()):
        require_writable(workspace.cache, KEPT_ELSEWHERE)
    stored = {name: encoder.store_images(files) for name, encoder in encoders.items()}
    if out is not None:
        common = np.logical_and.reduce([found.stored for found in stored.values()])
        ids = canonical_json([files[i].id for i in np.flatnonzero(common)])
        chosen = {name: StoredRows(encoders[name].images, found.keys[common]) for name, found in stored.items()}
        write_rows(out, chosen, {"ids": ids})
    elif not all(encoder.images.keeps for encoder in encoders.values()):
        raise TransmiterError(
            f"Embeddings were computed, but not all kept: the cache {workspace.cache} cannot be written to.",
            KEPT_ELSEWHERE,
        )
    return [
        EmbedResult(
            name,
            int(found.stored.sum()),
            len(found.skipped),
            encoders[name].width,
            encoders[name].facts.logit_scale,
        )
        for name, found in stored.items()
    ]
