"""What a model name means: an architecture, its weights, its activation and its preprocessing."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any

from transmiter_cli import demo
from transmiter_cli.embedding.encoders import catalogue
from transmiter_cli.embedding.encoders.hub import hub_file
from transmiter_cli.errors import UsageError, listing
from transmiter_cli.files import absolute, canonical_json, digest, expanded
from transmiter_cli.names import resembling

BUNDLED_MODELS = ("demo-weak", "demo-strong")
OPENAI = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px")
OPENAI_TAG = "openai"
LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG = "open_clip_config.json"
WEIGHT_STEMS = ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
TOKENIZER_SUFFIXES = (".json", ".txt", ".model")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class ModelSpec:
    """Everything that decides what a model computes.

    Attributes:
        name: what the user wrote, its path made absolute.
        architecture: what open_clip calls it: a built-in name, or "local-dir:" and the folder of its configuration.
        weights: the file that holds its weights.
        quick_gelu: whether its activation is OpenAI's approximation of GELU.
        preprocess: overrides of open_clip's preprocessing, from the weights' own configuration.
        repository: the hub repository that its configuration came from, "org/name"; empty for none.
    """

    name: str
    architecture: str
    weights: Path
    quick_gelu: bool = False
    preprocess: dict[str, Any] = field(default_factory=dict)
    repository: str = ""

    @property
    def activation(self) -> str:
        """The activation's name."""
        return "QuickGELU" if self.quick_gelu else "GELU"

    def config(self) -> dict[str, Any]:
        """The architecture's configuration; for a folder all of open_clip_config.json."""
        if self.architecture.startswith(LOCAL):
            return read_config(Path(self.architecture.removeprefix(LOCAL)) / CONFIG)
        return dict(catalogue.architectures()[self.architecture])

    def model_config(self) -> dict[str, Any]:
        """The configuration of the model alone: its towers and the width of its embeddings."""
        config = self.config()
        return config.get("model_cfg", config)

    def text_config(self) -> dict[str, Any]:
        """The text tower's part of the configuration."""
        return self.model_config()["text_cfg"]

    def tokenizer_repository(self) -> str | None:
        """The hub repository of the tokenizer's files; None for open_clip's own tokenizer or files in a local folder.

        A configuration on the hub may call its own folder ".": open_clip would take that for the working directory.
        """
        name = self.text_config().get("hf_tokenizer_name")
        if not name or (self.architecture.startswith(LOCAL) and not self.repository):
            return None
        return name if name.strip("./") else self.repository

    def description(self) -> str:
        """Canonical text of all that decides the embeddings but the weights' bytes."""
        config = {**self.config(), "quick_gelu": self.quick_gelu}
        return canonical_json([config, self.preprocess, self.tokenizer_digest()])

    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer's files in a local model's folder; empty for a tokenizer from elsewhere.

        The files of a hub repository come when they are first needed: as its configuration names the tokenizer, a
        digest would change what the model is once it was used. So it is another model than a folder of the same files.
        """
        if self.repository or not self.architecture.startswith(LOCAL):
            return ""
        folder = Path(self.architecture.removeprefix(LOCAL))
        files = [path for path in sorted(folder.iterdir()) if path.suffix in TOKENIZER_SUFFIXES and path.name != CONFIG]
        return digest(*(part for path in files for part in (path.name, path.read_bytes())))


def resolve_model(name: str) -> ModelSpec:
    """Find out what a model name means; weights that are not on this disk are downloaded.

    Names: "demo-weak", "demo-strong"; "ViT-B/32" and the like for OpenAI's weights with OpenAI's activation;
    "ARCH:TAG" for any of open_clip's; "ARCH:PATH" for an architecture with weights in a file;
    "local-dir:PATH"; "hf-hub:org/repo".

    Raises:
        UsageError: if there is no such model; the nearest names are suggested.
        TransmiterError: if its weights cannot be had.
    """
    if name in BUNDLED_MODELS:
        folder = demo.FOLDER / "models" / name
        return replace(local_model(f"{LOCAL}{folder}"), name=name)
    if name.startswith(LOCAL):
        return local_model(name)
    if name.startswith(HUB):
        return hub_model(name)
    spelling, _, source = name.partition(":")
    architecture = built_in_name(spelling)
    if architecture not in catalogue.architectures():
        if is_model_folder(name):
            raise UsageError(f"{name!r} is a folder: its name as a model begins with {LOCAL}", quote(LOCAL + name))
        raise UsageError(f"There is no model {name!r}.{nearest(name)}", "transmiter models")
    if Path(source).suffix in WEIGHT_SUFFIXES:
        return file_model(spelling, architecture, source)
    return published_model(name, architecture, source or OPENAI_TAG)


def lasting_model_name(name: str) -> str:
    """A model's name with its path absolute, as that of its encoder is; nothing of it needs to be there."""
    kind, _, source = name.partition(":")
    path = absolute(source)
    if name.startswith(LOCAL):
        return f"{LOCAL}{path}"
    if Path(source).suffix in WEIGHT_SUFFIXES and not name.startswith(HUB):
        return f"{built_in_name(kind)}:{path}"
    return name


def built_in_name(name: str) -> str:
    """open_clip's spelling of an architecture: ViT-L-14-336 for ViT-L/14@336px."""
    return name.replace("@336px", "-336").replace("/", "-")


def local_model(name: str) -> ModelSpec:
    """A folder with open_clip_config.json and weights."""
    folder = absolute(name.removeprefix(LOCAL))
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{name} is no model: there is no {CONFIG} in {folder}.", listing(folder / CONFIG))
    weights = [
        path for stem in WEIGHT_STEMS for suffix in WEIGHT_SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()
    ]
    if not weights:
        wanted = ", ".join(f"{stem}{WEIGHT_SUFFIXES[0]}" for stem in WEIGHT_STEMS)
        raise UsageError(
            f"{name} has no weights: {folder} holds none of {wanted} (or .bin, .pt, .pth).",
            listing(folder / CONFIG),
        )
    return ModelSpec(f"{LOCAL}{folder}", f"{LOCAL}{folder}", weights[0], configured_activation(folder))


def hub_model(name: str) -> ModelSpec:
    """A repository of the Hugging Face hub with open_clip_config.json and weights."""
    repository = name.removeprefix(HUB)
    if repository.count("/") != 1:
        raise UsageError(f"{name!r} is no repository of the hub: names look like {HUB}ORG/REPO.", "transmiter models")
    folder = hub_file(repository, [CONFIG], f"the configuration of {name}").parent
    weights = hub_file(repository, catalogue.HUB_WEIGHTS, f"the weights of {name}")
    quick_gelu = configured_activation(folder)
    return ModelSpec(name, f"{LOCAL}{folder}", weights, quick_gelu, repository=repository)


def configured_activation(folder: Path) -> bool:
    """Whether a model folder's configuration asks for QuickGELU.

    Raises:
        UsageError: if the configuration is not one of open_clip's.
    """
    model = read_config(folder / CONFIG).get("model_cfg")
    if not isinstance(model, dict) or "text_cfg" not in model:
        raise UsageError(
            f"{folder / CONFIG} has no model_cfg with a text_cfg: open_clip did not write it.",
            "save the model with open_clip, or name an architecture and its weights, ARCH:FILE",
        )
    return bool(model.get("quick_gelu"))


def read_config(path: Path) -> dict[str, Any]:
    """The content of open_clip_config.json."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is damaged: {error}.", "save, or download, the model again") from error


def file_model(spelling: str, architecture: str, source: str) -> ModelSpec:
    """An architecture with weights in a file; a file does not say what activation it was trained with."""
    path = absolute(source)
    if not path.is_file():
        raise UsageError(f"The weights of '{spelling}:{source}' are missing: there is no file {path}.", listing(path))
    quick = f"{architecture}{catalogue.QUICK}"
    if spelling != architecture and quick in catalogue.architectures():
        raise UsageError(
            f"{spelling} means OpenAI's weights, so '{spelling}:{source}' does not say which activation "
            f"{path.name} was trained with.",
            f"{quick}:{source} for OpenAI's QuickGELU, {architecture}:{source} for GELU",
        )
    return ModelSpec(
        f"{architecture}:{path}",
        architecture,
        path,
        catalogue.uses_quick_gelu(architecture),
        catalogue.common_preprocess(architecture),
    )


def published_model(name: str, architecture: str, tag: str) -> ModelSpec:
    """One of open_clip's architectures with weights that were published for it."""
    tags = catalogue.tags_of(architecture)
    tag = tag.lower().replace("-", "_")
    plain = architecture.removesuffix(catalogue.QUICK)
    if tag not in tags and tag in catalogue.tags_of(plain):
        raise UsageError(
            f"The weights {tag!r} were trained with GELU, but {architecture} has QuickGELU.", f"{plain}:{tag}"
        )
    if tag not in tags:
        known = ", ".join(tags) or "none"
        example = next(iter(tags), "PATH.safetensors")
        raise UsageError(f"{architecture} has no weights {tag!r}; it has: {known}.", f"{architecture}:{example}")
    repository, files = catalogue.repository_of(tags[tag])
    weights = hub_file(repository, files, f"the weights of {name}")
    quick_gelu = catalogue.uses_quick_gelu(architecture, tag)
    return ModelSpec(name, architecture, weights, quick_gelu, catalogue.preprocess_of(tags[tag]))


def with_weights(spec: ModelSpec, weights: Path, name: str) -> ModelSpec:
    """The same architecture, activation and preprocessing with other weights: a fine-tuned checkpoint."""
    return replace(spec, name=name, weights=weights.absolute())


def is_model_folder(name: str) -> bool:
    """Whether a name without "local-dir:" is a path that could have it."""
    with suppress(OSError, RuntimeError):  # too long a name, or no such user's home
        return (expanded(name) / CONFIG).is_file()
    return False


def nearest(name: str) -> str:
    """A sentence with the known names nearest to a wrong one."""
    meant = resembling(name, [*BUNDLED_MODELS, *OPENAI, *catalogue.architectures()], cutoff=0.5)
    return meant or " Names look like ViT-B/32 or ViT-B-32:laion2b_s34b_b79k."
