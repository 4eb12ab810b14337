"""transmiter transfer."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

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
    discriminant = "discriminant"


def strength(given: str) -> float | Literal["auto"]:
    """A strength's value: "auto", or a positive number."""
    if given == "auto":
        return "auto"
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter("a strength must be positive and finite, or `auto`.")
    return value


def command(
    strong: Annotated[
        str, typer.Option(help="The stronger model: ViT-L/14, ARCH:TAG, local-dir:PATH, hf-hub:ORG/REPO.")
    ],
    run: RunOption,
    method: Annotated[
        list[MethodName] | None,
        typer.Option(
            help="`adapter` (the paper's, the default), `ridge` or `discriminant` (these fold into the classifier); "
            "may be repeated."
        ),
    ] = None,
    reg: Annotated[
        str, typer.Option(help="Pull of the rotation to the identity: the paper's lambda / images; or `auto`.")
    ] = "1",
    rho: Annotated[str, typer.Option(help="Relative strength of the ridge, or `auto`.")] = "0.1",
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another run of the same classes, fitted with other weak and fine-tuned models: `discriminant` "
            "combines them; may be repeated."
        ),
    ] = None,
    device: DeviceOption = "auto",
    encode_batch: BatchOption = 64,
    strict: StrictOption = False,
    decode: DecodeOption = None,
    workers: WorkersOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Carry the fitted adapter to a stronger model: no labels, no gradients, seconds."""
    strengths = strength(reg), strength(rho)
    if also and MethodName.discriminant not in (method or ()):
        raise typer.BadParameter("--also needs --method discriminant.")
    from transmiter_cli.run import Run
    from transmiter_cli.workflow.transfer import TransferOptions, transfer_run

    options = TransferOptions(
        strong,
        tuple(dict.fromkeys(name.value for name in method or [MethodName.adapter])),
        *strengths,
        tuple(map(Run, also or ())),
    )
    workspace = console.workspace(device, strict, encode_batch, quiet, decode, workers)
    results = transfer_run(options, Run(run), workspace, console.command_line())
    if json:
        made = {
            r.method: {"artefact": str(r.path), "images": r.images, "changed": r.changed} | r.settings for r in results
        }
        console.print_json({"strong": strong, "methods": made})
        return
    for result in results:
        console.print_result(
            [
                (result.method, console.shown(result.path)),
                ("seen", f"{result.images:,} unlabelled images"),
                ("effect", f"{console.percent(result.changed)} of {strong}'s answers change"),
                *[(name, said(value)) for name, value in result.settings.items() if name != "images"],
            ]
        )
    console.print_result([("next", f"transmiter eval --data LABELLED_FOLDER{Run(run).flag}")])


def said(value: float | dict[str, Any]) -> str:
    """A chosen strength, or the verdict in words."""
    if not isinstance(value, dict):
        return f"{value:g}"
    trust = ", ".join(f"{one:.2f}" for one in value["teachers"])
    return (
        f"{value['verdict']} (expected gain {100 * value['gain']:+.1f} points; "
        f"trust in the fine-tuned model {trust}, in the strong one {value['strong']:.2f})"
    )
