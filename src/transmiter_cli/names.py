"""Names of classes: how they compare, and how messages list them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

SHOWN = 5
"""How many of many names a message shows."""


def some(names: Sequence[object]) -> str:
    """The first of maybe many names."""
    return ", ".join(map(str, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")


def normal(name: str) -> str:
    """A name without regard to case, and to spaces, underscores and hyphens within; "-1" and "B-" keep theirs."""
    return re.sub(r"(?<=.)[\s_\-]+(?=.)", " ", name.strip(" _")).casefold()


def index_of(names: Sequence[str]) -> Callable[[str | None], int | None]:
    """What finds the place of a name: of the same one, else of the only one that is spelled alike; None for neither."""
    exact: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    spellings = Counter(map(normal, names))
    alike = {normal(name): i for i, name in enumerate(names) if spellings[normal(name)] == 1}

    def place(name: str | None) -> int | None:
        return exact.get(name) if name is None or name in exact else alike.get(normal(name))

    return place


def meeting(places: Mapping[str | None, int | None]) -> tuple[str, str] | None:
    """Two names that have the same place, if there are such."""
    first: dict[int, str] = {}
    for name, place in places.items():
        if name is not None and place is not None and first.setdefault(place, name) != name:
            return first[place], name
    return None
