"""transmiter transfer."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import (
    BatchOption,
    DecodeOption,
    DeviceOption,
    JsonOption,
    QuietOption,
    RunOption,
    StrictOption,
    WorkersOption,
)

NAME = "transfer"
EXAMPLE = "transmiter transfer --strong demo-strong"


class MethodName(StrEnum):
    """The choices of --method; an enumeration, since Typer takes no list of literals."""

    adapter = "adapter"
    ridge = "ridge"


def command(
    strong: Annotated[
        str, typer.Option(help="The stronger model: ViT-L/14, ARCH:TAG, local-dir:PATH, hf-hub:ORG/REPO.")
    ],
    run: RunOption,
    method: Annotated[
        list[MethodName] | None,
        typer.Option(
            help="`adapter` (the paper's, the default) or `ridge` (folds into the classifier); may be repeated."
        ),
    ] = None,
    reg: Annotated[
        float, typer.Option(help="Pull of the rotation to the identity: the paper's lambda / images.")
    ] = 1.0,
    rho: Annotated[float, typer.Option(help="Relative strength of the ridge.")] = 0.1,
    device: DeviceOption = "auto",
    encode_batch: BatchOption = 64,
    strict: StrictOption = False,
    decode: DecodeOption = None,
    workers: WorkersOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Carry the fitted adapter to a stronger model: no labels, no gradients, seconds."""
    if not (0 < reg < math.inf and 0 < rho < math.inf):
        raise typer.BadParameter("--reg and --rho must be positive and finite.")
    from transmiter_cli.run import Run
    from transmiter_cli.workflow.transfer import TransferOptions, transfer_run

    options = TransferOptions(
        strong, tuple(dict.fromkeys(name.value for name in method or [MethodName.adapter])), reg, rho
    )
    workspace = console.workspace(device, strict, encode_batch, quiet, decode, workers)
    results = transfer_run(options, Run(run), workspace, console.command_line())
    if json:
        made = {r.method: {"artefact": str(r.path), "images": r.images, "changed": r.changed} for r in results}
        console.print_json({"strong": strong, "methods": made})
        return
    for result in results:
        console.print_result(
            [
                (result.method, console.shown(result.path)),
                ("seen", f"{result.images:,} unlabelled images"),
                ("effect", f"{console.percent(result.changed)} of {strong}'s answers change"),
            ]
        )
    console.print_result([("next", f"transmiter eval --data LABELLED_FOLDER{Run(run).flag}")])
