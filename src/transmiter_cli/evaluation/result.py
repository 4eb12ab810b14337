"""The result of an evaluation: its rows, and what they were measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.evaluation.candidates import Candidate
from transmiter_cli.evaluation.rows import REFERENCE, Row
from transmiter_cli.evaluation.unlabelled import Unlabelled


@dataclass(frozen=True)
class Evidence:
    """What the rows were measured on, for those who want to look at images and classes.

    Attributes:
        models: by row, with logits among `class_names`.
        labels: positions in `class_names`; None without labels.
    """

    models: Mapping[str, Candidate]
    labels: Int[Tensor, " images"] | None
    files: Sequence[ImageRecord]
    class_names: Sequence[str]


@dataclass(frozen=True)
class EvalResult:
    """Rows of the evaluation by name, and what they were measured on.

    Attributes:
        against: the row that the others are compared with.
        reg: the strength of the row "transferred", where the run has rows of other strengths; None otherwise.
        notes: what a reader of the numbers must know.
    """

    rows: Mapping[str, Row] | Mapping[str, Unlabelled]
    data: str
    split: str | None
    images: int
    classes: int
    weak: str
    strong: str
    evidence: Evidence
    against: str = REFERENCE
    notes: tuple[str, ...] = ()
    reg: float | None = None

    @property
    def labelled(self) -> bool:
        """Whether rows are `Row`s; `Unlabelled` otherwise."""
        return self.evidence.labels is not None

    @property
    def has_parts(self) -> bool:
        """Whether base and novel classes were measured, too."""
        return any(getattr(row, "hm", None) is not None for row in self.rows.values())
