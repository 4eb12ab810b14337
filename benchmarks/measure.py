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
DEVICE = "TRANSMITER_BENCH_DEVICE"
"""The variable that names the device; processes that a benchmark starts find it, too."""


def device() -> torch.device:
    """Where the subjects that can be run on a GPU compute."""
    return torch.device(os.environ.get(DEVICE, "cpu"))


def wait() -> None:
    """Return when the device has done what it was told to."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def side_by_side(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each job. The jobs take turns, so that a busy machine is busy for all of them."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            wait()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(measured) for name, measured in times.items()}


def in_new_process(job: Callable[..., Any], *arguments: Any) -> Any:
    """What a job returns that starts in a new process, which holds nothing of what was measured before.

    In this one on a GPU, where torch counts the tensors themselves.
    """
    if device().type == "cuda":
        return job(*arguments)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(job, arguments)


@contextmanager
def peak() -> Iterator[list[float]]:
    """A list that holds, after the block, by how many MiB the block raised the memory at most.

    That of the process, or on a GPU that of tensors.
    """
    found: list[float] = []
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        yield found
        found.append((torch.cuda.max_memory_allocated() - held) / 2**20)
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = status("VmRSS")
    yield found
    found.append(status("VmHWM") - before)


def status(field: str) -> float:
    """MiB of a memory field of this process (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def random_rows(count: int, width: int, seed: int) -> torch.Tensor:
    """Random unit-norm rows with a common part, as CLIP's embeddings have, on the device."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(width, generator=generator) + torch.randn(count, width, generator=generator)
    return torch.nn.functional.normalize(rows, dim=-1).to(device())


def side() -> int:
    """Rows of square matrices whose product keeps the device busy."""
    return 8192 if device().type == "cuda" else 1024


def matmul_rate(dtype: torch.dtype) -> float:
    """Giga-operations per second of the device's matrix product."""
    matrix = torch.randn(side(), side(), device=device()).to(dtype)
    seconds: list[float] = []
    for _ in range(20):
        start = time.perf_counter()
        matrix @ matrix
        wait()
        seconds.append(time.perf_counter() - start)
    return 2 * side() ** 3 / min(seconds) / 1e9


PRODUCTS = 8


def product() -> None:
    """Some float32 products: the device's own rate, where it takes turns with what is compared with it."""
    matrix = torch.ones(side(), side(), device=device())
    for _ in range(PRODUCTS):
        matrix @ matrix


def product_operations() -> int:
    """Operations of `product`."""
    return PRODUCTS * 2 * side() ** 3


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
        "bfloat16 GF/s": round(matmul_rate(torch.bfloat16)),
        "load": round(os.getloadavg()[0], 1),
        "device": torch.cuda.get_device_name() if device().type == "cuda" else "cpu",
    }
