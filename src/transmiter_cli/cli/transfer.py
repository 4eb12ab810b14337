"""transmiter transfer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import (
    Encoding,
    JsonOption,
    RunOption,
    Selection,
)
from transmiter_cli.errors import UsageError
from transmiter_cli.layout import DEFAULT_METHODS
from transmiter_cli.method.settings import HEEDED_BY, Method
from transmiter_cli.run import Run

if TYPE_CHECKING:
    from transmiter_cli.workflow.transfer import TransferResult

NAME = "transfer"
EXAMPLE = "transmiter transfer --strong demo-strong"


class MethodName(StrEnum):
    """The choices of --method; an enumeration, since Typer takes no list of literals."""

    adapter = "adapter"
    ridge = "ridge"
    discriminant = "discriminant"


def command(
    run: RunOption,
    strong: Annotated[
        list[str] | None,
        typer.Option(
            help="The stronger model: ViT-L/14, ARCH:TAG, local-dir:PATH, hf-hub:ORG/REPO. "
            "Repeat it for several; each gets artefacts of its own. [required]",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        list[MethodName] | None,
        typer.Option(
            help="`adapter` (the paper's), `ridge` or `discriminant` (these take the text embeddings' place); "
            "may be repeated. By default adapter and discriminant."
        ),
    ] = None,
    reg: Annotated[
        str,
        typer.Option(
            help="Pull of the rotation to the identity: the paper's lambda / images; `auto`: the one that explains "
            "held-out images best. With several, `0.1,1,10`, each gives a row of eval; refine and predict take the "
            "first."
        ),
    ] = "auto",
    rho: Annotated[str, typer.Option(help="Relative strength of the ridge, or `auto`.")] = "auto",
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another run of the same classes, fitted with other weak and fine-tuned models: `discriminant` "
            "combines them; may be repeated."
        ),
    ] = None,
    opaque_names: Annotated[
        bool,
        typer.Option(
            "--opaque-names",
            help="The classes are called by codes (`n01440764`, `type 3`) that say nothing to any model: "
            "`discriminant` does not doubt a fine-tuned model for answering otherwise than zero-shot ones.",
        ),
    ] = False,
    *,
    data: Annotated[
        str | None,
        typer.Option(help="Unlabelled images to compare the models on, as fit takes them; fit's own if left out."),
    ] = None,
    selection: Selection,
    encoding: Encoding,
    json: JsonOption = False,
) -> None:
    """Carry the fitted adapter to stronger models: no labels, no gradients, seconds."""
    if not strong:
        raise UsageError("No strong model was given, so there is nowhere to transfer to.", f"{EXAMPLE}{Run(run).flag}")
    methods: Sequence[Method] = tuple(dict.fromkeys(name.value for name in method)) if method else DEFAULT_METHODS
    asked = {"also": bool(also), "opaque_names": opaque_names, "reg": reg != "auto", "rho": rho != "auto"}
    for name, given in asked.items():
        flag, needs = f"--{name.replace('_', '-')}", HEEDED_BY[name]
        if given and needs not in methods:
            raise UsageError(f"{flag} needs --method {needs}.", f"add --method {needs}, or leave {flag} out")
    regs = "auto" if reg == "auto" else tuple(dict.fromkeys(strength("--reg", value) for value in reg.split(",")))
    from transmiter_cli.embedding.encoders.models import lasting_model_name
    from transmiter_cli.workflow.run_data import DataFlags
    from transmiter_cli.workflow.transfer import TransferOptions, transfer_run

    options = TransferOptions(
        tuple({lasting_model_name(name): name for name in strong}.values()),
        methods=methods,
        regs=regs,
        rho="auto" if rho == "auto" else strength("--rho", rho),
        others=tuple(map(Run, also or ())),
        opaque_names=opaque_names,
        data=DataFlags(data, **vars(selection)),
    )
    workspace = encoding.workspace()
    results = transfer_run(options, Run(run), workspace, console.command_line())
    if json:
        console.print_json(as_json(results))
        return
    for result in results:
        console.print_result(
            [
                (result.name, console.shown(result.path)),
                ("seen", f"{result.settings['images']:,} unlabelled images"),
                ("effect", f"{console.percent(result.changed)} of {result.strong}'s answers change"),
                *[(name, console.said(value)) for name, value in result.settings.items() if name != "images"],
            ]
        )
    console.print_result([("next", Run(run).usual_eval())])


def strength(flag: str, given: str) -> float:
    """A value of --reg or --rho.

    Raises:
        UsageError: if it is no positive, finite number.
    """
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        several = ", or several such numbers" if flag == "--reg" else ""
        raise UsageError(
            f"{flag} must be auto alone, or a positive and finite number{several}; not {given!r}.", f"{flag} auto"
        )
    return value


def as_json(results: list[TransferResult]) -> dict[str, Any]:
    """One strong model: its name and what each method made; several: the same under "models", by name."""
    models: dict[str, dict[str, Any]] = {}
    for result in results:
        made = {"artefact": str(result.path), "changed": result.changed}
        models.setdefault(result.strong, {})[result.name] = made | result.settings
    if len(models) > 1:
        return {"models": models}
    return {"strong": results[0].strong, "methods": models[results[0].strong]}
