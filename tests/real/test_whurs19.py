"""Fit and transfer on real CLIP embeddings: RN50, fine-tuned to aerial photographs, to ViT-B/32."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import transmiter_cli as tm

VARIABLE = "TRANSMITER_REAL_EMBEDDINGS"
FILE = "whurs19-rn50-to-b32.safetensors"
SEEDS = range(3)
WORDS = 1005


def bed_file() -> Path | None:
    """The file, named by an environment variable or found in a data folder beside the checkout."""
    named = os.environ.get(VARIABLE)
    candidates = [Path(named)] if named else sorted(Path(__file__).parents[3].glob(f"*/data/{FILE}"))
    return next((path for path in candidates if path.is_file()), None)


BED = bed_file()
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(BED is None, reason=f"the real CLIP embeddings {FILE} are not here; name them in ${VARIABLE}"),
]


class Bed:
    """The embeddings of one seed's auxiliary words."""

    def __init__(self, tensors: dict[str, torch.Tensor], scale: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        words = torch.randperm(len(tensors["weak.aux"]), generator=generator)[:WORDS]
        self.tensors, self.scale, self.words = tensors, scale, words
        self.rows = {part: tensors[part].long() for part in ("train", "test")}
        self.labels = tensors["labels"].long()

    def model(self, name: str, part: str) -> tm.Embeddings:
        texts = torch.cat([self.tensors[f"{name}.text"], self.tensors[f"{name}.aux"][self.words]])
        return tm.Embeddings(self.tensors[f"{name}.images"][self.rows[part]], texts, self.scale)

    def teacher(self, part: str) -> torch.Tensor:
        images = self.tensors["finetuned.images"][self.rows[part]].float()
        return self.scale * images @ self.tensors["finetuned.text"].float().T

    def rates(self, fitted: tm.Artefact, transferred: dict[str, tm.Artefact]) -> dict[str, float]:
        rows = tm.evaluate(
            self.labels[self.rows["test"]],
            weak=self.model("weak", "test"),
            finetuned_logits=self.teacher("test"),
            strong=self.model("strong", "test"),
            fitted=fitted,
            transferred=transferred,
        )
        return {name: row.top1 for name, row in rows.items()}


@pytest.fixture(scope="module")
def beds() -> list[Bed]:
    with safe_open(BED, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        scale = float(json.loads(file.metadata()["bed"])["logit_scale"])
    return [Bed(tensors, scale, seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def compact(beds: list[Bed]) -> dict[str, float]:
    """Mean top-1 over seeds with the compact basis."""
    measured = []
    for seed, bed in zip(SEEDS, beds, strict=True):
        fitted = tm.fit(bed.model("weak", "train"), bed.teacher("train"), seed=seed)
        weak, strong = bed.model("weak", "train"), bed.model("strong", "train")
        moved = tm.transfer(fitted, weak, strong)
        ridge = tm.transfer(fitted, weak, strong, "ridge", finetuned_logits=bed.teacher("train"))
        found = tm.transfer(fitted, weak, strong, "discriminant", finetuned_logits=bed.teacher("train"))
        measured.append(bed.rates(fitted, {"transferred": moved, "ridge": ridge, "discriminant": found}))
    means = {name: sum(rates[name] for rates in measured) / len(measured) for name in measured[0]}
    print({name: round(100 * rate, 1) for name, rate in means.items()})
    return means


def test_the_zero_shot_models_are_those_of_the_literature(compact: dict[str, float]):
    assert compact["strong"] == pytest.approx(0.806, abs=0.02)
    assert compact["weak"] == pytest.approx(0.7154, abs=0.03)
    assert compact["weak_finetuned"] == pytest.approx(0.954, abs=0.01)


def test_transfer_reaches_what_the_fine_tuned_weak_model_knows(compact: dict[str, float]):
    assert compact["transferred"] >= 0.93
    assert compact["transferred"] > compact["direct"]
    assert compact["ridge"] >= 0.93


def test_the_discriminant_passes_three_models_and_its_teacher(compact: dict[str, float]):
    assert compact["discriminant"] >= compact["eft"] + 0.01
    assert compact["discriminant"] >= compact["weak_finetuned"] + 0.01


def test_a_permuted_teacher_is_found_out_and_does_no_harm(beds: list[Bed]):
    for bed in beds:
        weak, strong, teacher = (
            bed.model("weak", "train"),
            bed.model("strong", "train"),
            bed.teacher("train").roll(1, -1),
        )
        fitted = tm.fit(weak, teacher, epochs=1)
        found = tm.transfer(fitted, weak, strong, "discriminant", finetuned_logits=teacher)
        rates = bed.rates(fitted, {"discriminant": found})
        assert rates["discriminant"] >= rates["strong"] - 0.01
        assert found.details["transfer"]["verdict"]["verdict"] == "useless teacher"


def test_the_compact_basis_is_no_worse_than_the_papers(compact: dict[str, float], beds: list[Bed]):
    rates: list[float] = []
    for seed, bed in zip(SEEDS, beds, strict=True):
        weak, strong = bed.model("weak", "train"), bed.model("strong", "train")
        fitted = tm.fit(weak, bed.teacher("train"), basis="paper", seed=seed)
        rates.append(bed.rates(fitted, {"transferred": tm.transfer(fitted, weak, strong)})["transferred"])
    assert compact["transferred"] >= sum(rates) / len(rates) - 0.01
