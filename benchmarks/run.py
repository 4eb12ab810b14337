"""All benchmarks: print Markdown tables, write JSON.

    python -m benchmarks.run [SUBJECT ...] [--quick] [--device cuda] [--json FILE]

Ratios are the claims; seconds are this machine's. Ways that are compared take turns, so that other work on the machine
slows all of them. OMP_NUM_THREADS decides how many threads matrix products use. --device is where fit, transfer, polar,
accuracy and encoding compute; the others are measured on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from importlib import import_module
from pathlib import Path

import torch
from benchmarks.measure import DEVICE, Row, machine

SUBJECTS = ("fit", "transfer", "polar", "stream", "vocabulary", "startup", "accuracy", "encoding", "scale")
ON_GPU = ("fit", "transfer", "polar", "accuracy", "encoding")


def cell(value: object) -> str:
    """A number to three digits, small and large ones included."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows: list[Row]) -> str:
    """A Markdown table with every column that a row has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join(lines + [f"| {' | '.join(cell(row.get(name)) for name in columns)} |" for row in rows])


def main() -> None:
    """Run the chosen subjects."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("subjects", nargs="*", default=SUBJECTS, help=", ".join(SUBJECTS))
    parser.add_argument("--quick", action="store_true", help="smaller sizes, to see that everything runs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"))
    options = parser.parse_args()
    os.environ[DEVICE] = options.device
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
    results: dict[str, object] = {"machine": machine()}
    print(f"## machine\n\n{table([results['machine']])}", flush=True)  # type: ignore[list-item]
    for subject in options.subjects:
        os.environ[DEVICE] = options.device if subject in ON_GPU else "cpu"
        module = import_module(f"benchmarks.bench_{subject}")
        began = time.perf_counter()
        rows = module.bench(options.quick)
        results[subject] = rows
        took = time.perf_counter() - began
        print(f"\n## {subject} ({took:.0f} s)\n\n{(module.__doc__ or '').splitlines()[0]}\n\n{table(rows)}", flush=True)
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
