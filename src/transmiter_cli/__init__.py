"""Move the skill of a fine-tuned weak vision-language model into a stronger one.

The method is TransMiter (Park et al., AAAI 2026, arXiv:2508.08604).

    import transmiter_cli as tm

    fitted = tm.fit(weak, finetuned_logits)
    transferred = tm.transfer(fitted, weak, strong, "discriminant", finetuned_logits=finetuned_logits)
    adapted_logits = transferred.class_logits(strong.images)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transmiter_cli.api import fit as fit
    from transmiter_cli.api import refine as refine
    from transmiter_cli.api import self_train as self_train
    from transmiter_cli.api import transfer as transfer
    from transmiter_cli.api import transfer_all as transfer_all
    from transmiter_cli.artefact import Artefact as Artefact
    from transmiter_cli.artefact import load as load
    from transmiter_cli.errors import TransmiterError as TransmiterError
    from transmiter_cli.evaluation.rows import Row as Row
    from transmiter_cli.evaluation.rows import evaluate as evaluate
    from transmiter_cli.evaluation.unlabelled import Unlabelled as Unlabelled
    from transmiter_cli.evaluation.unlabelled import evaluate_unlabelled as evaluate_unlabelled
    from transmiter_cli.method.consensus.experts import Teacher as Teacher
    from transmiter_cli.method.embeddings import Embeddings as Embeddings
    from transmiter_cli.method.embeddings import InvalidTensorError as InvalidTensorError
    from transmiter_cli.method.logits import zero_shot_logits as zero_shot_logits
    from transmiter_cli.method.settings import FitSettings as FitSettings
    from transmiter_cli.method.settings import RefineSettings as RefineSettings

__version__ = "0.2.0"

_HOME = {
    "Artefact": "artefact",
    "Embeddings": "method.embeddings",
    "FitSettings": "method.settings",
    "InvalidTensorError": "method.embeddings",
    "RefineSettings": "method.settings",
    "Row": "evaluation.rows",
    "Teacher": "method.consensus.experts",
    "TransmiterError": "errors",
    "Unlabelled": "evaluation.unlabelled",
    "evaluate": "evaluation.rows",
    "evaluate_unlabelled": "evaluation.unlabelled",
    "fit": "api",
    "load": "artefact",
    "refine": "api",
    "self_train": "api",
    "transfer": "api",
    "transfer_all": "api",
    "zero_shot_logits": "method.logits",
}

__all__ = [*_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    # The command line must answer --help without importing torch, so names are imported when first used.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])
