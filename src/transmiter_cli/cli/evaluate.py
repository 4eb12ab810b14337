"""transmiter eval."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import (
    CsvOption,
    Encoding,
    JsonOption,
    MarkdownOption,
    OutputForm,
    RunOption,
    Selection,
    StrongOption,
    output_form,
)
from transmiter_cli.errors import TransmiterError, UsageError

if TYPE_CHECKING:
    from transmiter_cli.workflow.eval_sets import EvalSets

NAME = "eval"
EXAMPLE = "transmiter eval"
UNMET = 3
"""The exit code where a --require gate is not met."""


def command(
    *,
    run: RunOption,
    strong: StrongOption = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Test images, as fit takes them; the test part of fit's data if left out. Repeat it for several sets.",
            show_default=False,
        ),
    ] = None,
    selection: Selection,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map", help="JSON from the data's labels to the run's classes, null for one to leave out.", metavar="FILE"
        ),
    ] = None,
    base_to_novel: Annotated[
        bool, typer.Option("--base-to-novel", help="Also base and novel classes, each answered among its own, and HM.")
    ] = False,
    base: Annotated[
        Path | None,
        typer.Option(help="Base classes, one a line or JSON; else CoOp's rule, the first half.", metavar="FILE"),
    ] = None,
    strong_finetuned: Annotated[
        str | None, typer.Option(help="A fine-tuned strong model, as --finetuned takes it, for a row of its own.")
    ] = None,
    against: Annotated[
        str, typer.Option(help="The row that the others are compared with: weak_finetuned, say.", metavar="ROW")
    ] = "strong",
    eft: Annotated[
        list[str] | None, typer.Option(help="Strengths a of EFT, '0.5,1'; may be repeated.", show_default="0.5,1,1.5")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            help="A gate, 'discriminant.top1 >= strong.top1 + 0.02': exit 3 if it is not met. May be repeated.",
            show_default=False,
        ),
    ] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Measure on images that the run learned from, too, and say so.")
    ] = False,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="Use no labels: agreement, confidence and moves only.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Also write an HTML report with pictures here.", metavar="FILE")
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="All columns.")] = False,
    encoding: Encoding,
    json: JsonOption = False,
    csv: CsvOption = False,
    markdown: MarkdownOption = False,
) -> None:
    """Measure every model of the run on test images, and refuse those that it learned from."""
    from transmiter_cli.evaluation.candidates import EFT_STRENGTHS
    from transmiter_cli.evaluation.require import parse_gate
    from transmiter_cli.run import Run
    from transmiter_cli.workflow.eval_sets import EvalSets
    from transmiter_cli.workflow.evaluate import EvalOptions, row_names
    from transmiter_cli.workflow.run_data import DataFlags

    form = output_form(json, csv, markdown)
    if report is not None and data is not None and len(data) > 1:
        raise UsageError("--report is about one data set.", "give one --data")
    if report is not None and (report.is_dir() or str(report) == "-"):
        what = "a folder" if report.is_dir() else "no file's name"
        raise UsageError(f"--report writes a file, and {report} is {what}.", "--report report.html")
    strengths = eft_strengths(eft) if eft else EFT_STRENGTHS
    gates = [parse_gate(text) for text in require or []]
    workspace = encoding.workspace()
    options = EvalOptions(
        data=DataFlags(None, **vars(selection)),
        strong=strong,
        mapping=map_file,
        base_to_novel=base_to_novel or base is not None,
        base=base,
        allow_overlap=allow_overlap,
        labels=not no_labels,
        against=against,
        strong_finetuned=strong_finetuned,
        eft=strengths,
    )
    found = EvalSets(options, data or [None], Run(run), workspace, gates)
    if report is not None:
        from transmiter_cli.report.html import subject

        subject(row_names(options, Run(run)), against)  # which fails before anything is encoded
    try:
        found.measure()
    finally:
        if found.results:  # what was measured is shown, also where a later data set, or a gate, fails
            show(found, form, wide)
    unmet = not all(one.met for one in found.gated)
    if report is not None:
        from transmiter_cli.report.html import write_report

        try:
            write_report(found.results[0], report, Run(run).commands())
        except TransmiterError as error:
            if unmet:  # the gate was judged, report or not
                error.exit_code = UNMET
            raise
        workspace.reporter.note(f"The report is in {console.shown(report)}.")
    if unmet:
        raise typer.Exit(UNMET)


def eft_strengths(given: list[str]) -> tuple[float, ...]:
    """The values of --eft.

    Raises:
        UsageError: if one is no finite number, or negative.
    """
    try:
        strengths = tuple(float(one) for text in given for one in text.split(","))
    except ValueError:
        strengths = (inf,)
    if not all(0 <= strength < inf for strength in strengths):
        said = ",".join(given)
        raise UsageError(f"--eft takes finite numbers that are not negative, not {said!r}.", "--eft 0.5,1")
    return strengths


def show(found: EvalSets, form: OutputForm, wide: bool) -> None:
    """Print an evaluation; unmet gates also on stderr."""
    from transmiter_cli.report import table

    results, means = found.results, found.means
    if form == "json":
        sets = [table.evaluation_json(result) for result in results]
        whole = (
            {"sets": sets, "against": results[0].against, "mean": {name: vars(row) for name, row in means.items()}}
            if found.several
            else sets[0]
        )
        console.print_json({**whole, "requirements": [vars(one) for one in found.gated]})
    elif form == "csv":
        console.print_text(table.evaluation_csv(results, means))
    elif form == "markdown":
        last = [table.means_markdown(means, results[0].against, results[0].reg)] if means else []
        console.print_text("\n".join([*map(table.evaluation_markdown, results), *last]))
    else:
        for result in results:
            (console.wide_results if wide else console.results).print(table.evaluation_table(result, wide))
        if means:
            console.results.print(table.means_table(means, results[0].against, results[0].reg))
    for one in found.gated:
        said = f"{one.gate}: {one.left:.4f} against {one.right:.4f}"
        if one.met and form == "table":
            console.results.print(f"Met: {said}")
        if one.note or not one.met:
            note = f"; {one.note}" if one.note else ""
            console.errors.print(f"{'Warning' if one.met else 'Not met'}: {said}{note}")
