"""transmiter inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import JsonOption

NAME = "inspect"
EXAMPLE = "transmiter inspect transmiter-run/weak.safetensors"
SHOWN = 8


def command(
    artefact: Annotated[Path, typer.Argument(help="weak.safetensors, strong.safetensors or refined.safetensors.")],
    json: JsonOption = False,
) -> None:
    """Say what an artefact is and how it was made, without loading it."""
    from transmiter_cli.description import read_description

    description = read_description(artefact)
    if json:
        console.print_json(description)
        return
    vocabulary, classes = description["vocabulary"], description["classes"]
    names = ", ".join(vocabulary[:classes][:SHOWN]) + (", ..." if classes > SHOWN else "")
    lines = [
        ("stage", f"{description['stage']}, method {description['method']}"),
        ("classes", f"{classes}: {names}"),
        ("vocabulary", f"{len(vocabulary):,} entries"),
        ("logit scale", f"{description['logit_scale']:.4g}"),
    ]
    for step, settings in description["details"].items():
        lines.append((step, ", ".join(f"{name} {value}" for name, value in settings.items())))
    for name, shape in description["tensors"].items():
        lines.append((name, " x ".join(map(str, shape)) or "scalar"))
    console.print_result(lines)
