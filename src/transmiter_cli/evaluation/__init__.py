"""Every model that given parts allow, measured side by side: on tensors, with or without labels."""

from transmiter_cli.evaluation.candidates import Candidate, candidates
from transmiter_cli.evaluation.rows import Row, evaluate, measure
from transmiter_cli.evaluation.unlabelled import Unlabelled, evaluate_unlabelled

__all__ = ["Candidate", "Row", "Unlabelled", "candidates", "evaluate", "evaluate_unlabelled", "measure"]
