from pathlib import Path

import pytest

from tests.offline import add_to_hub
from transmiter_cli.embedding.encoders.encoder import Encoder
from transmiter_cli.embedding.encoders.listing import list_models
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.errors import UsageError


def listed(pattern: str | None = None, downloaded: bool = False) -> dict[str, tuple[int, int, str, bool]]:
    models = list_models(pattern, downloaded)
    return {model.name: (model.width, model.pixels, model.activation, model.weights is not None) for model in models}


def test_the_list_has_every_kind_of_name_once():
    names = [model.name for model in list_models()]
    assert len(set(names)) == len(names)
    assert {"demo-weak", "ViT-B/32", "ViT-L/14@336px", "ViT-B-32:laion2b_s34b_b79k"} <= set(names)
    assert "ViT-B-32:openai" not in names
    assert not [name for name in names if "quickgelu" in name]


def test_patterns_are_parts_of_names_or_globs_in_either_spelling():
    assert set(listed("l/14@")) == {"ViT-L/14@336px"}
    assert "ViT-B/32" in listed("vit-b-32")
    assert listed("ViT-B-16-SigLIP:webli") == {"ViT-B-16-SigLIP:webli": (768, 224, "GELU", False)}
    assert all(name.startswith("RN") for name in listed("RN*"))
    with pytest.raises(UsageError, match="'zzz'"):
        list_models("zzz")


def test_what_is_on_this_disk_is_found(hub_cache: Path):
    weak = resolve_model("demo-weak")
    add_to_hub(hub_cache, "timm/vit_base_patch32_clip_224.openai", weak.weights)
    add_to_hub(hub_cache, "org/weak", *weak.weights.parent.iterdir())
    assert listed(downloaded=True) == {
        "demo-weak": (64, 32, "GELU", True),
        "demo-strong": (96, 64, "GELU", True),
        "ViT-B/32": (512, 224, "QuickGELU", True),
        "hf-hub:org/weak": (64, 32, "GELU", True),
    }


def test_a_damaged_repository_on_this_disk_does_not_hide_the_others(hub_cache: Path, tmp_path: Path):
    weak = resolve_model("demo-weak")
    add_to_hub(hub_cache, "org/weak", *weak.weights.parent.iterdir())
    for name, content in (("org/empty", "{}"), ("org/broken", "{")):
        (tmp_path / "open_clip_config.json").write_text(content)
        add_to_hub(hub_cache, name, tmp_path / "open_clip_config.json")
    assert listed("hf-hub:*") == {"hf-hub:org/weak": (64, 32, "GELU", True)}


def test_parameters_are_counted_without_loading_the_model():
    import torch

    (model,) = list_models("demo-weak")
    loaded = Encoder(resolve_model("demo-weak"), torch.device("cpu")).model
    assert model.parameters == sum(parameter.numel() for parameter in loaded.parameters())
    (absent,) = list_models("ViT-L/14@336px")
    assert absent.parameters is None
