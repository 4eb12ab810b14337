"""All model names that can be used, and which of them have their weights on this disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from transmiter_cli.embedding.encoders import catalogue
from transmiter_cli.embedding.encoders.hub import cached_file, hub_cache
from transmiter_cli.embedding.encoders.models import (
    BUNDLED_MODELS,
    CONFIG,
    HUB,
    OPENAI,
    OPENAI_TAG,
    built_in_name,
    resolve_model,
)
from transmiter_cli.errors import TransmiterError, UsageError

BATCH_NORM_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class ListedModel:
    """A model name, and what is known of it without loading it.

    Attributes:
        width: numbers per embedding.
        pixels: height of its input.
        activation: "QuickGELU" or "GELU".
        weights: their file; None unless it is on this disk.
    """

    name: str
    width: int
    pixels: int
    activation: str
    weights: Path | None

    @property
    def parameters(self) -> int | None:
        """How many there are, from the header of the weights' file; None where that does not say."""
        if self.weights is None or self.weights.suffix != ".safetensors":
            return None
        try:
            with safe_open(self.weights, framework="numpy") as file:
                names = [name for name in file.keys() if not name.endswith(BATCH_NORM_BUFFERS)]  # noqa: SIM118
                return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        except (SafetensorError, OSError):
            return None


def list_models(pattern: str | None = None, downloaded: bool = False) -> list[ListedModel]:
    """Model names that can be used: the bundled, OpenAI's, open_clip's tags, and hub repositories on this disk.

    Args:
        pattern: part of a name, or a whole name with * and ?; case does not matter. None for all.
        downloaded: only those whose weights are on this disk.

    Raises:
        UsageError: if no name matches.
    """
    chosen = [describe for name, describe in names() if pattern is None or matches(name, pattern)]
    if not chosen:
        raise UsageError(f"No model's name has {pattern!r} in it.", "transmiter models")
    models: list[ListedModel] = []
    for describe in chosen:
        with suppress(TransmiterError, KeyError):  # a repository on this disk whose configuration is damaged
            models.append(describe())
    return [model for model in models if model.weights is not None or not downloaded]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern fits a name, in OpenAI's spelling or in open_clip's."""
    wanted = pattern.lower() if set("*?") & set(pattern) else f"*{pattern.lower()}*"
    return any(fnmatchcase(spelling.lower(), wanted) for spelling in (name, built_in_name(name)))


def names() -> Iterator[tuple[str, partial[ListedModel]]]:
    """Each name once, with what describes it: the twins of a tag with "-quickgelu" mean the same and are left out."""
    for name in BUNDLED_MODELS:
        yield name, partial(folder_model, name)
    for name in OPENAI:
        yield name, partial(published, name, built_in_name(name), OPENAI_TAG)
    for architecture, tags in catalogue.published_weights().items():
        for tag in tags:
            if tag != OPENAI_TAG and not architecture.endswith(catalogue.QUICK):
                yield f"{architecture}:{tag}", partial(published, f"{architecture}:{tag}", architecture, tag)
    for folder in sorted(hub_cache().glob("models--*--*")):
        repository = folder.name.removeprefix("models--").replace("--", "/", 1)
        if cached_file(repository, [CONFIG]) and cached_file(repository, catalogue.HUB_WEIGHTS):
            yield f"{HUB}{repository}", partial(folder_model, f"{HUB}{repository}")


def folder_model(name: str) -> ListedModel:
    """A model with a configuration of its own."""
    spec = resolve_model(name)
    return described(name, spec.config()["model_cfg"], spec.activation, spec.weights)


def published(name: str, architecture: str, tag: str) -> ListedModel:
    """One of open_clip's architectures with published weights."""
    repository, files = catalogue.repository_of(catalogue.tags_of(architecture)[tag])
    activation = "QuickGELU" if catalogue.uses_quick_gelu(architecture, tag) else "GELU"
    return described(name, catalogue.architectures()[architecture], activation, cached_file(repository, files))


def described(name: str, config: Mapping[str, Any], activation: str, weights: Path | None) -> ListedModel:
    """A model by its configuration."""
    return ListedModel(name, config["embed_dim"], config["vision_cfg"].get("image_size", 224), activation, weights)
