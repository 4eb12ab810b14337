"""transmiter self-train: fit the transferred classifier to new unlabelled images, by its own answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transmiter_cli import api
from transmiter_cli.artefact import Artefact
from transmiter_cli.description import DamagedArtefactError, read_description
from transmiter_cli.embedding.sources import DataSpec
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import TransmiterError
from transmiter_cli.files import write_atomically
from transmiter_cli.layout import ARTEFACTS, ROWS, SELF_TRAINED_FROM
from transmiter_cli.method.embeddings import InvalidTensorError
from transmiter_cli.method.linear.self_training import WORTH
from transmiter_cli.method.settings import LinearMethod
from transmiter_cli.names import some
from transmiter_cli.record import Made
from transmiter_cli.reporter import Reporter
from transmiter_cli.run import Run, run_locked
from transmiter_cli.workflow.overlap import forget_unused, remembering
from transmiter_cli.workflow.removal import refine_again, telling_removed
from transmiter_cli.workflow.run_artefacts import open_corrected, starting_point
from transmiter_cli.workflow.run_data import open_told


@dataclass(frozen=True)
class SelfTrainOptions:
    """What to train, on which images.

    Attributes:
        data: unlabelled images; labels, if there are any, are not looked at.
        method: which transferred classifier to start from; the first of SELF_TRAINED_FROM that there is if None.
        strong: of which strong model, where the run has several; the last one transferred to if None.
    """

    data: DataSpec
    method: LinearMethod | None = None
    strong: str | None = None


@dataclass(frozen=True)
class SelfTrainResult:
    """What self-train made, from how many different images, the share of them whose answer changed, and the classes
    that hardly any of them seems to show.
    """

    artefact: Artefact
    path: Path
    images: int
    changed: float
    missing: tuple[str, ...]


@run_locked
def self_train_run(options: SelfTrainOptions, run: Run, workspace: Workspace, command: list[str]) -> SelfTrainResult:
    """Self-train a run's transferred classifier and write the result to the run directory.

    Raises:
        UsageError: if no linear classifier was transferred.
        TransmiterError: if the images cannot be used.
    """
    strong = run.strong(options.strong)
    source = starting_point(run, strong, (ROWS[options.method],) if options.method else SELF_TRAINED_FROM)
    transferred, encoder = open_corrected(run, strong, source, workspace)
    workspace = encoder.workspace
    images = open_told(options.data, "train", workspace.reporter, labels=False)
    found = encoder.image_embeddings(images.files)
    try:
        artefact = api.self_train(transferred, found.rows.float().to(workspace.method_device))
    except InvalidTensorError as error:
        raise TransmiterError(
            f"{options.data.data} cannot be used: {error}", "pass --data with more images, and no --limit"
        ) from error
    home = run.home(strong)
    path = home / ARTEFACTS["self_trained"]
    refined = home / ARTEFACTS["refined"]

    def forget() -> None:
        if refined.is_file() and began_with_self_training(refined):
            refined.unlink()

    with telling_removed(run, workspace.reporter):
        with remembering("self-train", found.files, home, run, workspace):
            # So that a kill leaves nothing that began with what is replaced.
            write_atomically(path, artefact.serialized(), before=forget)
            run.add(command, {strong: encoder.fingerprint}, [Made(strong, "self_trained")])
        forget_unused(run)
    about = artefact.details["self_train"]
    result = SelfTrainResult(artefact, path, about["images"], about["changed"], tuple(about["missing"]))
    tell_what_images_show(result, workspace.reporter)
    if refined.is_file():
        workspace.reporter.note(
            f"predict still answers with {refined.name}, which did not begin with this. To begin it with this: "
            f"{refine_again(strong, run)}"
        )
    return result


def began_with_self_training(refined: Path) -> bool:
    """Whether what refine made began with what self-train made before, or is damaged."""
    try:
        return "self_train" in read_description(refined)["details"]
    except DamagedArtefactError:
        return True


def tell_what_images_show(result: SelfTrainResult, reporter: Reporter) -> None:
    """Say so where there were few images, or none of some classes."""
    images, missing, classes = result.images, result.missing, len(result.artefact.class_names)
    if images < WORTH * classes:
        reporter.note(
            f"{images} different images of {classes} classes: what was transferred counts for more than they."
        )
    if missing:
        reporter.warn(
            f"Hardly any image seems to show {len(missing)} of {classes} classes: {some(missing)}. Answers in these "
            "may get worse in favour of the others; --data that shows all classes is safer."
        )
