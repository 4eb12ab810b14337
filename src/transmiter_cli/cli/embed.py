"""transmiter embed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import Encoding, JsonOption, Selection, changed
from transmiter_cli.errors import UsageError

if TYPE_CHECKING:
    from transmiter_cli.workflow.embed import EmbedResult

NAME = "embed"
EXAMPLE = "transmiter embed --model demo-strong --data demo-digits --split test --out digits.safetensors"
IMPORT_EXAMPLE = "transmiter embed --import features.pt --out features.safetensors"


def command(
    *,
    model: Annotated[list[str] | None, typer.Option(help="A model; may be repeated.", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Images, as fit takes them; their train part if no --split is given.", show_default=False),
    ] = None,
    selection: Selection,
    out: Annotated[Path | None, typer.Option(help="Also write them here: safetensors, a tensor per model.")] = None,
    import_file: Annotated[
        Path | None,
        typer.Option("--import", help="Instead: a feature file of the TransMiter authors (.pt), converted to --out."),
    ] = None,
    encoding: Encoding,
    json: JsonOption = False,
) -> None:
    """Encode images now, so that later commands need not.

    Give it the --decode and --precision that fit will be given; images are kept apart for each.
    """
    if out is not None and out.suffix != ".safetensors":
        named = out.parent / f"{out.stem or 'FILE'}.safetensors"
        raise UsageError(
            f"--out {shlex.quote(str(out))} does not end in .safetensors, the only format that is written.",
            f"--out {shlex.quote(str(named))}",
        )
    if out is not None and out.is_dir():
        raise UsageError(f"--out {shlex.quote(str(out))} is a folder.", "--out FILE.safetensors")
    if import_file is not None:
        named = [flag for flag, value in (("--model", model or None), ("--data", data)) if value is not None]
        if given := named + changed(selection) + changed(encoding):
            what = f"no {' and no '.join(given)}"
            raise UsageError(f"--import converts a file as it is: it takes {what}.", IMPORT_EXAMPLE)
        convert(import_file, out, json)
        return
    if not model or data is None:
        raise UsageError("embed needs --model and --data, or --import and --out.", EXAMPLE)
    from transmiter_cli.embedding.sources import DataSpec
    from transmiter_cli.workflow.embed import embed_data

    workspace = encoding.workspace()
    results = embed_data(model, DataSpec(data, **vars(selection)), out, workspace)
    if json:
        console.print_json({"models": {result.model: vars(result) for result in results}, "out": out})
        return
    console.print_result([(result.model, line(result)) for result in results])


def line(result: EmbedResult) -> str:
    """What was encoded by one model."""
    skipped = f", {result.skipped} skipped" if result.skipped else ""
    return f"{result.images:,} images{skipped}, {result.width} numbers each"


def convert(source: Path, out: Path | None, json: bool) -> None:
    """Convert a feature file of the TransMiter authors."""
    if out is None:
        target = source.with_suffix(".safetensors").name
        line = shlex.join(["transmiter", "embed", "--import", str(source), "--out", target])
        raise UsageError("--import needs --out.", line)
    from transmiter_cli.embedding.feature_file import read_feature_file

    features = read_feature_file(source)
    features.save(out)
    images, shapes = len(features.tensors["labels"]), {name: list(t.shape) for name, t in features.tensors.items()}
    if json:
        about = {"images": images, "classes": len(features.classes), "models": features.models}
        console.print_json({**about, "views": features.views, "tensors": shapes, "out": out})
        return
    views = f", {features.views} views each" if features.views > 1 else ""
    lines = [("features", console.shown(out)), ("images", f"{images:,} of {len(features.classes)} classes{views}")]
    console.print_result(lines + [(name, " x ".join(map(str, shape))) for name, shape in shapes.items()])
