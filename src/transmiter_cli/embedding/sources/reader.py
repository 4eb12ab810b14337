"""What every kind of data can do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from transmiter_cli.embedding.sources.images import ImageSet


@runtime_checkable
class Reader(Protocol):
    """One kind of data, opened."""

    @property
    def name(self) -> str:
        """What --data must be to mean these data from any working directory."""
        ...

    def splits(self) -> tuple[str, ...]:
        """The splits that hold images; none for data without splits."""
        ...

    def read(self, split: str | None) -> ImageSet:
        """All images of one split, or of data without splits.

        Raises:
            TransmiterError: if there are none, or what lists them cannot be used.
        """
        ...
