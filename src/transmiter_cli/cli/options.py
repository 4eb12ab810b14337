"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from transmiter_cli.errors import UsageError
from transmiter_cli.run import RUN_VARIABLE, default_run

Settings = TypeVar("Settings")
RunOption = Annotated[
    Path,
    typer.Option(
        "--run",
        help=f"The run directory. [env: {RUN_VARIABLE}]",
        default_factory=default_run,
        show_default="./transmiter-run",
    ),
]
StrongOption = Annotated[
    str | None,
    typer.Option("--strong", help="Which strong model, where the run has several; else the last transferred to."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Fail on an image that cannot be decoded; do not skip it.")
]
BatchOption = Annotated[int, typer.Option("--encode-batch", min=1, help="Most images that a model encodes at a time.")]
DecodeOption = Annotated[
    Literal["full", "scaled"] | None,
    typer.Option(
        "--decode",
        help="`scaled`: decode JPEG files at a part of their size, which is faster; `full`: as they are. "
        "If left out, fit, embed and bench do `full`, later commands what fit did.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Threads or processes that decode images; one per processor by default."),
]
PrecisionOption = Annotated[
    Literal["full", "half"] | None,
    typer.Option(
        "--precision",
        help="What image towers compute in: `full` is float32; `half` is float16 on a GPU, bfloat16 on a CPU. "
        "If left out, fit, embed and bench do `half` on CUDA alone, later commands what fit did.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", help="Which part of the data: train, val, test, or what else the data call it."),
]
RootOption = Annotated[
    str | None,
    typer.Option("--root", help="The folder that paths in a manifest or CoOp file start from, or torchvision's data."),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most so many images, evenly spaced over the sorted list.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Decides everything that is random.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV with all columns instead of text.")]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table instead of text.")]


def settings_of(kind: Callable[..., Settings], **values: Any) -> Settings:
    """The settings of a command.

    Raises:
        typer.BadParameter: if a number is none that they take.
    """
    try:
        return kind(**values)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def require_one_format(*formats: bool) -> None:
    """Raise UsageError if more than one form of output is asked for."""
    if sum(formats) > 1:
        raise UsageError("Output takes one form at a time.", "one of --json, --csv and --markdown")
