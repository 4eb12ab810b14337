"""The installed command in processes of its own, with a cache that all end-to-end tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "transmiter"
Transmiter = Callable[..., "subprocess.CompletedProcess[str]"]
Demo = tuple[Path, "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRANSMITER_")}
    cache = tmp_path_factory.mktemp("e2e-cache")
    return {**kept, "TRANSMITER_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


@pytest.fixture(scope="session")
def demo(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The folder in which `demo` ran, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    line = [str(COMMAND), "demo"]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=True)
    return folder, done


@pytest.fixture
def transmiter(environment: dict[str, str], tmp_path: Path) -> Transmiter:
    def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        line = [str(COMMAND), *map(str, arguments)]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr
        return done

    return run
