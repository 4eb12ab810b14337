"""transmiter eval on one data set or several: each measured alone, their means, and the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.sources.opening import lasting, same_data
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.errors import UsageError
from transmiter_cli.evaluation.require import Gate, GateResult, judge, require_names
from transmiter_cli.evaluation.result import EvalResult
from transmiter_cli.evaluation.rows import MeanRow, Row, column_names, mean_rows
from transmiter_cli.run import Run
from transmiter_cli.workflow.evaluate import EvalOptions, eval_run, row_names


@dataclass
class EvalSets:
    """A run measured on each of several data sets; what was measured is there, also if a later set, or a gate, fails.

    Attributes:
        options: what to measure, and how; its data are replaced by each of `datas`.
        datas: --data values; None for the run's own.
        run: a run in which something was transferred.
        workspace: cache and device.
        gates: their names are checked before any image is encoded.
        results: of each data set.
        means: of their rows, where there are several.
        gated: the gates, judged by the means, or by the only result.
    """

    options: EvalOptions
    datas: Sequence[str | None]
    run: Run
    workspace: Workspace
    gates: Sequence[Gate] = ()
    results: list[EvalResult] = field(default_factory=list)
    means: Mapping[str, MeanRow] = field(default_factory=dict)
    gated: list[GateResult] = field(default_factory=list)

    @property
    def several(self) -> bool:
        """Whether there is more than one data set."""
        return len(self.datas) > 1

    def measure(self) -> None:
        """Measure each data set, and judge the gates; each is checked when its turn comes.

        Raises:
            UsageError: as `eval_run`, and if one of several data sets has no labels, or is named twice.
            TransmiterError: as `eval_run`.
        """
        each = [replace(self.options, data=replace(self.options.data, data=one)) for one in self.datas]
        if self.several:
            labels = self.shared_labels(each)
            each = [replace(one, elsewhere=labels) for one in each]
            rows = row_names(self.options, self.run)
            require_names(self.gates, rows, column_names(MeanRow, self.options.base_to_novel))
        for one in each:
            self.results.append(eval_run(one, self.run, self.workspace, () if self.several else self.gates))
        if self.several:
            self.means = mean_rows([labelled_rows(result) for result in self.results])
        self.gated += [judge(gate, self.means or self.results[0].rows) for gate in self.gates]

    def shared_labels(self, each: Sequence[EvalOptions]) -> frozenset[str]:
        """The labels of all data sets together.

        Raises:
            UsageError: if one has no labels, they are not to be used, or two are the same.
        """
        specs = [one.data.spec(self.run.task()) for one in each]
        sets = [open_images(spec, "test") for spec in specs]
        for one, other in combinations(map(lasting, specs), 2):
            if same_data(one, other):
                raise UsageError(f"--data names {one.data} twice, and its images would count twice.", "name it once")
        if not self.options.labels or not all(images.labelled for images in sets):
            raise UsageError("Several data sets must all have labels.", "give one --data at a time")
        return frozenset(label for images in sets for label in images.label_names)


def labelled_rows(result: EvalResult) -> Mapping[str, Row]:
    """The rows of a result with labels."""
    return {name: row for name, row in result.rows.items() if isinstance(row, Row)}
