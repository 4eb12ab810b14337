"""transmiter transfer."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import BatchOption, DeviceOption, JsonOption, QuietOption, RunOption, StrictOption
from transmiter_cli.errors import UsageError

if TYPE_CHECKING:
    from transmiter_cli.workflow.transfer import TransferResult

NAME = "transfer"
EXAMPLE = "transmiter transfer --strong demo-strong"


class MethodName(StrEnum):
    """The choices of --method; an enumeration, since Typer takes no list of literals."""

    adapter = "adapter"
    ridge = "ridge"


def command(
    run: RunOption,
    strong: Annotated[
        list[str] | None,
        typer.Option(
            help="The stronger model: ViT-L/14, ARCH:TAG, local-dir:PATH, hf-hub:ORG/REPO. "
            "Repeat it for several; each gets artefacts of its own.",
            show_default="required",
        ),
    ] = None,
    method: Annotated[
        list[MethodName] | None,
        typer.Option(
            help="`adapter` (the paper's, the default) or `ridge` (folds into the classifier); may be repeated."
        ),
    ] = None,
    reg: Annotated[
        str,
        typer.Option(
            help="Pull of the rotation to the identity: the paper's lambda / images. With several, `0.1,1,10`, "
            "each gives a row of eval; refine and predict take the first."
        ),
    ] = "1.0",
    rho: Annotated[float, typer.Option(help="Relative strength of the ridge.")] = 0.1,
    device: DeviceOption = "auto",
    encode_batch: BatchOption = 64,
    strict: StrictOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Carry the fitted adapter to stronger models: no labels, no gradients, seconds."""
    if not strong:
        raise UsageError("No strong model was given, so there is nowhere to transfer to.", EXAMPLE)
    regs = strengths(reg)
    if not (0 < rho < math.inf):
        raise typer.BadParameter("--reg and --rho must be positive and finite.")
    from transmiter_cli.run import Run
    from transmiter_cli.workflow.transfer import TransferOptions, transfer_run

    options = TransferOptions(
        tuple(dict.fromkeys(strong)),
        tuple(dict.fromkeys(name.value for name in method or [MethodName.adapter])),
        regs,
        rho,
    )
    workspace = console.workspace(device, strict, encode_batch, quiet)
    results = transfer_run(options, Run(run), workspace, console.command_line())
    if json:
        console.print_json(as_json(results))
        return
    for result in results:
        name = result.artefact.method if result.row in ("transferred", "ridge") else result.row
        console.print_result(
            [
                (name, console.shown(result.path)),
                ("seen", f"{result.images:,} unlabelled images"),
                ("effect", f"{console.percent(result.changed)} of {result.strong}'s answers change"),
            ]
        )
    console.print_result([("next", f"transmiter eval --data LABELLED_FOLDER{Run(run).flag}")])


def strengths(given: str) -> tuple[float, ...]:
    """The values of --reg, each once."""
    try:
        regs = tuple(dict.fromkeys(float(value) for value in given.split(",")))
    except ValueError:
        raise typer.BadParameter(f"--reg is a number or several with commas, not {given!r}.") from None
    if not all(0 < reg < math.inf for reg in regs):
        raise typer.BadParameter("--reg and --rho must be positive and finite.")
    return regs


def as_json(results: list[TransferResult]) -> dict[str, Any]:
    """One strong model: its name and what each method made; several: the same under "models", by name."""
    models: dict[str, dict[str, Any]] = {}
    for result in results:
        name = result.artefact.method if result.row in ("transferred", "ridge") else result.row
        made = {"artefact": str(result.path), "images": result.images, "changed": result.changed}
        models.setdefault(result.strong, {})[name] = made
    if len(models) > 1:
        return {"models": models}
    return {"strong": results[0].strong, "methods": models[results[0].strong]}
