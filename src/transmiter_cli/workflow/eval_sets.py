"""transmiter eval on one data set or several: each measured alone, their means, and the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import UsageError
from transmiter_cli.evaluation.require import Gate, GateResult, judge, require_names
from transmiter_cli.evaluation.rows import MeanRow, Row, column_names, mean_rows
from transmiter_cli.run import Run
from transmiter_cli.workflow.evaluate import EvalOptions, EvalResult, eval_run, row_names


@dataclass
class EvalSets:
    """What was measured, as far as it went.

    Attributes:
        results: of each data set.
        means: of their rows, where there are several.
        gated: the gates, judged by the means, or by the only result.
    """

    results: list[EvalResult] = field(default_factory=list)
    means: Mapping[str, MeanRow] = field(default_factory=dict)
    gated: list[GateResult] = field(default_factory=list)


def eval_sets(
    options: EvalOptions,
    datas: Sequence[str | None],
    run: Run,
    workspace: Workspace,
    gates: Sequence[Gate],
    found: EvalSets,
) -> None:
    """Measure a run on each of several data sets, and judge the gates.

    Args:
        options: what to measure, and how; its data are replaced by each of `datas`.
        datas: --data values; None for the run's own.
        run: a run in which something was transferred.
        workspace: cache and device.
        gates: their names are checked before any image is encoded.
        found: gets what is measured when it is, so that it is there if a later set, or a gate, fails.

    Raises:
        UsageError: as `eval_run`, and if one of several data sets has no labels.
        TransmiterError: as `eval_run`.
    """
    each = [replace(options, data=replace(options.data, data=one)) for one in datas]
    several = len(each) > 1
    if several:
        sets = [open_images(one.data.spec(run.task()), "test") for one in each]
        if not options.labels or not all(images.labelled for images in sets):
            raise UsageError("Several data sets must all have labels.", "give one --data at a time")
        labels = frozenset(label for images in sets for label in images.label_names)
        each = [replace(one, elsewhere=labels) for one in each]
        require_names(gates, row_names(options, run), column_names(MeanRow, options.base_to_novel))
    for one in each:
        found.results.append(eval_run(one, run, workspace, () if several else gates))
    if several:
        found.means = mean_rows([labelled_rows(result) for result in found.results])
    found.gated += [judge(gate, found.means or found.results[0].rows) for gate in gates]


def labelled_rows(result: EvalResult) -> Mapping[str, Row]:
    """The rows of a result with labels."""
    return {name: row for name, row in result.rows.items() if isinstance(row, Row)}
