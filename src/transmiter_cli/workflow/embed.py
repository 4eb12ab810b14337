"""transmiter embed: encode images once, for all later commands or for a file of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.sources import DataSpec, open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.files import canonical_json, write_atomically


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
    """
    images = open_images(data, "train")
    found = {name: workspace.open(resolve_model(name)) for name in models}
    rows = {name: encoder.image_embeddings(images.files) for name, encoder in found.items()}
    if out is not None:
        common = sorted(set.intersection(*(set(embedded.kept) for embedded in rows.values())))
        tensors = {name: embedded.rows[[embedded.kept.index(i) for i in common]] for name, embedded in rows.items()}
        ids = canonical_json([images.files[i].id for i in common])
        write_atomically(out, save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"ids": ids}))
    return [
        EmbedResult(
            name, len(embedded.rows), len(embedded.skipped), embedded.rows.shape[1], found[name].facts.logit_scale
        )
        for name, embedded in rows.items()
    ]
