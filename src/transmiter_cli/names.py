"""Names of classes: how they compare, and how messages list them."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

SHOWN = 5
"""How many of many names a message shows."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def some(names: Sequence[object]) -> str:
    """All of a few names, else the first, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more


def normal(name: str) -> str:
    """A name without regard to case, to how accents are encoded, and to spaces, underscores and hyphens within.

    At its ends, spaces and underscores are left out, and hyphens are signs: "-1" is not "1", nor "B-" "B".
    """
    composed = unicodedata.normalize("NFC", name).strip().strip("_")
    return re.sub(r"(?<=.)[\s_\-]+(?=.)", " ", composed).casefold()


def finder(places: Mapping[str, int]) -> Callable[[str | None], int | None]:
    """What finds the place of a name: of the same one, else the only place of those spelled alike; None for neither."""
    alike: dict[str, set[int]] = {}
    for name, place in places.items():
        alike.setdefault(normal(name), set()).add(place)

    def find(name: str | None) -> int | None:
        if name is None:
            return None
        if name in places:
            return places[name]
        found = alike.get(normal(name), set())
        return next(iter(found)) if len(found) == 1 else None

    return find


def resembling(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A sentence with the known names that are spelled much like a wrong one, to follow a message; empty for none."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=cutoff)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def numbered(names: Sequence[str]) -> dict[str, int]:
    """The place of each name among them."""
    return {name: place for place, name in enumerate(names)}


def labels_and_names(labels: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """The place of each label, and of each name that is spelled like none of the labels.

    Args:
        labels: places by label.
        names: what the same classes are called.
    """
    taken = {normal(label) for label in labels}
    return {**{name: place for name, place in numbered(names).items() if normal(name) not in taken}, **labels}


def spelled(first: str, second: str) -> str:
    """Two names of one thing, for a message; escaped where their encoding alone tells them apart."""
    same = unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)
    return " and ".join(map(ascii if same else repr, (first, second)))


def ambiguous(names: Iterable[str], places: Mapping[str, int]) -> tuple[str, str] | None:
    """Two names that differ in spelling alone and would have one place, since they do not both stand in `places`."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(normal(name), name)
        if other != name and not (other in places and name in places):
            return other, name
    return None


def visible(text: str, kept: str = "\n\t") -> str:
    """The text with codes in place of control characters: names in files and of files must not steer the terminal.

    Args:
        text: what is printed.
        kept: those that stay.
    """

    def code(found: re.Match[str]) -> str:
        return found[0] if found[0] in kept else found[0].encode("unicode_escape").decode()

    return CONTROL.sub(code, text)
