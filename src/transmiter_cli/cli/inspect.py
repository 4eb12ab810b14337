"""transmiter inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import JsonOption, RunOption
from transmiter_cli.names import some

if TYPE_CHECKING:
    from transmiter_cli.workflow.inspect import Content, RunSummary

NAME = "inspect"
EXAMPLE = "transmiter inspect transmiter-run/weak.safetensors"
SHOWN_SETTINGS = ("reg", "rho", "images", "basis", "epochs", "epochs_taken", "share", "zero_shot", "seed")
"""Settings that the line of an artefact has, of the step that made it."""
STEP_OF_STAGE = {"weak": "fit", "strong": "transfer", "self_trained": "self_train", "refined": "refine"}


def command(
    run: RunOption,
    path: Annotated[
        Path | None,
        typer.Argument(help="A run directory, its run.json, or one of its artefacts.", show_default="that of --run"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say what a run or an artefact is and how it was made, without loading a model."""
    from transmiter_cli.workflow.inspect import open_inspected

    found = open_inspected(path or run)
    if json:
        console.print_json(found if isinstance(found, dict) else found.as_json())
    elif isinstance(found, dict):
        console.print_result(artefact_lines(found))
    else:
        console.print_result(run_lines(found))
        console.results.print("commands", style="bold")
        before = str(Path.cwd())
        for line, folder in zip(found.commands, found.folders, strict=True):
            if folder not in ("", before):
                console.results.print(f"  # in {folder}")
            before = folder or before
            console.results.print(f"  $ {line}")


def run_lines(run: RunSummary) -> list[tuple[str, str]]:
    """A run in lines of a name and a value."""
    task = run.task
    parts = [f"--{name} {value}" for name in ("root", "split", "limit") if (value := getattr(task, name)) is not None]
    lines = [
        ("run", console.shown(run.path)),
        ("weak", f"{task.weak}, fine-tuned {', '.join(task.finetuned)}"),
        ("strong", ", ".join(dict.fromkeys(one.strong for one in run.contents if one.strong)) or "none yet"),
        ("data", " ".join([task.data, *parts])),
        ("classes", f"{len(task.classes)}: {some(task.classes)}"),
    ]
    return lines + [(content.file, content_line(content)) for content in run.contents]


def content_line(content: Content) -> str:
    """An artefact of a run in one line."""
    if content.damage:
        return content.damage
    about = content.description
    steps = about["details"].get(STEP_OF_STAGE.get(about["stage"]), {})
    settings = [f"{name} {console.said(steps[name])}" for name in SHOWN_SETTINGS if steps.get(name) is not None]
    settings += [steps["verdict"]["verdict"]] if "verdict" in steps else []
    gives = [f"row {content.row}", f"on {content.strong}"] if content.row else ["fitted"]
    trained = ["self-trained"] if about["stage"] == "refined" and "self_train" in about["details"] else []
    return ", ".join([*gives, about["method"], *trained, *settings])


def artefact_lines(description: dict[str, Any]) -> list[tuple[str, str]]:
    """An artefact in lines of a name and a value."""
    vocabulary, classes = description["vocabulary"], description["classes"]
    lines = [
        ("stage", f"{description['stage']}, method {description['method']}"),
        ("classes", f"{classes}: {some(vocabulary[:classes])}"),
        ("vocabulary", f"{len(vocabulary):,} entries"),
        ("logit scale", f"{description['logit_scale']:.4g}"),
    ]
    for step, settings in description["details"].items():
        lines.append((step, ", ".join(f"{name} {console.said(value)}" for name, value in settings.items())))
    for name, shape in description["tensors"].items():
        lines.append((name, " x ".join(map(str, shape)) or "scalar"))
    return lines
