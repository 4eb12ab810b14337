import csv
import json
from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.console import Console

from transmiter_cli.evaluation.result import EvalResult, Evidence
from transmiter_cli.evaluation.rows import Row, mean_rows
from transmiter_cli.evaluation.unlabelled import Move, Unlabelled
from transmiter_cli.report.columns import number, points, title
from transmiter_cli.report.table import (
    evaluation_csv,
    evaluation_json,
    evaluation_markdown,
    evaluation_table,
    means_table,
)


def row(top1: float, **more) -> Row:
    interval = {"low": top1 - 0.05, "high": min(1.0, top1 + 0.05), "top5": 1.0, "per_class": top1}
    gain = {"gain": top1 - 0.7, "gain_low": top1 - 0.75, "gain_high": top1 - 0.65, "fixed": 1234, "broken": 12}
    return Row(top1=top1, **interval, ece=0.1, nll=0.5, **gain, **more)


ROWS = {
    "weak": row(0.5),
    "weak_finetuned": row(0.97, labels=True, gradients=True),
    "strong": row(0.7),
    "eft_0.5": row(0.95, parameters=None, models=2),
    "transferred": row(0.9, parameters=52_794_000),
    "refined": row(0.91, parameters=52_794_000, labels=True, gradients=True),
    "strong_finetuned": row(0.99, labels=True, gradients=True),
}
EVIDENCE = Evidence({}, torch.tensor([0]), (), ["cat", "dog", "eel"])
RESULT = EvalResult(ROWS, "pets", None, images=100, classes=3, weak="ViT-B/32", strong="ViT-L/14", evidence=EVIDENCE)
PARTS = replace(RESULT, rows={name: replace(one, base=1.0, novel=0.5, hm=2 / 3) for name, one in ROWS.items()})
NOTED = replace(RESULT, notes=("OVERLAP: in this run fit used 37 of these 599 images. These numbers are too good.",))
UNLABELLED = replace(
    RESULT,
    evidence=replace(EVIDENCE, labels=None),
    rows={
        "strong": Unlabelled(confidence=0.5, agrees_strong=1.0, agrees_finetuned=0.5, changed=0, confidence_shift=0.0),
        "transferred": Unlabelled(
            confidence=0.7,
            agrees_strong=0.6,
            agrees_finetuned=0.9,
            changed=40,
            confidence_shift=0.2,
            parameters=52_794_000,
            moves=(Move(0, 2, 30), Move(1, 2, 10)),
        ),
    },
    notes=("Without labels nothing here says which model is right.",),
)


def rendered(table) -> list[str]:
    console = Console(file=StringIO(), width=80, soft_wrap=True)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("result", [RESULT, PARTS, NOTED, UNLABELLED])
def test_80_columns_are_enough_and_nothing_is_cut(result: EvalResult):
    lines = rendered(evaluation_table(result))
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_the_best_row_of_one_strong_model_has_a_star():
    starred = [line.split()[1] for line in rendered(evaluation_table(RESULT)) if line.startswith("*")]
    assert starred == ["refined", "best"]


def test_no_row_has_a_star_if_none_is_better_than_the_strong_model():
    worse = {name: row(0.7) if name in ("transferred", "refined") else one for name, one in ROWS.items()}
    lines = rendered(evaluation_table(replace(RESULT, rows=worse)))
    assert not [line for line in lines if line.startswith("*")]
    assert "No row that runs one strong model is better than the strong model itself." in " ".join(lines)
    assert "best of" not in " ".join(lines)


def test_the_row_that_all_are_compared_with_is_in_header_and_legend():
    compared = replace(RESULT, against="weak_finetuned")
    lines = rendered(evaluation_table(compared))
    assert "vs weak_finetuned  " in lines[1]
    assert "vs weak_finetuned [95 %]: paired difference" in " ".join(lines)
    assert max(map(len, lines)) <= 80
    assert "| vs weak_finetuned [95 %] |" in evaluation_markdown(compared)
    assert evaluation_json(compared)["against"] == "weak_finetuned"
    means = mean_rows([ROWS, ROWS])
    written = list(csv.DictReader(evaluation_csv([compared], means).splitlines()))
    assert {line["against"] for line in written} == {"weak_finetuned"}
    assert "against" not in evaluation_csv([UNLABELLED]).splitlines()[0].split(",")
    assert "vs weak_finetuned" in "\n".join(rendered(means_table(means, compared.against)))


def test_the_first_of_several_strengths_is_in_the_rows_title_alone():
    swept = replace(RESULT, rows={**ROWS, "reg=10": row(0.8)}, reg=0.01)
    lines = rendered(evaluation_table(swept))
    assert any("transferred reg=0.01 " in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert "| transferred reg=0.01 |" in evaluation_markdown(swept)
    assert "transferred" in evaluation_json(swept)["rows"]
    assert "reg=" not in "\n".join(rendered(evaluation_table(RESULT)))
    means = mean_rows([swept.rows, swept.rows])
    assert "transferred reg=0.01" in "\n".join(rendered(means_table(means, "strong", swept.reg)))
    assert "transferred reg=0.01 moves" in "\n".join(rendered(evaluation_table(replace(UNLABELLED, reg=0.01))))


def test_numbers_of_a_column_end_at_the_same_place():
    lines = [line for line in rendered(evaluation_table(RESULT)) if "-shot" in line or "refined" in line]
    ends = {
        line.index(f"{100 * one.top1:.1f} ")
        for line, one in zip(lines, (ROWS["weak"], ROWS["strong"], ROWS["refined"]), strict=True)
    }
    assert len(ends) == 1


def test_names_do_not_steer_the_terminal():
    odd = replace(
        UNLABELLED, data="a\x1b[2J", evidence=replace(UNLABELLED.evidence, class_names=["cat\x1b[31m", "dog", "eel"])
    )
    text = "\n".join(rendered(evaluation_table(odd)))
    assert r"a\x1b[2J" in text
    assert r"moves cat\x1b[31m > eel 30" in text
    assert "\x1b" not in evaluation_markdown(odd)


def test_an_overlap_is_said_below_the_table():
    assert any(line.startswith("OVERLAP") for line in rendered(evaluation_table(NOTED)))


def test_without_labels_the_table_says_so_and_names_moves():
    text = "\n".join(rendered(evaluation_table(UNLABELLED)))
    assert "nothing here says which model is right" in text
    assert "transferred moves cat > eel 30, dog > eel 10" in text
    assert "top-1" not in text


def test_an_unknown_cost_is_a_question_mark_not_a_zero():
    (line,) = (line for line in evaluation_markdown(RESULT).splitlines() if "EFT, a = 0.5" in line)
    assert "| ? |" in line


def test_numbers_are_short_and_have_units():
    assert [number(count) for count in (None, 0, 999, 83_226, 771_938, 999_999, 52_794_000, 8.8e9)] == [
        "?", "0", "999", "83.2 k", "772 k", "1.0 M", "52.8 M", "8.8 G"
    ]  # fmt: skip


def test_a_difference_that_rounds_to_nothing_has_no_sign_of_a_loss():
    assert points(-0.0003) == "+0.0"
    assert "| +0.0 [-1.0, 1.0] |" in evaluation_markdown(
        replace(
            RESULT,
            rows={
                "strong": ROWS["strong"],
                "ridge": replace(ROWS["weak"], gain=-0.0003, gain_low=-0.01, gain_high=0.01),
            },
        )
    )


def test_an_unknown_row_goes_by_its_own_name():
    assert [title(name) for name in ("strong", "eft_0.3", "lasso")] == ["strong, zero-shot", "EFT, a = 0.3", "lasso"]


def test_json_has_fractions_and_what_was_measured():
    shown = evaluation_json(RESULT)
    weak = shown["rows"]["weak"]
    assert (weak["top1"], weak["parameters"], weak["labels"], weak["base"]) == (0.5, 0, False, None)
    assert (shown["images"], shown["data"], shown["strong"]) == (100, "pets", "ViT-L/14")
    assert "evidence" not in shown
    assert evaluation_json(UNLABELLED)["rows"]["transferred"]["moves"][0] == {
        "before": "cat", "after": "eel", "images": 30
    }  # fmt: skip


@pytest.mark.parametrize("result", [RESULT, UNLABELLED])
def test_csv_has_what_json_has(result: EvalResult):
    lines = list(csv.DictReader(StringIO(evaluation_csv([result]))))
    shown = evaluation_json(result)["rows"]
    assert [line["row"] for line in lines] == list(shown)
    beside = {"data", "row", "notes", "against"} if result.labelled else {"data", "row", "notes"}
    assert set(lines[0]) == {*beside, *next(iter(shown.values()))}
    if result.labelled:
        assert [float(line["top1"]) for line in lines] == [one["top1"] for one in shown.values()]
    else:
        moves = [[[*move.values()] for move in one["moves"]] for one in shown.values()]
        assert [json.loads(line["moves"]) for line in lines] == moves
        assert isinstance(moves[-1][0][0], str), "by the names of the classes"


def test_markdown_has_every_column_of_the_header_in_every_row():
    lines = [line for line in evaluation_markdown(PARTS).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + len(ROWS)
    assert "| HM |" in lines[0]


def test_means_over_sets_name_both_harmonic_means():
    other = {name: replace(one, top1=1.0, base=0.6, novel=0.2, hm=0.3) for name, one in PARTS.rows.items()}
    means = mean_rows([PARTS.rows, other])
    assert means["strong"].top1 == pytest.approx(0.85)
    assert means["strong"].hm == pytest.approx((2 / 3 + 0.3) / 2)
    assert means["strong"].hm_of_means == pytest.approx(2 * 0.8 * 0.35 / 1.15)
    text = "\n".join(rendered(means_table(means, "strong")))
    assert "HM of means" in text
    assert "mean over 2 data sets" in text
    assert mean_rows([ROWS, ROWS])["strong"].hm is None
    alone = {name: replace(one, gain=None) for name, one in other.items()}
    assert mean_rows([PARTS.rows, alone])["strong"].gain is None


def test_tensors_of_the_evidence_do_not_reach_json():
    assert "evidence" not in evaluation_json(RESULT)
