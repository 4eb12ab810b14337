"""The demo's table over three seeds, the fine-tuned weak model made anew for each.

    python benchmarks/demo_table.py [--seeds 3] [--json FILE]

For each seed: fine-tune demo-weak on the labelled train digits (tools/finetune_demo_weak.py), then fit,
transfer, refine with 16 labels per class, and measure on the test digits, with the installed command.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = Path(sys.executable).parent / "transmiter"


def measure(seed: int, folder: Path) -> dict[str, float]:
    """Top-1 in percent by row, for one seed."""
    teacher, run = folder / "finetuned.safetensors", folder / "run"
    tool = [sys.executable, ROOT / "tools/finetune_demo_weak.py", "--seed", seed, "--out", teacher]
    fit = ["fit", "--weak", "demo-weak", "--finetuned", teacher, "--data", "demo-digits"]
    commands = [
        tool,
        [COMMAND, *fit, "--aux-words", "characters", "--seed", seed, "--run", run],
        [COMMAND, "transfer", "--strong", "demo-strong", "--method", "adapter", "--method", "ridge", "--run", run],
        [COMMAND, "refine", "--shots", 16, "--seed", seed, "--run", run],
        [COMMAND, "eval", "--json", "--run", run],
    ]
    for command in commands:
        done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return {name: 100 * row["top1"] for name, row in json.loads(done.stdout)["rows"].items()}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(seed, Path(folder)))
    print("| model | top-1 %, mean ± std |\n|---|---|")
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"| {name} | {statistics.mean(values):.1f} ± {statistics.pstdev(values):.1f} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
