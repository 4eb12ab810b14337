"""WebDataset shards: tar files in which the files of one image share a name, 000.jpg and 000.cls."""

from __future__ import annotations

import io
import os
import shlex
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from transmiter_cli.embedding.sources.folder import IMAGE_SUFFIXES, is_image, split_folders
from transmiter_cli.embedding.sources.images import ImageSet, image_set
from transmiter_cli.embedding.sources.text import read_utf8
from transmiter_cli.errors import TransmiterError, UsageError, listing
from transmiter_cli.files import file_identity, file_state

SUFFIX = ".tar"
LABEL_EXTENSION = "cls"
CLASS_NAMES_FILE = "classnames.txt"
"""Names of classes that the shards know by number only, one per line, beside the shards or one folder up."""


@dataclass(frozen=True)
class Member:
    """One file in a shard: its name, and where its bytes lie in the tar file."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class ShardImage:
    """An image in a shard, read by its place alone.

    Attributes:
        shard: the tar file.
        identity: the tar file's `file_identity` when it was indexed.
    """

    shard: Path
    identity: str
    member: Member
    id: str
    label: str | None = None

    @property
    def name(self) -> str:
        """See ImageRecord."""
        return f"{self.shard}/{self.member.name}"

    def place(self) -> str:
        """See ImageRecord.

        Raises:
            OSError: if the tar file is gone, or another one than was indexed.
        """
        if not self.identity.endswith(f"|{file_state(self.shard.stat())}"):
            raise OSError("its shard changed since it was listed")
        return f"{self.identity}|{self.member.offset}"

    def open(self) -> io.BytesIO:
        """See ImageRecord."""
        with self.shard.open("rb") as file:
            return io.BytesIO(read_member(file, self.member))


def accepts(path: Path) -> bool:
    """Whether a --data value is a shard, shards in braces, or a folder that holds shards and no loose images."""
    if not path.is_dir():
        return path.suffix == SUFFIX
    places = list(split_folders(path).values()) or [path]
    if not any(name.endswith(SUFFIX) for place in places for name in os.listdir(place)):  # noqa: PTH208
        return False
    return not any(entry.is_dir() or is_image(entry) for place in places for entry in os.scandir(place))


class ShardReader:
    """Images in shards, in the order of the shards and of the files in them.

    Args:
        path: a shard, several in braces ("shards-{000..012}.tar"), or a folder of shards, perhaps with
            train/val/test in it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def splits(self) -> tuple[str, ...]:
        """See Reader."""
        return tuple(split_folders(self.path)) if self.path.is_dir() else ()

    def shards(self, split: str | None) -> list[Path]:
        """The tar files of one split.

        Raises:
            UsageError: if one does not exist.
        """
        if self.path.is_dir():
            folder = self.path if split is None else split_folders(self.path)[split]
            return sorted(entry for entry in folder.iterdir() if entry.suffix == SUFFIX)
        paths = [Path(text) for text in expand_braces(str(self.path))]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            fix = (
                "name their folder, or the shards as NAME-{000..009}.tar"
                if "*" in str(self.path)
                else listing(missing[0])
            )
            raise UsageError(f"{len(missing)} of {len(paths)} shards are missing, {missing[0]} the first.", fix)
        return paths

    def read(self, split: str | None) -> ImageSet:
        """See Reader."""
        paths = self.shards(split)
        top = Path(os.path.commonpath([path.parent for path in paths]))
        # An id says which split it is of: the same shard in another split has other images.
        prefix = "" if split is None else f"{top.name}/"
        shards = [Shard(path, prefix + path.relative_to(top).as_posix()) for path in paths]
        names = number_names(shards, [paths[0].parent, paths[0].parent.parent])
        images = [image for shard in shards for image in shard.images(names)]
        if not images:
            raise TransmiterError(
                f"{self.path} holds no images: no file in its {len(paths)} shards is named like 000.jpg.",
                f"tar -tf {shlex.quote(str(paths[0]))}",
            )
        return image_set(images, tuple(names.values()), split, str(self.path))


@dataclass(frozen=True)
class Shard:
    """One tar file, its members listed once.

    Attributes:
        id: what it is called among the shards.
    """

    path: Path
    id: str

    @cached_property
    def identity(self) -> str:
        """The tar file's `file_identity`."""
        return file_identity(str(self.path))

    @cached_property
    def samples(self) -> list[dict[str, Member]]:
        """Members by extension, for each image that the shard holds.

        Raises:
            TransmiterError: if a name occurs twice, or the shard is damaged.
        """
        found: dict[str, dict[str, Member]] = {}
        for member in members(self.path):
            key, extension = split_name(member.name)
            if key is None:
                continue
            sample = found.setdefault(key, {})
            if extension in sample:
                raise TransmiterError(
                    f"The shard {self.path} holds {member.name!r} twice.", f"tar -tf {shlex.quote(str(self.path))}"
                )
            sample[extension] = member
        return list(found.values())

    @cached_property
    def labels(self) -> list[str | None]:
        """The content of each sample's .cls file; None where it has none.

        Raises:
            TransmiterError: if one is not UTF-8.
        """
        labels: list[str | None] = []
        with self.path.open("rb") as file:
            for member in (sample.get(LABEL_EXTENSION) for sample in self.samples):
                labels.append(self.label(file, member) if member else None)
        return labels

    def label(self, shard: BinaryIO, member: Member) -> str | None:
        """The content of a .cls file in the open shard; None if it is empty.

        Raises:
            TransmiterError: if it is not UTF-8.
        """
        try:
            return read_member(shard, member).decode().strip() or None
        except UnicodeDecodeError as error:
            raise TransmiterError(
                f"The label {member.name} in the shard {self.path} is not UTF-8: {error}.", "write it in UTF-8"
            ) from error

    def images(self, names: Mapping[str, str]) -> Iterator[ShardImage]:
        """The images, in the order of the shard; labels are numbers of `names` where there are any."""
        for sample, label in zip(self.samples, self.labels, strict=True):
            picture = next((member for extension, member in sample.items() if f".{extension}" in IMAGE_SUFFIXES), None)
            if picture is not None:
                if names and label is not None:
                    label = names[str(int(label))]
                yield ShardImage(self.path, self.identity, picture, f"{self.id}/{picture.name}", label)


def read_member(shard: BinaryIO, member: Member) -> bytes:
    """The bytes of one file in an open shard; nothing else of the shard is read."""
    shard.seek(member.offset)
    return shard.read(member.size)


def members(path: Path) -> Iterator[Member]:
    """The files in a tar file; only its headers are read.

    Raises:
        TransmiterError: if it is truncated, compressed, or no tar file.
    """
    size = path.stat().st_size
    count = 0
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                if info.offset_data + info.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                if info.isreg():
                    count += 1
                    yield Member(info.name, info.offset_data, info.size)
            # tarfile takes a header that is cut off or overwritten for the end; the true end is a block of zeros.
            if read_member(file, Member("", archive.offset, tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("the end of the archive is missing")
    except (tarfile.TarError, EOFError) as error:
        if count:
            raise TransmiterError(
                f"The shard {path} is truncated or damaged after {count} whole files: {error}.", "fetch it anew"
            ) from error
        raise TransmiterError(
            f"{path} is no tar file that can be read at any place: {error}.", "unpack .tar.gz to .tar, or fetch it anew"
        ) from error


def number_names(shards: Sequence[Shard], folders: Sequence[Path]) -> dict[str, str]:
    """Names for labels that are numbers from 0, from classnames.txt; empty where there is no such file or number.

    Raises:
        TransmiterError: if the file has too few names.
    """
    file = next((folder / CLASS_NAMES_FILE for folder in folders if (folder / CLASS_NAMES_FILE).is_file()), None)
    labels = {label for shard in shards for label in shard.labels if label is not None} if file else set[str]()
    if file is None or not labels or not all(label.isdecimal() for label in labels):
        return {}
    names = [line.strip() for line in read_utf8(file).splitlines() if line.strip()]
    highest = max(map(int, labels))
    if highest >= len(names):
        raise TransmiterError(
            f"{file} has {len(names)} names, but an image has the label {highest}, counted from 0.",
            "give each label a line there, or remove the file: labels are names then",
        )
    return {str(number): name for number, name in enumerate(names)}


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern in braces stands for, as the webdataset library reads it.

    Raises:
        UsageError: if the library is not installed.
    """
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise missing_library() from error
    return list(expand_urls(pattern))


def split_name(name: str) -> tuple[str | None, str]:
    """A member's sample and extension, as the webdataset library splits its name; no sample for a hidden file.

    Raises:
        UsageError: if the library is not installed.
    """
    try:
        from webdataset.tariterators import base_plus_ext
    except ImportError as error:
        raise missing_library() from error
    sample, extension = base_plus_ext(name)
    return sample, (extension or "").lower()


def missing_library() -> UsageError:
    """The error for an installation without webdataset."""
    return UsageError("Reading shards needs the webdataset library.", "pip install 'transmiter[webdataset]'")
