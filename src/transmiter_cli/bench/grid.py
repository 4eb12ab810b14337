"""Run a bench: every cell once, kept in a folder, so that a stopped bench goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transmiter_cli import __version__, api
from transmiter_cli.artefact import Artefact
from transmiter_cli.bench.material import Material, open_source
from transmiter_cli.bench.spec import BenchSpec, MethodEntry, SceneKey
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.evaluation.rows import evaluate
from transmiter_cli.files import canonical_json, digest, write_atomically
from transmiter_cli.reporter import Reporter
from transmiter_cli.task.shots import choose_shots


@dataclass(frozen=True)
class Cell:
    """One measured combination.

    Attributes:
        rows: numbers by row; the method's own row has the method's name.
        seconds: how long it took, from tensors to numbers.
    """

    data: str
    teacher: str
    weak: str
    strong: str
    shots: int | None
    seed: int
    method: str
    rows: Mapping[str, Mapping[str, Any]]
    seconds: float


@dataclass(frozen=True)
class BenchResult:
    """All cells that could be measured, and why the others could not; `kept` were there before."""

    cells: Sequence[Cell]
    failures: Sequence[str]
    kept: int


class WarningsOnly(Reporter):
    """Another reporter, without its notes: a bench has one line per scene."""

    def __init__(self, inner: Reporter) -> None:
        self.warn = inner.warn
        self.progress = inner.progress


def run_bench(spec: BenchSpec, results: Path, workspace: Workspace) -> BenchResult:
    """Run a bench; a cell whose data are missing or bad is left out and named.

    Args:
        spec: the grid.
        results: the folder of finished cells.
        workspace: cache and device.
    """
    cells: list[Cell] = []
    failures: list[str] = []
    kept = 0
    scenes = list(spec.scenes())
    for number, key in enumerate(scenes, 1):
        try:
            found, before = run_scene(spec, key, results, workspace)
        except (TransmiterError, OSError) as error:
            failures.append(f"{key}: {error}")
            workspace.reporter.warn(failures[-1])
            continue
        cells += found
        kept += before
        told = ", ".join(f"{cell.method} {100 * cell.rows[cell.method]['top1']:.1f}" for cell in found)
        workspace.reporter.note(f"{number}/{len(scenes)} {key}: {told}{' (kept)' if before == len(found) else ''}")
    return BenchResult(cells, failures, kept)


def run_scene(spec: BenchSpec, key: SceneKey, results: Path, workspace: Workspace) -> tuple[list[Cell], int]:
    """All methods of a scene, and how many of them were kept from before.

    Raises:
        TransmiterError: if the data cannot be used, or an option does not exist.
    """
    quiet = replace(workspace, reporter=WarningsOnly(workspace.reporter))
    source = open_source(spec, key, quiet)
    material: Material | None = None
    fits: dict[str, Artefact] = {}
    cells: list[Cell] = []
    kept = 0
    for method in spec.method:
        about = {"scene": asdict(key), "method": asdict(method), "inputs": source.identity, "version": __version__}
        about |= {name: getattr(spec, name) for name in ("protocol", "aux_words", "vocabulary_size")}
        path = results / f"{digest(canonical_json(about))[:32]}.json"
        cell = read_cell(path)
        if cell is None:
            material = material or source.load()
            cell = measure_cell(key, method, material, fits)
            write_atomically(path, (json.dumps({"about": about, "cell": asdict(cell)}, indent=1) + "\n").encode())
        else:
            kept += 1
        cells.append(cell)
    return cells, kept


def read_cell(path: Path) -> Cell | None:
    """A finished cell; None if there is none, or it is damaged."""
    try:
        return Cell(**json.loads(path.read_text(encoding="utf-8"))["cell"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def measure_cell(key: SceneKey, method: MethodEntry, material: Material, fits: dict[str, Artefact]) -> Cell:
    """Fit, transfer, refine if asked, and evaluate; `fits` keeps fitted adapters by their settings."""
    started = time.perf_counter()
    train, test = material.train, material.test
    settings = canonical_json(dict(method.fit))
    if settings not in fits:
        own: dict[str, Any] = {"seed": key.seed, **method.fit}
        fits[settings] = checked(lambda: api.fit(train.weak, train.finetuned, material.vocabulary, **own), method)
    options = dict(method.options)
    if "paper_lambda" in options:
        options["reg"] = options.pop("paper_lambda") / len(train.weak)
    call: Callable[..., Artefact] = api.transfer
    moved = checked(
        lambda: call(
            fits[settings], train.weak, train.strong, method.transfer, finetuned_logits=train.finetuned, **options
        ),
        method,
    )
    if method.refine is not None:
        chosen = choose_shots(train.labels.tolist(), key.shots, key.seed)
        shown = (train.strong.images[chosen].float(), train.labels[chosen])
        extra: dict[str, Any] = {"seed": key.seed, **method.refine}
        moved = checked(lambda: api.refine(moved, *shown, **extra), method)
    rows = evaluate(
        test.labels,
        weak=test.weak,
        finetuned_logits=test.finetuned,
        strong=test.strong,
        fitted=fits[settings],
        transferred={method.name: moved},
        base=material.base,
        seed=key.seed,
    )
    numbers = {name: asdict(row) for name, row in rows.items()}
    place = (key.data.name, key.teacher.name, key.weak, key.strong, key.shots, key.seed, method.name)
    return Cell(*place, numbers, time.perf_counter() - started)


def checked(step: Callable[[], Artefact], method: MethodEntry) -> Artefact:
    """A step's result.

    Raises:
        TransmiterError: if the method's entry has an option that the step does not know, or a value it refuses.
    """
    try:
        return step()
    except TransmiterError:
        raise
    except (TypeError, ValueError) as error:
        raise TransmiterError(f"The method {method.name!r}: {error}") from error
