"""Train demo-weak and demo-strong, the bundled pair of tiny vision-language models, on printed characters.

    python tools/train_demo_models.py weak   --out src/transmiter_cli/demo/models/demo-weak
    python tools/train_demo_models.py strong --out src/transmiter_cli/demo/models/demo-strong

Both are ordinary open_clip models in the `local-dir` layout. They learn from rendered glyphs only
(tools/glyphs.py); the handwritten digits of the bundled task are never shown to them.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import string
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from glyphs import FONT_PACKAGES, captions, find_faces, glyph_names, render

CONTEXT_LENGTH = 24
CHARACTERS = string.digits + string.ascii_lowercase + string.punctuation
PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"
TEXT_TOWER = {"width": 64, "heads": 2, "layers": 3}


@dataclass(frozen=True)
class Recipe:
    """How one model is built and trained."""

    vision: dict[str, object]
    image_size: int
    embed_dim: int
    steps: int
    batch_size: int
    every_nth_face: int
    elastic: float  # amplitude of the elastic distortion, fraction of the image
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05


RECIPES = {
    "weak": Recipe(
        vision={"timm_model_name": "test_byobnet"},
        image_size=32,
        embed_dim=64,
        steps=1500,
        batch_size=256,
        every_nth_face=4,
        elastic=0.0,
    ),
    "strong": Recipe(
        vision={"layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
        image_size=64,
        embed_dim=96,
        steps=1500,
        batch_size=256,
        every_nth_face=1,
        elastic=0.06,
    ),
}


def build_tokenizer() -> Tokenizer:
    """The captions' words are tokens; any other word is spelt letter by letter.

    The end token has the highest id, which CLIP's text pooling looks for.
    """
    texts = [text.lower() for names in glyph_names().values() for text in captions(names)]
    words = sorted(set(re.findall(r"\w+", " ".join(texts))) - set(CHARACTERS))
    pieces = [PAD, UNKNOWN, START, *CHARACTERS, *(f"##{c}" for c in CHARACTERS if c.isalnum()), *words, END]
    vocabulary = {token: i for i, token in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(START, vocabulary[START]), (END, vocabulary[END])]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return tokenizer


def write_model_folder(folder: Path, recipe: Recipe) -> None:
    """Everything of a `local-dir` model but its weights: configuration and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    text = {"context_length": CONTEXT_LENGTH, "vocab_size": tokenizer.get_vocab_size(), "hf_tokenizer_name": "."}
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {
        "model_cfg": {
            "embed_dim": recipe.embed_dim,
            "vision_cfg": {"image_size": recipe.image_size, **recipe.vision},
            "text_cfg": text | TEXT_TOWER,
        },
        "preprocess_cfg": preprocess,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": PAD, "unk_token": UNKNOWN, "bos_token": START, "eos_token": END}
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT_LENGTH} | special
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")


def affine_grid(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Sampling grids (count, size, size, 2) of random rotations, shears, scales and shifts."""
    angle, shear, log_aspect, log_scale, dx, dy = torch.rand(6, count, generator=generator) * 2 - 1
    angle, shear, scale = angle * 0.2, shear * 0.3, torch.exp(log_scale * 0.35 - 0.25)
    stretch = torch.exp(log_aspect * 0.3)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2)
    shearing = torch.stack([scale * stretch, shear, torch.zeros(count), scale / stretch], -1).view(-1, 2, 2)
    shift = torch.stack([dx, dy], -1)[..., None] * 0.15
    return F.affine_grid(torch.cat([rotation @ shearing, shift], -1), [count, 1, size, size], align_corners=False)


def augment(glyphs: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Glyphs (n, 96, 96) uint8 as photographs (n, 3, size, size) in [-1, 1]: dark ink on light paper, now and then
    the other way round; moved, distorted, thickened or thinned, blurred, of low resolution, noisy.
    """
    count, size = len(glyphs), recipe.image_size

    def chance(p: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, generator=generator) < p).float()

    grid = affine_grid(count, size, generator)
    if recipe.elastic:
        bend = torch.randn(count, 2, 4, 4, generator=generator) * recipe.elastic
        grid = grid + F.interpolate(bend, size=size, mode="bicubic").permute(0, 2, 3, 1)
    ink = F.grid_sample(glyphs[:, None].float() / 255, grid, align_corners=False)
    thick, thin = F.max_pool2d(ink, 3, 1, 1), -F.max_pool2d(-ink, 3, 1, 1)
    change = chance(0.3)
    ink = ink + change * (thick - ink) + (1 - change) * chance(0.2) * (thin - ink)
    low = (8, 12, 16, 24)[int(torch.randint(4, (), generator=generator))]
    coarse = F.interpolate(F.adaptive_avg_pool2d(ink, low), size=size, mode="bicubic").clamp(0, 1)
    ink = ink + chance(0.5) * (coarse - ink)
    strength = 0.6 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    paper = 1 - ink * strength
    inverted = chance(0.1)
    paper = paper + inverted * (1 - 2 * paper)
    noise = 0.08 * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(paper.shape, generator=generator)
    return ((paper + noise).clamp(0, 1) * 2 - 1).expand(-1, 3, -1, -1)


class Captions:
    """Tokenised captions of every character, to draw one of each at a time."""

    def __init__(self, tokenizer: object, names: dict[str, list[str]]) -> None:
        self.tokens = [tokenizer(captions(variants)) for variants in names.values()]  # type: ignore[operator]

    def draw(self, generator: torch.Generator) -> Tensor:
        """Tokens (characters, context) of one random caption of each character."""
        picks = [int(torch.randint(len(rows), (), generator=generator)) for rows in self.tokens]
        return torch.stack([rows[i] for rows, i in zip(self.tokens, picks, strict=True)])


def contrastive_loss(
    model: torch.nn.Module, images: Tensor, tokens: Tensor, labels: Tensor, smoothing: float
) -> Tensor:
    """CLIP's symmetric loss with one caption per character and, for each caption, all images of its character."""
    image, text, scale = model(images, tokens)[:3]
    logits = scale * image @ text.T
    to_text = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    positive = F.one_hot(labels, len(tokens)).T.float()
    present = positive.sum(1) > 0
    target = positive[present] / positive[present].sum(1, keepdim=True)
    return (to_text + F.cross_entropy(logits.T[present], target)) / 2


def train(name: str, folder: Path, seed: int, steps: int | None) -> dict[str, object]:
    """Train one model, write its weights in half precision, and return what its card reports."""
    recipe = RECIPES[name]
    steps = steps or recipe.steps
    torch.set_num_threads(1)  # the order of sums, and so every bit, depends on the number of threads
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    names = glyph_names()
    faces = find_faces()[:: recipe.every_nth_face]
    glyphs, labels = render(faces, "".join(names))
    print(f"{name}: {len(glyphs)} glyphs of {len(names)} characters from {len(faces)} faces", flush=True)
    write_model_folder(folder, recipe)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    tokenized = Captions(open_clip.get_tokenizer(f"local-dir:{folder}"), names)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1, (i + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * i / steps))
    )
    model.train()
    started = time.time()
    for step in range(steps):
        rows = torch.randint(len(glyphs), (recipe.batch_size,), generator=generator)
        images = augment(glyphs[rows], recipe, generator)
        loss = contrastive_loss(model, images, tokenized.draw(generator), labels[rows], recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.3f} {time.time() - started:.0f} s", flush=True)
    weights = {key: value.half().contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return {
        "training_accuracy": accuracy(folder, glyphs, labels, recipe, names),
        "parameters": sum(p.numel() for p in model.parameters()),
        "logit_scale": round(model.logit_scale.exp().item(), 2),
        "characters": len(names),
        "glyphs": len(glyphs),
        "faces": len(faces),
        "steps": steps,
        "seed": seed,
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
    }


@torch.no_grad()
def accuracy(folder: Path, glyphs: Tensor, labels: Tensor, recipe: Recipe, names: dict[str, list[str]]) -> float:
    """Top-1 of the saved model on 8,000 freshly augmented glyphs against "a photo of a {first name}."."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")([f"a photo of a {n[0]}." for n in names.values()])
    text = model.encode_text(tokens, normalize=True)
    generator = torch.Generator().manual_seed(1)
    hits = 0
    for _ in range(16):
        rows = torch.randint(len(glyphs), (500,), generator=generator)
        image = model.encode_image(augment(glyphs[rows], recipe, generator), normalize=True)
        hits += int(((image @ text.T).argmax(1) == labels[rows]).sum())
    return hits / 8000


def write_card(folder: Path, name: str, report: dict[str, object]) -> None:
    """The model card: what was trained, how, on which fonts, and how well it knows its training distribution."""
    rows = "\n".join(f"| {key} | {value} |" for key, value in report.items())
    recipe = json.dumps(asdict(RECIPES[name]), indent=2)
    fonts = "\n".join(f"| {package} | {licence} |" for package, licence in sorted(FONT_PACKAGES.items()))
    nth = RECIPES[name].every_nth_face
    share = "All" if nth == 1 else f"One in {nth}"
    text = f"""# demo-{name}

A tiny open_clip model of printed characters, for transmiter's demo and tests. It has never seen handwriting.
Licence: Apache-2.0, as the project.

Made by `python tools/train_demo_models.py {name} --out FOLDER --seed {report["seed"]}`.

| | |
|---|---|
{rows}

`training_accuracy` is the top-1 of the saved weights over all {report["characters"]} characters, on 8,000 freshly
augmented glyphs of the training fonts, with "a photo of a {{first name}}.". Small and capital letters of the same
shape, and look-alikes such as o, O, 0 and omicron's kin, cannot be told apart once glyphs are scaled at random.

## Recipe

```json
{recipe}
```

## Fonts

{share} of the faces of these Debian packages; faces that imitate a hand are left out. The licences allow
drawing with the fonts without conditions on what is drawn.

| package | licence |
|---|---|
{fonts}
"""
    (folder / "README.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="train for fewer or more steps than the recipe says")
    options = parser.parse_args()
    report = train(options.name, options.out, options.seed, options.steps)
    write_card(options.out, options.name, report)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
