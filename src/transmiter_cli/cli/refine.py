"""transmiter refine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import (
    Encoding,
    JsonOption,
    RunOption,
    SeedOption,
    Selection,
    StrongOption,
    checked_settings,
)
from transmiter_cli.method.settings import Method, RefineSettings

NAME = "refine"
EXAMPLE = "transmiter refine --shots 16"


def command(
    *,
    run: RunOption,
    data: Annotated[
        str | None, typer.Option(help="Labelled images, as fit takes them; those that fit saw if left out.")
    ] = None,
    selection: Selection,
    shots: Annotated[int | None, typer.Option(min=1, help="Labelled images per class; all if left out.")] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            help="Which transferred correction to refine; if left out, what self-train made, "
            "else the first there is of discriminant, adapter, ridge."
        ),
    ] = None,
    strong: StrongOption = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Of an adapter: most passes over the labelled images, {RefineSettings.epochs} if left out; fewer by "
            "cross-validation.",
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(min=0, help=f"Of an adapter: learning rate, {RefineSettings.learning_rate:g} if left out."),
    ] = None,
    seed: SeedOption = 0,
    encoding: Encoding,
    json: JsonOption = False,
) -> None:
    """Improve what was transferred, or self-trained, with a few labels; the strong model itself stays frozen."""
    from transmiter_cli.report.columns import title
    from transmiter_cli.run import Run
    from transmiter_cli.workflow.refine import RefineOptions, refine_run
    from transmiter_cli.workflow.run_data import DataFlags

    flags = DataFlags(data, **vars(selection))
    tuned: dict[str, Any] = {
        name: value for name, value in (("epochs", epochs), ("learning_rate", lr)) if value is not None
    }
    settings = checked_settings(RefineSettings, seed=seed, **tuned)
    options = RefineOptions(flags, shots=shots, method=method, strong=strong, settings=settings, tuned=bool(tuned))
    workspace = encoding.workspace()
    result = refine_run(options, Run(run), workspace, console.command_line())
    if json:
        console.print_json(
            {
                "artefact": str(result.path),
                "labelled_images": result.images,
                "method": result.artefact.method,
                "start": result.start,
                **{
                    name: value
                    for name, value in result.artefact.details["refine"].items()
                    if name in ("unchanged", "share", "factor", "zero_shot", "epochs_taken")
                },
            }
        )
        return
    used = Run(run)
    console.print_result(
        [
            ("refined", console.shown(result.path)),
            ("started from", title(result.start)),
            ("learned from", f"{result.images:,} labelled images"),
            chosen(result.artefact.details["refine"]),
            ("next", used.usual_eval(used.strong(strong))),
        ]
    )


def chosen(settings: Mapping[str, Any]) -> tuple[str, str]:
    """How far the refinement went: epochs of an adapter, the share of what labels alone say, and the factor."""
    if "epochs_taken" in settings:
        return "epochs", f"{settings['epochs_taken']} of {settings['epochs']}"
    weigh = "nothing" if not settings["share"] else f"{settings['share']:.0%}"
    scores = "" if settings["factor"] == 1 else f"; scores times {settings['factor']:.3g}, by held-out labels"
    return "labels weigh", weigh + scores
