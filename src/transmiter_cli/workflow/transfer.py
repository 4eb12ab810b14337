"""transmiter transfer: carry the adapter to a stronger model, without labels and without gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transmiter_cli import api
from transmiter_cli.artefact import Artefact
from transmiter_cli.description import DamagedArtefactError, read_description
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import DataSpec, ImageRecord, ImageSet, open_images
from transmiter_cli.embedding.sources.opening import lasting, same_data
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import UsageError
from transmiter_cli.files import write_all
from transmiter_cli.layout import DEFAULT_METHODS, ROWS, SWEPT, artefacts_in, file_name, swept_row
from transmiter_cli.method.agreement import agreement
from transmiter_cli.method.consensus.experts import Teacher
from transmiter_cli.method.embeddings import Embeddings
from transmiter_cli.method.per_image import computed_zero_shot_logits, predictions
from transmiter_cli.method.settings import Auto, Method
from transmiter_cli.record import Made, Task
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import Run, run_locked
from transmiter_cli.task.finetuned import mean_logits
from transmiter_cli.workflow.encoded import EncodedImages, as_teacher, encode, encode_same
from transmiter_cli.workflow.overlap import forget_unused, remembering, tell_changes
from transmiter_cli.workflow.removal import telling_removed
from transmiter_cli.workflow.run_artefacts import (
    check_fitted,
    finetuned_models,
    load_fitted,
    require_finetuned,
    signed,
)
from transmiter_cli.workflow.run_data import DataFlags, fit_data, open_told
from transmiter_cli.workflow.transfer_warnings import tell_limits, warn_of_same_weights


@dataclass(frozen=True)
class TransferOptions:
    """Where to transfer, and how.

    Attributes:
        strong: the strong models' names.
        methods: each makes an artefact of its own.
        regs: the paper's lambda divided by the number of images ("adapter"): one or more values, of which each gives
            an artefact, or "auto" for the one that explains held-out images best.
        rho: relative ridge strength, or "auto" ("ridge").
        others: runs of the same classes with other weak and fine-tuned models, to be combined ("discriminant").
        opaque_names: whether the names of the classes say nothing to zero-shot models ("discriminant").
        data: unlabelled images; those that fit saw if it says nothing.
    """

    strong: Sequence[str]
    methods: Sequence[Method] = DEFAULT_METHODS
    regs: Sequence[float] | Auto = "auto"
    rho: float | Auto = "auto"
    others: Sequence[Run] = ()
    opaque_names: bool = False
    data: DataFlags = field(default_factory=DataFlags)


@dataclass(frozen=True)
class TransferResult:
    """What was made for one strong model, by one method and strength.

    Attributes:
        row: the row of the evaluation that it gives.
        changed: on how many of the images the strong model's answer changed, a fraction.
    """

    strong: str
    row: str
    artefact: Artefact
    path: Path
    changed: float

    @property
    def name(self) -> str:
        """The method, or the row of a further strength."""
        return self.artefact.method if self.row in ROWS.values() else self.row

    @property
    def settings(self) -> dict[str, Any]:
        """From how many images it was made, what was chosen, and the verdict of "discriminant"."""
        return self.artefact.details["transfer"]

    @property
    def verdict(self) -> dict[str, Any]:
        """`Verdict.as_json`; empty for other methods than "discriminant"."""
        return self.settings.get("verdict", {})


@run_locked
def transfer_run(options: TransferOptions, run: Run, workspace: Workspace, command: list[str]) -> list[TransferResult]:
    """Transfer a run's adapter to each strong model with each method, and write the artefacts to the run directory.

    Raises:
        UsageError: if nothing was fitted, there is no such model, or another run is this one or has other classes.
        TransmiterError: if data or weights cannot be used.
    """
    task = run.task()
    others = other_runs(options.others, run, task)
    workspace = workspace.like_fit(task.decoding, task.precision)
    fitted = load_fitted(run, workspace)
    weak_encoder, *encoders = (workspace.open(resolve_model(name)) for name in (task.weak, *options.strong))
    check_fitted(fitted, run, weak_encoder)
    warn_of_same_weights(weak_encoder, encoders, workspace.reporter)
    asked = set(options.methods) != {"adapter"}  # whether methods ask fine-tuned models, whose answers fit has learned
    if asked:
        for one in (run, *others):
            require_finetuned(one, workspace)
    spec, images = images_to_see(options.data, task, workspace.reporter)
    models = finetuned_models(run, weak_encoder, same_data(spec, fit_data(task))) if asked else []
    for model in models:
        model.check(images.files)  # before images are encoded, which may take hours
    weak = encode(weak_encoder, images, fitted.vocabulary, task.templates)
    strong = [encode_same(encoder, weak, fitted.vocabulary, task.templates) for encoder in encoders]
    own = [as_teacher(model, weak.images.files, weak.embeddings) for model in models]
    also = [teacher for other in others for teacher in other_teachers(other, spec, fitted, workspace, weak)]
    embeddings = [encoded.embeddings for encoded in strong]
    solved = solve(options, fitted, weak.embeddings, embeddings, own, also)
    homes = run.with_homes([encoder.name for encoder in encoders])
    results = [
        result
        for encoder, seen, artefacts in zip(encoders, embeddings, solved, strict=True)
        for result in results_of(artefacts, encoder, seen, len(task.classes), run.path / homes[encoder.name])
    ]
    tell_changes(weak.images.files, run, workspace, asked=options.data != DataFlags())
    with telling_removed(run, workspace.reporter):
        with remembering_each(results, weak.images.files, run, workspace, others):
            save_results(results, encoders, options.methods, run.path, homes)
            fingerprints = {encoder.name: encoder.fingerprint for encoder in (weak_encoder, *encoders)}
            made = [Made(result.strong, result.row) for result in results]
            run.add(command, fingerprints, made, strong=encoders[-1].name, homes=homes)
        forget_unused(run)
    for result in results:
        if result.verdict:
            followers = [one.name for one in results if one.strong == result.strong and not one.verdict]
            tell_limits(result.strong, result.verdict, followers, task, run, workspace.reporter)
    return results


def images_to_see(flags: DataFlags, task: Task, reporter: Reporter) -> tuple[DataSpec, ImageSet]:
    """The images that models are compared on, and where they are: fit's, of which it told what is left out, or others.

    Raises:
        UsageError: if there are no such data, or fit's are no longer where they were.
        TransmiterError: if they hold no images.
    """
    spec = lasting(flags.spec(task, task.limit))
    if flags.data is None:
        return spec, open_images(spec, task.split)
    return spec, open_told(spec, "train", reporter, labels=False)


@contextmanager
def remembering_each(
    results: Sequence[TransferResult],
    files: Sequence[ImageRecord],
    run: Run,
    workspace: Workspace,
    others: Sequence[Run],
) -> Generator[None]:
    """`remembering` for the results of each strong model, which have a folder in common."""
    with ExitStack() as each:
        for home, made in Counter(result.path.parent for result in results).items():
            each.enter_context(remembering("transfer", files, home, run, workspace, made, others))
        yield


def save_results(
    results: Sequence[TransferResult],
    encoders: Sequence[CachedEncoder],
    methods: Sequence[Method],
    folder: Path,
    homes: Mapping[str, str],
) -> None:
    """Write all that was made, or nothing; what stems from that which it replaces goes first, so that none is left.

    Args:
        results: what was made.
        encoders: the strong models.
        methods: those that made it.
        folder: the run's.
        homes: where each strong model's artefacts are in it.

    Raises:
        OSError: if something cannot be written; all is as it was then.
    """
    written = [result.path for result in results]

    def forget() -> None:
        for encoder in encoders:
            forget_stale(folder / homes[encoder.name], encoder, methods, written)

    write_all([(result.path, result.artefact.serialized()) for result in results], forget)


def other_runs(others: Sequence[Run], run: Run, task: Task) -> list[Run]:
    """The runs whose fine-tuned models are asked, too, each once however it was named.

    Raises:
        UsageError: if one is no run, this very run, or a run of other classes.
    """
    found: dict[Path, Run] = {}
    for other in others:
        path = other.path.resolve()
        if path == run.path.resolve():
            raise UsageError(
                f"The run {other.path} is this one, whose models are asked anyway.", "leave its --also out"
            )
        if other.task().classes != task.classes:
            raise UsageError(
                f"The run {other.path} has other classes than this one.", "fit both with the same --classes"
            )
        found.setdefault(path, other)
    return list(found.values())


def results_of(
    artefacts: Mapping[str, Artefact], encoder: CachedEncoder, seen: Embeddings, classes: int, home: Path
) -> Iterator[TransferResult]:
    """What was made for one strong model, with how many of its answers on the images it saw changed."""
    before = predictions(computed_zero_shot_logits(seen, classes))
    for row, artefact in artefacts.items():
        changed = 1 - agreement(artefact.predictions(seen), before)
        yield TransferResult(encoder.name, row, signed(artefact, encoder), home / file_name(row), changed)


def solve(
    options: TransferOptions,
    fitted: Artefact,
    weak: Embeddings,
    strong: Sequence[Embeddings],
    own: Sequence[Teacher],
    also: Sequence[Teacher],
) -> list[dict[str, Artefact]]:
    """For each strong model, an artefact by the row of the evaluation that it gives.

    "ridge" regresses the mean of the run's own teachers, as fit learned it; "discriminant" trusts each by itself, and
    those of other runs, too. None are needed for adapters, which one solve gives for all strong models where their
    strengths are given.
    """
    made: list[dict[str, Artefact]] = [{} for _ in strong]
    for method in options.methods:
        row = ROWS[method]
        if method == "adapter" and options.regs != "auto":
            rows = [row, *map(swept_row, options.regs[1:])]
            solved = api.transfer_all(fitted, weak, strong, options.regs)
            for of_model, artefacts in zip(made, solved, strict=True):
                of_model.update(zip(rows, artefacts, strict=True))
        else:
            settings: dict[str, Any] = {}
            if method == "ridge":
                settings = {"rho": options.rho, "finetuned_logits": mean_logits([one.finetuned for one in own])}
            elif method == "discriminant":
                settings = {"teachers": [*own, *also], "opaque_names": options.opaque_names}
            for of_model, model in zip(made, strong, strict=True):
                of_model[row] = api.transfer(fitted, weak, model, method, **settings)
    return made


def other_teachers(
    run: Run, spec: DataSpec, fitted: Artefact, workspace: Workspace, seen: EncodedImages
) -> list[Teacher]:
    """The fine-tuned models of another run, with its own weak model, on the images and vocabulary of this one.

    Raises:
        TransmiterError: if its models cannot be used on these images.
    """
    other = run.task()
    encoder = workspace.open(resolve_model(other.weak))
    weak = encode_same(encoder, seen, fitted.vocabulary, other.templates)
    models = finetuned_models(run, encoder, same_data(spec, fit_data(other)))
    return [as_teacher(model, weak.images.files, weak.embeddings) for model in models]


def forget_stale(home: Path, encoder: CachedEncoder, methods: Sequence[Method], written: Sequence[Path]) -> None:
    """Remove what stems from a correction that is to be replaced, is for other weights of the model, or is damaged.

    Args:
        home: the strong model's folder.
        encoder: the strong model.
        methods: of which methods corrections are to be replaced.
        written: the files that will be written in their place; they stay until then.
    """
    for path in {*artefacts_in(home).values()} - {*written}:
        if is_stale(path, encoder, methods):
            path.unlink()


def is_stale(path: Path, encoder: CachedEncoder, methods: Sequence[Method]) -> bool:
    """Whether a correction of a strong model goes when others are written by some methods."""
    try:
        description = read_description(path)
    except DamagedArtefactError:
        return True
    replaced = description["method"] in methods and (description["stage"] != "strong" or path.name.startswith(SWEPT))
    return replaced or description["details"].get("model", {}).get("fingerprint") != encoder.fingerprint
