from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from transmiter_cli.embedding.encoder import Encoder
from transmiter_cli.embedding.models import resolve_model, with_weights
from transmiter_cli.errors import TransmiterError, UsageError

CPU = torch.device("cpu")


def test_bundled_models_and_folders_are_the_same_thing():
    bundled = resolve_model("demo-weak")
    local = resolve_model(f"local-dir:{bundled.weights.parent}")
    assert (local.architecture, local.weights) == (bundled.architecture, bundled.weights)
    assert bundled.description() == local.description()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("VIT-B/23", "Did you mean .*ViT-B"),
        ("demo-week", "Did you mean demo-weak"),
        ("qwerty", "Names look like"),
        ("ViT-B-32:laion", "no weights 'laion'; it has: .*laion2b_s34b_b79k"),
        ("ViT-B-32-quickgelu:laion2b_s34b_b79k", "no weights|trained with GELU"),
        ("ViT-B-32:absent.pt", "no file .*absent.pt"),
        ("local-dir:/absent", "no open_clip_config.json"),
    ],
)
def test_names_that_mean_nothing_are_usage_errors(name: str, said: str):
    with pytest.raises(UsageError, match=said):
        resolve_model(name)


def test_a_folder_without_weights_is_no_model(tmp_path: Path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(UsageError, match="has no weights"):
        resolve_model(f"local-dir:{tmp_path}")


def test_openai_names_take_openais_activation_and_preprocessing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    weights = tmp_path / "openai.safetensors"
    monkeypatch.setattr("open_clip.download_pretrained", lambda config: str(weights))
    for name, architecture in (("ViT-B/32", "ViT-B-32"), ("ViT-L/14@336px", "ViT-L-14-336"), ("RN50", "RN50")):
        spec = resolve_model(name)
        assert (spec.architecture, spec.quick_gelu, spec.weights) == (architecture, True, weights)
    plain = resolve_model("ViT-B-32:laion2b_s34b_b79k")
    assert not plain.quick_gelu
    siglip = resolve_model("ViT-B-16-SigLIP:webli")
    assert siglip.preprocess["mean"] == (0.5, 0.5, 0.5)
    assert siglip.preprocess["resize_mode"] == "squash"


def test_weights_that_cannot_be_downloaded_are_an_error_not_random_numbers(monkeypatch: pytest.MonkeyPatch):
    def fail(config: object) -> str:
        raise OSError("offline: open_clip_model.safetensors is not cached")

    monkeypatch.setattr("open_clip.download_pretrained", fail)
    with pytest.raises(TransmiterError, match=r"ViT-B/32 are not on this disk.*open_clip_model.safetensors"):
        resolve_model("ViT-B/32")


def test_a_checkpoint_of_another_architecture_is_refused():
    spec = with_weights(resolve_model("demo-weak"), resolve_model("demo-strong").weights, "strong")
    with pytest.raises(TransmiterError, match=r"does not hold weights of .*demo-weak"):
        _ = Encoder(spec, CPU).model


def test_a_training_checkpoint_with_prefixes_loads_like_plain_weights(tmp_path: Path):
    spec = resolve_model("demo-weak")
    state = load_file(spec.weights)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "epoch_3.pt")
    save_file(state, tmp_path / "plain.safetensors")
    texts = ["a photo of a seven.", "the letter g"]
    expected = Encoder(spec, CPU).encode_texts(texts)
    for name in ("epoch_3.pt", "plain.safetensors"):
        assert torch.equal(Encoder(with_weights(spec, tmp_path / name, name), CPU).encode_texts(texts), expected)


def test_encodings_are_open_clips_own():
    import open_clip
    from PIL import Image

    from transmiter_cli.embedding.sources import open_images

    spec = resolve_model("demo-strong")
    model, _, preprocess = open_clip.create_model_and_transforms(spec.architecture)
    model.eval()
    encoder = Encoder(spec, CPU)
    pictures = [Image.open(file.path) for file in open_images("demo-digits", "test").files[:4]]
    with torch.no_grad():
        expected = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
    found = encoder.encode_images(torch.stack([encoder.preprocess(picture) for picture in pictures]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert encoder.facts().logit_scale == pytest.approx(model.logit_scale.exp().item())
