from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.task.opening import FILES, IMAGES, opened, weak_model
from transmiter_cli.errors import TransmiterError
from transmiter_cli.task.head_file import FinetunedHead, save_head


@pytest.mark.parametrize("prefix", ["", "fc."])
def test_a_linear_probe_is_taken_as_it_is_whatever_stands_before_its_names(tmp_path: Path, prefix: str):
    weight, bias = torch.randn(3, 64), torch.randn(3)
    head = {f"{prefix}weight": weight, f"{prefix}bias": bias}
    save_file(head, tmp_path / "head.safetensors")
    torch.save(head, tmp_path / "head.pt")
    for name in ("head.safetensors", "head.pt"):
        found = opened(tmp_path / name, tmp_path).logits(FILES, IMAGES)
        torch.testing.assert_close(found, IMAGES @ weight.T + bias)


def test_a_tensor_of_an_unknown_name_and_a_transposed_head_say_what_mends_them(tmp_path: Path):
    save_file({"w": torch.randn(3, 64)}, tmp_path / "w.safetensors")
    with pytest.raises(TransmiterError, match="no checkpoint, for it holds 'w' alone; a head has 'weight'"):
        opened(tmp_path / "w.safetensors", tmp_path)
    save_file({"weight": torch.randn(64, 3)}, tmp_path / "t.safetensors")
    with pytest.raises(TransmiterError) as found:
        opened(tmp_path / "t.safetensors", tmp_path)
    assert "transpose" in str(found.value.fix)


@pytest.mark.parametrize(
    ("tensors", "said", "mended"),
    [
        ({"weight": torch.ones(3, 64), "bias": torch.ones(1, 3)}, r"has shape \(1, 3\)", "bias.flatten()"),
        ({"weight": torch.ones(3, 64), "bias": torch.ones(2)}, r"has shape \(2,\)", "a bias of 3 numbers"),
        ({"weight": torch.ones(2, 64), "bias": torch.ones(2)}, r"has shape \(2,\)", "a bias of -100"),
        ({"weight": torch.ones(2, 64)}, r"has shape \(2, 64\)", "a bias of -100"),
        ({"weight": torch.eye(2, 64)}, r"has shape \(2, 64\)", "multiply the others by the logit scale"),
        ({"weight": torch.ones(3, 64, 1, 1)}, r"has shape \(3, 64, 1, 1\)", "weight.flatten(1)"),
        ({"weight": torch.ones(4, 64)}, r"has shape \(4, 64\)", "--classes FILE"),
        ({"weight": torch.ones(3, 32)}, r"has shape \(3, 32\)", "trained on embeddings of demo-weak"),
        ({"fc.weight": torch.ones(8, 64), "fc2.weight": torch.ones(3, 8)}, "holds 2 layers, fc, fc2", "alone"),
        ({"weight": torch.full((3, 64), torch.nan)}, "hold NaN", "save the head again"),
    ],
)
def test_a_wrong_head_says_what_mends_it(tmp_path: Path, tensors: dict[str, torch.Tensor], said: str, mended: str):
    torch.save(tensors, tmp_path / "h.pt")
    with pytest.raises(TransmiterError, match=said) as found:
        opened(tmp_path / "h.pt", tmp_path)
    assert mended in str(found.value.fix)


def test_text_features_of_tuned_prompts_get_the_logit_scale_and_a_head_that_was_fitted_does_not(tmp_path: Path):
    features = torch.nn.functional.normalize(torch.randn(3, 64), dim=-1)
    save_file({"weight": features}, tmp_path / "prompts.safetensors")
    found = opened(tmp_path / "prompts.safetensors", tmp_path).logits(FILES, IMAGES)
    scale = weak_model(tmp_path).facts.logit_scale
    torch.testing.assert_close(found, scale * IMAGES @ features.T)
    (tmp_path / "whole.safetensors").write_bytes(save_head(FinetunedHead(features)))
    found = opened(tmp_path / "whole.safetensors", tmp_path).logits(FILES, IMAGES)
    torch.testing.assert_close(found, IMAGES @ features.T)
