"""transmiter predict."""

from __future__ import annotations

import csv
import json as json_module
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import Encoding, RunOption, Selection, StrongOption, changed
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import is_address
from transmiter_cli.names import some, visible

if TYPE_CHECKING:
    from transmiter_cli.workflow.predict import Prediction

NAME = "predict"
EXAMPLE = "transmiter predict --data demo-digits --split test --format csv"
STDIN = "-"
IMAGE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|RIFF.{4}WEBP|GIF8[79]a.[\0-\x1f]|II\*\0|MM\0\*|BM.{4}\0{4}", re.DOTALL)
"""How files of JPEG, PNG, WebP, GIF, TIFF and BMP begin, and no path."""


class Format(StrEnum):
    """How predictions are written."""

    table = "table"
    jsonl = "jsonl"
    csv = "csv"


def command(
    *,
    run: RunOption,
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Image files; `-` reads their paths from stdin to its end, one a line or NUL."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Images, as fit takes them, in place of image files; their test part if no --split is given."
        ),
    ] = None,
    selection: Selection,
    strong: StrongOption = None,
    use: Annotated[
        str | None,
        typer.Option(
            help="Which correction, by its row of eval: `refined`, `self_trained`, `discriminant`, `transferred`, "
            "`ridge`, `reg=10`, ...; the first there is of these if left out."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes per image.")] = 1,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="table (the default on a terminal), jsonl (the default in a pipe), csv."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same as --format csv.")] = False,
    encoding: Encoding,
) -> None:
    """Classify images with the strong model and what was transferred to it; any number of them.

    Exits 1 if an image that was named here has no prediction; those of --data are skipped with a warning.
    """
    from transmiter_cli.run import Run

    again = f"transmiter predict{Run(run).flag}"
    form = chosen_format(form, json, as_csv)
    if not images and data is None:
        raise UsageError("There is nothing to predict: name image files, or --data.", f"{again} --data FOLDER")
    if images and data is not None:
        raise UsageError("Name image files or --data, and not both.", f"{again} --data {shlex.quote(data)}")
    if images:
        images = named_files(images, again)
    if images and (flags := changed(selection)):
        raise UsageError(
            f"{', '.join(flags)} says which images of --data are meant, not which image files.",
            f"{again} --data FOLDER",
        )
    from transmiter_cli.embedding.sources import DataSpec, ImageFile
    from transmiter_cli.workflow.predict import open_predictor
    from transmiter_cli.workflow.run_data import open_told

    on_terminal = sys.stdout.isatty()  # where the predictions themselves show the progress
    workspace = replace(encoding, quiet=encoding.quiet or on_terminal).workspace()
    files = (
        open_told(DataSpec(data, **vars(selection)), "test", workspace.reporter, labels=False).files
        if data is not None
        else [ImageFile(Path(), path) for path in images or ()]
    )
    predictor = open_predictor(use, Run(run), workspace, strong)
    if not encoding.quiet:
        console.errors.print(f"Predicting with {predictor.row} on {predictor.encoder.name}.", style="dim")
    done: set[str] = set()
    predictions = noted(predictor.predict(files, top), done) if images else predictor.predict(files, top)
    WRITERS[form or (Format.table if on_terminal else Format.jsonl)](predictions)
    absent = [path for path in images or () if path not in done]
    if absent:
        raise TransmiterError(
            f"{len(absent)} of the {len(images or ())} images that were named have no prediction: {some(absent)}.",
            "the same command without them; why is said above",
        )


def chosen_format(form: Format | None, json: bool, as_csv: bool) -> Format | None:
    """What --format, --json and --csv ask for together, if anything.

    Raises:
        UsageError: if they differ.
    """
    asked = {"--format": form, "--json": Format.jsonl if json else None, "--csv": Format.csv if as_csv else None}
    given = {one: flag for flag, one in asked.items() if one is not None}
    if len(given) > 1:
        said = " and ".join(f"{flag} writes {one}" for one, flag in given.items())
        raise UsageError(f"Output takes one form at a time: {said}.", "one of them")
    return next(iter(given), None)


def named_files(images: Sequence[str], again: str) -> list[str]:
    """The image files that a command line names, or stdin.

    Args:
        images: what it names.
        again: the command line that predicts in the run.

    Raises:
        UsageError: if one is a folder or an address, or stdin comes with others.
    """
    if [*images] == [STDIN]:
        return paths_in(sys.stdin.buffer.read(), again)
    for one in images:
        if one == STDIN:
            raise UsageError(f"{STDIN} reads paths from stdin, and goes with no others.", f"./{STDIN} for a file")
        if one and Path(one).is_dir():
            raise UsageError(f"{one} is a folder.", f"{again} --data {shlex.quote(one)}")
        if is_address(one):
            raise UsageError(f"{one} is an address, and files are read here.", f"{again} FILE, once you have it here")
    return [*images]


def paths_in(lines: bytes, again: str) -> list[str]:
    """The path on each line, empty lines left out; those between NULs where there are any, as `find -print0` writes.

    Args:
        lines: what stdin held.
        again: the command line that predicts in the run.

    Raises:
        UsageError: if there are none, or an image itself.
    """
    parts = lines.split(b"\0") if b"\0" in lines else lines.splitlines()
    paths = [os.fsdecode(part) for part in parts if part.strip()]
    if not paths or IMAGE.match(lines):
        what = "holds an image, and no paths" if paths else "holds no paths"
        raise UsageError(f"stdin {what}.", f"find FOLDER -name '*.jpg' | {again} {STDIN}")
    return paths


def noted(predictions: Iterator[Prediction], done: set[str]) -> Iterator[Prediction]:
    """The same predictions, the names of their images put into `done` on the way."""
    for prediction in predictions:
        done.add(prediction.image)
        yield prediction


def write_jsonl(predictions: Iterator[Prediction]) -> None:
    """One JSON object per image and line; bytes of file names that are not UTF-8 are escaped as JSON does it."""
    for prediction in predictions:
        record: dict[str, Any] = {
            "image": prediction.image,
            "label": prediction.labels[0],
            "probability": prediction.probabilities[0],
        }
        if len(prediction.labels) > 1:
            record["top"] = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        text = json_module.dumps(record, ensure_ascii=False)
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def write_csv(predictions: Iterator[Prediction]) -> None:
    """A row per image and class; bytes of file names that are not UTF-8 are written as they are.

    Rows of paths that begin or end with a space are quoted: readers drop such spaces elsewhere.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    plain, quoted = (
        csv.writer(sys.stdout, lineterminator="\n", quoting=kind) for kind in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )
    plain.writerow(["image", "rank", "label", "probability"])
    for prediction in predictions:
        writer = plain if prediction.image == prediction.image.strip() else quoted
        for rank, (label, value) in enumerate(zip(prediction.labels, prediction.probabilities, strict=True), 1):
            writer.writerow([prediction.image, rank, label, f"{value:.6f}"])


def write_table(predictions: Iterator[Prediction]) -> None:
    """Aligned lines for people; newlines and other control characters in file names are escaped."""
    for prediction in predictions:
        pairs = zip(prediction.labels, prediction.probabilities, strict=True)
        shown = "  ".join(f"{100 * value:5.1f} % {label}" for label, value in pairs)
        console.results.print(visible(f"{shown:<30}  {prediction.image}", kept=""))


WRITERS: dict[Format, Callable[[Iterator[Prediction]], None]] = {
    Format.table: write_table,
    Format.jsonl: write_jsonl,
    Format.csv: write_csv,
}
