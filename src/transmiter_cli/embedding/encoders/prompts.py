"""Prompts: the sentences that a class name is encoded in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_TEMPLATE = "a photo of a {}."


@dataclass(frozen=True)
class Templates:
    """How names become prompts.

    Attributes:
        shared: templates with {} for the name.
        own: prompts of single names, in place of the shared templates; {} in them stands for the name, too.
    """

    shared: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def prompts(self, name: str) -> list[str]:
        """The prompts of one name."""
        return [template.replace("{}", name) for template in self.own.get(name, self.shared)]
