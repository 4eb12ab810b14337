"""Where the tasks of beds.py come from: embeddings of labelled images by several models."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from transmiter_cli.method.embeddings import Embeddings

VARIABLE = "TRANSMITER_REAL_EMBEDDINGS"
HANDWRITING = "TRANSMITER_HANDWRITING"
OUTSIDE = "TRANSMITER_OUTSIDE"
OUTSIDE_TASKS = ("objects", "clothes")
FILE = "whurs19-rn50-to-b32.safetensors"


@dataclass(frozen=True)
class Data:
    """All tensors of a data set: name.images, name.text, name.aux for weak, strong and finetuned (perhaps no aux)."""

    tensors: dict[str, Tensor]
    scales: dict[str, float]
    labels: Tensor

    def model(self, name: str, aux: Tensor) -> Embeddings:
        texts = self.tensors[f"{name}.text"]
        if len(aux):
            texts = torch.cat([texts, self.tensors[f"{name}.aux"][aux]])
        return Embeddings(
            F.normalize(self.tensors[f"{name}.images"], dim=-1), F.normalize(texts, dim=-1), self.scales[name]
        )


def find_real() -> Path | None:
    named = os.environ.get(VARIABLE)
    candidates = [Path(named)] if named else sorted(Path(__file__).parents[2].glob(f"*/data/{FILE}"))
    return next((path for path in candidates if path.is_file()), None)


@cache
def real_data() -> Data | None:
    path = find_real()
    if path is None:
        return None
    with safe_open(path, framework="pt") as file:
        kept = [name for name in file.keys() if name not in ("labels", "train", "test")]  # noqa: SIM118
        tensors = {name: file.get_tensor(name).float() for name in kept}
        labels = file.get_tensor("labels").long()
        scale = float(json.loads(file.metadata()["bed"])["logit_scale"])
    return Data(tensors, dict.fromkeys(("weak", "strong", "finetuned"), scale), labels)


@cache
def seen_by_bundled_models(source: str, part: str = "train") -> Data:
    """Images of characters: "demo", the train part of the bundled digits or another, or a folder of handwriting.py."""
    from transmiter_cli.embedding.encoders.models import resolve_model, with_weights
    from transmiter_cli.embedding.sources import DataSpec, open_images
    from transmiter_cli.embedding.workspace import Workspace
    from transmiter_cli.task.finetuned import bundled_path
    from transmiter_cli.task.templates import choose_templates
    from transmiter_cli.task.vocabulary import auxiliary_words, build_vocabulary, class_names

    workspace = Workspace()
    if source == "demo":
        images = open_images(DataSpec("demo-digits"), part)
    else:
        images = open_images(DataSpec(str(Path(os.environ[HANDWRITING]) / source)), "all")
    names, labels = class_names(images.label_names, None)
    templates = choose_templates((), None, names, labels)
    vocabulary = build_vocabulary(names, auxiliary_words("characters"), 1024, 0)
    weak = resolve_model("demo-weak")
    specs = {
        "weak": weak,
        "strong": resolve_model("demo-strong"),
        "finetuned": with_weights(weak, bundled_path("demo-finetuned"), "demo-finetuned"),
    }
    tensors, scales = {}, {}
    for name, spec in specs.items():
        encoder = workspace.open(spec)
        texts = encoder.text_embeddings(vocabulary, templates).float()
        tensors[f"{name}.images"] = encoder.image_embeddings(images.files).rows.float()
        tensors[f"{name}.text"], tensors[f"{name}.aux"] = texts[: len(names)], texts[len(names) :]
        scales[name] = encoder.facts.logit_scale
    return Data(tensors, scales, torch.tensor(images.labels(labels)))


@cache
def outside_data(source: str) -> Data:
    """A task that outside.py made."""
    tensors = load_file(Path(os.environ[OUTSIDE]) / f"{source}.safetensors")
    scales = {role: float(tensors.pop(f"{role}.scale")) for role in ("weak", "strong")}
    return Data(tensors, scales, tensors.pop("labels"))


def has_data(source: str) -> bool:
    """Whether the images of a source are here."""
    if source == "real":
        return find_real() is not None
    return source == "demo" or (OUTSIDE if source in OUTSIDE_TASKS else HANDWRITING) in os.environ


def data_of(source: str) -> Data | None:
    """The images of a source."""
    if source in OUTSIDE_TASKS:
        return outside_data(source)
    return real_data() if source == "real" else seen_by_bundled_models(source)
