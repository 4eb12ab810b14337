"""transmiter demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import DeviceOption, Encoding, JsonOption, QuietOption, SeedOption

NAME = "demo"
EXAMPLE = "transmiter demo"


def command(
    run: Annotated[Path, typer.Option("--run", help="The run directory to write.")] = Path("transmiter-demo"),
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit, transfer, refine and evaluate on bundled models and images, in under a minute."""
    from transmiter_cli.report.table import demo_sentence, evaluation_json, evaluation_table
    from transmiter_cli.run import Run
    from transmiter_cli.workflow.demo import demo_commands, demo_run

    workspace = Encoding(device, strict=True, quiet=quiet).workspace()
    if not quiet and not json:
        for line in demo_commands(Run(run), seed).values():
            console.errors.print(f"$ {line}", style="bold")
    result = demo_run(Run(run), workspace, seed)
    if json:
        console.print_json(evaluation_json(result))
        return
    console.results.print(evaluation_table(result))
    console.results.print(f"\n{demo_sentence(result)}", soft_wrap=False)
