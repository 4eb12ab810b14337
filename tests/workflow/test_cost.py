from pathlib import Path

import torch
from open_clip.transformer import VisionTransformer

from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.encoders.prompts import Templates
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.workflow.cost import count_flops, image_flops


def test_the_operations_of_a_vision_transformer_are_all_counted():
    width, layers, output = 64, 2, 16
    model = VisionTransformer(
        image_size=32, patch_size=8, width=width, layers=layers, heads=2, mlp_ratio=4, output_dim=output
    ).eval()
    tokens = 17
    block = tokens * (4 * width * width + 8 * width * width + 2 * tokens * width)
    expected = 2 * (16 * 3 * 64 * width + layers * block + width * output)
    assert count_flops(model, torch.zeros(1, 3, 32, 32)) == expected


def test_a_models_operations_are_counted_once(tmp_path: Path):
    workspace = Workspace(cache=tmp_path)
    first = image_flops(workspace.open(resolve_model("demo-weak")))
    again = workspace.open(resolve_model("demo-weak"))
    assert image_flops(again) == first > 1e5
    assert "model" not in vars(again.encoder)


def test_operations_are_counted_also_of_a_model_that_texts_needed_first(tmp_path: Path):
    encoder = Workspace(cache=tmp_path).open(resolve_model("demo-weak"))
    encoder.text_embeddings(["a"], Templates(("a {}",)))
    assert image_flops(encoder) > 1e5
