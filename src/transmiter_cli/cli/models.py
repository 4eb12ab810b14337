"""transmiter models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import JsonOption

if TYPE_CHECKING:
    from transmiter_cli.embedding.encoders.listing import ListedModel

NAME = "models"
EXAMPLE = "transmiter models 'ViT-B*'"


def command(
    pattern: Annotated[
        str | None, typer.Argument(help="Part of a name, or a whole one with * and ?.", show_default="all")
    ] = None,
    downloaded: Annotated[
        bool, typer.Option("--downloaded", help="Only those whose weights are on this disk.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the models that can be used, and which of them are on this disk."""
    from transmiter_cli.embedding.encoders.hub import hub_cache
    from transmiter_cli.embedding.encoders.listing import list_models

    models = list_models(pattern, downloaded)
    if json:
        listed = [{**vars(model), "parameters": model.parameters} for model in models]
        console.print_json({"hub_cache": str(hub_cache()), "models": listed})
        return
    print_table(models)
    here = sum(model.weights is not None for model in models)
    console.errors.print(f"{len(models)} models, {here} on this disk; downloads go to {hub_cache()}.", style="dim")


def print_table(models: list[ListedModel]) -> None:
    """One line per model at 80 columns, the longest names folded."""
    from rich.table import Table

    from transmiter_cli.report.columns import number

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("model", overflow="fold")
    table.add_column("disk")
    for header in ("width", "pixels"):
        table.add_column(header, justify="right")
    table.add_column("activation")
    table.add_column("size", justify="right")
    for model in models:
        cells = ("yes" if model.weights else "no", str(model.width), str(model.pixels), model.activation)
        size = "" if model.parameters is None else number(model.parameters)
        table.add_row(model.name, *cells, size, style="bold" if model.weights else "")
    console.results.print(table, soft_wrap=False)
