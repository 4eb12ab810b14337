"""The feature files that the TransMiter authors publish, converted to plain safetensors.

Their code: https://github.com/jihwanp/TransMiter. docs/import.md documents what is read and what is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor

from transmiter_cli.embedding.encoders.pickles import load_tensors
from transmiter_cli.errors import TransmiterError, UsageError, listing, mended_by
from transmiter_cli.files import canonical_json, write_atomically
from transmiter_cli.method.embeddings import require_finite

METADATA_KEY = "transmiter"
KINDS_OF_TENSOR = {"_ft_text_features": "finetuned_texts", "_ft_logits": "finetuned_logits", "_features": "images"}
"""What their keys end in, the longest first, and what our tensors are called after "MODEL/"."""


@dataclass(frozen=True)
class FeatureFile:
    """One data set, seed and split of several models.

    Attributes:
        tensors: what is written, by name: "labels", "MODEL/images", "MODEL/images.views", ...
        classes: class names by label.
        base: labels of the base classes; empty without a base-to-novel split.
        novel: labels of the novel classes.
    """

    tensors: Mapping[str, Tensor]
    classes: Sequence[str]
    base: Sequence[int]
    novel: Sequence[int]

    @property
    def models(self) -> list[str]:
        """The models that have image embeddings."""
        return sorted(name.removesuffix("/images") for name in self.tensors if name.endswith("/images"))

    @property
    def views(self) -> int:
        """Views per image, the first included."""
        return max((len(value) for name, value in self.tensors.items() if name.endswith("/images.views")), default=1)

    def save(self, path: Path) -> None:
        """Write safetensors; the same features always give the same bytes."""
        about = {"classes": list(self.classes), "base": list(self.base), "novel": list(self.novel)}
        write_atomically(path, save(dict(self.tensors), {METADATA_KEY: canonical_json(about)}))


@mended_by("write the file as docs/import.md says, or encode the images: transmiter embed --help")
def read_feature_file(path: Path) -> FeatureFile:
    """Read one of the authors' files; no code in it is run.

    Raises:
        UsageError: if there is no such file.
        TransmiterError: if it is damaged, holds more than tensors, or its parts do not fit each other.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", listing(path))
    content = load_tensors(path)
    if not isinstance(content.get("labels"), Tensor):
        raise TransmiterError(f"{path} is none of the authors' feature files: it has no tensor 'labels'.")
    try:
        return convert(content, str(path))
    except TransmiterError:
        raise
    except (TypeError, ValueError, IndexError) as error:
        raise TransmiterError(f"{path} is none of the authors' feature files: {error}.") from error


def convert(content: Mapping[str, Any], source: str) -> FeatureFile:
    """Their dictionary in our names, the plain view apart from the augmented ones."""
    labels = plain_labels(content["labels"], source)
    classes = class_names(content.get("label_names"), source)
    base, novel = (indices(content.get(part)) for part in ("base", "novel"))
    strange = [label for label in (*labels.unique().tolist(), *base, *novel) if not 0 <= label < len(classes)]
    if strange:
        raise TransmiterError(f"{source} has the label {strange[0]}, but only {len(classes)} class names.")
    tensors: dict[str, Tensor] = {"labels": labels}
    for key, value in content.items():
        suffix = next((suffix for suffix in KINDS_OF_TENSOR if key.endswith(suffix)), None)
        if suffix is not None and isinstance(value, Tensor):
            tensors |= model_tensors(
                f"{key.removesuffix(suffix)}/{KINDS_OF_TENSOR[suffix]}", value, len(labels), source
            )
    features = FeatureFile(tensors, classes, base, novel)
    if not features.models:
        raise TransmiterError(f"{source} is none of the authors' feature files: no key ends in '_features'.")
    return features


def plain_labels(labels: Tensor, source: str) -> Int[Tensor, " images"]:
    """One label per image; the views of an image must have the same."""
    if labels.ndim == 2:
        if not bool((labels == labels[:, :1]).all()):
            raise TransmiterError(f"In {source}, views of one image have different labels.")
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise TransmiterError(f"The labels in {source} have shape {tuple(labels.shape)}; 1 or 2 dimensions are read.")
    return labels.long().contiguous()


def model_tensors(name: str, value: Tensor, images: int, source: str) -> dict[str, Tensor]:
    """One of their tensors: image rows become the plain view and, if there are several, all views first.

    Args:
        name: our name of it.
        value: images x width, images x views x width, or classes x width for text features.
        images: how many images there are.
        source: where it came from.
    """
    require_finite(f"{name} in {source}", value)
    if name.endswith("texts"):
        return {name: value.contiguous()}
    if value.ndim not in (2, 3) or len(value) != images:
        raise TransmiterError(f"{name} in {source} has shape {tuple(value.shape)}, but there are {images} images.")
    if value.ndim == 2:
        return {name: value.contiguous()}
    views: Float[Tensor, "views images width"] = value.transpose(0, 1).contiguous()
    return {name: views[0].clone(), f"{name}.views": views}


def class_names(names: object, source: str) -> list[str]:
    """Class names by label: theirs are a dictionary from label to name, with underscores for spaces."""
    if isinstance(names, dict):
        numbered = {int(label): name for label, name in names.items()}
        if sorted(numbered) != list(range(len(numbered))):
            raise TransmiterError(f"The label_names in {source} are not numbered 0 to {len(numbered) - 1}.")
        names = [numbered[label] for label in range(len(numbered))]
    if not isinstance(names, list | tuple) or not names:
        raise TransmiterError(f"{source} has no class names: the key 'label_names' is missing or empty.")
    return [str(name).replace("_", " ") for name in names]


def indices(values: object) -> list[int]:
    """Labels of base or novel classes as a sorted list; empty for none."""
    if values is None:
        return []
    return sorted(int(value) for value in (values.tolist() if isinstance(values, Tensor) else values))  # type: ignore[union-attr]
