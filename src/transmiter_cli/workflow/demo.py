"""transmiter demo: the main job on the bundled models and images."""

from __future__ import annotations

import shlex

from transmiter_cli.embedding.sources import DataSpec
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.evaluation.result import EvalResult
from transmiter_cli.method.settings import FitSettings, RefineSettings
from transmiter_cli.run import Run
from transmiter_cli.workflow.evaluate import EvalOptions, eval_run
from transmiter_cli.workflow.fit import FitOptions, fit_run
from transmiter_cli.workflow.refine import RefineOptions, refine_run
from transmiter_cli.workflow.transfer import TransferOptions, transfer_run

SHOTS = 16


def demo_commands(run: Run, seed: int) -> dict[str, str]:
    """The four commands that the demo runs, as one would type them."""
    lines = {
        "fit": "fit --weak demo-weak --finetuned demo-finetuned --data demo-digits "
        f"--aux-words characters --seed {seed}",
        "transfer": "transfer --strong demo-strong --method adapter --method ridge --method discriminant",
        "refine": f"refine --shots {SHOTS} --seed {seed}",
        "eval": "eval",
    }
    return {name: f"transmiter {line}{run.flag}" for name, line in lines.items()}


def demo_run(run: Run, workspace: Workspace, seed: int) -> EvalResult:
    """Fit, transfer, refine and evaluate; the images of the test part are seen by the evaluation alone."""
    lines = {name: shlex.split(line) for name, line in demo_commands(run, seed).items()}
    options = FitOptions(
        "demo-weak",
        ["demo-finetuned"],
        DataSpec("demo-digits"),
        aux_words="characters",
        settings=FitSettings(seed=seed),
    )
    fit_run(options, run, workspace, lines["fit"])
    transfer_run(
        TransferOptions(("demo-strong",), ("adapter", "ridge", "discriminant")), run, workspace, lines["transfer"]
    )
    refine_run(RefineOptions(shots=SHOTS, settings=RefineSettings(seed=seed)), run, workspace, lines["refine"])
    return eval_run(EvalOptions(), run, workspace)
