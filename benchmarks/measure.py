"""Times, peak memory and the machine's own rates, for the benchmarks beside this file."""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
"""One line of a table, by column."""


def side_by_side(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each job. The jobs take turns, so that a busy machine is busy for all of them."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(measured) for name, measured in times.items()}


def in_new_process(job: Callable[..., Any], *arguments: Any) -> Any:
    """What a job returns that starts in a new process, which holds nothing of what was measured before."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(job, arguments)


@contextmanager
def peak() -> Iterator[list[float]]:
    """A list that holds, after the block, by how many MiB the block raised the process's memory at most."""
    found: list[float] = []
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = status("VmRSS")
    yield found
    found.append(status("VmHWM") - before)


def status(field: str) -> float:
    """MiB of a memory field of this process (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def random_rows(count: int, width: int, seed: int) -> torch.Tensor:
    """Random unit-norm rows with a common part, as CLIP's embeddings have."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(width, generator=generator) + torch.randn(count, width, generator=generator)
    return torch.nn.functional.normalize(rows, dim=-1)


def matmul_rate(dtype: torch.dtype, size: int = 1024) -> float:
    """Giga-operations per second of this machine's matrix product."""
    matrix = torch.randn(size, size).to(dtype)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9


PRODUCT = 8 * 2 * 1024**3
"""Operations of `product`."""


def product() -> None:
    """Eight float32 products: the machine's own rate, where it takes turns with what is compared with it."""
    matrix = torch.ones(1024, 1024)
    for _ in range(8):
        matrix @ matrix


def machine() -> Row:
    """What everything here was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "float32 GF/s": round(matmul_rate(torch.float32)),
        "float64 GF/s": round(matmul_rate(torch.float64)),
        "load": round(os.getloadavg()[0], 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
