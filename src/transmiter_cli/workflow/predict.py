"""transmiter predict: labels and probabilities for any number of images, a chunk at a time."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transmiter_cli.artefact import Artefact
from transmiter_cli.embedding.sources import ImageRecord
from transmiter_cli.embedding.workspace import CachedEncoder, Workspace
from transmiter_cli.errors import UsageError
from transmiter_cli.layout import PREDICTED_BY
from transmiter_cli.run import Run
from transmiter_cli.workflow.run_artefacts import open_corrected

CHUNK = 4096
"""Images that are classified at a time, and that a CPU encodes between outputs."""
GPU_CHUNK = 32_768
"""Images that a GPU encodes between outputs: processes that decode start anew each time."""


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image.

    Attributes:
        image: its id, or its path where it was named on the command line.
        labels: class names, the likeliest first.
        probabilities: softmax of the adapted logits, of the same classes.
    """

    image: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Predictor:
    """A strong model and the correction that it predicts with.

    Attributes:
        row: the correction, by its row of the evaluation.
    """

    row: str
    artefact: Artefact
    encoder: CachedEncoder

    def predict(self, files: Sequence[ImageRecord], top: int) -> Iterator[Prediction]:
        """Predict images in their order; those that cannot be decoded are left out, with a warning.

        Args:
            files: the images.
            top: classes per image.

        Raises:
            TransmiterError: if no image can be decoded.
        """
        workspace, classes = self.encoder.workspace, self.artefact.class_names
        chunk = CHUNK if workspace.device.type == "cpu" else GPU_CHUNK
        for start, found in self.encoder.image_chunks(files, chunk):
            for first in range(0, len(found.kept), CHUNK):
                part = slice(first, first + CHUNK)
                logits = self.artefact.class_logits(found.rows[part].to(workspace.method_device))
                best = logits.softmax(-1).topk(min(top, len(classes)))
                for position, values, indices in zip(
                    found.kept[part], best.values.tolist(), best.indices.tolist(), strict=True
                ):
                    names = tuple(classes[index] for index in indices)
                    yield Prediction(files[start + position].id, names, tuple(values))


def open_predictor(row: str | None, run: Run, workspace: Workspace, strong: str | None = None) -> Predictor:
    """What predicts in a run.

    Args:
        row: "transferred", "reg=VALUE", "ridge", "discriminant", "self_trained" or "refined"; the first there is of
            PREDICTED_BY if None.
        run: a run in which something was transferred.
        workspace: cache and device.
        strong: which strong model, where the run has several; the last one transferred to if None.

    Raises:
        UsageError: if there is no such artefact.
        TransmiterError: if it is of another task or model.
    """
    name = run.strong(strong)
    there = run.artefacts(name)
    if not there:
        run.require_fitted()
        raise UsageError(
            f"Nothing of what was transferred to {name} is left in {run.path}.",
            f"transmiter transfer --strong {shlex.quote(name)}{run.flag}",
        )
    if row is None:
        row = next((best for best in PREDICTED_BY if best in there), "transferred")
    chosen = "self_trained" if row == "self-trained" else row  # as tables call it
    if chosen not in there:
        raise UsageError(
            f"There is no {chosen!r} in {run.path}, only {', '.join(there)}.",
            f"transmiter predict --data FOLDER --use {next(iter(there))}{run.strong_flag(name)}{run.flag}",
        )
    return Predictor(chosen, *open_corrected(run, name, chosen, workspace))
