import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.offline import add_to_hub
from transmiter_cli.embedding.encoders.encoder import Encoder
from transmiter_cli.embedding.encoders.models import lasting_model_name, resolve_model, with_weights
from transmiter_cli.embedding.encoders.pickles import load_tensors
from transmiter_cli.errors import TransmiterError, UsageError

CPU = torch.device("cpu")


def test_bundled_models_and_folders_are_the_same_thing():
    bundled = resolve_model("demo-weak")
    local = resolve_model(f"local-dir:{bundled.weights.parent}")
    assert (local.architecture, local.weights) == (bundled.architecture, bundled.weights)
    assert bundled.description() == local.description()


def test_a_name_lasts_as_that_of_its_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(resolve_model("demo-weak").weights.parent, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rel.pt").touch()
    for name in ("local-dir:model", "local-dir:./model/", "ViT-B-32:rel.pt", "ViT-B/16-SigLIP:rel.pt", "demo-weak"):
        assert lasting_model_name(name) == resolve_model(name).name
    assert lasting_model_name("local-dir:gone") == f"local-dir:{tmp_path / 'gone'}"
    for name in ("ViT-L/14", "ViT-B-32:laion2b_s34b_b79k", "hf-hub:org/repo", "hf-hub:org/repo.bin", "?"):
        assert lasting_model_name(name) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("VIT-B/23", "Did you mean .*ViT-B"),
        ("demo-week", "Did you mean 'demo-weak'"),
        ("qwerty", "Names look like"),
        ("ViT-B-32:laion", "no weights 'laion'; it has: .*laion2b_s34b_b79k"),
        ("ViT-B-32-quickgelu:laion2b_s34b_b79k", "no weights|trained with GELU"),
        ("ViT-B-32:absent.pt", "no file .*absent.pt"),
        ("local-dir:/absent", "no open_clip_config.json"),
        ("~nobody-of-this-name/model", "There is no model"),
        ("a" * 300, "There is no model"),
    ],
)
def test_names_that_mean_nothing_are_usage_errors(name: str, said: str):
    with pytest.raises(UsageError, match=said):
        resolve_model(name)


def test_a_folder_without_weights_is_no_model(tmp_path: Path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(UsageError, match="has no weights"):
        resolve_model(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "architecture", "repository", "activation"),
    [
        ("ViT-B/32", "ViT-B-32", "timm/vit_base_patch32_clip_224.openai", "QuickGELU"),
        ("ViT-L/14@336px", "ViT-L-14-336", "timm/vit_large_patch14_clip_336.openai", "QuickGELU"),
        ("RN50", "RN50", "timm/resnet50_clip.openai", "QuickGELU"),
        ("ViT-B-32:laion2b_s34b_b79k", "ViT-B-32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "GELU"),
        ("ViT-B/32:LAION2B-s34b-b79k", "ViT-B-32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "GELU"),
        ("ViT-H-14-378-quickgelu:dfn5b", "ViT-H-14-378-quickgelu", "apple/DFN5B-CLIP-ViT-H-14-378", "QuickGELU"),
        ("ViT-B-16-SigLIP:webli", "ViT-B-16-SigLIP", "timm/ViT-B-16-SigLIP", "GELU"),
    ],
)
def test_names_give_the_architecture_weights_and_activation(
    hub_cache: Path, name: str, architecture: str, repository: str, activation: str
):
    weights = add_to_hub(hub_cache, repository, resolve_model("demo-weak").weights) / "open_clip_model.safetensors"
    spec = resolve_model(name)
    assert (spec.architecture, spec.weights, spec.activation) == (architecture, weights, activation)
    squash = "SigLIP" in name
    assert spec.preprocess["resize_mode"] == ("squash" if squash or "378" in name else "shortest")
    assert (spec.preprocess["mean"] == [0.5, 0.5, 0.5]) == squash


@pytest.mark.parametrize(
    "other",
    [{"preprocess": {"mean": [0.5, 0.5, 0.5]}}, {"preprocess": {"resize_mode": "squash"}}, {"quick_gelu": True}],
)
def test_all_that_decides_the_embeddings_is_in_the_description(other: dict[str, Any]):
    spec = resolve_model("demo-weak")
    assert replace(spec, **other).description() != spec.description()


def test_the_names_of_a_tokenizers_files_are_in_the_description(tmp_path: Path):
    shutil.copytree(resolve_model("demo-weak").weights.parent, tmp_path / "weak")
    before = resolve_model(f"local-dir:{tmp_path / 'weak'}").description()
    (tmp_path / "weak" / "tokenizer.json").rename(tmp_path / "weak" / "other.json")
    assert resolve_model(f"local-dir:{tmp_path / 'weak'}").description() != before


def test_a_folder_without_its_tokenizer_is_an_error_that_says_what_to_copy(tmp_path: Path):
    shutil.copytree(resolve_model("demo-weak").weights.parent, tmp_path / "weak")
    for path in (tmp_path / "weak").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(TransmiterError, match=rf"cannot be read from {tmp_path / 'weak'}") as caught:
        _ = Encoder(resolve_model(f"local-dir:{tmp_path / 'weak'}"), CPU).tokenizer
    assert str(caught.value.fix).startswith("copy tokenizer.json, tokenizer_config.json, ")
    assert str(caught.value.fix).endswith("there from where the model was saved")


def test_a_models_folder_alone_is_told_how_it_is_named():
    folder = resolve_model("demo-weak").weights.parent
    with pytest.raises(UsageError, match="is a folder") as caught:
        resolve_model(str(folder))
    assert resolve_model(str(caught.value.fix)).weights.parent == folder


def test_both_spellings_of_the_same_weights_share_their_embeddings(hub_cache: Path):
    add_to_hub(hub_cache, "timm/vit_base_patch32_clip_224.openai", resolve_model("demo-weak").weights)
    first, second = resolve_model("ViT-B/32"), resolve_model("ViT-B-32-quickgelu:openai")
    assert first.description() == second.description()


def test_weights_in_a_file_take_what_all_published_weights_of_the_architecture_share(tmp_path: Path):
    (tmp_path / "tuned.pt").touch()
    assert resolve_model(f"ViT-B-16-SigLIP:{tmp_path}/tuned.pt").preprocess["resize_mode"] == "squash"
    assert resolve_model(f"ViT-L-14:{tmp_path}/tuned.pt").preprocess == {}  # some have OpenAI's mean, some Inception's


def test_openais_spelling_with_a_file_does_not_say_which_activation(tmp_path: Path):
    (tmp_path / "tuned.pt").touch()
    with pytest.raises(UsageError, match="which activation") as caught:
        resolve_model(f"ViT-B/32:{tmp_path}/tuned.pt")
    assert f"ViT-B-32-quickgelu:{tmp_path}/tuned.pt" in str(caught.value.fix)


def test_weights_that_are_not_here_are_an_error_that_says_where_they_were_looked_for(hub_cache: Path):
    with pytest.raises(TransmiterError, match=r"weights of ViT-B/32 .* open_clip_model.safetensors of timm/") as caught:
        resolve_model("ViT-B/32")
    assert str(hub_cache) in str(caught.value)
    repository = "timm/vit_base_patch32_clip_224.openai"
    assert caught.value.fix == f"HF_HUB_OFFLINE=0 hf download {repository} open_clip_model.safetensors"


def test_a_hub_repository_stays_the_same_model_once_its_tokenizer_came(hub_cache: Path):
    weak = resolve_model("demo-weak")
    folder = weak.weights.parent
    add_to_hub(hub_cache, "org/weak", folder / "open_clip_config.json", weak.weights)
    before = resolve_model("hf-hub:org/weak").description()
    add_to_hub(hub_cache, "org/weak", *folder.glob("tokenizer*"))  # they come when a text is first encoded
    spec = resolve_model("hf-hub:org/weak")
    assert (spec.description(), spec.repository) == (before, "org/weak")
    texts = ["a photo of a seven.", "the letter g"]
    assert torch.equal(Encoder(spec, CPU).encode_texts(texts), Encoder(weak, CPU).encode_texts(texts))


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("open_clip_config.json", "configuration of hf-hub:org/weak .* open_clip_config.json"),
        ("open_clip_model.safetensors", "weights of hf-hub:org/weak .* open_clip_model.safetensors"),
        ("tokenizer.json", "tokenizer of hf-hub:org/weak .* tokenizer.json"),
    ],
)
def test_a_hub_repository_that_is_not_whole_is_an_error(hub_cache: Path, lacks: str, said: str):
    folder = resolve_model("demo-weak").weights.parent
    kept = (path for path in folder.iterdir() if path.name != lacks and path.suffix != ".md")
    add_to_hub(hub_cache, "org/weak", *kept)
    with pytest.raises(TransmiterError, match=f"{said}.* of org/weak is not in {hub_cache}"):
        Encoder(resolve_model("hf-hub:org/weak"), CPU).tokenizer(["a"])


def test_a_siglip_tokenizer_comes_from_the_hubs_cache_or_is_an_error(hub_cache: Path):
    folder = resolve_model("demo-weak").weights.parent
    repository = "timm/ViT-B-16-SigLIP"
    add_to_hub(hub_cache, repository, folder / "open_clip_model.safetensors")
    spec = resolve_model("ViT-B-16-SigLIP:webli")
    with pytest.raises(TransmiterError, match=r"tokenizer of ViT-B-16-SigLIP:webli .* tokenizer.json") as caught:
        _ = Encoder(spec, CPU).tokenizer
    assert f"hf download {repository} tokenizer.json" in str(caught.value.fix)
    add_to_hub(hub_cache, repository, folder / "tokenizer.json", folder / "tokenizer_config.json")
    assert Encoder(spec, CPU).tokenizer(["a seven"]).shape == (1, 64)


def test_a_text_tower_of_transformers_needs_its_configuration(hub_cache: Path):
    weights = resolve_model("demo-weak").weights
    add_to_hub(hub_cache, "laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k", weights)
    spec = resolve_model("roberta-ViT-B-32:laion2b_s12b_b32k")
    with pytest.raises(TransmiterError, match=r"text tower of roberta.* config.json of roberta-base is not in"):
        _ = Encoder(spec, CPU).model


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


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "model.", "_orig_mod.", "module._orig_mod."])
def test_what_trainers_and_compilers_put_around_weights_is_taken_away(tmp_path: Path, key: str | None, prefix: str):
    spec = resolve_model("demo-weak")
    state = {f"{prefix}{name}": value for name, value in load_file(spec.weights).items()}
    state |= {"loss.temperature": torch.ones(1)} if prefix else {}
    torch.save(state if key is None else {"epoch": 3, "optimizer": {"lr": 1.0}, key: state}, tmp_path / "epoch_3.ckpt")
    names = ["epoch_3.ckpt"]
    if key is None and prefix:
        save_file(state, tmp_path / "epoch_3.safetensors")
        names.append("epoch_3.safetensors")
    expected = Encoder(spec, CPU).encode_texts(["the letter g"])
    for name in names:
        found = Encoder(with_weights(spec, tmp_path / name, name), CPU).encode_texts(["the letter g"])
        assert torch.equal(found, expected)


def test_wrapped_weights_are_resized_as_plain_ones_are(tmp_path: Path):
    spec, name = resolve_model("demo-weak"), "positional_embedding"
    state = load_file(spec.weights)
    longer = {**state, name: torch.randn(2 * len(state[name]), state[name].shape[1])}
    torch.save(longer, tmp_path / "plain.pt")
    torch.save({"model": {f"_orig_mod.{key}": value for key, value in longer.items()}}, tmp_path / "wrapped.pt")
    plain, wrapped = (
        Encoder(with_weights(spec, tmp_path / f"{one}.pt", one), CPU).model.state_dict()[name]
        for one in ("plain", "wrapped")
    )
    assert plain.shape == state[name].shape
    assert torch.equal(plain, wrapped)


def test_names_that_are_none_are_refused(tmp_path: Path):
    torch.save({"model": {0: torch.ones(1)}}, tmp_path / "numbers.pt")
    with pytest.raises(TransmiterError, match="holds no tensors by name: 0 is none"):
        load_tensors(tmp_path / "numbers.pt")


def test_of_two_models_in_one_checkpoint_none_is_chosen(tmp_path: Path):
    spec = resolve_model("demo-weak")
    state = {f"{prefix}{k}": v for k, v in load_file(spec.weights).items() for prefix in ("model.", "ema.")}
    torch.save(state, tmp_path / "both.pt")
    with pytest.raises(TransmiterError, match=r"both\.pt does not hold weights of .*demo-weak"):
        _ = Encoder(with_weights(spec, tmp_path / "both.pt", "both"), CPU).model


def test_the_side_of_an_input_that_is_no_square_is_its_height():
    encoder = Encoder(resolve_model("demo-weak"), CPU)
    encoder.model.visual.preprocess_cfg |= {"size": (24, 48)}
    assert encoder.side == 24


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
    pixels = torch.stack([encoder.preprocess(picture) for picture in pictures])
    assert torch.equal(encoder.input(pixels), torch.stack([preprocess(picture) for picture in pictures]))
    torch.testing.assert_close(encoder.encode_images(pixels), expected, atol=1e-5, rtol=1e-5)
    assert encoder.facts().logit_scale == pytest.approx(model.logit_scale.exp().item())
    assert encoder.facts().image_parameters == sum(parameter.numel() for parameter in model.visual.parameters())


@pytest.mark.parametrize("length", [2, 28, 200])
def test_weights_that_were_cut_off_are_told(tmp_path: Path, length: int):
    demo = resolve_model("demo-weak").weights
    torch.save(load_file(demo), tmp_path / "whole.pt", _use_new_zipfile_serialization=False)
    shutil.copyfile(demo.parent / "open_clip_config.json", tmp_path / "open_clip_config.json")
    (tmp_path / "open_clip_model.bin").write_bytes((tmp_path / "whole.pt").read_bytes()[:length])
    (tmp_path / "whole.pt").unlink()
    with pytest.raises(TransmiterError, match=r"open_clip_model\.bin cannot be read as a file of torch"):
        _ = Encoder(resolve_model(f"local-dir:{tmp_path}"), CPU).model
