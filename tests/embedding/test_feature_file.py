import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from transmiter_cli.embedding.feature_file import read_feature_file
from transmiter_cli.errors import TransmiterError, UsageError


def content(views: int = 1) -> dict[str, object]:
    shape = (6,) if views == 1 else (6, views)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    return {
        "ViT-B-16_features": torch.randn(*shape, 8),
        "ViT-L-14_features": torch.randn(*shape, 12),
        "ViT-B-16_ft_logits": torch.randn(*shape, 3),
        "ViT-B-16_ft_text_features": torch.randn(3, 8),
        "labels": labels if views == 1 else labels[:, None].expand(6, views),
        "label_names": {1: "tabby_cat", 0: "dog", 2: "eel"},
        "base": [1, 0],
        "novel": [2],
    }


def saved(tmp_path: Path, theirs: dict[str, object]) -> Path:
    torch.save(theirs, tmp_path / "train_features.pt")
    return tmp_path / "train_features.pt"


@pytest.mark.parametrize("views", [1, 4])
def test_every_part_is_converted(tmp_path: Path, views: int):
    theirs = content(views)
    read_feature_file(saved(tmp_path, theirs)).save(tmp_path / "ours.safetensors")
    with safe_open(tmp_path / "ours.safetensors", framework="pt") as file:
        ours = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["transmiter"])
    assert about == {"classes": ["dog", "tabby cat", "eel"], "base": [0, 1], "novel": [2]}
    assert ours["labels"].tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(ours["ViT-B-16/finetuned_texts"], theirs["ViT-B-16_ft_text_features"])
    names = {
        "ViT-B-16/images": "ViT-B-16_features",
        "ViT-L-14/images": "ViT-L-14_features",
        "ViT-B-16/finetuned_logits": "ViT-B-16_ft_logits",
    }
    for name, key in names.items():
        value = theirs[key]
        assert isinstance(value, torch.Tensor)
        assert torch.equal(ours[name], value if views == 1 else value[:, 0])
        assert (f"{name}.views" in ours) == (views > 1)
        if views > 1:
            assert torch.equal(ours[f"{name}.views"], value.transpose(0, 1))


def test_the_same_file_gives_the_same_bytes(tmp_path: Path):
    features = read_feature_file(saved(tmp_path, content(2)))
    features.save(tmp_path / "1")
    features.save(tmp_path / "2")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": torch.tensor([0, 0, 1, 1, 2, 5])}, "label 5, but only 3 class names"),
        ({"labels": torch.tensor([0, 0, 1, 1, 2, -1])}, "label -1, but only 3 class names"),
        ({"labels": torch.tensor([[0, 1]] * 6)}, "different labels"),
        ({"labels": [0, 1]}, "no tensor 'labels'"),
        ({"labels": torch.zeros(6, 0)}, "none of the authors' feature files"),
        ({"label_names": {0: "a", 2: "b"}}, "not numbered 0 to 1"),
        ({"label_names": None}, "no class names"),
        ({"ViT-B-16_features": torch.randn(5, 8)}, r"shape \(5, 8\), but there are 6 images"),
        ({"ViT-B-16_features": torch.full((6, 8), torch.nan)}, "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], said: str):
    with pytest.raises(TransmiterError, match=said) as found:
        read_feature_file(saved(tmp_path, content() | change))
    assert "transmiter embed --help" in (found.value.fix or "")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(TransmiterError, match="refused"):
        read_feature_file(saved(tmp_path, content() | {"extra": Evil()}))
    assert "executed" not in capsys.readouterr().out
    with pytest.raises(UsageError, match="no file"):
        read_feature_file(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(TransmiterError, match="is no file of torch"):
        read_feature_file(tmp_path / "text.pt")
