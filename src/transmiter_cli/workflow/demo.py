"""transmiter demo: the main job on the bundled models and images."""

from __future__ import annotations

import shlex

from transmiter_cli.embedding.sources import DataSpec
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.evaluation.result import EvalResult
from transmiter_cli.method.settings import FitSettings, Method, RefineSettings
from transmiter_cli.run import Run
from transmiter_cli.workflow.evaluate import EvalOptions, eval_run
from transmiter_cli.workflow.fit import FitOptions, fit_run
from transmiter_cli.workflow.refine import RefineOptions, refine_run
from transmiter_cli.workflow.transfer import TransferOptions, transfer_run

WEAK, FINETUNED, STRONG = "demo-weak", "demo-finetuned", "demo-strong"
DATA, WORDS, SHOTS = "demo-digits", "characters", 16
METHODS: tuple[Method, ...] = ("adapter", "ridge", "discriminant")


def demo_commands(run: Run, seed: int) -> dict[str, str]:
    """The four commands that the demo runs, as one would type them."""
    lines = {
        "fit": f"fit --weak {WEAK} --finetuned {FINETUNED} --data {DATA} --aux-words {WORDS} --seed {seed}",
        "transfer": f"transfer --strong {STRONG} {' '.join(f'--method {method}' for method in METHODS)}",
        "refine": f"refine --shots {SHOTS} --seed {seed}",
        "eval": "eval",
    }
    return {name: f"transmiter {line}{run.flag}" for name, line in lines.items()}


def demo_run(run: Run, workspace: Workspace, seed: int) -> EvalResult:
    """Fit, transfer, refine and evaluate; the images of the test part are seen by the evaluation alone."""
    lines = {name: shlex.split(line) for name, line in demo_commands(run, seed).items()}
    options = FitOptions(WEAK, [FINETUNED], DataSpec(DATA), aux_words=WORDS, settings=FitSettings(seed=seed))
    fit_run(options, run, workspace, lines["fit"])
    transfer_run(TransferOptions((STRONG,), METHODS), run, workspace, lines["transfer"])
    refine_run(RefineOptions(shots=SHOTS, settings=RefineSettings(seed=seed)), run, workspace, lines["refine"])
    return eval_run(EvalOptions(), run, workspace)
