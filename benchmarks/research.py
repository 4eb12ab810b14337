"""What was tried for label-free transfer, and what each rule gave: the tables of docs/research.md.

    python -m benchmarks.research TABLE ... [--seeds 10]

TABLE is one of rules, unseen, between, few, self, beds, held, outside, hard, names, partial, bad, masks, adapters,
auto, teachers, shots, calibration; all if none is named. Numbers are means over seeds of random halves (and, for
base-to-novel, random base classes), ± the standard deviation.
The real embeddings are named by $TRANSMITER_REAL_EMBEDDINGS, what handwriting.py made by $TRANSMITER_HANDWRITING, and
what outside.py made by $TRANSMITER_OUTSIDE; without them the rows that need them are left out. The bundled task's test
digits are never read.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from benchmarks.beds import BAD, BEDS, FEW, HARD, HELD, NAMES, OUTSIDE_BEDS, PARTIAL, SETTINGS, Bed, Trial
from benchmarks.curves import svg_curves
from benchmarks.few_shot import SHOTS, calibration_scores, few_shot_scores
from benchmarks.rules import (
    ADAPTERS,
    AUTO,
    MAIN,
    RULES,
    SELF_TRAINED,
    UNSEEN,
    Rule,
    adapted,
    discriminant,
    teacher_of,
    zero_shot,
)
from benchmarks.sources import has_data

from transmiter_cli.method.consensus.experts import Teacher

Row = dict[str, list[float]]
MASKED = "-100 in classes without images"
RARE = "the same, two images of some"
CHOSEN = ("real", "RN50 probe, 16 shots", "demo", "demo probe, 16 shots")


def usable(beds: Mapping[str, Bed]) -> dict[str, Bed]:
    return {name: bed for name, bed in beds.items() if has_data(bed.source)}


def measure(rules: Mapping[str, Rule], bed: Bed, seeds: Iterable[int], setting: str) -> dict[str, Row]:
    """For each rule, the list over seeds of each score."""
    rows: dict[str, Row] = {name: {} for name in rules}
    for seed in seeds:
        trial = bed.trial(seed, setting)
        for name, rule in rules.items():
            for score, value in trial.score(rule(trial)).items():
                rows[name].setdefault(score, []).append(value)
    return rows


def cell(values: list[float]) -> str:
    found = torch.tensor(values)
    return f"{found.mean():.1f} ± {found.std(unbiased=False):.1f}"


def print_table(title: str, columns: list[str], rows: Mapping[str, list[str]]) -> None:
    print(f"\n### {title}\n\n| | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def rules_by_bed(
    title: str,
    rules: Mapping[str, Rule],
    beds: Mapping[str, Bed],
    seeds: Iterable[int],
    settings: Iterable[str] = SETTINGS,
) -> None:
    """A row per rule, columns per bed: top-1 with images of all classes, novel and HM with those of base classes."""
    cells: dict[str, list[str]] = {name: [] for name in rules}
    columns: list[str] = []
    for name, bed in beds.items():
        for setting in settings:
            scores = ["all"] if setting == "all" else ["novel", "HM"]
            columns += [f"{name}: {score}" for score in scores]
            for rule, row in measure(rules, bed, seeds, setting).items():
                cells[rule] += [cell(row[score]) for score in scores]
    print_table(title, columns, cells)


def beds_by_rule(
    title: str,
    rules: Mapping[str, Rule],
    beds: Mapping[str, Bed],
    seeds: Iterable[int],
    settings: Iterable[str] = SETTINGS,
) -> None:
    """A row per bed and setting, a column per rule; base-to-novel by HM, and by top-1 among all classes."""
    headings = {("all", "all"): "top-1, all classes", ("novel", "HM"): "base-to-novel HM"}
    headings |= {("novel", "all"): "base-to-novel, top-1 among all classes"}
    for setting in settings:
        rows = {name: measure(rules, bed, seeds, setting) for name, bed in beds.items()}
        for (of, score), heading in headings.items():
            if of == setting:
                cells = {name: [cell(found[rule][score]) for rule in rules] for name, found in rows.items()}
                print_table(f"{title}: {heading}", list(rules), cells)


def few_classes(rules: Mapping[str, Rule], beds: Mapping[str, Bed], seeds: Iterable[int]) -> None:
    """Top-1 among all classes where few have images, and the seed that is worst for the last rule beside the first."""
    cells: dict[str, list[str]] = {}
    for name, bed in beds.items():
        scores = [found["all"] for found in measure(rules, bed, seeds, "novel").values()]
        worst = min(last - first for first, last in zip(scores[0], scores[-1], strict=True))
        cells[name] = [*map(cell, scores), f"{worst:+.1f}"]
    print_table("Few classes with images", [*rules, "its worst seed, less zero-shot"], cells)


def between_groups(rules: Mapping[str, Rule], beds: Mapping[str, Bed], seeds: Iterable[int]) -> None:
    """Top-1 among all classes with images of base classes; in brackets, of base and of novel test images."""
    cells: dict[str, list[str]] = {}
    for name, bed in beds.items():
        found = measure(rules, bed, seeds, "novel").values()
        means = [[sum(row[score]) / len(row[score]) for score in ("all", "base, all", "novel, all")] for row in found]
        cells[name] = [f"{every:.0f} ({base:.0f} / {novel:.0f})" for every, base, novel in means]
    print_table("Between classes with and without images", list(rules), cells)


def verdicts(beds: Mapping[str, Bed], seeds: Iterable[int]) -> None:
    """What the verdict says without labels, and what is true of the test images."""
    cells: dict[str, list[str]] = {}
    for name, bed in beds.items():
        for setting, score in (("all", "all"), ("novel", "HM")):
            words: Counter[str] = Counter()
            numbers: Row = {"trust": [], "expected": [], "true": [], "reliable": []}
            for seed in seeds:
                trial = bed.trial(seed, setting)
                after, verdict = adapted(trial, [teacher_of(trial)])
                gain = trial.score(after)[score] - trial.score(zero_shot(trial))[score]
                words[verdict.word] += 1
                told = (100 * verdict.strong_trust, 100 * verdict.gain, gain, 100 * verdict.teacher_trust[0])
                for key, value in zip(numbers, told, strict=True):
                    numbers[key].append(value)
            said = ", ".join(f"{word} {count}" for word, count in words.most_common())
            keys = ("trust", "reliable", "expected", "true")
            cells[f"{name} ({score})"] = [said, *(cell(numbers[key]) for key in keys)]
    print_table("The verdict", ["said", "trust in strong", "trust in teacher", "expected gain", "true gain"], cells)


def judged(
    title: str, rules: Mapping[str, Rule], scored: Mapping[str, Bed], told: Mapping[str, Bed], seeds: Iterable[int]
) -> None:
    """The scores of some beds, and the verdicts of some."""
    beds_by_rule(title, rules, usable(scored), seeds)
    verdicts(usable(told), seeds)


def altered(teacher: Teacher, unseen: torch.Tensor) -> dict[str, Teacher]:
    """Logits as some models have them: classes that they were not fine-tuned on masked, or another temperature."""
    masked = teacher.finetuned.masked_fill(unseen, -100.0)
    wide = {
        said: replace(teacher, finetuned=factor * teacher.finetuned, head=None)
        for said, factor in (("ten times as wide", 10.0), ("a third as wide", 1 / 3), ("a hundredth", 1 / 100))
    }
    return {"as they are": teacher, MASKED: Teacher(masked, teacher.weak), **wide}


def thinned(trial: Trial, images: int = 2) -> Trial:
    """So many unlabelled images at most of every third base class, and all of the others."""
    labels, some = trial.labels[trial.unlabelled], trial.base.nonzero().flatten()[2::3]
    number = F.one_hot(labels).cumsum(0).gather(1, labels[:, None])[:, 0]
    return replace(trial, unlabelled=trial.unlabelled[~torch.isin(labels, some) | (number <= images)])


def masks(beds: Mapping[str, Bed], seeds: Iterable[int]) -> None:
    """Top-1 among all classes with images of base classes, the teacher's logits altered."""
    cells: dict[str, list[str]] = {}
    columns: list[str] = []
    for name, bed in beds.items():
        found: Row = {}
        for trial in (bed.trial(seed, "novel") for seed in seeds):
            found.setdefault("strong zero-shot", []).append(trial.score(zero_shot(trial))["all"])
            few = thinned(trial)
            ways = {said: (trial, one) for said, one in altered(teacher_of(trial), ~trial.base).items()}
            ways[RARE] = (few, altered(teacher_of(few), ~trial.base)[MASKED])
            for said, (shown, teacher) in ways.items():
                found.setdefault(said, []).append(shown.score(adapted(shown, [teacher])[0])["all"])
        cells[name] = [cell(values) for values in found.values()]
        columns = list(found)
    print_table("Masks and scales", columns, cells)


def several(seeds: Iterable[int]) -> None:
    """Two teachers with weak models of their own, together and alone; the strong model is the third of the bed."""
    pairs = {
        "RemoteCLIP RN50 and an RN50 probe (4 shots)": (BEDS["real"], BEDS["RN50 probe, 4 shots"]),
        "RN50 probes, 1 and 4 shots": (BEDS["RN50 probe, 1 shot"], BEDS["RN50 probe, 4 shots"]),
        "RemoteCLIP RN50 and a permuted probe": (BEDS["real"], BAD["classes permuted"]),
        "demo checkpoint and a demo probe (4 shots)": (BEDS["demo"], BEDS["demo probe, 4 shots"]),
        "demo probe (16 shots) and random labels": (BEDS["demo probe, 16 shots"], BAD["demo, all labels random"]),
    }
    for source, name in (("real", "RN50"), ("demo", "demo")):
        few, many = (Bed(source, teacher="probe", shots=shots) for shots in (2, 16))
        pairs[f"{name} probes, 2 shots each, not the same"] = (few, replace(few, skipped=2))
        pairs[f"{name} probes, 16 shots, of half of the classes each"] = (replace(many, half=0), replace(many, half=1))
    for setting, score in (("all", "all"), ("novel", "HM")):
        cells: dict[str, list[str]] = {}
        for name, beds in pairs.items():
            if not has_data(beds[0].source):
                continue
            scores: list[list[float]] = [[], [], []]
            for seed in seeds:
                trials = [bed.trial(seed, setting) for bed in beds]
                teachers = [teacher_of(trial) for trial in trials]
                for found, chosen in zip(scores, (teachers[:1], teachers[1:], teachers), strict=True):
                    found.append(trials[0].score(adapted(trials[0], chosen)[0])[score])
            cells[name] = [cell(found) for found in scores]
        print_table(f"Several teachers: {score}", ["the first alone", "the second alone", "both"], cells)


def shots(seeds: Iterable[int], plot: Path | None) -> None:
    """Few labels, and perhaps the curves as SVG."""
    curves: dict[str, dict[str, list[float]]] = {}
    for name in (*CHOSEN[:2], "RN50 probe, 1 shot", *CHOSEN[3:]):
        if name not in usable(BEDS):
            continue
        found = [few_shot_scores(BEDS[name].trial(seed, "all")) for seed in seeds]
        cells = {way: [cell([one[way][place] for one in found]) for place in range(len(SHOTS))] for way in found[0]}
        curves[name] = {way: [float(one.split()[0]) for one in row] for way, row in cells.items()}
        print_table(f"Few labels: {name}", [f"{count} per class" for count in SHOTS], cells)
    if plot:
        plot.write_text(svg_curves(curves, SHOTS))


def calibrations(beds: Mapping[str, Bed], seeds: Iterable[int]) -> None:
    """How sure the refined discriminant is, mean over beds and seeds."""
    found = [calibration_scores(bed.trial(seed, "all")) for bed in beds.values() for seed in seeds]
    cells = {
        name: [f"{sum(one[name][place] for one in found) / len(found):.3g}" for place in range(len(SHOTS))]
        for name in sorted(found[0])
    }
    print_table("Calibration", [f"{count} per class" for count in SHOTS], cells)


def main() -> None:
    """Print the tables that were asked for."""
    chosen = usable({name: BEDS[name] for name in CHOSEN})
    main_rules = {name: RULES[name] for name in MAIN} | {"discriminant": discriminant}
    hard_rules = {name: rule for name, rule in main_rules.items() if name not in ("adapter", "ridge, rho 0.1")}
    hard_rules["discriminant of fine-tuned labels"] = RULES["discriminant of fine-tuned labels"]
    tables: dict[str, Callable[[range], None]] = {
        "rules": lambda seeds: rules_by_bed("Rules", RULES, chosen, seeds),
        "beds": lambda seeds: beds_by_rule("Beds", main_rules, usable(BEDS), seeds),
        "held": lambda seeds: beds_by_rule("Typefaces and MNIST", main_rules, usable(HELD), seeds),
        "outside": lambda seeds: judged("Objects and clothes", main_rules, OUTSIDE_BEDS, OUTSIDE_BEDS, seeds),
        "hard": lambda seeds: beds_by_rule("Small letters", hard_rules, usable(HARD), seeds, ("all",)),
        "names": lambda seeds: beds_by_rule(
            "Names that say nothing",
            main_rules | {"discriminant, --opaque-names": partial(discriminant, opaque_names=True)},
            usable(NAMES),
            seeds,
        ),
        "partial": lambda seeds: beds_by_rule("Some of the classes", hard_rules, usable(PARTIAL), seeds, ("all",)),
        "bad": lambda seeds: judged("Bad teachers", main_rules, BAD, BEDS | BAD, seeds),
        "adapters": lambda seeds: rules_by_bed("Adapters", ADAPTERS, chosen, seeds),
        "unseen": lambda seeds: rules_by_bed(
            "Classes without images",
            UNSEEN,
            chosen,
            seeds,
            ("novel",),
        ),
        "between": lambda seeds: between_groups(
            {name: main_rules[name] for name in ("strong zero-shot", "EFT (3 models)", "discriminant")},
            usable(BEDS | {"half the labels wrong": BAD["half the labels wrong"]}),
            seeds,
        ),
        "few": lambda seeds: few_classes(
            {name: main_rules[name] for name in ("strong zero-shot", "EFT (3 models)", "discriminant")},
            usable(FEW),
            seeds,
        ),
        "self": lambda seeds: beds_by_rule("Self-training", SELF_TRAINED, usable(BEDS), seeds),
        "auto": lambda seeds: rules_by_bed("Strengths", AUTO, chosen, seeds),
        "masks": lambda seeds: masks(chosen, seeds),
        "teachers": several,
        "shots": lambda seeds: shots(seeds, options.plot),
        "calibration": lambda seeds: calibrations(usable(BEDS), seeds),
    }
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(tables))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--plot", type=Path, help="where the few-label curves go, as SVG")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.tables or tables:
        tables[name](range(options.seeds))


if __name__ == "__main__":
    main()
