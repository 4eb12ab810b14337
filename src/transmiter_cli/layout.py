"""The files of a run directory: which artefact has which name, and the row of the evaluation that it gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

from transmiter_cli.description import DamagedArtefactError
from transmiter_cli.files import digest
from transmiter_cli.method.settings import Method

ARTEFACTS = {
    "transferred": "strong.safetensors",
    "ridge": "strong-ridge.safetensors",
    "discriminant": "strong-discriminant.safetensors",
    "self_trained": "self-trained.safetensors",
    "refined": "refined.safetensors",
}
"""File names of what transfer, self-train and refine make, by the row of the evaluation they give."""
LATER: dict[str, Literal["self-train", "refine"]] = {"self_trained": "self-train", "refined": "refine"}
"""The command behind each row that starts from what was transferred."""
ROWS: dict[Method, str] = {"adapter": "transferred", "ridge": "ridge", "discriminant": "discriminant"}
"""The row of the evaluation that each method of transfer gives."""
DEFAULT_METHODS: tuple[Method, ...] = ("adapter", "discriminant")
"""What transfer makes where no method is named: the paper's, and the best there is."""
PREDICTED_BY = ("refined", "self_trained", "discriminant", "transferred", "ridge")
"""The rows of which predict takes the first there is: what saw labels, what saw more images, the default method's."""
REFINED_FROM = ("self_trained", "discriminant", "transferred", "ridge")
"""The rows of which refine takes the first there is."""
SELF_TRAINED_FROM = ("discriminant", "ridge")
"""The rows of which self-train takes the first there is."""
BASELINES = ("weak", "weak_finetuned", "strong", "eft", "product", "strong_finetuned")
"""The rows of models that took over no skill, or do not run alone."""
EFT_ROW = "eft_"
"""How the rows begin of EFT with other strengths than 1."""
DIRECT = "direct"
"""The row of what was fitted, on the strong model without a transfer."""
SWEPT = "strong-reg="
"""How the files begin of what transfer makes with other --reg values than the first."""
SWEPT_ROW = "reg="
"""How the rows of the evaluation begin that these give."""
STRONG_MODELS = "strong"
"""The folder of those strong models that have a folder of their own."""
Use = Literal["fit", "transfer", "self-train", "refine"]
SEEN: dict[Use, str] = {use: f"seen-by-{use}.txt" for use in get_args(Use)}
"""The files that tell which images a command used, one fingerprint a line; for transfer, those beyond fit's."""
FITTED = "weak.safetensors"
PROBE_FILE = "probe.safetensors"


def artefacts_in(home: Path) -> dict[str, Path]:
    """The artefacts in a strong model's folder, as `Run.artefacts` gives them."""
    files = {row: home / name for row, name in ARTEFACTS.items()}
    swept: dict[float, Path] = {}
    for path in home.glob(f"{SWEPT}*.safetensors"):
        with suppress(ValueError):  # a copy that somebody made by hand
            swept[float(path.stem.removeprefix(SWEPT))] = path
    others = {swept_row(reg): swept[reg] for reg in sorted(swept)}
    rows = {"transferred": files.pop("transferred"), **others, **files}
    return {row: path for row, path in rows.items() if path.is_file()}


def file_name(row: str) -> str:
    """The artefact's file by the row of the evaluation it gives."""
    return ARTEFACTS.get(row) or f"{SWEPT}{row.removeprefix(SWEPT_ROW)}.safetensors"


def swept_row(reg: float) -> str:
    """The row of a --reg value that is not the first of several; as short as tells it from every other value."""
    short = f"{reg:g}"
    return f"{SWEPT_ROW}{short if float(short) == reg else repr(reg)}"


def method_of(row: str) -> str:
    """The --method of a row that transfer makes; rows of further strengths are of the adapter."""
    return next((method for method, own in ROWS.items() if own == row), "adapter")


def is_made_as(row: str | None, description: Mapping[str, Any]) -> bool:
    """Whether an artefact's description is of what fit makes, or of what gives a row of ours.

    Args:
        row: None for what fit makes.
        description: with its stage, method and details.
    """
    if row is None or row in LATER:
        return description["stage"] == (row or "weak")
    if description["stage"] != "strong" or description["method"] != method_of(row):
        return False
    reg = description["details"].get("transfer", {}).get("reg")
    return not row.startswith(SWEPT_ROW) or reg == float(row.removeprefix(SWEPT_ROW))


def require_made_as(row: str | None, path: Path, description: Mapping[str, Any]) -> None:
    """Raise DamagedArtefactError if an artefact lies in the place of that of another command, method or strength."""
    if not is_made_as(row, description):
        said = f"of stage {description['stage']!r}, method {description['method']!r}"
        raise DamagedArtefactError(f"{path} is not what its name says, but another artefact, {said}.")


def command_of(row: str) -> Use:
    """The command that makes the artefact of a row of ours."""
    return LATER.get(row, "transfer")


def is_ours(row: str) -> bool:
    """Whether a row is a strong model that took over a skill and runs alone: those among which the best is marked."""
    return row not in BASELINES and not row.startswith(EFT_ROW)


def homes_in(run: Path) -> list[Path]:
    """The run's own folder, and those of strong models in it, as `folder_name` calls them."""
    named = sorted((run / STRONG_MODELS).glob(f"*-{'[0-9a-f]' * 8}"))
    return [run, *(folder for folder in named if folder.is_dir())]


def folder_name(strong: str) -> str:
    """A folder for a strong model: its name as far as a file system takes it, and a digest to tell names apart."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', strong).strip('-')[-60:]}-{digest(strong)[:8]}"
