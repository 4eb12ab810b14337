"""Processes that must not use the network, and hub caches made by hand in the layout of the hub's client."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

GUARD = """
import os, socket

def refuse(*arguments, **named):
    with open(os.environ["NETWORK_LOG"], "a") as log:
        log.write(repr(arguments) + "\\n")
    raise OSError("the network was used")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class GuardedProcess:
    """The environment of processes in which each use of the network fails and is written down."""

    def __init__(self, folder: Path, hub_cache: Path, offline: bool = True) -> None:
        self.log = folder / "network.log"
        guard = folder / "guard"
        guard.mkdir(parents=True)
        (guard / "sitecustomize.py").write_text(GUARD)
        paths = [str(guard), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TRANSMITER_", "HF_"))},
            "PYTHONPATH": os.pathsep.join(paths),
            "NETWORK_LOG": str(self.log),
            "HF_HUB_CACHE": str(hub_cache),
            "TRANSMITER_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "80",
        }
        if offline:
            self.environment["HF_HUB_OFFLINE"] = "1"

    def used_network(self) -> str:
        """What the processes tried to reach; empty for nothing."""
        return self.log.read_text() if self.log.exists() else ""


def add_to_hub(hub_cache: Path, repository: str, *files: Path) -> Path:
    """Put files into a hub cache as its client would after a download; the snapshot's folder."""
    folder = hub_cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "blobs").mkdir(exist_ok=True)
    snapshot.mkdir(parents=True, exist_ok=True)
    for file in files:
        blob = folder / "blobs" / f"{file.name}-blob"
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(blob)
    return snapshot
