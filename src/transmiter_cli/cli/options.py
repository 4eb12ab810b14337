"""Options that several commands share."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from transmiter_cli.cli import console
from transmiter_cli.embedding.choices import Decoding, Precision
from transmiter_cli.errors import TransmiterError, UsageError
from transmiter_cli.files import is_address
from transmiter_cli.run import RUN_VARIABLE, default_run

if TYPE_CHECKING:
    from transmiter_cli.embedding.workspace import Workspace

Settings = TypeVar("Settings")
OutputForm = Literal["table", "json", "csv", "markdown"]
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
FLAGS = {"learning_rate": "--lr"}
"""The flags of settings that are not called as their setting."""
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print results, warnings and errors only.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Decides everything that is random.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV with all columns instead of text.")]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table instead of text.")]


@dataclass(frozen=True)
class Selection:
    """Which images of --data a command takes. Its fields are options of the command, by `with_option_groups`."""

    root: Annotated[
        str | None,
        typer.Option(help="The folder that paths in a manifest or CoOp file start from, or torchvision's data."),
    ] = None
    split: Annotated[
        str | None, typer.Option(help="Which part of the data: train, val, test, or what else the data call it.")
    ] = None
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many images, evenly spaced over the sorted list.")
    ] = None


@dataclass(frozen=True)
class Encoding:
    """Where and how a command computes embeddings. Its fields are options of the command, by `with_option_groups`."""

    device: DeviceOption = "auto"
    encode_batch: Annotated[
        int, typer.Option("--encode-batch", min=1, help="Most images that a model encodes at a time.")
    ] = 64
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail on an image that cannot be decoded; do not skip it.")
    ] = False
    decode: Annotated[
        Decoding | None,
        typer.Option(
            "--decode",
            help="`scaled`: decode JPEG files at a part of their size, which is faster; `full`: as they are. "
            "If left out, fit, embed and bench do `full`, later commands what fit did.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Threads or processes that decode images; one per processor by default."),
    ] = None
    precision: Annotated[
        Precision | None,
        typer.Option(
            "--precision",
            help="What image towers compute in: `full` is float32; `half` is float16 on a GPU, bfloat16 on a CPU. "
            "If left out, fit, embed and bench do `half` on CUDA alone, later commands what fit did.",
        ),
    ] = None
    quiet: QuietOption = False

    def workspace(self) -> Workspace:
        """The workspace that these options describe."""
        from transmiter_cli.embedding.devices import choose_device
        from transmiter_cli.embedding.workspace import Workspace

        return Workspace(
            device=choose_device(self.device),
            reporter=console.ConsoleReporter(self.quiet),
            batch_size=self.encode_batch,
            strict=self.strict,
            decoding=self.decode,
            workers=self.workers,
            precision=self.precision,
        )


def changed(options: Selection | Encoding) -> list[str]:
    """The flags whose value is not what it is when they are left out, --quiet apart."""
    values = {one: getattr(options, one.name) for one in fields(options) if one.name != "quiet"}
    return [f"--{one.name.replace('_', '-')}" for one, value in values.items() if value != one.default]


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, with options for the fields of each parameter whose type is a dataclass of options.

    It refuses an address in place of a path, and a working directory that is not there.
    """
    given = inspect.signature(command, eval_str=True).parameters
    groups = {name: one.annotation for name, one in given.items() if one.annotation in (Selection, Encoding)}
    own = {name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()}
    each = [one for name, parameter in given.items() for one in own.get(name, {name: parameter}).values()]

    @functools.wraps(command)
    def grouped(**options: Any) -> None:
        require_working_directory()
        require_paths(options)
        filled = {name: group(**{one: options.pop(one) for one in own[name]}) for name, group in groups.items()}
        command(**options, **filled)

    each = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in each]
    vars(grouped)["__signature__"] = inspect.Signature(each)
    grouped.__annotations__ = {one.name: one.annotation for one in each}
    return grouped


def require_working_directory() -> None:
    """Raise TransmiterError if the working directory was removed, where libraries would say this and that."""
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError as error:
        raise TransmiterError("The working directory was removed.", "cd") from error


def require_paths(options: Mapping[str, Any]) -> None:
    """Raise UsageError if a path is an address (s3://...), of which pathlib makes a folder called `s3:`."""
    for value in options.values():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and is_address(str(path)):
                address = str(path).replace(":/", "://", 1)
                raise UsageError(
                    f"{address} is an address, and only paths are taken here.", "a path, and copy what is there"
                )


def checked_settings(kind: Callable[..., Settings], **values: Any) -> Settings:
    """The settings of a command.

    Raises:
        UsageError: if a number is none that they take.
    """
    try:
        return kind(**values)
    except ValueError as error:
        name, _, what = str(error).partition(" ")  # it begins with the setting
        flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
        raise UsageError(f"{flag} {what}", f"leave {flag} out for the usual value") from error


def output_form(json: bool, csv: bool, markdown: bool) -> OutputForm:
    """The form of output that flags ask for.

    Raises:
        UsageError: if it is more than one.
    """
    forms: list[tuple[OutputForm, bool]] = [("json", json), ("csv", csv), ("markdown", markdown)]
    asked: list[OutputForm] = [form for form, wanted in forms if wanted]
    if len(asked) > 1:
        raise UsageError("Output takes one form at a time.", "one of --json, --csv and --markdown")
    return asked[0] if asked else "table"
