"""transmiter embed."""

from __future__ import annotations

from pathlib import Path
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
    SplitOption,
    StrictOption,
)

NAME = "embed"
EXAMPLE = "transmiter embed --model demo-strong --data demo-digits --split test --out digits.safetensors"


def command(
    model: Annotated[list[str], typer.Option(help="A model; may be repeated.")],
    data: Annotated[str, typer.Option(help="Images, as fit takes them; their train part if no --split is given.")],
    root: RootOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    out: Annotated[Path | None, typer.Option(help="Also write them here: safetensors, a tensor per model.")] = None,
    device: DeviceOption = "auto",
    encode_batch: BatchOption = 64,
    strict: StrictOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Encode images now, so that later commands need not."""
    from transmiter_cli.embedding.sources import DataSpec
    from transmiter_cli.workflow.embed import embed_data

    workspace = console.workspace(device, strict, encode_batch, quiet)
    results = embed_data(model, DataSpec(data, root, split, limit), out, workspace)
    if json:
        console.print_json({"models": {result.model: vars(result) for result in results}, "out": out})
        return
    for result in results:
        skipped = f", {result.skipped} skipped" if result.skipped else ""
        console.print_result([(result.model, f"{result.images:,} images{skipped}, {result.width} numbers each")])
