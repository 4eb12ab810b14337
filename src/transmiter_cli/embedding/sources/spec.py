"""What a command asks of its data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSpec:
    """Images, as --data, --root, --split and --limit name them.

    Attributes:
        data: a folder, a manifest, a CoOp split file, shards, Parquet files, "torchvision:NAME", or bundled data's
            name.
        root: the folder that the paths of a manifest or a split file start from, or where torchvision keeps its
            data sets; None for the usual one.
        split: the part asked for; None leaves the choice to the command.
        limit: the most images to take; None for all.
    """

    data: str
    root: str | None = None
    split: str | None = None
    limit: int | None = None
