"""transmiter bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import (
    CsvOption,
    Encoding,
    JsonOption,
    MarkdownOption,
    output_form,
)

NAME = "bench"
EXAMPLE = "transmiter bench demo"


def command(
    file: Annotated[Path, typer.Argument(help="The grid: a TOML file, or `demo` for the bundled one.")],
    results: Annotated[
        Path | None,
        typer.Option(
            help="Where finished cells are kept.", show_default="the file's name, with -results", metavar="DIR"
        ),
    ] = None,
    *,
    encoding: Encoding,
    json: JsonOption = False,
    csv: CsvOption = False,
    markdown: MarkdownOption = False,
) -> None:
    """Run a grid of data sets, teachers, models, seeds and methods to one table; go on where it stopped."""
    from transmiter_cli.bench.grid import run_bench
    from transmiter_cli.bench.spec import read_spec
    from transmiter_cli.bench.summary import summarize
    from transmiter_cli.report import bench

    form = output_form(json, csv, markdown)
    spec = read_spec(file)
    workspace = encoding.workspace()
    found = run_bench(spec, results or Path(f"{file.stem}-results"), workspace)
    lines = summarize(found.cells)
    if form == "json":
        console.print_json(bench.bench_json(found, lines))
    elif form == "csv":
        console.print_text(bench.bench_csv(lines))
    elif form == "markdown":
        console.print_text(bench.bench_markdown(lines))
    else:
        for table in bench.bench_tables(lines):
            console.results.print(table)
    if found.failures:
        count = len(found.failures)
        rest = "what could be measured is above, and kept" if found.cells else "nothing could be measured"
        said = f"{count} failure{'s' * (count > 1)}: {rest}."
        console.errors.print(said, style="bold")
        raise typer.Exit(1)
