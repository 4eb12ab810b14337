"""transmiter self-train."""

from __future__ import annotations

from typing import Annotated

import typer

from transmiter_cli.cli import console
from transmiter_cli.cli.options import Encoding, JsonOption, RunOption, Selection, StrongOption
from transmiter_cli.method.settings import LinearMethod

NAME = "self-train"
EXAMPLE = "transmiter self-train --data demo-digits"


def command(
    *,
    run: RunOption,
    data: Annotated[str, typer.Option(help="Unlabelled images, as fit takes them; labels are not looked at.")],
    selection: Selection,
    method: Annotated[
        LinearMethod | None,
        typer.Option(help="Which transferred classifier to start from; discriminant if there is one, else ridge."),
    ] = None,
    strong: StrongOption = None,
    encoding: Encoding,
    json: JsonOption = False,
) -> None:
    """Fit the transferred classifier to new unlabelled images of all classes by its own answers, without a teacher."""
    from transmiter_cli.embedding.sources import DataSpec
    from transmiter_cli.run import Run
    from transmiter_cli.workflow.self_train import SelfTrainOptions, self_train_run

    options = SelfTrainOptions(DataSpec(data, **vars(selection)), method, strong)
    workspace = encoding.workspace()
    result = self_train_run(options, Run(run), workspace, console.command_line())
    if json:
        about = {"images": result.images, "changed": result.changed, "missing": result.missing}
        console.print_json({"artefact": str(result.path), "method": result.artefact.method, **about})
        return
    used = Run(run)
    console.print_result(
        [
            ("self-trained", console.shown(result.path)),
            ("learned from", f"{result.images:,} different unlabelled images"),
            ("answers", f"{console.percent(result.changed)} of them changed"),
            ("next", used.usual_eval(used.strong(strong))),
        ]
    )
