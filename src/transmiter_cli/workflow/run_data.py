"""The images that a command of a run looks at: those of its flags, or those that fit saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transmiter_cli.embedding.sources import DataSpec, ImageSet, open_images
from transmiter_cli.embedding.sources.opening import open_reader
from transmiter_cli.errors import UsageError
from transmiter_cli.names import some
from transmiter_cli.record import Task
from transmiter_cli.reporter import Reporter


@dataclass(frozen=True)
class DataFlags:
    """The data flags of a command that follows fit; what is None was not given."""

    data: str | None = None
    root: str | None = None
    split: str | None = None
    limit: int | None = None

    def spec(self, task: Task, limit: int | None = None) -> DataSpec:
        """The data they name; without --data, fit's own, at most `limit` images of them.

        Raises:
            UsageError: if these are no longer where they were.
        """
        if self.data is not None:
            return DataSpec(self.data, self.root, self.split, self.limit)
        if self.root is None:
            require_in_place(task)
        return DataSpec(task.data, self.root or task.root, self.split, self.limit or limit)


def open_told(spec: DataSpec, split: str | None, reporter: Reporter, labels: bool = True) -> ImageSet:
    """`open_images`, and a warning of the images that are left out, since they lie beside the folders of classes."""
    images = open_images(spec, split, labels)
    if images.beside:
        count = f"{len(images.beside):,} images" if len(images.beside) > 1 else "an image"
        names = some([file.id for file in images.beside])
        reporter.warn(f"Left out {count} in {spec.data}, beside its folders and in none of them: {names}.")
    return images


def require_in_place(task: Task) -> None:
    """Raise UsageError if the data that fit saw are no longer where they were."""
    try:
        open_reader(fit_data(task))
    except UsageError as error:
        if all(place is None or Path(place).exists() for place in (task.data, task.root)):
            raise
        raise UsageError(
            f"The data that fit saw are not where they were. {error}",
            "say where they lie now: --data, or --root where that alone has moved",
        ) from error


def fit_data(task: Task) -> DataSpec:
    """The images that fit saw."""
    return DataSpec(task.data, task.root, task.split, task.limit)
