"""torchvision:NAME, the classification data sets that torchvision can fetch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from transmiter_cli.embedding.encoders.hub import is_offline
from transmiter_cli.embedding.sources.images import ImageFile, ImageSet
from transmiter_cli.embedding.sources.torchvision_names import DIGITS, TRAFFIC_SIGNS, scene, words
from transmiter_cli.embedding.storage.cache import default_cache
from transmiter_cli.errors import TransmiterError, UsageError, first_line
from transmiter_cli.files import digest, file_identity

PREFIX = "torchvision:"
TRAIN_VAL_TEST = {name: {"split": name} for name in ("train", "val", "test")}
TRAIN_TEST = {name: {"split": name} for name in ("train", "test")}
TRAIN_FLAG = {"train": {"train": True}, "test": {"train": False}}


@dataclass(frozen=True)
class Entry:
    """How one data set is opened.

    Attributes:
        splits: the arguments that choose a split, by split; empty for a data set without splits.
        labels: the attribute that holds the class indices.
        paths: the attribute that holds the image files; None where the images are rows of an array.
        storage: the files that hold such an array, below the root; {split} stands for the split.
        classes: the class names, or the attribute that holds them.
        spelled: from torchvision's spelling of a class name to the usual one.
    """

    splits: Mapping[str, Mapping[str, Any]]
    labels: str = "_labels"
    paths: str | None = "_image_files"
    storage: str = ""
    classes: str | tuple[str, ...] = "classes"
    spelled: Callable[[str], str] = str


ENTRIES = {
    "OxfordIIITPet": Entry({"train": {"split": "trainval"}, "test": {"split": "test"}}, paths="_images"),
    "Flowers102": Entry(TRAIN_VAL_TEST),
    "DTD": Entry(TRAIN_VAL_TEST),
    "Food101": Entry(TRAIN_TEST),
    "FGVCAircraft": Entry({**TRAIN_VAL_TEST, "trainval": {"split": "trainval"}}),
    "EuroSAT": Entry({}, paths="samples", spelled=words),
    "SUN397": Entry({}, spelled=scene),
    "Caltech101": Entry({}, labels="y", paths="index", classes="categories"),
    "CIFAR10": Entry(TRAIN_FLAG, "targets", None, "cifar-10-batches-py/*batch*"),
    "CIFAR100": Entry(TRAIN_FLAG, "targets", None, "cifar-100-python/*"),
    "GTSRB": Entry(TRAIN_TEST, labels="", paths="_samples", classes=TRAFFIC_SIGNS),
    "SVHN": Entry({**TRAIN_TEST, "extra": {"split": "extra"}}, "labels", None, "{split}_32x32.mat", DIGITS),
    "STL10": Entry({**TRAIN_TEST, "unlabeled": {"split": "unlabeled"}}, "labels", None, "stl10_binary/*.bin"),
    "MNIST": Entry(TRAIN_FLAG, "targets", None, "MNIST/raw/*-ubyte", DIGITS),
}


@dataclass(frozen=True)
class ArrayImage:
    """An image that torchvision holds in memory.

    Attributes:
        dataset: torchvision's data set.
        index: the image's row.
        identity: digest of the files that the rows came from.
    """

    dataset: Any
    index: int
    identity: str
    id: str
    label: str | None = None

    @property
    def name(self) -> str:
        """See ImageRecord."""
        return f"{type(self.dataset).__name__} {self.id}"

    def place(self) -> str:
        """See ImageRecord."""
        return f"{self.identity}|{self.index}"

    def open(self) -> Image.Image:
        """See ImageRecord."""
        return self.dataset[self.index][0]


def accepts(data: str) -> bool:
    """Whether a --data value names a data set of torchvision."""
    return data.startswith(PREFIX)


def usual_root() -> Path:
    """The folder that holds the data sets where no other is named."""
    return default_cache() / "torchvision"


class TorchvisionReader:
    """A data set of torchvision, images sorted by path or in the order of their array.

    Args:
        data: "torchvision:NAME".
        root: the folder that holds or shall hold it; a folder in the cache if None.

    Raises:
        UsageError: if there is no such data set.
    """

    def __init__(self, data: str, root: Path | None = None) -> None:
        self.name = data
        self.dataset_name = data.removeprefix(PREFIX)
        if self.dataset_name not in ENTRIES:
            close = [name for name in ENTRIES if name.lower() == self.dataset_name.lower()]
            raise UsageError(
                f"There is no data set {self.dataset_name!r}; there are {', '.join(ENTRIES)}.",
                f"--data {PREFIX}{close[0] if close else 'NAME'}",
            )
        self.entry = ENTRIES[self.dataset_name]
        self.root = root or usual_root()

    def splits(self) -> tuple[str, ...]:
        """See Reader."""
        return tuple(self.entry.splits)

    def read(self, split: str | None) -> ImageSet:
        """See Reader; fetches the data set if it is not on this disk."""
        dataset = self.dataset(dict(self.entry.splits[split]) if split else {})
        names = class_names(dataset, self.entry)
        if self.entry.paths is None:
            return ImageSet(tuple(self.rows(dataset, names, split)), names, split)
        files = [
            ImageFile(self.root, path.relative_to(self.root).as_posix(), names[label])
            for path, label in image_files(dataset, self.entry)
        ]
        return ImageSet(tuple(sorted(files, key=lambda file: file.id)), names, split)

    def rows(self, dataset: Any, names: tuple[str, ...], split: str | None) -> list[ArrayImage]:
        """The images of an array; a negative class index means no label."""
        files = sorted(self.root.glob(self.entry.storage.format(split=split)))
        identity = digest(self.dataset_name, str(split), *map(file_identity, map(str, files)))
        labels = [int(label) for label in getattr(dataset, self.entry.labels)]
        return [
            ArrayImage(dataset, row, identity, f"{split}/{row:06d}", names[label] if label >= 0 else None)
            for row, label in enumerate(labels)
        ]

    def dataset(self, arguments: Mapping[str, Any]) -> Any:
        """Torchvision's data set, fetched if it is not here and the network may be used.

        Raises:
            TransmiterError: if it is not here and cannot be fetched.
        """
        try:
            return self.construct(arguments, download=False)
        except (RuntimeError, OSError, ValueError) as error:
            if is_offline():
                raise self.absent(error, "HF_HUB_OFFLINE forbids to fetch it") from error
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with contextlib.redirect_stdout(sys.stderr):
                return self.construct(arguments, download=True)
        except (RuntimeError, OSError, ValueError) as error:
            raise self.absent(error, "it could not be fetched") from error

    def construct(self, arguments: Mapping[str, Any], download: bool) -> Any:
        """Make torchvision's object.

        Raises:
            TransmiterError: if a library that it needs is not installed.
        """
        from torchvision import datasets

        try:
            return getattr(datasets, self.dataset_name)(str(self.root), download=download, **arguments)
        except ImportError as error:
            raise TransmiterError(
                f"{self.dataset_name} needs another library: {error}.", "pip install 'transmiter[datasets]'"
            ) from error

    def absent(self, error: Exception, reason: str) -> TransmiterError:
        """The error for a data set that is not on this disk, or not whole."""
        detail = first_line(error).split(". You can use")[0]
        return TransmiterError(
            f"{self.dataset_name} is not in {self.root} ({detail}), and {reason}.",
            "run once with a network and without HF_HUB_OFFLINE, or pass --root FOLDER that holds it",
        )


def class_names(dataset: Any, entry: Entry) -> tuple[str, ...]:
    """The names of a data set's classes, by index.

    Raises:
        TransmiterError: if this torchvision does not know them.
    """
    names = getattr(dataset, entry.classes, None) if isinstance(entry.classes, str) else entry.classes
    if not names:
        raise TransmiterError(
            f"This version of torchvision has no class names for {type(dataset).__name__}.",
            "pip install --upgrade torchvision",
        )
    return tuple(entry.spelled(name) for name in names)


def image_files(dataset: Any, entry: Entry) -> list[tuple[Path, int]]:
    """The image files of a data set and their class indices."""
    listed = list(getattr(dataset, entry.paths or ""))
    if entry.classes == "categories":  # Caltech101 knows the images of a category by number
        folder = Path(dataset.root) / "101_ObjectCategories"
        return [
            (folder / dataset.categories[label] / f"image_{number:04d}.jpg", int(label))
            for number, label in zip(listed, dataset.y, strict=True)
        ]
    if listed and isinstance(listed[0], tuple):
        return [(Path(path), int(label)) for path, label in listed]
    labels = getattr(dataset, entry.labels)
    return [(Path(path), int(label)) for path, label in zip(listed, labels, strict=True)]
