"""Where images come from: a folder of class folders, with or without train/val/test, or a flat folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from transmiter_cli.errors import TransmiterError, UsageError

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"])
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
BUNDLED = {"demo-digits": "digits"}
"""Data that come with the package, by name: folders of transmiter_cli/demo."""


@dataclass(frozen=True)
class ImageFile:
    """One image.

    Attributes:
        id: its path relative to the data folder, with forward slashes.
        folder: the class folder it lies in; None in a flat folder.
    """

    path: Path
    id: str
    folder: str | None = None


@dataclass(frozen=True)
class ImageSet:
    """Images of one split, in an order that does not depend on the file system.

    Attributes:
        files: sorted by id.
        folders: the class folders, sorted; empty for a flat folder.
        split: "train", "val", "test", or None where the data have no splits.
    """

    files: tuple[ImageFile, ...]
    folders: tuple[str, ...]
    split: str | None

    def labels(self, folders: Sequence[str]) -> list[int]:
        """The index of each image's class folder in `folders`.

        Raises:
            TransmiterError: if the images have no labels, or a class folder is not among `folders`.
        """
        if not self.folders:
            raise TransmiterError("These images have no labels: they do not lie in class folders.")
        index = {folder: i for i, folder in enumerate(folders)}
        unknown = [folder for folder in self.folders if folder not in index]
        if unknown:
            raise TransmiterError(
                f"The data have the class folder {unknown[0]!r}, which is none of the run's "
                f"{len(folders)} classes ({', '.join(folders[:5])}{', ...' if len(folders) > 5 else ''})."
            )
        return [index[file.folder or ""] for file in self.files]


def data_root(data: str) -> Path:
    """The folder that a --data value names.

    Raises:
        UsageError: if there is no such folder.
    """
    if data in BUNDLED:
        return Path(str(resources.files("transmiter_cli"))) / "demo" / BUNDLED[data]
    root = Path(data).expanduser()
    if not root.exists():
        raise UsageError(f"There is no folder {data!r}.", f"ls {root.absolute().parent}")
    if not root.is_dir():
        raise UsageError(f"{data!r} is a file; --data takes a folder of images or of class folders.")
    return root.absolute()


def lasting_name(data: str) -> str:
    """What a --data value means from any working directory."""
    return data if data in BUNDLED else str(data_root(data))


def open_images(data: str, split: str | None) -> ImageSet:
    """All images of one split.

    Args:
        data: a folder, or the name of bundled data.
        split: "train", "val" or "test"; data without splits are taken whole. "test" falls back to "val".

    Raises:
        UsageError: if there is no such folder.
        TransmiterError: if it lacks the split, holds no images, or has a class folder without images.
    """
    root = data_root(data)
    found = split_folders(root)
    chosen = split if split in found else "val" if split == "test" and "val" in found else None
    if found and chosen is None:
        has = ", ".join(folder.name for folder in found.values())
        raise TransmiterError(f"{data} has no {split!r} part, only {has}.")
    files, folders = scan(found[chosen] if chosen else root, data)
    return ImageSet(files, folders, chosen)


def split_folders(root: Path) -> Mapping[str, Path]:
    """The folders of `root` that are splits, by split; none unless there is a train or a test folder."""
    names = {entry.name.lower(): entry for entry in root.iterdir() if entry.is_dir()}
    found = {split: names[name] for split, spellings in SPLITS.items() for name in spellings if name in names}
    return found if {"train", "test"} & set(found) else {}


def scan(root: Path, data: str) -> tuple[tuple[ImageFile, ...], tuple[str, ...]]:
    """The images below `root` and its class folders; a folder without class folders is flat."""
    subfolders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    by_folder = {name: image_paths(root / name) for name in subfolders}
    if any(by_folder.values()):
        empty = [name for name, paths in by_folder.items() if not paths]
        if empty:
            raise TransmiterError(
                f"The class folder {empty[0]!r} in {root} holds no images.", f"rmdir '{root / empty[0]}'"
            )
        files = [ImageFile(p, p.relative_to(root).as_posix(), name) for name, paths in by_folder.items() for p in paths]
        return tuple(sorted(files, key=lambda file: file.id)), tuple(subfolders)
    paths = [path for path in sorted(root.iterdir()) if is_image(path)]
    if not paths:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise TransmiterError(f"{data} holds no images: nothing in {root} ends in {suffixes}.")
    return tuple(ImageFile(path, path.name) for path in paths), ()


def image_paths(folder: Path) -> list[Path]:
    """All image files below a folder."""
    return sorted(path for path in folder.rglob("*") if is_image(path))


def is_image(path: Path) -> bool:
    """Whether a path is a file that its name calls an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
