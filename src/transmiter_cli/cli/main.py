"""The `transmiter` command."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Annotated

import typer

from transmiter_cli import __version__
from transmiter_cli.cli import (
    bench,
    cache,
    demo,
    embed,
    errors,
    evaluate,
    fit,
    inspect,
    models,
    predict,
    refine,
    self_train,
    transfer,
)
from transmiter_cli.cli.once import OnceCommand
from transmiter_cli.cli.options import with_option_groups

app = typer.Typer(
    name="transmiter",
    help="Move the skill of a fine-tuned weak vision-language model into a stronger one, without labels.",
    epilog="Begin with: transmiter demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"transmiter {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""


for module in (demo, fit, transfer, self_train, refine, evaluate, predict, bench, embed, models, inspect):
    app.command(module.NAME, cls=OnceCommand, epilog=f"Example: `{module.EXAMPLE}`")(with_option_groups(module.command))

app.add_typer(cache.app, name=cache.NAME)


def main() -> None:
    """Run the app, and end quickly."""
    gc.set_threshold(1_000_000)  # importing torch and listing images make objects by the million, and no cycles
    atexit.register(end_quickly)
    errors.run(app)


def end_quickly() -> None:
    """Let the interpreter end without searching torch's objects for cycles: a quarter of a short command's time."""
    if "triton" not in sys.modules:  # its bindings print what is left of them
        gc.freeze()
