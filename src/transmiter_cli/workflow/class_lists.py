"""Which classes an evaluation is about: labels of other data mapped to a run's classes, and base classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transmiter_cli.embedding.sources import ImageRecord, ImageSet
from transmiter_cli.embedding.sources.record import foreign_classes, refuse_meeting
from transmiter_cli.embedding.sources.text import read_utf8
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.evaluation.protocols import coop_base
from transmiter_cli.names import finder, numbered
from transmiter_cli.run import Task


@dataclass(frozen=True)
class ClassMap:
    """From labels of the data to the run's classes.

    Attributes:
        classes: the run's class names.
        labels: what fit's data call them.
        targets: class index by label, for the labels that a map file names; None for one to leave out.
    """

    classes: Sequence[str]
    labels: Sequence[str]
    targets: Mapping[str, int | None]

    def classes_of(self, labels: Iterable[str | None]) -> dict[str | None, int | None]:
        """The class of each label, or of the only one that is spelled alike; None if its images are left out.

        Raises:
            TransmiterError: if a label is neither in the map nor a class of the run, or two are spelled alike.
        """
        asked, targets = tuple(dict.fromkeys(labels)), tuple(self.targets.values())
        find, find_mapped = finder(numbered(self.labels)), finder(numbered(tuple(self.targets)))
        by_map = {label: targets[row] for label in asked if (row := find_mapped(label)) is not None}
        by_name = {label: find(label) for label in asked if label not in by_map}
        unknown = [label for label, index in by_name.items() if index is None]
        if unknown:
            raise TransmiterError(
                foreign_classes(unknown, self.labels),
                'name each in --map FILE, a JSON object {"the data\'s label": "the run\'s class"}',
            )
        refuse_meeting(by_name)
        return {**by_map, **by_name}

    def known_only(self, images: ImageSet) -> ImageSet:
        """The images whose label is not left out.

        Raises:
            TransmiterError: if a label is unknown, or no image remains.
        """
        index = self.classes_of(file.label for file in images.files)
        kept = tuple(file for file in images.files if index[file.label] is not None)
        if not kept:
            raise TransmiterError("The map leaves out all images.")
        return replace(images, files=kept)

    def indices(self, files: Sequence[ImageRecord]) -> list[int]:
        """The class of each image, of which none is left out."""
        found = self.classes_of(file.label for file in files)
        return [index for file in files if (index := found[file.label]) is not None]

    def among(self, images: ImageSet) -> list[int] | None:
        """The classes that may be answered: those that the data's labels are mapped to; None, for all, without a map.

        They are fixed by the data's own class list, not by which of them have images in this split.
        """
        if not self.targets:
            return None
        names = [*images.label_names, *(file.label for file in images.files)]
        found = self.classes_of(label for label in names if label is not None)
        return sorted({index for index in found.values() if index is not None})


def read_map(path: Path | None, classes: Sequence[str], labels: Sequence[str]) -> ClassMap:
    """A map file: a JSON object from the data's labels to the run's classes, null for one to leave out.

    Args:
        path: the file; None where the data have the run's own labels.
        classes: the run's class names.
        labels: what fit's data call them.

    Raises:
        UsageError: if there is no such file.
        TransmiterError: if it is no such object, or names a class that the run does not have.
    """
    if path is None:
        return ClassMap(classes, labels, {})
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(name, str | None) for name in content.values()):
        raise TransmiterError(f'{path} is no class map: it must be {{"the data\'s label": "the run\'s class"}}.')
    find = class_finder(classes, labels)
    unknown = [name for name in content.values() if name is not None and find(name) is None]
    if unknown:
        raise TransmiterError(f"{path} maps to {unknown[0]!r}, which is none of the run's {len(classes)} classes.")
    targets = {str(label): find(name) for label, name in content.items()}
    return ClassMap(classes, labels, targets)


def base_classes(path: Path | None, task: Task) -> list[int]:
    """The base classes: those of a file (one a line, or a JSON list), or CoOp's if there is none.

    Raises:
        UsageError: if there is no such file.
        TransmiterError: if it names a class that the run does not have, or one twice, by name or label.
    """
    if path is None:
        return coop_base(len(task.classes))
    if path.suffix.lower() == ".json":
        names = read_json(path)
    else:
        names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not isinstance(names, list):
        raise TransmiterError(f"{path} is no list of classes.")
    find = class_finder(task.classes, task.labels)
    unknown = [name for name in names if find(name) is None]
    if unknown:
        raise TransmiterError(f"{path} has {unknown[0]!r}, which is none of the run's {len(task.classes)} classes.")
    numbers = [number for name in names if (number := find(name)) is not None]
    twice = [name for name, number in zip(names, numbers, strict=True) if numbers.count(number) > 1]
    if twice:
        raise TransmiterError(f"{path} has the class {twice[-1]!r} twice.", "list each base class once")
    return sorted(numbers)


def class_finder(classes: Sequence[str], labels: Sequence[str]) -> Callable[[str | None], int | None]:
    """What finds a class by its name or by its label."""
    return finder({**numbered(labels), **numbered(classes)})


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        UsageError: if there is no such file.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {str(path)!r}.", f"ls {path.absolute().parent}")
    return read_utf8(path)


def read_json(path: Path) -> object:
    """A file's JSON.

    Raises:
        UsageError: if there is no such file.
        TransmiterError: if it is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise TransmiterError(f"{path} is no valid JSON: {error}.") from error
