from io import StringIO

from rich.console import Console

from transmiter_cli.evaluation import Row
from transmiter_cli.report.table import evaluation_json, evaluation_table
from transmiter_cli.workflow.evaluate import EvalResult

RESULT = EvalResult(
    rows={
        "weak": Row(0.5, 0.4, 0.6),
        "weak_finetuned": Row(0.97, 0.96, 0.98, labels=True, gradients=True),
        "strong": Row(0.7, 0.6, 0.8),
        "eft": Row(0.95, 0.9, 1.0, parameters=None),
        "transferred": Row(0.9, 0.85, 0.95, parameters=52_794_000),
        "refined": Row(0.91, 0.86, 0.96, parameters=52_794_000, labels=True, gradients=True),
    },
    data="pets",
    split=None,
    images=100,
    classes=3,
    weak="ViT-B/32",
    strong="ViT-L/14",
)


def rendered() -> list[str]:
    console = Console(file=StringIO(), width=80)
    console.print(evaluation_table(RESULT))
    return console.file.getvalue().splitlines()


def test_80_columns_are_enough_and_nothing_is_cut():
    lines = rendered()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_the_best_row_of_one_strong_model_has_a_star():
    starred = [line.split()[0] for line in rendered() if "*" in line]
    assert starred == ["refined"]


def test_an_unknown_cost_is_a_question_mark_not_a_zero():
    (eft,) = (line for line in rendered() if "EFT" in line)
    assert "?" in eft


def test_json_has_fractions_and_what_was_measured():
    shown = evaluation_json(RESULT)
    assert shown["rows"]["weak"] == {
        "top1": 0.5,
        "low": 0.4,
        "high": 0.6,
        "parameters": 0,
        "labels": False,
        "gradients": False,
    }
    assert (shown["images"], shown["data"], shown["strong"]) == (100, "pets", "ViT-L/14")
