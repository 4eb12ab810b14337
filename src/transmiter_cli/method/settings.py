"""The methods of transfer by name, and the settings of fit and refine; imported without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from transmiter_cli.method.ranges import POSITIVE, SHARE, TRAINING, Range, require_within

Method = Literal["adapter", "ridge", "discriminant"]
LinearMethod = Literal["discriminant", "ridge"]
Auto = Literal["auto"]
"""A strength that is chosen by unlabelled images."""
HEEDED_BY: Mapping[str, Method] = {
    "reg": "adapter",
    "rho": "ridge",
    "opaque_names": "discriminant",
    "also": "discriminant",
}
"""The method that heeds an option of `transfer`."""
Basis = Literal["compact", "paper"]
VOCABULARY_SIZE = 1024
"""M: classes and auxiliary words together."""
AUX_WORDS = "nouns"
"""The list of auxiliary words that is taken where none is named."""
FIT_RANGES = {**TRAINING, "temperature": POSITIVE, "noise": Range(), "noise_rate": SHARE}
REFINE_RANGES = {**TRAINING, "epochs": Range(whole=True), "folds": Range(2, whole=True)}


@dataclass(frozen=True)
class FitSettings:
    """How the adapter is distilled; the defaults are the published recipe.

    Attributes:
        basis: "compact" (D <= d fixed directions) or "paper" (a square learned orthogonal W).
        epochs: passes over the images.
        batch_size: images of a step.
        learning_rate, weight_decay: AdamW's.
        temperature: the teacher's logits are divided by it.
        noise: deviation of the Gaussian noise on a row of logits, as a fraction of the row's own.
        noise_rate: the share of batches that get noise.
        warmup: the share of steps in which the learning rate rises.
        seed: decides initial weights, batches and noise.

    Raises:
        ValueError: if the basis is another one, or a number is not in FIT_RANGES.
    """

    basis: Basis = "compact"
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    temperature: float = 0.5
    noise: float = 0.5
    noise_rate: float = 0.5
    warmup: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.basis not in get_args(Basis):
            raise ValueError(f"the basis is 'compact' or 'paper', not {self.basis!r}.")
        require_within(self, FIT_RANGES)


@dataclass(frozen=True)
class RefineSettings:
    """How a transferred adapter is refined; a linear classifier heeds folds and seed alone.

    Attributes:
        epochs: most passes over the labelled images; the number taken is chosen by cross-validation.
        batch_size: labelled images of a step.
        learning_rate, weight_decay: AdamW's.
        warmup: the share of epochs in which the learning rate rises.
        folds: of the cross-validation, on the labelled images alone; two at least.
        seed: decides folds and batches.

    Raises:
        ValueError: if a number is not in REFINE_RANGES.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 3e-4
    weight_decay: float = 1e-3
    warmup: float = 0.05
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        require_within(self, REFINE_RANGES)
