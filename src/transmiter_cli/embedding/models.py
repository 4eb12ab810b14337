"""What a model name means: an architecture, its weights, its activation and its preprocessing."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import canonical_json

BUNDLED = ("demo-weak", "demo-strong")
OPENAI = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px")
LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG = "open_clip_config.json"
WEIGHT_STEMS = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class ModelSpec:
    """Everything that decides what a model computes.

    Attributes:
        name: what the user wrote, its path made absolute.
        architecture: what open_clip calls it: a built-in name, or "local-dir:" or "hf-hub:" and where.
        weights: the file that holds its weights.
        quick_gelu: whether OpenAI's approximation of GELU is forced on.
        preprocess: overrides of open_clip's preprocessing, from the weights' own configuration.
    """

    name: str
    architecture: str
    weights: Path
    quick_gelu: bool = False
    preprocess: dict[str, Any] = field(default_factory=dict)

    def description(self) -> str:
        """Canonical text of all that decides the embeddings but the weights' bytes."""
        if self.architecture.startswith(LOCAL):
            # Read here: importing open_clip takes longer than all else that a command on cached embeddings does.
            config = json.loads((Path(self.architecture.removeprefix(LOCAL)) / CONFIG).read_text(encoding="utf-8"))
        else:
            from open_clip.factory import get_model_config

            config = get_model_config(self.architecture)
        return canonical_json([config, self.preprocess, self.quick_gelu])


def resolve_model(name: str) -> ModelSpec:
    """Find out what a model name means; weights that are not on this disk are downloaded.

    Names: "demo-weak", "demo-strong"; "ViT-B/32" and the like for OpenAI's weights with OpenAI's activation;
    "ARCH:TAG" for any of open_clip's; "ARCH:PATH" for an architecture with weights in a file;
    "local-dir:PATH"; "hf-hub:org/repo".

    Raises:
        UsageError: if there is no such model; the nearest names are suggested.
        TransmiterError: if its weights cannot be had.
    """
    if name in BUNDLED:
        folder = Path(str(resources.files("transmiter_cli"))) / "demo" / "models" / name
        return replace(local_model(f"{LOCAL}{folder}"), name=name)
    if name.startswith(LOCAL):
        return local_model(name)
    if name.startswith(HUB):
        return hub_model(name)
    architecture, _, source = name.partition(":")
    architecture = architecture.replace("@336px", "-336").replace("/", "-")
    return built_in_model(name, architecture, source or "openai")


def local_model(name: str) -> ModelSpec:
    """A folder with open_clip_config.json and weights."""
    folder = Path(name.removeprefix(LOCAL)).expanduser().absolute()
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{name} is no model: there is no {CONFIG} in {folder}.")
    weights = [
        path for stem in WEIGHT_STEMS for suffix in WEIGHT_SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()
    ]
    if not weights:
        wanted = ", ".join(f"{stem}{WEIGHT_SUFFIXES[0]}" for stem in WEIGHT_STEMS)
        raise UsageError(f"{name} has no weights: {folder} holds none of {wanted} (or .bin, .pt, .pth).")
    return ModelSpec(f"{LOCAL}{folder}", f"{LOCAL}{folder}", weights[0])


def hub_model(name: str) -> ModelSpec:
    """A repository of the Hugging Face hub."""
    from open_clip.pretrained import download_pretrained_from_hf as download

    try:
        weights = download(name.removeprefix(HUB))
    except Exception as error:  # the hub's client raises many kinds; each means that the weights are not here
        raise missing_weights(name, error) from error
    return ModelSpec(name, name, Path(weights))


def built_in_model(name: str, architecture: str, source: str) -> ModelSpec:
    """One of open_clip's architectures with pretrained weights (a tag) or weights in a file (a path)."""
    import open_clip

    if architecture not in open_clip.list_models():
        raise UsageError(f"There is no model {name!r}.{nearest(name)}", "transmiter fit --help")
    path = Path(source).expanduser()
    if path.suffix in WEIGHT_SUFFIXES:
        if not path.is_file():
            raise UsageError(f"The weights of {name!r} are missing: there is no file {path.absolute()}.")
        return ModelSpec(f"{architecture}:{path.absolute()}", architecture, path.absolute())
    pretrained = open_clip.get_pretrained_cfg(architecture, source)
    if not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise UsageError(f"{architecture} has no weights {source!r}; it has: {tags}.", f"--weak {architecture}:TAG")
    if (open_clip.get_model_config(architecture) or {}).get("quick_gelu") and not pretrained.get("quick_gelu"):
        plain = architecture.removesuffix("-quickgelu")
        raise UsageError(
            f"The weights {source!r} were trained with GELU, but {architecture} has QuickGELU.", f"{plain}:{source}"
        )
    try:
        weights = open_clip.download_pretrained(pretrained)
    except Exception as error:  # as above: network, disk, or the hub's own
        raise missing_weights(name, error) from error
    preprocess = {key: pretrained[key] for key in PREPROCESS_KEYS if pretrained.get(key) is not None}
    return ModelSpec(name, architecture, Path(weights), bool(pretrained.get("quick_gelu")), preprocess)


def with_weights(spec: ModelSpec, weights: Path, name: str) -> ModelSpec:
    """The same architecture, activation and preprocessing with other weights: a fine-tuned checkpoint."""
    return replace(spec, name=name, weights=weights.absolute())


def missing_weights(name: str, error: Exception) -> TransmiterError:
    """The error for weights that are neither on this disk nor could be downloaded."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return TransmiterError(
        f"The weights of {name} are not on this disk and could not be downloaded: {reason}",
        "run once with a network and without HF_HUB_OFFLINE, or pass ARCH:PATH.safetensors",
    )


def nearest(name: str) -> str:
    """A sentence with the known names nearest to a wrong one."""
    import open_clip

    close = difflib.get_close_matches(name, [*BUNDLED, *OPENAI, *open_clip.list_models()], n=3, cutoff=0.5)
    return f" Did you mean {', '.join(close)}?" if close else " Names look like ViT-B/32 or ViT-B-32:laion2b_s34b_b79k."
