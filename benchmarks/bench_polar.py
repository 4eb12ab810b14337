"""The polar factor at D = 512: LAPACK's two ways and the products that CUDA uses, on one device, one and sixteen."""

from __future__ import annotations

import torch
from benchmarks.measure import Row, device, side_by_side

from transmiter_cli.method.paper.polar import polar_by_lapack, polar_by_products, polar_by_svd

SIZE = 512
WAYS = {"eigenvectors": polar_by_lapack, "singular vectors": polar_by_svd, "products": polar_by_products}


def matrices(digits: int, batch: int) -> torch.Tensor:
    """Random matrices of condition 10^digits."""
    generator = torch.Generator().manual_seed(0)
    values = torch.logspace(0, -digits, SIZE, dtype=torch.float64)
    sides = torch.linalg.qr(torch.randn(2, batch, SIZE, SIZE, generator=generator, dtype=torch.float64))[0]
    return (sides[0] * values @ sides[1].mT).to(device())


def bench(quick: bool) -> list[Row]:
    """Seconds for one and for a batch; orthogonality, and distance from the singular vectors' answer, by condition."""
    batch = 4 if quick else 16
    one, many = matrices(3, 1), matrices(3, batch)
    jobs = {(name, len(on)): (lambda way=way, on=on: way(on)) for name, way in WAYS.items() for on in (one, many)}
    seconds = side_by_side(jobs, 3)  # type: ignore[arg-type]
    rows: list[Row] = []
    identity = torch.eye(SIZE, dtype=torch.float64, device=device())
    for name, way in WAYS.items():
        row: Row = {"way": name, "1: s": seconds[name, 1], f"{batch}: s": seconds[name, batch]}  # type: ignore[index]
        for digits in (1, 6):
            matrix = matrices(digits, 1)
            factor = way(matrix)
            row[f"Q'Q - I, condition 1e{digits}"] = (factor.mT @ factor - identity).abs().max().item()
            row[f"Q - U V', condition 1e{digits}"] = (factor - polar_by_svd(matrix)).abs().max().item()
        rows.append(row)
    return rows
