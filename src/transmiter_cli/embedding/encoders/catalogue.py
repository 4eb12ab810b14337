"""What open_clip knows of architectures and published weights, read without importing it: that takes seconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

QUICK = "-quickgelu"
"""What the names of open_clip's architectures with QuickGELU end in."""
PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")
HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What weights are called in a hub repository that names no file, best first."""
LIGHT_NAME = "_transmiter_open_clip"


@cache
def package_folder() -> Path:
    """Where open_clip is installed."""
    spec = find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@cache
def architectures() -> Mapping[str, Mapping[str, Any]]:
    """The configuration of each built-in architecture, by name."""
    files = sorted((package_folder() / "model_configs").glob("*.json"))
    configs = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    return {name: config for name, config in configs.items() if {"embed_dim", "vision_cfg", "text_cfg"} <= set(config)}


@cache
def published_weights() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """The tags of each architecture, with hub repository, activation and preprocessing."""
    # The module's relative imports need a package; this one has open_clip's folder, but not its __init__.
    package = ModuleType(LIGHT_NAME)
    package.__path__ = [str(package_folder())]
    sys.modules[LIGHT_NAME] = package
    names = import_module(f"{LIGHT_NAME}.pretrained").list_pretrained()
    find = sys.modules[f"{LIGHT_NAME}.pretrained"].get_pretrained_cfg
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for architecture, tag in names:
        found.setdefault(architecture, {})[tag] = find(architecture, tag)
    return found


def tags_of(architecture: str) -> Mapping[str, Mapping[str, Any]]:
    """The published weights of one architecture, by tag."""
    return published_weights().get(architecture, {})


def uses_quick_gelu(architecture: str, tag: str | None = None) -> bool:
    """Whether an architecture, with published weights or with weights in a file, has OpenAI's QuickGELU.

    The tag decides: it says what its weights were trained with. An architecture that has QuickGELU without a twin
    that has not (roberta-ViT-B-32) keeps it.
    """
    published = tags_of(architecture)[tag] if tag else {}
    return bool(published.get("quick_gelu") or architectures()[architecture].get("quick_gelu"))


def preprocess_of(published: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides of open_clip's preprocessing that a tag's configuration holds, as JSON has them."""
    kept = {key: published[key] for key in PREPROCESS_KEYS if published.get(key) is not None}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def common_preprocess(architecture: str) -> dict[str, Any]:
    """The preprocessing that all published weights of an architecture share; empty where they differ."""
    found = [preprocess_of(published) for published in tags_of(architecture).values()]
    return found[0] if found and all(other == found[0] for other in found) else {}


def repository_of(published: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The hub repository of a tag's weights, and the names that the file may have there, best first."""
    organisation, name, file = published["hf_hub"].split("/", 2)
    repository = f"{organisation}/{name}"
    if not file:
        return repository, HUB_WEIGHTS
    return repository, (f"{Path(file).stem}.safetensors", file)
