"""Which column of a Parquet file holds images, and which one classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transmiter_cli.embedding.sources.manifest import SPELLINGS
from transmiter_cli.errors import TransmiterError

LABELS = (*SPELLINGS["label"], "labels")
"""What a column of classes is called, in any case, the likeliest first."""
CONTENT, PATH = "bytes", "path"
"""The fields of a column that has images' files, or says where they are."""


@dataclass(frozen=True)
class Columns:
    """Where a file has its images and their classes.

    Attributes:
        images: the column of encoded images.
        has_fields: whether it has fields, CONTENT and perhaps PATH.
        labels: the column of classes; None if there is none.
        names: what classes are called that are numbers; empty where they are their own names.
    """

    images: str
    has_fields: bool
    labels: str | None
    names: tuple[str, ...]

    @property
    def content(self) -> str:
        """The column, or the field of one, that holds encoded images."""
        return f"{self.images}.{CONTENT}" if self.has_fields else self.images


def find_columns(schema: Any, path: Path) -> Columns:
    """The columns of images and classes: those that Hugging Face's own description, or their names, say it of.

    Raises:
        TransmiterError: if none says so of the images, or several do, of images or classes; or what a column holds are
            no images or classes; or two columns have one name.
    """
    doubled = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if doubled is not None:
        raise TransmiterError(f"Two columns of {path} are called {doubled!r}.", "rename one of them")
    features = described(schema)
    images = [name for name in schema.names if kind_of(features, name) == "Image"]
    images = images or [name for name in schema.names if holds_images(schema.field(name).type)]
    if len(images) != 1 or not holds_images(schema.field(images[0]).type):
        which = f"has the images in {' or '.join(images)}" if images else "has no column of encoded images"
        kinds = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise TransmiterError(f"{path} {which}; its columns are {kinds}.", "keep one column of images: files, as bytes")
    (column,) = images
    alike = next((name for name in schema.names if name.startswith(f"{column}.")), None)
    if alike is not None:
        raise TransmiterError(f"Two columns of {path} may be meant by {alike!r}.", "rename one of them")
    named = [name for said in LABELS for name in schema.names if name.lower() == said][:1]
    classes = named or [name for name in schema.names if kind_of(features, name) == "ClassLabel"]
    if len(classes) > 1:
        raise TransmiterError(
            f"{path} has several columns of classes: {', '.join(classes)}.", "call the one that is meant 'label'"
        )
    has_fields = not is_bytes(schema.field(column).type)
    if not classes:
        return Columns(column, has_fields, None, ())
    kind = schema.field(classes[0]).type
    if not holds_classes(kind):
        raise TransmiterError(
            f"The column {classes[0]} of {path} holds {kind}; classes are texts or whole numbers.",
            "leave it out, or call the column of classes 'label'",
        )
    about = features.get(classes[0])
    names = about.get("names") if isinstance(about, dict) else None
    return Columns(column, has_fields, classes[0], tuple(map(str, names)) if isinstance(names, list) else ())


def described(schema: Any) -> dict[str, Any]:
    """What Hugging Face says of the columns; nothing where it did not write them."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(about["info"]["features"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def kind_of(features: Mapping[str, Any], column: str) -> str | None:
    """The kind of a column by its description."""
    about = features.get(column)
    return about.get("_type") if isinstance(about, dict) else None


def holds_images(kind: Any) -> bool:
    """Whether a column holds bytes, or has a field CONTENT that does."""
    from pyarrow import types

    if types.is_struct(kind):
        place = kind.get_field_index(CONTENT)
        return place >= 0 and is_bytes(kind.field(place).type)
    return is_bytes(kind)


def is_bytes(kind: Any) -> bool:
    """Whether values are bytes, however they are kept."""
    return str(value_type(kind)) in ("binary", "large_binary", "binary_view")


def is_text(kind: Any) -> bool:
    """Whether values are texts, however they are kept."""
    return str(value_type(kind)) in ("string", "large_string", "string_view")


def holds_classes(kind: Any) -> bool:
    """Whether a column holds texts or numbers; those that must be whole may have a point (`whole`)."""
    from pyarrow import types

    kind = value_type(kind)
    numbers = types.is_integer(kind) or types.is_boolean(kind) or types.is_floating(kind) or types.is_null(kind)
    return numbers or is_text(kind)


def value_type(kind: Any) -> Any:
    """What a column holds, also if it numbers its different values."""
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind
