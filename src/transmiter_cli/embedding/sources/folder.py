"""A folder of class folders, with or without train/val/test, or a flat folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

from transmiter_cli.embedding.sources.parts import SPLITS
from transmiter_cli.embedding.sources.record import ImageFile, ImageSet
from transmiter_cli.errors import TransmiterError

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"])
BUNDLED = {"demo-digits": "digits"}
"""Data that come with the package, by name: folders of transmiter_cli/demo."""


def accepts(data: str) -> bool:
    """Whether a --data value is a folder or the name of bundled data."""
    return data in BUNDLED or Path(data).expanduser().is_dir()


class FolderReader:
    """Images in folders.

    Args:
        data: a folder, or the name of bundled data.
    """

    def __init__(self, data: str) -> None:
        self.data = data
        bundled = Path(str(resources.files("transmiter_cli"))) / "demo"
        self.root = bundled / BUNDLED[data] if data in BUNDLED else Path(data).expanduser().absolute()

    @property
    def name(self) -> str:
        """See Reader."""
        return self.data if self.data in BUNDLED else str(self.root)

    def parts(self) -> tuple[str, ...]:
        """See Reader."""
        return tuple(split_folders(self.root))

    def read(self, part: str | None) -> ImageSet:
        """See Reader; raises TransmiterError, too, if a class folder is empty."""
        folder = self.root if part is None else split_folders(self.root)[part]
        files, label_names = scan(folder, self.data)
        # An id says which split it is of: the same name in another split is another image.
        prefix = "" if part is None else f"{folder.name}/"
        return ImageSet(tuple(replace(file, id=prefix + file.id) for file in files), label_names, part)


def split_folders(root: Path) -> Mapping[str, Path]:
    """The folders of `root` that are splits, by split.

    None unless there is a train or a test folder, and where other folders hold images: "train" is a class there.
    """
    names = {entry.name.lower(): entry for entry in sorted(root.iterdir()) if entry.is_dir()}
    found = {split: names[name] for split, spellings in SPLITS.items() for name in spellings if name in names}
    others = set(names.values()) - set(found.values())
    if not {"train", "test"} & set(found) or any(image_paths(other) for other in others):
        return {}
    return found


def scan(root: Path, data: str) -> tuple[tuple[ImageFile, ...], tuple[str, ...]]:
    """The images below `root` and its class folders; a folder without class folders is flat."""
    subfolders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    by_folder = {name: image_paths(root / name) for name in subfolders}
    if any(by_folder.values()):
        empty = [name for name, paths in by_folder.items() if not paths]
        if empty:
            raise TransmiterError(
                f"The class folder {empty[0]!r} in {root} holds no images.", "put images into it, or take it away"
            )
        files = [ImageFile(p, p.relative_to(root).as_posix(), name) for name, paths in by_folder.items() for p in paths]
        return tuple(sorted(files, key=lambda file: file.id)), tuple(subfolders)
    paths = [path for path in sorted(root.iterdir()) if is_image(path)]
    if not paths:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise TransmiterError(f"{data} holds no images: nothing in {root} ends in {suffixes}.")
    return tuple(ImageFile(path, path.name) for path in paths), ()


def image_paths(folder: Path) -> list[Path]:
    """All image files below a folder, hidden folders left out."""
    if folder.name.startswith("."):
        return []
    found = (path for path in folder.rglob("*") if is_image(path))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def is_image(path: Path) -> bool:
    """Whether a path is a file that its name calls an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
