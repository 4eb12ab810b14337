"""The choice of a few labelled images per class."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from transmiter_cli.errors import TransmiterError


def choose_shots(labels: Sequence[int], shots: int | None, seed: int) -> list[int]:
    """Positions of `shots` images of each class, chosen at random; all images where `shots` is None.

    A class with fewer images gives all it has.

    Raises:
        TransmiterError: if there are no labelled images.
    """
    if not labels:
        raise TransmiterError("There are no labelled images to refine with.", "--data FOLDER, with class folders")
    if shots is None:
        return list(range(len(labels)))
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.tensor(list(labels))
    chosen: list[int] = []
    for label in tensor.unique().tolist():
        rows = (tensor == label).nonzero()[:, 0]
        chosen += rows[torch.randperm(len(rows), generator=generator)[:shots]].tolist()
    return sorted(chosen)
