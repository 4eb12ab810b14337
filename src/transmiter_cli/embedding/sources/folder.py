"""A folder of class folders, with or without train/val/test, or a flat folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from transmiter_cli import demo
from transmiter_cli.embedding.sources.images import ImageFile, ImageSet
from transmiter_cli.embedding.sources.splits import SPLITS, canonical, is_usual
from transmiter_cli.errors import TransmiterError
from transmiter_cli.files import LOCK, RECORD, absolute, expanded

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".jp2", ".avif", ".heic", ".heif"),
)
"""Files with these are images, also where Pillow cannot decode them: what is left out is then said."""
TABLES = (".parquet", ".pq")
"""Files with these may hold images in their rows."""
BUNDLED_DATA = {"demo-digits": "digits"}
"""Data that come with the package, by name: folders of transmiter_cli/demo."""


def accepts(data: str) -> bool:
    """Whether a --data value is a folder or the name of bundled data."""
    return data in BUNDLED_DATA or expanded(data).is_dir()


class FolderReader:
    """Images in folders.

    Args:
        data: a folder, or the name of bundled data.
    """

    def __init__(self, data: str) -> None:
        self.data = data
        self.root = demo.FOLDER / BUNDLED_DATA[data] if data in BUNDLED_DATA else absolute(data)
        self.name = data if data in BUNDLED_DATA else str(self.root)

    def splits(self) -> tuple[str, ...]:
        """See Reader."""
        return tuple(split_folders(self.root))

    def read(self, split: str | None) -> ImageSet:
        """See Reader; raises TransmiterError, too, if a class folder is empty or repeats images."""
        folder = self.root if split is None else split_folders(self.root)[split]
        # An id says which split it is of: the same name in another split is another image.
        prefix = "" if split is None else f"{folder.name}/"
        files, label_names = scan(folder, self.data)
        loose = [prefix + name for name in loose_images(folder)] if label_names else []
        loose += loose_images(self.root) if split is not None else []
        return ImageSet(
            tuple(ImageFile(self.root, prefix + name, label) for name, label in files),
            label_names,
            split,
            tuple(ImageFile(self.root, name, None) for name in loose),
        )


def split_folders(root: Path) -> Mapping[str, Path]:
    """The folders of `root` that are splits, by split.

    None unless there is a train or a test folder, and where other folders hold images: "train" is a class there.

    Raises:
        TransmiterError: if two folders are the same split.
    """
    names = folder_names(root)
    found = {split: [name for name in names if canonical(name) == split] for split in SPLITS}
    others = [name for name in names if canonical(name) not in SPLITS]
    if not (found["train"] or found["test"]) or any(next(image_names(root / name), None) for name in others):
        return {}
    for split, same in found.items():
        if len(same) > 1:
            raise TransmiterError(
                f"{root} has two folders of the {split} split, {same[0]!r} and {same[1]!r}.",
                "put their images together, or rename one",
            )
    return {split: root / name for split, same in found.items() for name in same}


def scan(folder: Path, data: str) -> tuple[list[tuple[str, str | None]], tuple[str, ...]]:
    """The images below a folder, each with its class, and its class folders; without class folders it is flat."""
    subfolders = [name for name in folder_names(folder) if not name.startswith(".")]
    refuse_repeated(folder, subfolders)
    by_class = {name: sorted(image_names(folder / name, f"{name}/")) for name in subfolders}
    if any(by_class.values()):
        empty = [name for name, images in by_class.items() if not images]
        refuse_closed(folder, empty)
        if empty:
            raise TransmiterError(
                f"The class folder {empty[0]!r} in {folder} holds no images.",
                "put images into it, or take it away; fit --classes FILE may name classes that have no folder",
            )
        in_order = sorted(subfolders, key=lambda name: f"{name}/")  # as their images are, all together
        return [(image, name) for name in in_order for image in by_class[name]], tuple(subfolders)
    flat = loose_images(folder)
    if not flat:
        refuse_closed(folder, subfolders)
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise TransmiterError(
            f"{data} holds no images: nothing in {folder} ends in {suffixes}.", instead_of_images(folder)
        )
    return [(name, None) for name in flat], ()


def instead_of_images(folder: Path) -> str:
    """What to pass in place of a folder without images: where tables with images lie below it, these."""
    holders = {path.parent for path in folder.rglob("*") if path.suffix.lower() in TABLES}
    below = sorted({one.parent if is_usual(one.name) and split_folders(one.parent) else one for one in holders})
    if below:
        more = f", or another of {len(below)} folders with Parquet files" if len(below) > 1 else ""
        return f"--data {shlex.quote(str(below[0]))}{more}"
    saved = next(iter(sorted(path.parent for path in folder.rglob("*.arrow"))), None)
    if saved is not None:
        return f'datasets.load_from_disk({str(saved)!r}).to_parquet("images.parquet"), then --data images.parquet'
    return "pass --data with a folder of images, or one that has a folder of images for each class"


def loose_images(folder: Path) -> list[str]:
    """The names of the images in a folder itself, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image(entry))


def refuse_closed(folder: Path, subfolders: Sequence[str]) -> None:
    """Raise TransmiterError if one of the folders may not be read, and only seems to hold no images."""
    for name in subfolders:
        if not os.access(folder / name, os.R_OK | os.X_OK):
            raise TransmiterError(
                f"The class folder {name!r} in {folder} may not be read: permission denied.",
                f"chmod u+rx {shlex.quote(str(folder / name))}",
            )


def refuse_repeated(folder: Path, subfolders: Sequence[str]) -> None:
    """Raise TransmiterError if a link among the class folders would give images a second class.

    That is a link to `folder` or a folder that holds it, or to what another class folder is.
    """
    links = {name: path.resolve() for name in subfolders if (path := folder / name).is_symlink()}
    if not links:
        return
    here = folder.resolve()
    known = {
        here: ".",
        **dict.fromkeys(here.parents, "."),
        **{here / name: name for name in set(subfolders) - set(links)},
    }
    for name, target in links.items():
        if target in known:
            what = "a folder that holds it" if known[target] == "." else f"what {known[target]!r} is, too"
            raise TransmiterError(
                f"The class folder {name!r} in {folder} is a link to {what}: its images would count twice.",
                "take the link away",
            )
        known[target] = name


def folder_names(folder: Path) -> list[str]:
    """The names of the folders in a folder, links to folders among them, sorted; run directories are none of the data.

    A folder's entries know what they are; to ask the file system for each of a million files takes seconds.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_folder(entry) and not is_run(Path(entry.path)))


def is_run(folder: Path) -> bool:
    """Whether a folder is the directory of a run, which `fit --data .` puts beside the classes, and of nothing else."""
    with suppress(PermissionError):  # where it may not be searched, nobody knows: reading the data will tell
        return any((folder / name).is_file() for name in (RECORD, LOCK)) and not any(image_names(folder))
    return False


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a folder's entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def image_names(folder: Path | str, prefix: str = "") -> Iterator[str]:
    """Paths of all image files below a folder, in any order, with a prefix in place of the folder's own.

    Hidden files and folders are left out, and what cannot be listed; links to folders are not followed.
    """
    with suppress(PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            if is_image(entry):
                yield prefix + entry.name
            elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from image_names(entry.path, f"{prefix}{entry.name}/")


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether a folder's entry is a file that its name calls an image."""
    if not entry.name.lower().endswith(IMAGE_SUFFIXES) or entry.name.startswith("."):
        return False
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False
