"""transmiter eval."""

from __future__ import annotations

from typing import Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import (
    BatchOption,
    DeviceOption,
    JsonOption,
    LimitOption,
    QuietOption,
    RootOption,
    RunOption,
    SeedOption,
    SplitOption,
    StrictOption,
    StrongOption,
)

NAME = "eval"
EXAMPLE = "transmiter eval"


def command(
    run: RunOption,
    strong: StrongOption = None,
    data: Annotated[
        str | None, typer.Option(help="Labelled images, as fit takes them; the test part of fit's data if left out.")
    ] = None,
    root: RootOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    encode_batch: BatchOption = 64,
    strict: StrictOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure every model of the run on labelled test images."""
    from transmiter_cli.report.table import evaluation_json, evaluation_table
    from transmiter_cli.run import Run
    from transmiter_cli.workflow.common import DataFlags
    from transmiter_cli.workflow.evaluate import eval_run

    workspace = console.workspace(device, strict, encode_batch, quiet)
    result = eval_run(DataFlags(data, root, split, limit), Run(run), workspace, seed, strong)
    if json:
        console.print_json(evaluation_json(result))
    else:
        console.results.print(evaluation_table(result))
