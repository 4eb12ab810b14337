"""Run a bench: every cell once, kept in a folder, so that a stopped bench goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from transmiter_cli import __version__, api
from transmiter_cli.artefact import Artefact
from transmiter_cli.bench.material import Material, Source, open_source
from transmiter_cli.bench.spec import BenchSpec, MethodEntry, SceneKey
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.evaluation.rows import evaluate
from transmiter_cli.files import canonical_json, digest, require_writable, write_atomically
from transmiter_cli.reporter import Reporter
from transmiter_cli.task.shots import choose_shots

FAILURES = (TransmiterError, OSError)
"""What ends a cell, or a scene, and not the bench."""


@dataclass(frozen=True)
class Cell:
    """One measured combination.

    Attributes:
        data: what was measured on.
        rows: numbers by row; the method's own row has the method's name.
        seconds: how long it took, from tensors to numbers.
        fit_on: what was fitted on, where that are other data.
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
    fit_on: str | None = None


@dataclass
class Trained:
    """What the last scenes made of one data set, for its other targets.

    Attributes:
        origin: of the source that it was made from.
        fits: fitted adapters by their settings.
        moved: transferred, and perhaps refined, corrections by method.
    """

    origin: object = None
    fits: dict[str, Artefact] = field(default_factory=dict)
    moved: dict[str, Artefact] = field(default_factory=dict)

    def of(self, origin: object) -> Trained:
        """This, if it was made from `origin`; else nothing yet."""
        return self if origin == self.origin else Trained(origin)


@dataclass(frozen=True)
class BenchResult:
    """All cells that could be measured, and why the others could not; `kept` were there before."""

    cells: Sequence[Cell]
    failures: Sequence[str]
    kept: int


class Failure(NamedTuple):
    """What happened and why, and what mends it."""

    what: str
    fix: str | None

    def __str__(self) -> str:
        return f"{self.what} Try: {self.fix}" if self.fix else self.what


class SceneResult(NamedTuple):
    """The cells of one scene, why others could not be measured, how many were there before, and what was trained."""

    cells: Sequence[Cell]
    failures: Sequence[Failure]
    kept: int
    trained: Trained


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

    Raises:
        TransmiterError: if the folder cannot be written to.
    """
    require_writable(results, "pass another --results")
    cells: list[Cell] = []
    failures: list[str] = []
    told: set[Failure] = set()
    kept = 0
    trained = Trained()
    scenes = list(spec.scenes())
    quiet = replace(workspace, reporter=WarningsOnly(workspace.reporter))  # one, whose store of contents is opened once
    for number, key in enumerate(scenes, 1):
        scene = run_scene(spec, key, results, quiet, trained)
        trained = scene.trained
        cells += scene.cells
        failures += [f"{key}: {failure}" for failure in scene.failures]
        kept += scene.kept
        for failure in scene.failures:
            workspace.reporter.warn(f"{key}: {failure.what if failure in told else failure}")
            told.add(failure)
        if scene.cells:
            numbers = ", ".join(f"{cell.method} {100 * cell.rows[cell.method]['top1']:.1f}" for cell in scene.cells)
            before = " (kept)" if scene.kept == len(scene.cells) else ""
            workspace.reporter.note(f"{number}/{len(scenes)} {key}: {numbers}{before}")
    return BenchResult(cells, failures, kept)


def run_scene(spec: BenchSpec, key: SceneKey, results: Path, workspace: Workspace, trained: Trained) -> SceneResult:
    """All methods of a scene; one that fails costs the others nothing."""
    try:
        source = open_source(spec, key, workspace)
    except FAILURES as error:
        return SceneResult([], [failure_of(error)], 0, trained)
    trained = trained.of((replace(key, target=None), source.origin))
    files = {method.name: cell_file(spec, method, source, results) for method in spec.method}
    cells = {name: cell for name, file in files.items() if (cell := read_cell(file.path)) is not None}
    kept = len(cells)
    missing = [method for method in spec.method if method.name not in cells]
    failures: list[Failure] = []
    material: Material | None = None
    for method in missing:
        try:
            material = material or source.load()
            cells[method.name] = measure_cell(key, method, material, trained)
            files[method.name].write(cells[method.name])
        except FAILURES as error:
            failures.append(failure_of(error))
        if material is None:  # without it there is none for the other methods either
            break
    return SceneResult([cells[name] for name in files if name in cells], failures, kept, trained)


def failure_of(error: BaseException) -> Failure:
    """What is said of an error."""
    return Failure(str(error), getattr(error, "fix", None))


class CellFile(NamedTuple):
    """Where a cell is kept, by all that it depends on."""

    path: Path
    about: Mapping[str, Any]

    def write(self, cell: Cell) -> None:
        """Keep a cell."""
        text = json.dumps({"about": self.about, "cell": asdict(cell)}, indent=1)
        write_atomically(self.path, f"{text}\n".encode())


def cell_file(spec: BenchSpec, method: MethodEntry, source: Source, results: Path) -> CellFile:
    """The file of a method's cell in a scene."""
    about = {"scene": asdict(source.key), "method": asdict(method), "inputs": source.identity, "version": __version__}
    about |= {name: getattr(spec, name) for name in ("protocol", "aux_words", "vocabulary_size", "names")}
    return CellFile(results / f"{digest(canonical_json(about))[:32]}.json", about)


def read_cell(path: Path) -> Cell | None:
    """A finished cell; None if there is none, or it is damaged."""
    try:
        return Cell(**json.loads(path.read_text(encoding="utf-8"))["cell"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def measure_cell(key: SceneKey, method: MethodEntry, material: Material, trained: Trained) -> Cell:
    """Fit, transfer and refine if asked, unless that was done for another target, and evaluate."""
    started = time.perf_counter()
    test = material.test
    if method.name not in trained.moved:
        trained.moved[method.name] = train(key, method, material, trained.fits)
    rows = evaluate(
        test.labels,
        weak=test.teacher.weak,
        finetuned_logits=test.teacher.finetuned,
        strong=test.strong,
        fitted=trained.fits[fit_settings(method)],
        transferred={method.name: trained.moved[method.name]},
        base=material.base,
        among=material.among,
    )
    numbers = {name: asdict(row) for name, row in rows.items()}
    place = (key.measured.name, key.teacher.name, key.weak, key.strong, key.shots, key.seed, method.name)
    return Cell(*place, numbers, time.perf_counter() - started, key.data.name if key.target else None)


def fit_settings(method: MethodEntry) -> str:
    """What tells the fitted adapters of methods apart."""
    return canonical_json(dict(method.fit))


def train(key: SceneKey, method: MethodEntry, material: Material, fits: dict[str, Artefact]) -> Artefact:
    """What a method makes of the train images; `fits` keeps fitted adapters by their settings."""
    shown, settings = material.train, fit_settings(method)
    weak = shown.teacher.weak
    with naming(method):
        if settings not in fits:
            own: dict[str, Any] = {"seed": key.seed, **method.fit}
            fits[settings] = api.fit(weak, shown.teacher.finetuned, material.vocabulary, **own)
        teachers = [] if method.transfer == "adapter" else [shown.teacher]
        options: dict[str, Any] = {"method": method.transfer, **transfer_options(method, len(weak))}
        moved = api.transfer(fits[settings], weak, shown.strong, teachers=teachers, **options)
        if method.refine is None:
            return moved
        chosen = choose_shots(shown.labels.tolist(), key.shots, key.seed)
        extra: dict[str, Any] = {"seed": key.seed, **method.refine}
        return api.refine(moved, shown.strong.images[chosen].float(), shown.labels[chosen], **extra)


def transfer_options(method: MethodEntry, images: int) -> dict[str, Any]:
    """The options of `tm.transfer`, of which the paper's lambda is none: it is reg times the number of images."""
    options = dict(method.options)
    if "paper_lambda" in options:
        options["reg"] = options.pop("paper_lambda") / images
    return options


@contextmanager
def naming(method: MethodEntry) -> Generator[None]:
    """Name the method in the error of a step, as where its entry has an option that is unknown, or a value refused."""
    try:
        yield
    except (TransmiterError, TypeError, ValueError) as error:
        raise TransmiterError(f"The method {method.name!r}: {error}", getattr(error, "fix", None)) from error
