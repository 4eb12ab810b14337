"""transmiter cache ls, verify, rm, path."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import JsonOption, QuietOption
from transmiter_cli.errors import TransmiterError, UsageError

if TYPE_CHECKING:
    from transmiter_cli.workflow.cache import CachedModel

NAME = "cache"
app = typer.Typer(
    help="What was encoded and kept: list it, check it, remove it.",
    epilog="Example: `transmiter cache ls`",
    no_args_is_help=True,
)


@app.command("path", epilog="Example: `transmiter cache path`")
def path() -> None:
    """Print the cache's folder."""
    from transmiter_cli.embedding.storage.cache import default_cache

    typer.echo(default_cache())


@app.command("ls", epilog="Example: `transmiter cache ls`")
def ls(json: JsonOption = False) -> None:
    """List the models whose embeddings are kept."""
    from transmiter_cli.embedding.storage.cache import default_cache
    from transmiter_cli.workflow.cache import list_cache

    models = list_cache(default_cache())
    if json:
        console.print_json({"path": str(default_cache()), "models": [asdict(model) for model in models]})
        return
    if not models:
        console.ConsoleReporter(quiet=False).note(f"Nothing is kept in {console.shown(default_cache())}.")
    console.print_result([(model.name, line(model)) for model in models])


def line(model: CachedModel) -> str:
    """What is kept of a model."""
    kept = f"{model.images:,} images, {model.texts:,} prompts, {model.size / 2**20:.1f} MiB"
    return f"{kept}, {model.precision}, {model.fingerprint[:12]}"


@app.command("verify", epilog="Example: `transmiter cache verify`")
def verify(json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Read everything and compare it with its digest; fail if something is damaged."""
    from transmiter_cli.embedding.storage.cache import default_cache
    from transmiter_cli.workflow.cache import verify_cache

    shards, damaged = verify_cache(default_cache(), console.ConsoleReporter(quiet))
    if json:
        console.print_json({"shards": shards, "damaged": [str(shard) for shard in damaged]})
    else:
        counts = [("shards", f"{shards:,}"), ("damaged", f"{len(damaged):,}")]
        console.print_result([*counts, *(("", str(shard)) for shard in damaged)])
    if damaged:
        raise TransmiterError(
            f"{len(damaged)} of {shards} shards are damaged; "
            "the next command that needs them does without, and computes their rows anew."
        )


@app.command("rm", epilog="Example: `transmiter cache rm demo-weak`")
def rm(
    model: Annotated[
        str | None, typer.Argument(help="A model's name, or the first six or more letters of its id.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove what is kept of all models.")] = False,
) -> None:
    """Remove the embeddings of a model."""
    from transmiter_cli.embedding.storage.cache import default_cache
    from transmiter_cli.workflow.cache import list_cache, remove_from_cache

    if (model is None) != everything:
        raise UsageError("Name one model, or pass --all.", "transmiter cache ls")
    gone = remove_from_cache(default_cache(), model)
    if not gone and model is not None:
        names = ", ".join(sorted({entry.name for entry in list_cache(default_cache())})) or "nothing"
        raise UsageError(f"There is no {model!r} in the cache, which holds {names}.", "transmiter cache ls")
    console.print_result(
        [("removed", f"{entry.name}: {entry.images:,} images, {entry.texts:,} prompts") for entry in gone]
    )
