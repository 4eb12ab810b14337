"""From a --data value to images: which kind of data it is, which part of it, and how many."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from transmiter_cli.embedding.sources import coop, folder, manifest, parquet, shards, torchvision
from transmiter_cli.embedding.sources.images import ImageFile, ImageRecord, ImageSet, real_places
from transmiter_cli.embedding.sources.reader import Reader
from transmiter_cli.embedding.sources.spec import DataSpec
from transmiter_cli.embedding.sources.splits import choose_split
from transmiter_cli.errors import TransmiterError, UsageError, listing
from transmiter_cli.files import absolute, is_address

ARCHIVES = {".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
KINDS = (
    "a folder of images, a .csv or .jsonl manifest, a CoOp split .json, WebDataset .tar shards, .parquet files, "
    "torchvision:NAME"
)


def open_images(data: DataSpec | str, split: str | None, labels: bool = True) -> ImageSet:
    """The images that a command asks for.

    Args:
        data: which images; a string is a --data value without further flags.
        split: the part to read where `data` asks for none; data without parts are taken whole. "test" falls
            back to "val".
        labels: whether labels are needed; where they are not, and no split is asked for, images beside the folders of
            classes and splits are taken, too.

    Raises:
        UsageError: if there are no such data, or not the part that was asked for.
        TransmiterError: if they lack the split, hold no images, or what lists the images cannot be used.
    """
    spec = DataSpec(data) if isinstance(data, str) else data
    reader = open_reader(spec)
    chosen = choose_split(reader.splits(), spec.split, split, spec.data)
    images = reader.read(chosen)
    if not labels and spec.split is None:
        images = images.with_those_beside()
    require_distinct(images.files, spec.data)
    return replace(images, files=limited(images.files, spec.limit))


def lasting(spec: DataSpec) -> DataSpec:
    """The same data, named so that every working directory means the same."""
    root = None if spec.root is None else str(absolute(spec.root))
    return replace(spec, data=open_reader(spec).name, root=root)


def same_data(first: DataSpec, second: DataSpec) -> bool:
    """Whether two lasting --data values are the same over the same --root, by whatever links they are named.

    Parts and limits may differ. Nothing needs to be there: one of them may be what a run remembers.
    """
    return places(first) == places(second)


def places(spec: DataSpec) -> tuple[str, str]:
    """What lasting data are called, and where their images lie, both free of links."""
    data = Path(spec.data)
    root = spec.root
    if root is None and torchvision.accepts(spec.data):
        root = str(torchvision.usual_root())
    elif root is None:
        root = str(data.parent if manifest.accepts(data) or coop.accepts(data) else data)
    name = os.path.realpath(data) if data.is_absolute() else spec.data  # bundled data and torchvision's have names
    return name, os.path.realpath(root)


def open_reader(spec: DataSpec) -> Reader:
    """The reader for a kind of data.

    Raises:
        UsageError: if there are no such data, they are not on this disk, or they take no --root.
    """
    data = spec.data
    if not data:
        raise UsageError("--data is empty.", "--data FOLDER")
    if is_address(data):
        raise UsageError(
            f"{data!r} is an address; --data takes what is on this disk: {KINDS}.",
            "download it first, and name its path",
        )
    root = None if spec.root is None else existing_root(spec.root)
    if torchvision.accepts(data):
        return torchvision.TorchvisionReader(data, root)
    path = absolute(data)
    if manifest.accepts(path):
        return manifest.ManifestReader(existing_file(path), root)
    if coop.accepts(path):
        return coop.CoopReader(existing_file(path), root)
    if root is not None:
        raise UsageError(f"{data} takes no --root: its images are found without.", "leave --root out")
    if shards.accepts(path):
        return shards.ShardReader(path)
    if parquet.accepts(path):
        return parquet.ParquetReader(path if path.is_dir() else existing_file(path))
    if folder.accepts(data):
        return folder.FolderReader(data)
    if path.exists():
        raise UsageError(
            f"{data!r} is a file; --data takes {KINDS}.",
            "unpack it" if path.suffix.lower() in ARCHIVES else manifest.FORM,
        )
    raise UsageError(f"There is no folder {data!r}.", listing(path))


def existing_file(path: Path) -> Path:
    """A --data file.

    Raises:
        UsageError: if it does not exist.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {str(path)!r}.", listing(path))
    return path


def existing_root(root: str) -> Path:
    """A --root folder.

    Raises:
        UsageError: if it does not exist.
    """
    path = absolute(root)
    if not path.is_dir():
        raise UsageError(f"There is no folder {root!r} for --root.", listing(path))
    return path


def require_distinct(files: Sequence[ImageRecord], data: str) -> None:
    """Raise TransmiterError if the data hold the same image twice, however its path is spelled."""
    ids = [file.id for file in files]
    places = real_places(files[0].root, ids) if files and isinstance(files[0], ImageFile) else ids
    if len(set(places)) < len(files):
        (place, _), *_ = Counter(places).most_common(1)
        first, second, *_ = (one for one, its in zip(ids, places, strict=True) if its == place)
        also = "" if first == second else f", also as {second!r}"
        raise TransmiterError(f"{data} lists the image {first!r} twice{also}.", "list every image once")


def limited(files: tuple[ImageRecord, ...], limit: int | None) -> tuple[ImageRecord, ...]:
    """At most `limit` of the images, at even distances over the whole list.

    Where the list is sorted by class, every class keeps its share; no label is looked at, so images without
    labels are chosen in the same way, and every command chooses the same ones.
    """
    if limit is None or limit >= len(files):
        return files
    return tuple(files[len(files) * i // limit] for i in range(limit))
