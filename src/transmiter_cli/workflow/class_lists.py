"""Which classes an evaluation is about: labels of other data mapped to a run's classes, and base classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transmiter_cli.embedding.sources import ImageRecord, ImageSet
from transmiter_cli.embedding.sources.images import places_of
from transmiter_cli.embedding.sources.text import read_json, read_list
from transmiter_cli.errors import TransmiterError
from transmiter_cli.evaluation.protocols import coop_base
from transmiter_cli.names import finder, labels_and_names, numbered, resembling, spelled
from transmiter_cli.record import Task

LEFT_OUT = -1
"""In place of a class, where a map leaves out the images of a label."""


@dataclass(frozen=True)
class ClassMap:
    """From labels of the data to the run's classes.

    Attributes:
        labels: what fit's data call the run's classes.
        names: of the run's classes.
        targets: class index by label, for the labels that a map file names; LEFT_OUT for one to leave out.
    """

    labels: Sequence[str]
    names: Sequence[str]
    targets: Mapping[str, int]

    def classes_of(self, labels: Iterable[str | None]) -> dict[str | None, int]:
        """The class of each label: by the map, by what fit's data call it, or by its name; or LEFT_OUT.

        A label that is none of these is that of the only one that is spelled alike.

        Raises:
            TransmiterError: if a label is neither in the map nor a class of the run, or two that differ in spelling
                alone would be the same class.
        """
        fix = 'name each in --map FILE, a JSON object {"label": "class of the run", or null to leave it out}'
        places = labels_and_names({**numbered(self.labels), **self.targets}, self.names)
        return places_of(labels, places, self.labels, fix)

    def known_only(self, images: ImageSet) -> ImageSet:
        """The images whose label is not left out.

        Raises:
            TransmiterError: if a label is unknown, no image remains, or any answer would be right.
        """
        index = self.classes_of(file.label for file in images.files)
        kept = tuple(file for file in images.files if index[file.label] != LEFT_OUT)
        if not kept:
            raise TransmiterError("The map leaves out all images.", "map at least one label to a class, not to null")
        among = self.among(images)
        if among is not None and len(among) == 1:
            said = f"The map leaves one class to answer, {self.names[among[0]]}, so that any answer is right."
            raise TransmiterError(said, "map the data's labels to two classes or more")
        return replace(images, files=kept)

    def strangers(self, labels: Iterable[str]) -> list[str]:
        """What the map names and is none of the data's labels."""
        find = finder(numbered(list(labels)))
        return [label for label in self.targets if find(label) is None]

    def unmapped(self, labels: Iterable[str]) -> list[str]:
        """The labels that a map file does not name, if there is one: they are taken by their own names."""
        find = finder(self.targets)
        return [label for label in labels if find(label) is None] if self.targets else []

    def indices(self, files: Sequence[ImageRecord]) -> list[int]:
        """The class of each image, of which none is left out."""
        found = self.classes_of(file.label for file in files)
        return [found[file.label] for file in files]

    def among(self, images: ImageSet) -> list[int] | None:
        """The classes that may be answered: those that the data's labels are mapped to; None, for all, without a map.

        They are fixed by the data's own class list, not by which of them have images in this split.
        """
        if not self.targets:
            return None
        names = [*images.label_names, *(file.label for file in images.files)]
        found = self.classes_of(label for label in names if label is not None)
        return sorted(set(found.values()) - {LEFT_OUT})


def read_map(path: Path | None, classes: Sequence[str], labels: Sequence[str]) -> ClassMap:
    """A map file: a JSON object from the data's labels to the run's classes, null for one to leave out.

    Args:
        path: the file; None where the data have the run's own labels.
        classes: the run's class names.
        labels: what fit's data call them.

    Raises:
        UsageError: if there is no such file, or it is no JSON.
        TransmiterError: if it is no such object, or names a class that the run does not have.
    """
    if path is None:
        return ClassMap(labels, classes, {})
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(name, str | None) for name in content.values()):
        raise TransmiterError(
            f"{path} is no class map: it must be a JSON object of texts.",
            '{"the data\'s label": "the run\'s class", "a label to leave out": null}',
        )
    find = class_finder(classes, labels)
    found = {label: LEFT_OUT if name is None else find(name) for label, name in content.items()}
    unknown = [content[label] for label, place in found.items() if place is None]
    if unknown:
        said = f"{path} maps to {unknown[0]!r}, which is none of the run's {len(classes)} classes."
        raise TransmiterError(f"{said}{resembling(str(unknown[0]), classes)}")
    return ClassMap(labels, classes, {label: place for label, place in found.items() if place is not None})


def base_classes(path: Path | None, task: Task) -> list[int]:
    """The base classes: those of a file (one a line, or a JSON list), or CoOp's if there is none.

    Raises:
        UsageError: if there is no such file.
        TransmiterError: if it names a class that the run does not have, or one twice, by name or label.
    """
    if path is None:
        return coop_base(len(task.classes))
    names = read_list(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TransmiterError(f"{path} is no list of classes.", "one class a line, or a JSON list of names")
    find = class_finder(task.classes, task.labels)
    found: dict[int, str] = {}
    for name in names:
        place = find(name)
        if place is None:
            said = f"{path} has {name!r}, which is none of the run's {len(task.classes)} classes."
            raise TransmiterError(f"{said}{resembling(name, task.classes)}")
        if place in found:
            both = repr(name) if name == found[place] else spelled(found[place], name)
            raise TransmiterError(f"{path} has a class twice: {both}.", "list each class once")
        found[place] = name
    return sorted(found)


def class_finder(classes: Sequence[str], labels: Sequence[str]) -> Callable[[str | None], int | None]:
    """What finds a class by its name or by its label."""
    return finder({**numbered(labels), **numbered(classes)})
