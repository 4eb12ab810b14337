"""A run with nothing left to encode, and the memory of embed and predict, as the number of images grows.

Small generated images in ten class folders, the bundled models, an empty cache. "Second fit" is the time from the
start of the process until training starts, when all embeddings are in the cache; memory is the peak resident size of
the whole process, as the operating system counts it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.measure import Row, in_new_process
from PIL import Image

COMMAND = str(Path(sys.executable).parent / "transmiter")
CLASSES = [f"{number}" for number in range(10)]
SECOND_FIT = """
import sys, time
from contextlib import contextmanager
from transmiter_cli.cli.console import ConsoleReporter
from transmiter_cli.cli.main import main

@contextmanager
def progress(reporter, label):
    if label == "Fitting the adapter":
        print(time.time())
        sys.exit()
    yield lambda done, total: None

ConsoleReporter.progress = progress
main()
"""


def write_images(folder: Path, count: int) -> None:
    """Images of 32 x 32 pixels, no two the same, in class folders."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    chance = np.random.default_rng(0)
    for number in range(count):
        pixels = chance.integers(0, 256, (8, 8), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(folder / CLASSES[number % len(CLASSES)] / f"photograph-{number:07d}.png")


def call(*command: object) -> float:
    """Run a command that must succeed; its peak resident size in MB.

    At least that of this process, whose memory is the command's until it starts: measure in a small one.
    """
    words = [str(word) for word in command]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(words)} failed: {child.stderr.read().decode() if child.stderr else ''}")
    return usage.ru_maxrss / 1024


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Peak memory of each command, and the second fit's start."""
    data, run = folder / f"{count}", folder / f"run-{count}"
    write_images(data, count)
    os.environ["TRANSMITER_CACHE"] = str(folder / f"cache-{count}")
    peak = {
        "embed": call(COMMAND, "embed", "--model", "demo-weak", "--data", data),
        "embed --out": call(
            COMMAND, "embed", "--model", "demo-weak", "--data", data, "--out", folder / "rows.safetensors"
        ),
    }
    task = ["--aux-words", "characters", "--run", str(run)]
    fit = ["fit", "--weak", "demo-weak", "--finetuned", "demo-finetuned", "--data", str(data), "--epochs", "1", *task]
    call(COMMAND, *fit)
    call(COMMAND, "transfer", "--strong", "demo-weak", "--method", "ridge", "--run", run)
    peak["predict"] = call(COMMAND, "predict", "--data", data, "--run", run)
    start = time.time()
    shown = subprocess.run([sys.executable, "-c", SECOND_FIT, *fit], check=True, capture_output=True, text=True)
    return {"images": count, "peak_mb": peak, "second_fit_starts_after_s": float(shown.stdout) - start}


def bench(quick: bool) -> list[Row]:
    """Memory and seconds for few and for ten times as many images."""
    few = 1_000 if quick else 10_000
    with tempfile.TemporaryDirectory() as folder:
        small, large = (in_new_process(measure, Path(folder), count) for count in (few, 10 * few))
    pairs = {f"peak memory of {name}, MB": (peak, large["peak_mb"][name]) for name, peak in small["peak_mb"].items()}
    pairs["second fit: training starts after, s"] = tuple(one["second_fit_starts_after_s"] for one in (small, large))
    return [
        {"what": name, f"{few:,} images": before, f"{10 * few:,} images": after, "ratio": after / before}
        for name, (before, after) in pairs.items()
    ]
