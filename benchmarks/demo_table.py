"""The demo's table over three seeds, with each auxiliary word list, the fine-tuned weak model made anew for each.

    python benchmarks/demo_table.py [--seeds 3] [--json FILE]

For each seed: fine-tune demo-weak on the labelled train digits (tools/finetune_demo_weak.py). Then, for each word
list, fit, transfer, refine with 16 labels per class, and measure on the test digits, with the installed command.
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
METHODS = [part for name in ("adapter", "ridge", "discriminant") for part in ("--method", name)]
LISTS = ("characters", "nouns", "imagenet")


def finetune(seed: int, teacher: Path) -> None:
    """Make the fine-tuned weak model of one seed."""
    call(sys.executable, ROOT / "tools/finetune_demo_weak.py", "--seed", seed, "--out", teacher)


def call(*command: object) -> str:
    """What a command that must succeed prints."""
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def measure(seed: int, teacher: Path, words: str, run: Path) -> dict[str, float]:
    """Top-1 in percent by row, for one seed and word list."""
    fit = ["fit", "--weak", "demo-weak", "--finetuned", teacher, "--data", "demo-digits", "--aux-words", words]
    commands = [
        [COMMAND, *fit, "--seed", seed, "--run", run],
        [COMMAND, "transfer", "--strong", "demo-strong", *METHODS, "--run", run],
        [COMMAND, "refine", "--shots", 16, "--seed", seed, "--run", run],
        [COMMAND, "eval", "--json", "--run", run],
    ]
    printed = [call(*command) for command in commands]
    return {name: 100 * row["top1"] for name, row in json.loads(printed[-1])["rows"].items()}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {words: [] for words in LISTS}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            teacher = Path(folder) / "finetuned.safetensors"
            finetune(seed, teacher)
            for words in LISTS:
                rows[words].append(measure(seed, teacher, words, Path(folder) / words))
    print(f"| top-1 %, mean ± std | {' | '.join(LISTS)} |\n|---|{'---|' * len(LISTS)}")
    for name in rows[LISTS[0]][0]:
        values = [[row[name] for row in rows[words]] for words in LISTS]
        cells = [f"{statistics.mean(one):.1f} ± {statistics.pstdev(one):.1f}" for one in values]
        print(f"| {name} | {' | '.join(cells)} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
