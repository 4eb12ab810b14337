"""The split files of CoOp (Zhou et al., IJCV 2022), split_zhou_*.json, which most few-shot papers use since."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transmiter_cli.embedding.sources import manifest
from transmiter_cli.embedding.sources.images import ImageFile, ImageSet, require_root
from transmiter_cli.embedding.sources.splits import canonical
from transmiter_cli.embedding.sources.text import parse_json, read_utf8
from transmiter_cli.errors import TransmiterError

FORM = '{"train": [["IMAGE PATH", LABEL NUMBER, "CLASS NAME"], ...], "val": [...], "test": [...]}'
A_ROW = '["cats/1.jpg", 0, "cat"], a number without quotes'


@dataclass(frozen=True)
class Item:
    """One image of a split file: its path below the root, and the number and the name of its class."""

    path: str
    number: int
    class_name: str


def accepts(path: Path) -> bool:
    """Whether a --data value is named like a split file."""
    return path.suffix.lower() == ".json"


class CoopReader:
    """Images that a split file lists, in its order; the classes in the order of their numbers.

    Args:
        path: the split file.
        root: the folder that its paths start from; the split file's own if None.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self.path, self.name = path, str(path)
        self.root = root or path.parent

    @cached_property
    def items(self) -> dict[str, list[Item]]:
        """The images by split; a split without any is left out.

        Raises:
            TransmiterError: if the file is no split file.
        """
        content = parse_json(read_utf8(self.path), self.path)
        if not isinstance(content, dict) or not all(isinstance(rows, list) for rows in content.values()):
            raise TransmiterError(f"{self.path} is no CoOp split file: it must hold {FORM}.", manifest.FORM)
        items: dict[str, list[Item]] = {}
        for split, rows in content.items():
            if rows and canonical(split) in items:
                raise TransmiterError(
                    f"{self.path} has two lists of the {canonical(split)} split, {split!r} one of them.",
                    "put their images into one list",
                )
            if rows:
                items[canonical(split)] = [as_item(row, self.path) for row in rows]
        if not items:
            raise TransmiterError(f"{self.path} lists no images.", f"a file of the form {FORM}")
        return items

    def splits(self) -> tuple[str, ...]:
        """See Reader."""
        return tuple(self.items)

    def class_names(self) -> tuple[str, ...]:
        """The classes of all splits, in the order of their numbers.

        Raises:
            TransmiterError: if a number has two names, or two numbers have the same.
        """
        names: dict[int, str] = {}
        for item in (item for items in self.items.values() for item in items):
            if names.setdefault(item.number, item.class_name) != item.class_name:
                both = f"{names[item.number]!r} and {item.class_name!r}"
                raise TransmiterError(
                    f"{self.path} has two names for the class {item.number}: {both}.", "give it one name in the file"
                )
        ordered = tuple(names[number] for number in sorted(names))
        name, count = Counter(ordered).most_common(1)[0]
        if count > 1:
            raise TransmiterError(
                f"{self.path} has two classes with the name {name!r}.", "give one of them another name in the file"
            )
        return ordered

    def read(self, split: str | None) -> ImageSet:
        """See Reader."""
        items = self.items[split or ""]
        files = tuple(ImageFile(self.root, item.path, item.class_name) for item in items)
        require_root(files, self.path, self.root)
        return ImageSet(files, self.class_names(), split)


def as_item(row: object, source: Path) -> Item:
    """One image of a split file.

    Raises:
        TransmiterError: if it is not of the form [path, number, name].
    """
    match row:
        case [str(path), int(number), str(name)]:
            return Item(path.lstrip("/"), number, name)
        case _:
            raise TransmiterError(
                f"{source} is no CoOp split file: it has {row!r} in place of [path, number, name].", A_ROW
            )
