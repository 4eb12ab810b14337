"""OpenAI's architectures in full size, with weights of our own: activation, preprocessing and logits are right."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, Normalize, Resize

from tests.embedding.conftest import write_image
from tests.offline import GuardedProcess, add_to_hub
from transmiter_cli.embedding.encoders.encoder import Encoder
from transmiter_cli.embedding.encoders.models import resolve_model, with_weights

CPU = torch.device("cpu")
TEXTS = ["a photo of a cat.", "a photo of a dog.", "a diagram"]
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_REPOSITORY = "timm/vit_base_patch32_clip_224.openai"


@dataclass(frozen=True)
class FullSize:
    """A ViT-B-32 on this disk: plain, as a training checkpoint, and where the hub's client keeps OpenAI's."""

    plain: Path
    checkpoint: Path
    hub_cache: Path
    images: Path

    def pictures(self) -> list[Image.Image]:
        return [Image.open(path) for path in sorted(self.images.glob("*.png"))]

    def expected(self, quick_gelu: bool) -> Tensor:
        """open_clip's own logits, with the activation forced or not."""
        import open_clip

        model: Any = open_clip.create_model("ViT-B-32", load_weights=False, force_quick_gelu=quick_gelu).eval()
        model.load_state_dict(load_file(self.plain))
        preprocess: Any = open_clip.image_transform(224, is_train=False)
        with torch.no_grad():
            images = model.encode_image(torch.stack([preprocess(picture) for picture in self.pictures()]), True)
            texts = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(TEXTS), True)
            return model.logit_scale.exp() * images @ texts.T


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> FullSize:
    import open_clip

    folder = tmp_path_factory.mktemp("full-size")
    torch.manual_seed(0)
    model: Any = open_clip.create_model("ViT-B-32", load_weights=False)
    with torch.no_grad():
        for block in (*model.visual.transformer.resblocks, *model.transformer.resblocks):
            block.mlp.c_fc.weight.mul_(8)  # far enough from zero for the two activations to differ
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    made = FullSize(folder / "open_clip_model.safetensors", folder / "epoch_1.pt", folder / "hub", folder / "images")
    save_file(state, made.plain)
    torch.save({"epoch": 1, "state_dict": {f"module.{name}": value for name, value in state.items()}}, made.checkpoint)
    add_to_hub(made.hub_cache, OPENAI_REPOSITORY, made.plain)
    for shade in (0, 90):
        write_image(made.images / f"{shade:02}.png", shade)
    return made


def our_logits(encoder: Encoder, pictures: list[Image.Image]) -> Tensor:
    images = encoder.encode_images(torch.stack([encoder.preprocess(picture) for picture in pictures]))
    return encoder.facts().logit_scale * images @ encoder.encode_texts(TEXTS).T


def activations(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules() if "GELU" in type(module).__name__}


@pytest.mark.parametrize(("name", "quick_gelu"), [("ViT-B-32-quickgelu", True), ("ViT-B-32", False)])
def test_weights_in_a_file_get_the_architectures_activation(full_size: FullSize, name: str, quick_gelu: bool):
    for weights in (full_size.plain, full_size.checkpoint):
        encoder = Encoder(resolve_model(f"{name}:{weights}"), CPU)
        assert activations(encoder.model) == {"QuickGELU" if quick_gelu else "GELU"}
        found = our_logits(encoder, full_size.pictures())
        torch.testing.assert_close(found, full_size.expected(quick_gelu), atol=1e-4, rtol=0)
        assert (found - full_size.expected(not quick_gelu)).abs().max() > 1e-3


def test_a_fine_tuned_checkpoint_has_the_weak_models_activation_and_preprocessing(full_size: FullSize):
    weak = resolve_model(f"ViT-B-32-quickgelu:{full_size.plain}")
    encoder = Encoder(with_weights(weak, full_size.checkpoint, "tuned"), CPU)
    assert activations(encoder.model) == {"QuickGELU"}
    torch.testing.assert_close(our_logits(encoder, full_size.pictures()), full_size.expected(True), atol=1e-4, rtol=0)


def test_half_precision_on_a_cpu_moves_embeddings_little(full_size: FullSize):
    spec = resolve_model(f"ViT-B-32-quickgelu:{full_size.plain}")
    full, half = Encoder(spec, CPU), Encoder(spec, CPU, "half")
    batch = torch.stack([full.preprocess(picture) for picture in full_size.pictures()])
    expected, found = full.encode_images(batch), half.encode_images(batch)
    assert (expected.dtype, found.dtype) == (torch.float32, torch.float16)
    assert not torch.equal(expected, found.float())
    assert torch.cosine_similarity(expected, found.float()).min() > 0.999
    torch.testing.assert_close(full.encode_texts(TEXTS), half.encode_texts(TEXTS))


def test_preprocessing_is_that_of_the_weights(full_size: FullSize):
    steps = Encoder(resolve_model(f"ViT-B-32:{full_size.plain}"), CPU).transform.transforms
    resize, normalise = steps[0], steps[-1]
    assert isinstance(resize, Resize)
    assert (resize.size, resize.interpolation) == (224, InterpolationMode.BICUBIC)
    assert isinstance(normalise, Normalize)
    assert normalise.mean == pytest.approx(OPENAI_MEAN)


SCRIPT = """
import json, sys
import torch
from PIL import Image
from safetensors.torch import save_file
from transmiter_cli.embedding.encoders.encoder import Encoder
from transmiter_cli.embedding.encoders.models import resolve_model

texts, pictures, out = json.loads(sys.argv[1]), sys.argv[3:], sys.argv[2]
specs = [resolve_model(name) for name in ("ViT-B/32", "ViT-B-32", "ViT-B-32:openai", "ViT-B-32-quickgelu:openai")]
print(json.dumps([[spec.activation, str(spec.weights), spec.preprocess] for spec in specs]))
print("open_clip" in sys.modules)
encoder = Encoder(specs[0], torch.device("cpu"))
images = encoder.encode_images(torch.stack([encoder.preprocess(Image.open(path)) for path in pictures]))
save_file({"logits": encoder.facts().logit_scale * images @ encoder.encode_texts(texts).T}, out)
"""


def test_openais_names_work_offline_from_the_hubs_cache(full_size: FullSize, tmp_path: Path):
    process = GuardedProcess(tmp_path, full_size.hub_cache)
    pictures = map(str, sorted(full_size.images.glob("*.png")))
    line = [sys.executable, "-c", SCRIPT, json.dumps(TEXTS), str(tmp_path / "out.safetensors"), *pictures]
    done = subprocess.run(line, env=process.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    specs, imported = done.stdout.splitlines()
    assert imported == "False"
    for activation, weights, preprocess in json.loads(specs):
        assert activation == "QuickGELU"
        assert weights.startswith(str(full_size.hub_cache))
        assert preprocess["mean"] == pytest.approx(OPENAI_MEAN)
    logits = load_file(tmp_path / "out.safetensors")["logits"]
    torch.testing.assert_close(logits, full_size.expected(True), atol=1e-4, rtol=0)
    assert process.used_network() == ""


EMBED = """
import sys
from transmiter_cli.cli.main import main
sys.argv[0] = "transmiter"
try:
    main()
finally:
    print("open_clip" in sys.modules)
"""


def test_cached_embeddings_need_no_open_clip(full_size: FullSize, tmp_path: Path):
    process = GuardedProcess(tmp_path, full_size.hub_cache)
    out = tmp_path / "out.safetensors"
    line = [sys.executable, "-c", EMBED, "embed", "--model", "ViT-B/32", "--data", str(full_size.images)]
    imported: list[str] = []
    for more in ([], ["--out", str(out)]):
        done = subprocess.run([*line, *more], env=process.environment, capture_output=True, text=True, check=False)
        imported.append(done.stdout.splitlines()[-1])
    assert imported == ["True", "False"]
    assert load_file(out)["ViT-B/32"].shape == (2, 512)
    assert process.used_network() == ""
