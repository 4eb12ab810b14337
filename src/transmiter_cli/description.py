"""What an artefact says of itself; reading it needs neither torch nor the artefact's tensors."""

from __future__ import annotations

import errno
import json
import os
import shlex
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from transmiter_cli.errors import TransmiterError

METADATA_KEY = "transmiter"
FORMAT = 2
FIELDS = {"stage": str, "method": str, "logit_scale": float, "classes": int, "vocabulary": list, "details": dict}
"""What each description has, and of which kind."""


class DamagedArtefactError(TransmiterError):
    """A file that holds no artefact, or none that can be understood, whatever is tried."""


def read_description(path: str | Path) -> dict[str, Any]:
    """An artefact's metadata, and the shape of each of its tensors under "tensors"; no tensor is read.

    Raises:
        DamagedArtefactError: if the file is damaged, or no artefact.
        TransmiterError: if it is missing, cannot be read now, or is of a later version's format.
    """
    path = Path(path)
    if path.is_dir():
        raise TransmiterError(f"{path} is a folder; an artefact is a file in it.", f"ls {shlex.quote(str(path))}")
    if not path.is_file():
        raise TransmiterError(f"There is no artefact {path}.", "transmiter fit --help")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = (file.metadata() or {}).get(METADATA_KEY)
            shapes = {name: list(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
    except OSError as error:
        # Safetensors says that there is no file where it may not be read.
        why = error.strerror or error if os.access(path, os.R_OK) else os.strerror(errno.EACCES)
        raise TransmiterError(f"{path} cannot be read: {why}.", f"ls -ld {shlex.quote(str(path))}") from error
    except SafetensorError as error:
        raise DamagedArtefactError(
            f"{path} cannot be read as an artefact: {error}.",
            "make it again, if a command of a run made it; the run.json there has it",
        ) from error
    try:
        description: dict[str, Any] = {**json.loads(metadata or "{}"), "tensors": shapes}
    except (ValueError, TypeError) as error:
        raise DamagedArtefactError(
            f"{path} is damaged: its description is no JSON ({error}).", "make it again"
        ) from error
    if "stage" not in description:
        raise DamagedArtefactError(
            f"{path} is a safetensors file, but no artefact of transmiter: weights, a classifier head, or the "
            "embeddings of embed --out, perhaps.",
            "pass a run directory, or an artefact in it",
        )
    if not isinstance(description.get("format"), int):
        raise DamagedArtefactError(f"{path} is damaged: it does not say which format it has.", "make it again")
    if description["format"] < FORMAT:
        raise DamagedArtefactError(f"{path} was written by an earlier version.", "make it again")
    if description["format"] > FORMAT:
        raise TransmiterError(f"{path} was written by a later version.", "pip install --upgrade transmiter")
    if not all(isinstance(description.get(name), kind) for name, kind in FIELDS.items()):
        raise DamagedArtefactError(f"{path} is damaged: its description does not say how it was made.", "make it again")
    return description
