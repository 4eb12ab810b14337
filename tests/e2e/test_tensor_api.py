"""What the tensor API refuses when nothing but its own checks is there: other tests run under a type checker."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.conftest import COMMAND

SCRIPT = """
import torch
import transmiter_cli as tm

def refused(said, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except ValueError as error:
        assert said in str(error), str(error)
    else:
        raise AssertionError(f"not refused: {said}")

model = tm.Embeddings(torch.randn(20, 8), torch.randn(12, 8), torch.tensor(100.0))
teacher = torch.randn(20, 4)
refused("different widths: 8 and 7", tm.Embeddings, torch.randn(20, 8), torch.randn(12, 7), 1.0)
refused("must be a matrix", tm.Embeddings, torch.randn(8), torch.randn(12, 8), 1.0)
refused("'compact' or 'paper', not 'papr'", tm.fit, model, teacher, basis="papr")
fitted = tm.fit(model, teacher, epochs=1)
refused("adapter, ridge, discriminant, not 'rigde'", tm.transfer, fitted, model, model, "rigde")
other = tm.Embeddings(torch.randn(20, 8), torch.randn(9, 8), 1.0)
refused("9 text embeddings for a vocabulary of 12", tm.transfer, fitted, model, other)
moved = tm.transfer(fitted, model, model)
refused("not what fit did", tm.refine, fitted, torch.zeros(1, 8), torch.zeros(1, dtype=torch.long))
refused("no labelled images", tm.refine, moved, torch.zeros(0, 8), torch.zeros(0, dtype=torch.long))
for labels in (torch.tensor([0.0, 1.0]), torch.tensor([False, True])):
    refused("class indices, integers, not torch.", tm.refine, moved, torch.randn(2, 8), labels)
refined = tm.refine(moved, model.images, torch.arange(20, dtype=torch.int32) % 4, epochs=1)
assert fitted(tm.zero_shot_logits(model).double()).shape == (20, 4)
assert fitted.class_logits(model.images.half()).shape == (20, 4)
refined.save("x.safetensors")
assert {"fit", "transfer", "refine", "evaluate", "load"} <= set(dir(tm))
"""


def test_what_cannot_be_right_is_refused_in_words(environment: dict[str, str], tmp_path: Path):
    line = [str(COMMAND.parent / "python"), "-c", SCRIPT]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
