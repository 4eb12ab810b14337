"""Image records: what every kind of data gives, so that decoding and the store know no kinds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from PIL import Image

from transmiter_cli.errors import TransmiterError
from transmiter_cli.files import file_identity
from transmiter_cli.names import ambiguous, finder, labels_and_names, numbered, resembling, some, spelled


@runtime_checkable
class ImageRecord(Protocol):
    """One image, wherever it is stored."""

    @property
    def id(self) -> str:
        """What it is called among the images of its data; with forward slashes."""
        ...

    @property
    def label(self) -> str | None:
        """The class it is labelled with; None if it has no label."""
        ...

    @property
    def name(self) -> str:
        """Where a user finds it."""
        ...

    def place(self) -> str:
        """Where it lies, with the size and times of change of the file there; while they stay, so does what it holds.

        Raises:
            OSError: if the file cannot be found.
        """
        ...

    def open(self) -> BinaryIO | Image.Image:
        """Its encoded bytes, or the picture itself where the data hold it decoded."""
        ...


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image in a file of its own.

    Attributes:
        root: the folder that `id` starts from; one object for all images, of which there may be millions.
        id: its path below the data's folder, or as the data's file lists it.
    """

    root: Path
    id: str
    label: str | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.root / self.id

    @property
    def name(self) -> str:
        """See ImageRecord."""
        return str(self.path)

    def place(self) -> str:
        """See ImageRecord."""
        return file_identity(self.id if os.path.isabs(self.id) else f"{self.root}{os.sep}{self.id}")  # noqa: PTH117

    def open(self) -> BinaryIO:
        """See ImageRecord."""
        return self.path.open("rb")


@dataclass(frozen=True)
class ImageSet:
    """Images of one split, in an order that does not depend on the file system.

    Attributes:
        files: sorted by id, or in the order of the file that lists them.
        label_names: all classes that the data know, in the data's own order or sorted; empty if they know none.
        split: "train", "val", "test" or what else the data call it; None where they have no splits.
        beside: images that lie beside the class folders, or the folders of splits, and are none of `files`.
    """

    files: tuple[ImageRecord, ...]
    label_names: tuple[str, ...]
    split: str | None
    beside: tuple[ImageRecord, ...] = ()

    def with_those_beside(self) -> ImageSet:
        """The same images and those beside the folders, for whom no label is needed."""
        every = sorted((*self.files, *self.beside), key=lambda file: file.id)
        return replace(self, files=tuple(every), beside=()) if self.beside else self

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return all(file.label is not None for file in self.files)

    def labels(self, label_names: Sequence[str], class_names: Sequence[str] = ()) -> list[int]:
        """The index of each image's label in `label_names`, or of the only one that is spelled alike.

        Args:
            label_names: what the data call the classes.
            class_names: what they are called elsewhere; a label that is none of the others may be one of these.

        Raises:
            TransmiterError: if the images have no labels, a label is none of these, or two that differ in spelling
                alone would be the same class.
        """
        if not self.labelled:
            raise TransmiterError(
                "These images have no labels: they lie in no class folders, and nothing else says what they show.",
                "put them into a folder for each class, or list them in a .csv with the columns path,label",
            )
        fix = "name each folder, or label, as the run's classes are; eval takes others with --map FILE"
        places = labels_and_names(numbered(label_names), class_names)
        index = places_of((file.label for file in self.files), places, label_names, fix)
        return [index[file.label] for file in self.files]


def places_of(
    labels: Iterable[str | None], places: Mapping[str, int], known: Sequence[str], fix: str
) -> dict[str | None, int]:
    """The place of each label, or of the only one that is spelled alike.

    Args:
        labels: of the data.
        places: by label.
        known: the run's labels, for messages.
        fix: what mends the labels.

    Raises:
        TransmiterError: if a label has no place, or two that differ in spelling alone would have the same.
    """
    find = finder(places)
    found = {label: find(label) for label in dict.fromkeys(labels)}
    unknown = [label for label, place in found.items() if place is None]
    if unknown:
        raise TransmiterError(foreign_classes(unknown, known), fix)
    both = ambiguous([label for label in found if label is not None], places)
    if both:
        raise TransmiterError(f"The data have the classes {spelled(*both)}, which differ in spelling alone.", fix)
    return {label: place for label, place in found.items() if place is not None}


def foreign_classes(unknown: Sequence[str | None], known: Sequence[str]) -> str:
    """What to say of data that have classes which a run does not know."""
    named = some([repr(label) for label in unknown])
    what = f"the class {named}, which is" if len(unknown) == 1 else f"{len(unknown)} classes, {named}, which are"
    said = f"The data have {what} none of the run's {len(known)} classes ({some(known)})."
    return f"{said}{resembling(str(unknown[0]), known)}"


def real_places(root: Path, paths: Sequence[str]) -> Sequence[str]:
    """What is the same for two paths if they are spellings of one: the paths themselves where that cannot be.

    Links among folders are followed. Whether the files themselves are links is not asked, which for a million takes too
    long: so each folder is asked for once, and no file.

    Args:
        root: the folder that relative paths start from.
        paths: of files.
    """
    folders = {folder + slash for folder, slash, _ in (path.rpartition(os.sep) for path in paths)}
    real = {folder: os.path.realpath(root / folder) for folder in folders}
    if len(set(real.values())) == len(folders):
        return paths
    split = (path.rpartition(os.sep) for path in paths)
    return [f"{real[folder + slash]}{os.sep}{name}" for folder, slash, name in split]


def require_root(files: Sequence[ImageFile], source: Path, root: Path) -> None:
    """Refuse a list of images of which not a single one is there: its root is wrong.

    Raises:
        TransmiterError: if none of the files exists.
    """
    if not any(file.path.is_file() for file in files):
        fix = "--root FOLDER, the folder that its paths start from"
        if (root / files[0].id.replace("\\", "/")).is_file():
            fix = f"write / in place of \\ in the paths of {source.name}"
        raise TransmiterError(
            f"None of the {len(files):,} images that {source.name} lists is in {root}; "
            f"the first would be {files[0].path}.",
            fix,
        )


def require_all_or_none(missing: Sequence[str], total: int, what: str) -> None:
    """Refuse data of which only some images have a label.

    Args:
        missing: where the images without a label are listed.
        total: the number of images.
        what: where the images come from.

    Raises:
        TransmiterError: if some images have a label and some have none.
    """
    if missing and len(missing) < total:
        raise TransmiterError(
            f"{len(missing):,} of the {total:,} images of {what} have no label, the first in {missing[0]}.",
            "label all images of a split or none",
        )


def image_set(images: Sequence[ImageRecord], names: tuple[str, ...], split: str | None, what: str) -> ImageSet:
    """Images of one split whose classes are these, or where none are named, those of their labels.

    Args:
        images: in their order.
        names: of the classes.
        split: which one it is.
        what: where the images come from.

    Raises:
        TransmiterError: if some images have a label and some have none.
    """
    require_all_or_none([image.name for image in images if image.label is None], len(images), what)
    labels = {image.label for image in images if image.label is not None}
    return ImageSet(tuple(images), names or tuple(sorted(labels, key=numbers_first)), split)


def numbers_first(label: str) -> tuple[bool, int, str]:
    """Sorts numbers by value, before texts."""
    return (not label.isdecimal(), int(label) if label.isdecimal() else 0, label)
