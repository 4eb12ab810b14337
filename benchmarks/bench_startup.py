"""Start-up: --help, inspect, and eval on cached embeddings of the demo; what they import (python -X importtime)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Row

COMMAND = Path(sys.executable).parent / "transmiter"
LIMITS = {"--help": 0.4, "inspect": 1.0, "eval": 3.0}
CODE = "import sys; from transmiter_cli.cli.main import main; sys.argv = ['transmiter', *sys.argv[1:]]; main()"


def run(arguments: list[str], environment: dict[str, str], importtime: bool = False) -> tuple[float, str]:
    """Seconds of one run of the command, and what it said on stderr."""
    line = [sys.executable, "-X", "importtime", "-c", CODE] if importtime else [str(COMMAND)]
    began = time.perf_counter()
    done = subprocess.run([*line, *arguments], check=True, capture_output=True, text=True, env=environment)
    return time.perf_counter() - began, done.stderr


def slowest_imports(stderr: str) -> str:
    """The packages that took longest to import, with what they import themselves."""
    found = re.findall(r"import time:\s+\d+ \|\s+(\d+) \|\s+([\w.]+)", stderr)
    packages = sorted(((int(us) / 1e6, name) for us, name in found if "." not in name), reverse=True)
    return ", ".join(f"{name} {seconds:.2f}" for seconds, name in packages[:4])


def bench(quick: bool) -> list[Row]:
    """The best of several runs; the limit is the project's own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TRANSMITER_CACHE": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
        run(["demo", "-q", "--run", f"{folder}/run"], environment)
        lines = {
            "--help": ["--help"],
            "inspect": ["inspect", f"{folder}/run/strong.safetensors"],
            "eval": ["eval", "-q", "--run", f"{folder}/run"],
        }
        rows: list[Row] = []
        for name, line in lines.items():
            best = min(run(line, environment)[0] for _ in range(2 if quick else 5))
            imports = slowest_imports(run(line, environment, importtime=True)[1])
            rows.append({"command": name, "s": best, "limit s": LIMITS[name], "slowest imports, s": imports})
    return rows
