"""Class names and auxiliary words."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from transmiter_cli.embedding.sources.text import read_list
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import expanded
from transmiter_cli.names import normal, resembling, spelled

WORD_LISTS = ("nouns", "imagenet", "characters")
"""Lists that come with the package: WordNet's commonest concrete nouns, ImageNet's classes, printed characters."""


def name_from_label(label: str) -> str:
    """A class name for prompts: "maine_coon" is "maine coon"."""
    return re.sub(r"[_\s]+", " ", label).strip()


def class_names(labels: Sequence[str], given: Path | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The name of each class and the label that the data have for it, in the order of the task.

    That is the order of the labels, or the lines of a --classes file whose names are the labels'. The file may have
    more: classes without images, whose label is their name.

    Args:
        labels: what the data call the classes: class folders, labels of a manifest; empty for unlabelled images.
        given: a --classes file: one name per line, a JSON list, or a JSON object from label to name.

    Raises:
        UsageError: if the file cannot be used, or there are neither labels nor a file.
        TransmiterError: if two classes have the same name.
    """
    if given is None:
        if not labels:
            raise UsageError(
                "The images have no labels and lie in no class folders, so the classes have no names.",
                "--classes names.txt",
            )
        names, ordered = tuple(name_from_label(label) for label in labels), tuple(labels)
    else:
        names, ordered = named_classes(labels, read_names(given), given)
    refuse_repeated(names, given)
    return names, ordered


def refuse_repeated(names: Sequence[str], given: Path | None = None) -> None:
    """Raise TransmiterError if two classes, of a file or of the data, have the same name in whatever spelling."""
    seen: dict[str, str] = {}
    for name in names:
        if normal(name) in seen:
            raise TransmiterError(
                f"Two classes of {given or 'the data'} have the same name: {spelled(seen[normal(name)], name)}.",
                "give each class a name of its own, once"
                if given
                else 'tell them apart in a JSON file of names, --classes FILE: {"folder or label": "name", ...}',
            )
        seen[normal(name)] = name


def named_classes(
    labels: Sequence[str], given: list[str] | dict[str, str], source: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Match the names of a --classes file with the data's labels; return names and labels in one order.

    Raises:
        UsageError: if a label has no name.
    """
    if isinstance(given, dict):
        absent = [label for label in labels if label not in given]
        if absent:
            raise UsageError(
                f"{source} has no name for the class {absent[0]!r} of the data.{resembling(absent[0], given)}",
                f'add "{absent[0]}": "NAME" to it',
            )
        own = set(labels)
        ordered = [label for label in given if label in own or not own]
        return tuple(given[label] for label in ordered), tuple(ordered) if labels else ()
    if not labels:
        return tuple(given), ()
    refuse_repeated(labels)
    by_name = {normal(label): label for label in labels}
    matched = [by_name.get(normal(name)) for name in given]
    named = set(matched)
    unnamed = [label for label in labels if label not in named]
    if not unnamed:
        return tuple(given), tuple(label or name for label, name in zip(matched, given, strict=True))
    numbers = tuple(map(str, range(len(given))))
    if "0" in labels and set(labels) <= set(numbers):  # shards number their classes: line 0 is class 0
        return tuple(given), numbers
    others = [name for name, label in zip(given, matched, strict=True) if label is None]
    raise UsageError(
        f"{source} has {len(given)} names, none of them for the class {unnamed[0]!r} of the data; which stands for it "
        f"is not guessed.{resembling(unnamed[0], others)}",
        f'a JSON file {{"{unnamed[0]}": "NAME", ...}} with all classes of the data',
    )


def read_names(path: Path) -> list[str] | dict[str, str]:
    """The content of a file of names: JSON, or one name per line.

    Raises:
        UsageError: if there is no such file, or it holds no names.
    """
    names = read_list(path)
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    if isinstance(names, dict) and names and all(isinstance(name, str) for name in names.values()):
        return {str(label): str(name) for label, name in names.items()}
    raise UsageError(
        f"{path} holds no names: a list of strings or an object from label to name is needed.",
        "write one name a line to a text file",
    )


def auxiliary_words(source: str) -> list[str]:
    """The words of a list that comes with the package, or of a file with one per line.

    Raises:
        UsageError: if there is neither.
    """
    if source in WORD_LISTS:
        file = resources.files("transmiter_cli") / "task" / "words" / f"{source}.txt"
        return file.read_text(encoding="utf-8").splitlines()
    path = expanded(source)
    if not path.is_file():
        raise UsageError(
            f"There is no word list {source!r}: neither a file nor one of {', '.join(WORD_LISTS)}.",
            f"--aux-words {WORD_LISTS[0]}",
        )
    words = read_names(path)
    return list(words.values()) if isinstance(words, dict) else words


def build_vocabulary(classes: Sequence[str], words: Sequence[str], size: int, seed: int) -> tuple[str, ...]:
    """The classes, then a seeded sample of the words that are none of the classes.

    Args:
        classes: C class names.
        words: auxiliary words.
        size: M, the size of the vocabulary; smaller if there are not enough words.
        seed: decides the sample.

    Raises:
        UsageError: if M is smaller than C.
    """
    if size < len(classes):
        raise UsageError(
            f"A vocabulary of {size} cannot hold {len(classes)} classes.", f"--vocabulary-size {len(classes) + 1000}"
        )
    taken = {form for name in classes for form in forms(name)}
    distinct: dict[str, str] = {}
    for word in words:
        distinct.setdefault(normal(word), word)
    candidates = [word for word in distinct.values() if not forms(word) & taken]
    count = min(size - len(classes), len(candidates))
    return (*classes, *random.Random(seed).sample(candidates, count))


def forms(name: str) -> set[str]:
    """A name and what it could be the plural of, normalised: equal things share a form."""
    word = normal(name)
    found = {word}
    if word.endswith("ies"):
        found.add(word[:-3] + "y")
    if word.endswith("ves"):
        found |= {word[:-3] + "f", word[:-3] + "fe"}
    if word.endswith("men"):
        found.add(word[:-3] + "man")
    if word.endswith("es"):
        found.add(word[:-2])
    if word.endswith("s") and not word.endswith("ss"):
        found.add(word[:-1])
    return found
