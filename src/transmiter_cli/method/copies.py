"""Images that repeat others, by their embeddings: each counts once where images are evidence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from transmiter_cli.method.embeddings import BLOCK, Embeddings

DIRECTIONS, RESOLUTION = 6, 1e-3
"""Images are compared whose places in so many random directions lie in the same cells of this width."""
COPY_DISTANCE = 3e-3
"""Unit-norm embeddings nearer than this are the same image: half precision moves them by 0.002 at most."""


def distinct(model: Embeddings) -> Int[Tensor, " distinct"]:
    """The rows of images that repeat no earlier one up to rounding and length.

    There are three grids, a third of a cell apart: what differs by rounding hardly crosses a border of each. An image
    that goes is nearer than COPY_DISTANCE to one that stays on its grid, three times that to one that stays in the end.
    """
    device = model.images.device
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(model.images.shape[1], DIRECTIONS + 1, generator=generator, dtype=torch.float32)
    directions = F.normalize(drawn, dim=0).to(device)
    names = torch.randint(2**62, (DIRECTIONS,), generator=generator).to(device)
    places = torch.cat([model.unit_images(rows) @ directions for rows in model.blocks()])
    kept = torch.arange(len(places), device=device)
    for shift in (0, 1 / 3, 2 / 3):
        # A hash of the cell: products of such numbers wrap around, which tells cells apart as well as any sum.
        cells = ((places[kept, :DIRECTIONS] / RESOLUTION + shift).floor().long() * names).sum(-1)
        kept = first_of_copies(model, kept, cells, places[kept, DIRECTIONS])
    return kept


def first_of_copies(
    model: Embeddings,
    rows: Int[Tensor, " rows"],
    cells: Int[Tensor, " rows"],
    places: Float[Tensor, " rows"],
) -> Int[Tensor, " kept"]:
    """The rows that are no copies: of each run of copies within a cell, ordered by place, the first row of the images.

    A copy is nearer than COPY_DISTANCE to the row before it in the run, and to the one that stays.
    """
    order = places.argsort(stable=True)
    order = order[cells[order].argsort(stable=True)]
    rows, cells = rows[order], cells[order]
    again = torch.zeros_like(cells, dtype=torch.bool)
    again[1:] = cells[1:] == cells[:-1]
    again = alike(model, rows, rows.roll(1), again)
    runs = (~again).cumsum(0) - 1
    first = torch.full_like(rows, len(model)).scatter_reduce(0, runs, rows, "amin")[runs]
    return rows[~alike(model, rows, first, first != rows)].sort().values


def alike(
    model: Embeddings, rows: Int[Tensor, " rows"], others: Int[Tensor, " rows"], asked: Bool[Tensor, " rows"]
) -> Bool[Tensor, " rows"]:
    """Which of the rows asked for are nearer than COPY_DISTANCE to their others."""
    found = torch.zeros_like(asked)
    for block in asked.nonzero()[:, 0].split(BLOCK):
        gap = model.unit_images(rows[block]) - model.unit_images(others[block])
        found[block] = torch.linalg.vector_norm(gap, dim=-1) < COPY_DISTANCE
    return found
