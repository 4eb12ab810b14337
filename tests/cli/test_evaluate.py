"""transmiter eval: protocols, gates, formats, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, done
from tests.cli.test_errors import failed
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import CachedEncoder
from transmiter_cli.run import Run
from transmiter_cli.task.finetuned import bundled_path
from transmiter_cli.workflow.evaluate import EvalOptions, row_names

FIT = ("fit", "--weak", "demo-weak", "--finetuned", "demo-finetuned", "--aux-words", "characters", "--epochs", "2")
DIGITS = ["eight", "five", "four", "nine", "one", "seven", "six", "three", "two", "zero"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """A run on every second train digit, made once."""
    lines = (
        (*FIT, "--data", "demo-digits", "--limit", "600"),
        ("transfer", "--strong", "demo-strong", "--method", "adapter", "--method", "ridge"),
        ("refine", "--shots", "2"),
    )
    return done(tmp_path_factory.mktemp("fitted"), shared_cache, *lines) / "transmiter-run"


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    shutil.copytree(fitted, tmp_path / "transmiter-run")
    return tmp_path / "transmiter-run"


def copies(part: str, folder: Path, classes: list[str], each: int = 8) -> Path:
    """Some digits of one part in class folders of one's own."""
    for file in open_images("demo-digits", part).files:
        target = folder / str(file.label)
        if file.label in classes and (not target.is_dir() or len(list(target.iterdir())) < each):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.path, target / f"copy-{file.path.name}")
    return folder


def rows(cli: Cli, *flags: object) -> dict:
    outcome = cli("eval", "--json", *flags)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["rows"]


def test_copies_of_images_that_fit_saw_are_refused_under_any_name(cli: Cli, run: Path, tmp_path: Path):
    mixed = copies("test", tmp_path / "mixed", DIGITS)
    copies("train", mixed, ["one"], each=12)
    outcome = cli("eval", "--data", "mixed")
    failed(outcome, 1, "of these 84 images", "by their content", "measured on them: one/", "--allow-overlap")
    allowed = json.loads(cli("eval", "--data", "mixed", "--allow-overlap", "--json").out)
    assert "These numbers are too good" in allowed["notes"][0]
    assert "OVERLAP" in cli("eval", "--data", "mixed", "--allow-overlap").out
    assert rows(cli, "--data", copies("test", tmp_path / "clean", DIGITS))["strong"]["top1"] > 0.5


def test_images_that_refine_used_are_refused_too(cli: Cli, run: Path, tmp_path: Path):
    labelled = copies("test", tmp_path / "labelled", DIGITS)
    assert cli("refine", "--data", "labelled").code == 0
    failed(cli("eval", "--data", labelled), 1, "refine used 80 of these 80 images")
    failed(cli("eval"), 1, "refine used 80 of these 599 images")


def test_a_run_that_does_not_know_its_images_says_so(cli: Cli, run: Path):
    (run / "seen-by-fit.txt").unlink()
    assert "nobody knows" in cli("eval").out


def test_gates_decide_the_exit_code(cli: Cli, run: Path):
    met, unmet = "transferred.top1 >= strong.top1", "transferred.top1 >= strong.top1 + 0.9"
    passed = cli("eval", "--require", met)
    assert passed.code == 0
    assert f"Met: {met}" in passed.out
    outcome = cli("eval", "--require", met, "--require", unmet)
    assert outcome.code == 3
    assert f"Not met: {unmet}: 0." in outcome.err
    outcome = cli("eval", "--require", unmet, "--json")
    assert outcome.code == 3
    (verdict,) = json.loads(outcome.out)["requirements"]
    assert (verdict["gate"], verdict["met"]) == (unmet, False)
    assert verdict["right"] == pytest.approx(json.loads(outcome.out)["rows"]["strong"]["top1"] + 0.9)
    assert "fractions" in cli("eval", "--require", "transferred.ece <= 5").err, "met, but by a number in percent"
    assert "fractions" not in cli("eval", "--require", "transferred.nll <= 5", "--require", "strong.broken < 1").err


def test_a_probe_costs_eft_no_tower_of_its_own_and_a_second_checkpoint_one_more(run: Path, cli: Cli, tmp_path: Path):
    shutil.copy(bundled_path("demo-finetuned"), tmp_path / "twin.safetensors")
    assert rows(cli)["eft"]["models"] == 2
    whole = rows(cli)["eft"]["parameters"]
    for finetuned, models in ((["probe"], 1), (["demo-finetuned", "twin.safetensors", "probe"], 3)):
        flags = [part for name in finetuned for part in ("--finetuned", name)]
        assert cli(*FIT[:3], *flags, *FIT[5:], "--data", "demo-digits", "--limit", 60, "--force").code == 0
        assert cli("transfer", "--strong", "demo-strong", "--method", "adapter", "--reg", "1").code == 0
        eft = rows(cli)["eft"]
        assert (eft["models"], eft["parameters"]) == (models, whole // 2 * models)
    assert eft["seconds"] > rows(cli)["strong"]["seconds"] / 10


def test_what_was_measured_is_shown_where_a_later_data_set_fails(cli: Cli, run: Path, tmp_path: Path):
    copies("test", tmp_path / "some", DIGITS)
    copies("train", tmp_path / "seen", DIGITS)
    outcome = cli("eval", "--data", "some", "--data", "seen")
    assert outcome.code == 1
    assert "fit used" in outcome.err
    assert "some" in outcome.out
    assert "strong, zero-shot" in outcome.out


@pytest.mark.parametrize(
    ("flags", "gate", "said"),
    [
        (
            (),
            "lasso.top1 > 0",
            "no row 'lasso', only weak, weak_finetuned, strong, eft_0.5, eft, eft_1.5, product, direct,",
        ),
        ((), "transfered.top1 > 0", "Did you mean 'transferred'?"),
        ((), "strong.top9 > 0", "no number 'top9', only parameters, flops, models, seconds, labels, gradients, top1"),
        ((), "strong.hm > 0", "no number 'hm'"),
        ((), "strong_finetuned.top1 > 0", "no row 'strong_finetuned'"),
        (
            ("--eft", "0.3"),
            "eft_0.5.top1 > 0",
            "no row 'eft_0.5', only weak, weak_finetuned, strong, eft_0.3, product, direct",
        ),
        (("--no-labels",), "strong.top1 > 0", "no number 'top1' without labels, only"),
        (
            ("--data", "demo-digits", "--data", "some"),
            "strong.nll > 0",
            "no number 'nll', only top1, gain, sets",
        ),
        ((), "strong.top1", "cannot be read"),
    ],
)
def test_gates_with_wrong_names_list_the_right_ones_before_anything_is_encoded(
    cli: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], gate: str, said: str
):
    copies("test", tmp_path / "some", ["one", "two"])
    monkeypatch.setattr("transmiter_cli.embedding.workspace.CachedEncoder.image_embeddings", lambda *_: 1 / 0)
    failed(cli("eval", *flags, "--require", gate), 2, said)


def test_rows_of_a_fine_tuned_model_that_has_gone_are_missed_before_anything_is_encoded(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch
):
    record = json.loads((run / "run.json").read_text())
    record["task"]["finetuned"] = ["gone.safetensors"]
    (run / "run.json").write_text(json.dumps(record))
    assert list(rows(cli))[:4] == ["weak", "strong", "direct", "transferred"]
    monkeypatch.setattr("transmiter_cli.embedding.workspace.CachedEncoder.image_embeddings", lambda *_: 1 / 0)
    for flags in (("--require", "weak_finetuned.top1 > 0"), ("--against", "weak_finetuned")):
        said = "no row 'weak_finetuned', only weak, strong, direct, transferred"
        refused = cli("eval", *flags)
        failed(refused, 2, "no fine-tuned model 'gone.safetensors'", said, f"Try: ls {run.parent}")
        assert "Warning" not in refused.err, "it is told once"
    failed(cli("eval", "--against", "strnog"), 2, "Did you mean 'strong'?", "Try: name one of these")


def test_the_rows_that_gates_may_name_are_those_that_are_measured(cli: Cli, run: Path):
    options = EvalOptions(eft=(0.3, 1.0))
    assert list(rows(cli, "--eft", "0.3,1")) == row_names(options, Run(run))


def test_the_columns_of_a_gate_are_those_that_are_measured(cli: Cli, run: Path):
    for flags, gate in (
        (("--base-to-novel",), "strong.hm >= 0"),
        (("--no-labels",), "strong.changed <= 0"),
        (("--eft", "0.3"), "eft_0.3.top1 >= 0"),
    ):
        assert cli("eval", *flags, "--require", gate).code == 0


def test_every_format_has_the_same_numbers(cli: Cli, run: Path):
    shown = rows(cli)
    lines = {line["row"]: line for line in csv.DictReader(io.StringIO(cli("eval", "--csv").out))}
    table = cli("eval", "--markdown").out
    assert list(lines) == list(shown)
    for name, row in shown.items():
        assert float(lines[name]["top1"]) == row["top1"]
        assert f"| {100 * row['top1']:.1f} | {100 * row['low']:.1f}-{100 * row['high']:.1f} |" in table
    failed(cli("eval", "--csv", "--json"), 2, "one form at a time")


def test_rows_are_compared_with_the_one_that_is_named(cli: Cli, run: Path):
    shown = rows(cli, "--against", "weak_finetuned")
    for row in shown.values():
        assert row["gain"] == pytest.approx(row["top1"] - shown["weak_finetuned"]["top1"])
    assert "vs weak_finetuned" in cli("eval", "--against", "weak_finetuned").out
    gate = ("--require", "strong.gain_low > -0.01")
    assert cli("eval", *gate).code == 0
    assert cli("eval", *gate, "--against", "weak_finetuned").code == 3


def test_wide_has_all_columns_and_the_usual_table_fits_a_terminal(cli: Cli, run: Path):
    wide, usual = cli("eval", "--wide").out, cli("eval").out
    assert all(header in wide for header in ("ECE", "NLL", "fixed", "broken", "+FLOPs", "seconds", "gradients"))
    assert max(map(len, usual.splitlines())) <= 80


def test_base_to_novel_by_coops_rule_and_by_a_file(cli: Cli, run: Path, tmp_path: Path):
    usual = rows(cli, "--base-to-novel")
    (tmp_path / "base.txt").write_text("\n".join(DIGITS[:5]) + "\n")
    (tmp_path / "base.json").write_text(json.dumps(DIGITS[5:]))
    named, swapped = rows(cli, "--base", "base.txt"), rows(cli, "--base", "base.json")
    for name, row in usual.items():
        assert (row["base"], row["novel"]) == (named[name]["base"], named[name]["novel"])
        assert (row["novel"], row["base"]) == (swapped[name]["base"], swapped[name]["novel"])
    assert "of novel classes, which is not the published" in cli("eval", "--base-to-novel").out
    gate = cli("eval", "--base-to-novel", "--require", "transferred.hm > 0.5")
    assert gate.code == 0
    (tmp_path / "base.txt").write_text("eleven\n")
    failed(cli("eval", "--base", "base.txt"), 1, "'eleven', which is none of the run's 10 classes")
    for stranger in ("eleven", "twelve"):
        (tmp_path / "strange" / stranger).mkdir(parents=True)
        shutil.copyfile(
            next(file.path for file in open_images("demo-digits", "test").files),
            tmp_path / "strange" / stranger / "1.png",
        )
    failed(cli("eval", "--data", "strange"), 1, "2 classes, 'eleven', 'twelve', which are none of the run's 10 classes")
    failed(cli("eval", "--base", "absent.txt"), 2, "no file 'absent.txt'")
    (tmp_path / "twice.txt").write_text("one\ntwo\none\n")
    failed(cli("eval", "--base", "twice.txt"), 1, "twice.txt has a class twice: 'one'.")


def test_other_data_with_a_mapped_class_list(cli: Cli, run: Path, tmp_path: Path):
    other = copies("test", tmp_path / "other", ["one", "two", "six"])
    for name in ("one", "two", "six"):
        (other / name).rename(other / f"n-{name}")
    failed(cli("eval", "--data", "other"), 1, "3 classes, 'n-one', 'n-six', 'n-two', which are none", "--map FILE")
    mapping: dict[str, str | None] = {"n-one": "one", "n-two": "two", "n-six": "six"}
    (tmp_path / "map.json").write_text(json.dumps(mapping))
    shown = json.loads(cli("eval", "--data", "other", "--map", "map.json", "--json").out)
    assert (shown["images"], shown["classes"]) == (24, 3)
    assert all(row["top5"] == 1 for row in shown["rows"].values())
    (tmp_path / "map.json").write_text(json.dumps({**mapping, "n-sixx": None}))
    told = cli("eval", "--data", "other", "--map", "map.json").err
    assert "--map names 1 labels that these images do not have: n-sixx. Did you mean 'n-six'?" in told
    shutil.copytree(tmp_path / "other", tmp_path / "third")
    (tmp_path / "third" / "n-six").rename(tmp_path / "third" / "n-sixx")
    told = cli("eval", "--data", "other", "--data", "third", "--map", "map.json").err
    assert "--map names" not in told
    (tmp_path / "map.json").write_text(json.dumps({**mapping, "n-six": None}))
    shown = json.loads(cli("eval", "--data", "other", "--map", "map.json", "--json").out)
    assert (shown["images"], shown["classes"]) == (16, 2)
    (tmp_path / "map.json").write_text(json.dumps({**mapping, "n-two": None, "n-six": None}))
    one = cli("eval", "--data", "other", "--map", "map.json")
    failed(
        one, 1, "The map leaves one class to answer, one, so that any answer is right.", "Try: map the data's labels"
    )
    (tmp_path / "map.json").write_text(json.dumps({**mapping, "n-six": "eleven"}))
    failed(cli("eval", "--data", "other", "--map", "map.json"), 1, "maps to 'eleven'")
    (tmp_path / "map.json").write_text("[]")
    failed(cli("eval", "--data", "other", "--map", "map.json"), 1, "no class map")


def test_several_sets_have_means(cli: Cli, run: Path, tmp_path: Path):
    sets = [copies("test", tmp_path / "a", DIGITS, 5), copies("test", tmp_path / "b", DIGITS, 9)]
    flags = ("--data", sets[0], "--data", sets[1], "--base-to-novel")
    shown = json.loads(cli("eval", *flags, "--json", "--require", "strong.hm_of_means > 0").out)
    assert [one["images"] for one in shown["sets"]] == [50, 90]
    tops = [one["rows"]["strong"]["top1"] for one in shown["sets"]]
    assert shown["mean"]["strong"]["top1"] == pytest.approx(sum(tops) / 2)
    text = cli("eval", *flags).out
    assert "mean over 2 data sets" in text
    assert "HM of means" in text
    assert max(map(len, text.splitlines())) <= 80


def test_csv_and_markdown_of_several_sets_have_the_means_too(cli: Cli, run: Path, tmp_path: Path):
    sets = [copies("test", tmp_path / "a", DIGITS, 5), copies("test", tmp_path / "b", DIGITS, 9)]
    flags = ("--data", sets[0], "--data", sets[1], "--base-to-novel")
    means = json.loads(cli("eval", *flags, "--json").out)["mean"]
    lines = list(csv.DictReader(io.StringIO(cli("eval", *flags, "--csv").out)))
    shown = {line["row"]: line for line in lines if line["data"] == "mean"}
    assert list(shown) == list(means)
    assert len(lines) == 3 * len(means)
    for name, mean in means.items():
        assert {column: float(shown[name][column]) for column in mean} == mean
    one = list(csv.DictReader(io.StringIO(cli("eval", *flags[:2], "--base-to-novel", "--csv").out)))
    assert set(one[0]) < set(lines[0])
    text = cli("eval", *flags, "--markdown").out
    table = text[text.index("mean over 2 data sets") :]
    best = means["transferred"]
    cells = (best["top1"], best["base"], best["novel"], best["hm"], best["hm_of_means"])
    top1, *rest = (f"{100 * value:.1f}" for value in cells)
    assert f"| transferred | {top1} | {100 * best['gain']:+.1f} | {' | '.join(rest)} |" in table
    assert "HM of means: that of mean base and mean novel" in table


@pytest.mark.parametrize("strength", ["nan", "inf", "-inf", "-0.5", "x", "1,", "0.5,-1"])
def test_a_strength_of_eft_that_means_nothing_is_a_usage_error(cli: Cli, run: Path, strength: str):
    failed(cli("eval", f"--eft={strength}"), 2, "--eft takes finite numbers that are not negative")


def test_labels_can_be_left_alone(cli: Cli, run: Path):
    outcome = cli("eval", "--no-labels", "--json")
    shown = json.loads(outcome.out)
    assert shown["labelled"] is False
    assert "top1" not in shown["rows"]["transferred"]
    assert shown["rows"]["transferred"]["moves"][0]["before"] in DIGITS
    assert cli("eval", "--no-labels", "--require", "transferred.agrees_finetuned > strong.agrees_finetuned").code == 0


def test_eft_strengths_and_a_fine_tuned_strong_model_are_rows(cli: Cli, run: Path):
    assert {"eft_0.5", "eft", "eft_2"} <= set(rows(cli, "--eft", "0.5,1", "--eft", 2))
    shown = rows(cli, "--eft", 0.3, "--strong-finetuned", "local-dir:" + str(demo_strong()))
    assert [name for name in shown if name.startswith("eft")] == ["eft_0.3"]
    assert shown["strong_finetuned"]["top1"] == shown["strong"]["top1"]
    assert shown["eft_0.3"]["models"] == 2


def test_a_fine_tuned_strong_model_of_another_architecture_is_told_to_be_of_another_model(cli: Cli, run: Path):
    outcome = cli("eval", "--strong-finetuned", "demo-finetuned")
    failed(outcome, 1, "does not hold weights of", "the fine-tuned strong model", "as --strong\n")
    assert "--weak" not in outcome.err


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--map", "map.json", "--base-to-novel"), 2, "--map and base classes ask for answers among different classes"),
        (("--base", "all.txt"), 1, "ase classes must be some, but not all"),
        (("--data", "some", "--base", "zero.txt"), 1, "no images of the base classes"),
        (("--strong-finetuned", ""), 2, "is empty"),
        (("--against", "weak_tuned"), 2, "no row 'weak_tuned', only weak, weak_finetuned"),
        (("--against", "weak", "--no-labels"), 2, "--against needs labels, which --no-labels leaves out"),
        (("--against", "reg=10"), 2, "transferred is the row of the first --reg"),
        (("--strong-finetuned", "probe"), 2, "A probe is trained by fit"),
        (("--report", "some"), 2, "--report writes a file, and some is a folder"),
        (("--data", "demo-digits", "--data", "flat"), 2, "Several data sets must all have labels"),
        (("--data", "some", "--data", "flat/../some"), 2, "/some twice, and its images would count twice"),
        (("--strong-finetuned", "absent.pt"), 2, "There is no fine-tuned model 'absent.pt'"),
        (("--data", "some", "--data", "demo-digits", "--no-labels"), 2, "Several data sets must all have labels"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is_encoded(
    cli: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], code: int, said: str
):
    copies("test", tmp_path / "some", ["one", "two"])
    shutil.copytree(tmp_path / "some" / "one", tmp_path / "flat")
    (tmp_path / "map.json").write_text(json.dumps({name: name for name in DIGITS}))
    (tmp_path / "all.txt").write_text("\n".join(DIGITS))
    (tmp_path / "zero.txt").write_text("zero\n")
    monkeypatch.setattr(CachedEncoder, "image_embeddings", None)
    failed(cli("eval", *flags), code, said)


def test_the_table_is_there_also_if_the_report_cannot_be_written(cli: Cli, run: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    outcome = cli("eval", "--report", "file/report.html")
    assert outcome.code == 1
    assert "ridge" in outcome.out


def demo_strong() -> Path:
    from transmiter_cli.embedding.encoders.models import resolve_model

    return resolve_model("demo-strong").weights.parent


@pytest.mark.parametrize(("flag", "content"), [("--map", '{"one": "eleven"}'), ("--base", '["eleven"]')])
def test_the_command_that_lists_the_classes_is_of_the_run(cli: Cli, run: Path, tmp_path: Path, flag: str, content: str):
    run.rename(tmp_path / "my run")
    (tmp_path / "classes.json").write_text(content)
    outcome = cli("eval", "--run", "my run", flag, "classes.json")
    failed(outcome, 1, "'eleven', which is none of the run's 10 classes")
    (line,) = (line for line in outcome.err.splitlines() if line.startswith("Try: transmiter "))
    assert json.loads(cli(*shlex.split(line)[2:]).out)["task"]["classes"] == DIGITS
