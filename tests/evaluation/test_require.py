from types import SimpleNamespace

import pytest

from transmiter_cli.errors import UsageError
from transmiter_cli.evaluation.require import judge, parse_gate, require_names

ROWS = {
    "strong": SimpleNamespace(top1=0.7, low=0.6, base=None, moves=()),
    "transferred": SimpleNamespace(top1=0.75, low=0.68, base=None, moves=()),
    "eft_0.5": SimpleNamespace(top1=0.8),
    "transferred@ViT-L/14": SimpleNamespace(top1=0.9),
    "reg=0.1": SimpleNamespace(top1=0.4),
    "reg=1e+06": SimpleNamespace(top1=0.3),
}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("transferred.top1 >= strong.top1 + 0.02", True),
        ("transferred.top1>=strong.top1", True),
        ("transferred.top1 >= strong.top1 + 0.1", False),
        ("transferred.top1 - strong.top1 > .04", True),
        ("0.5 * transferred.top1 < 2 * strong.top1 - 1e-1", True),
        ("eft_0.5.top1 <= 0.8", True),
        ("transferred@ViT-L/14.top1 > transferred.top1", True),
        ("-1 < - strong.low", True),
        ("reg=0.1.top1 < strong.top1", True),
        ("strong.top1>=reg=0.1.top1", True),
        ("transferred.low > strong.top1", False),
        ("reg=1e+06.top1+1E-3 < reg=0.1.top1", True),
        ("1e+3 * strong.top1 > 5.5e2", True),
    ],
)
def test_gates_are_measured(text: str, met: bool):
    assert judge(parse_gate(text), ROWS).met is met


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        ("strong.top1 < 90", True),
        ("transferred.top1 >= strong.top1 + 2", True),
        ("transferred.top1 - 2 >= strong.top1", True),
        ("strong.top1 + transferred.top1 > eft_0.5.top1", False),
        ("1000 * strong.top1 > 1000 * reg=0.1.top1", False),
        ("strong.seconds < 60", False),
        ("strong.sets >= 2", False),
    ],
)
def test_numbers_in_percent_beside_rates_are_noted(text: str, noted: bool):
    rows = {**ROWS, "strong": SimpleNamespace(top1=0.7, seconds=3.0, sets=3)}
    assert bool(judge(parse_gate(text), rows).note) is noted


def test_both_sides_are_told():
    verdict = judge(parse_gate("transferred.top1 >= strong.top1 + 0.1"), ROWS)
    assert (verdict.left, verdict.right) == (0.75, pytest.approx(0.8))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "transferred.top1",
        "a.top1 >= b.top1 >= 0",
        "a.top1 = 1",
        ">= 1",
        "a.top1 >= 1 2",
        "a.top1 >= 2 *",
        "top1 > 1",
    ],
)
def test_what_is_not_of_the_grammar_is_a_usage_error(text: str):
    with pytest.raises(UsageError, match="cannot be read"):
        parse_gate(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ridge.top1 > 0", "no row 'ridge', only strong, transferred, eft_0.5"),
        ("strong.top2 > 0", "no number 'top2', only top1, low"),
        ("strong.base > 0", "no number 'base'"),
        ("strong.moves > 0", "no number 'moves'"),
    ],
)
def test_wrong_names_list_the_right_ones(text: str, said: str):
    with pytest.raises(UsageError, match=said):
        judge(parse_gate(text), ROWS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("transfered.top1 > 0", r"no row 'transfered', only strong, transferred\. Did you mean 'transferred'\?"),
        (
            "0 < strong.top1 + transferred.topp1",
            r"transferred has no number 'topp1', only top1, nll\. Did you mean 'top1'\?",
        ),
        ("lasso.top1 > 0", r"only strong, transferred\.\n"),
    ],
)
def test_names_are_checked_before_there_are_rows(text: str, said: str):
    with pytest.raises(UsageError, match=said):
        require_names([parse_gate("strong.nll < 1"), parse_gate(text)], ["strong", "transferred"], ["top1", "nll"])
