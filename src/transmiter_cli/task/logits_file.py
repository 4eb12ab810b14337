"""Logits that a fine-tuned model gave elsewhere, in a file with the ids of their images."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from transmiter_cli.embedding.decoding import can_be_decoded
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.sources.text import read_utf8
from transmiter_cli.embedding.workspace import CachedEncoder
from transmiter_cli.errors import TransmiterError, mended_by
from transmiter_cli.files import real_folder
from transmiter_cli.method.embeddings import LARGEST, ROUNDING, are_probabilities, require_finite
from transmiter_cli.names import numbered

LEAST_PROBABILITY = 1e-9
"""Smaller ones, which float32 rounds to 0 at some time, are taken for this."""


class MissingLogitsError(TransmiterError):
    """Logits were given for other images than those asked for."""


@dataclass(frozen=True)
class FinetunedLogits:
    """Logits computed elsewhere, by image id or absolute path.

    Attributes:
        own_data: whether the images are of the --data that the ids are relative to, fit's; an image of other data
            may have the same id and is found by its absolute path alone.
    """

    source: str
    rows: Float[Tensor, "images classes"]
    index: Mapping[str, int]
    own_data: bool = True

    def logits(self, files: Sequence[ImageRecord], weak_images: Tensor) -> Tensor:
        """See `FinetunedModel`; raises TransmiterError if an image has no logits."""
        places = self.places(files)
        absent = [file.id for file, place in zip(files, places, strict=True) if place < 0]
        if absent:
            raise self.missing(absent, "save the logits of all images")
        return self.rows[places].float()

    def head(self) -> None:
        """See FinetunedModel."""
        return None

    def check(self, files: Sequence[ImageRecord]) -> None:
        """See FinetunedModel: all images must be among its own, but for those that cannot be decoded anyway."""
        absent = [file for file, place in zip(files, self.places(files), strict=True) if place < 0]
        if absent and len(absent) == len(files):
            raise self.missing([file.id for file in absent], "ids are paths below fit's --data folder, or absolute")
        if any(map(can_be_decoded, absent)):
            raise self.missing([file.id for file in absent], "save the logits of all images that can be decoded")

    def places(self, files: Sequence[ImageRecord]) -> list[int]:
        """The row of each image; -1 for those without."""
        index, own = self.index, self.own_data

        def place(name: str, known: str) -> int:
            found = index.get(name, index.get(known, -1) if own else -1)
            return self.absolute.get(with_real_folder(name), -1) if found < 0 and self.absolute else found

        return [place(os.path.normpath(file.name), os.path.normpath(file.id)) for file in files]

    @cached_property
    def absolute(self) -> Mapping[str, int]:
        """The rows by absolute paths, whose folders are no symbolic links.

        Raises:
            TransmiterError: if two ids are the same image, and their logits differ.
        """
        found: dict[str, int] = {}
        for name, row in self.index.items():
            if name.startswith(os.sep):
                first = found.setdefault(with_real_folder(name), row)
                if not torch.equal(self.rows[first], self.rows[row]):
                    raise TransmiterError(
                        f"{self.source} has two rows for the image {name!r}.", "save every image once"
                    )
        return found

    def missing(self, absent: Sequence[str], fix: str) -> MissingLogitsError:
        """The error for images without logits, and what mends it if they are of fit's own data."""
        return MissingLogitsError(
            f"{self.source} has no logits for {len(absent)} images, {absent[0]!r} the first; "
            f"the file's own ids look like {next(iter(self.index), '')!r}"
            + ("." if self.own_data else " and are of fit's --data, which these images are not."),
            fix
            if self.own_data
            else "fit again with these images as --data, if fit saw them elsewhere, or save absolute paths as ids",
        )


def with_real_folder(path: str) -> str:
    """An absolute path, its folders without symbolic links."""
    folder, _, name = path.rpartition(os.sep)
    return real_folder(f"{folder}{os.sep}") + name


def read_ids(path: Path, metadata: Mapping[str, str]) -> object:
    """The image ids in the metadata of a safetensors file; None if there are none."""
    try:
        return json.loads(metadata.get("ids", "null"))
    except ValueError as error:
        raise TransmiterError(
            f'The metadata key "ids" of {path} is no JSON: {error}.', "json.dumps(ids), a list of texts"
        ) from error


def npy_logits(path: Path, classes: int) -> FinetunedLogits:
    """Logits in NumPy's format; ids, one per line, in a text file beside it."""
    ids = path.with_suffix(".txt")
    if not ids.is_file():
        raise TransmiterError(
            f"{path} does not say which images its rows are: {ids} is missing.",
            f"write one image id a line, in the order of the rows, to {ids}",
        )
    try:
        rows = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
    except (ValueError, TypeError, AttributeError, EOFError, OSError) as error:
        raise TransmiterError(f"{path} cannot be read: {error}.", "save it again with numpy.save") from error
    return checked_logits(str(path), rows, read_utf8(ids).rstrip("\n").split("\n"), classes)


def checked_logits(source: str, rows: object, ids: object, classes: int) -> FinetunedLogits:
    """Logits with the ids of their rows; those of classes masked by -inf, or so, become the lowest of all others."""
    if not isinstance(rows, Tensor):
        what = f"The logits in {source} are no tensor, but a {type(rows).__name__}."
        raise TransmiterError(what, 'torch.save({"logits": torch.tensor(logits), "ids": ids}, PATH)')
    if not isinstance(ids, list | tuple):
        raise TransmiterError(
            f'{source} does not say which images its rows are: "ids", a list in the metadata, is missing.',
            'save_file({"logits": logits}, PATH, {"ids": json.dumps(ids)})',
        )
    if rows.ndim != 2 or rows.shape[1] != classes:
        raise TransmiterError(
            f"The logits in {source} have shape {tuple(rows.shape)}; the task has {classes} classes.",
            "save the transpose, logits.T"
            if rows.ndim == 2 and len(rows) == classes
            else "save N x C logits, or name the columns' classes: --classes FILE",
        )
    if len(ids) != len(rows):
        raise TransmiterError(
            f"{source} has {len(ids)} ids for {len(rows)} rows of logits.", "save one id for each row"
        )
    if not all(isinstance(one, str | bytes | int | PurePath) for one in ids):
        raise TransmiterError(f"The ids in {source} are no texts.", "list(map(str, ids))")
    names = [os.path.normpath(os.fsdecode(one) if isinstance(one, bytes) else str(one)) for one in ids]
    places = numbered(names)
    if len(places) != len(ids):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise TransmiterError(f"{source} has the image id {twice!r} twice.", "save every image once")
    half = rows.dtype == torch.float16  # which cannot hold LARGEST
    rows = rows.float() if half or not (rows.is_floating_point() or rows.is_complex()) else rows
    masked = (rows < -LARGEST) if rows.is_floating_point() else torch.zeros_like(rows, dtype=torch.bool)
    masked &= ~masked.all(-1, keepdim=True)
    with mended_by("save them again, without NaN; -inf masks a class, but some class of each row must have a logit"):
        require_finite(f"the logits in {source}", rows.masked_fill(masked, 0.0))
    if bool(masked.any()):
        rows = rows.masked_fill(masked, rows[~masked].min().item())
    return FinetunedLogits(source, rows, places)


def as_logits(teacher: FinetunedLogits, weak: CachedEncoder) -> FinetunedLogits:
    """The same teacher with logits, where probabilities or cosines were saved in their place; it is said so.

    The logarithms of a softmax's probabilities are its logits, up to a constant of each row. Cosines get the weak
    model's logit scale.
    """
    rows, reporter = teacher.rows.float(), weak.workspace.reporter
    told = (rows != rows[:1]).any(0)  # other classes may be masked by any number
    if not bool(told.any()) or bool((rows[:, told].abs() > 1 + ROUNDING).any()):
        return teacher
    if are_probabilities(rows):
        reporter.note(f"The logits in {teacher.source} are probabilities: their logarithms are taken.")
        return replace(teacher, rows=rows.clamp_min(LEAST_PROBABILITY).log())
    logit_scale = weak.facts.logit_scale
    reporter.warn(
        f"The logits in {teacher.source} lie between -1 and 1: they are taken for cosines, and multiplied with "
        f"{logit_scale:.4g}, the logit scale of {weak.name}. If they come out of a sigmoid, save what goes into it."
    )
    return replace(teacher, rows=logit_scale * rows)
