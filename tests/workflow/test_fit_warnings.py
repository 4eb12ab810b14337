import pytest

from tests.embedding.conftest import ListReporter
from transmiter_cli.workflow.fit_warnings import warn_of_no_gain


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (0.5, 0.6, []),
        (0.5, 0.5, ["nothing was learned"]),
        (1.0, 1.0, ["these images show nothing of what fine-tuning"]),
    ],
)
def test_a_fit_that_learned_nothing_is_told_from_one_that_had_nothing_to_learn(
    before: float, after: float, told: list[str]
):
    reporter = ListReporter()
    warn_of_no_gain(before, after, reporter)
    assert [part in warning for part, warning in zip(told, reporter.warnings, strict=True)] == [True] * len(told)
