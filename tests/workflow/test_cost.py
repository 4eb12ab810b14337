from pathlib import Path

from transmiter_cli.embedding.models import resolve_model
from transmiter_cli.embedding.workspace import Workspace
from transmiter_cli.workflow.cost import image_flops


def test_the_operations_of_a_vision_transformer_are_all_counted(tmp_path: Path):
    workspace = Workspace(cache=tmp_path)
    encoder = workspace.open(resolve_model("demo-strong"))
    visual = encoder.encoder.model.visual
    tokens, width = visual.positional_embedding.shape
    layers, hidden = len(visual.transformer.resblocks), visual.transformer.resblocks[0].mlp.c_fc.out_features
    patch = visual.conv1.weight[0].numel()
    products = 4 * width * width + 2 * width * hidden + 2 * tokens * width
    expected = 2 * (tokens - 1) * patch * width + 2 * layers * tokens * products + 2 * width * visual.output_dim
    assert image_flops(encoder) == expected
    assert image_flops(workspace.open(resolve_model("demo-strong"))) == expected
