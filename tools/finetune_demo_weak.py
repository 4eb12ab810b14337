"""Fine-tune demo-weak's image tower on the labelled train part of the bundled digits.

    python tools/finetune_demo_weak.py --out src/transmiter_cli/demo/models/demo-finetuned.safetensors

The text tower and the logit scale stay as they are: the result is an ordinary checkpoint of the demo-weak
architecture, classified with the same prompts. The test part is never read.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from glyphs import DIGITS
from train_demo_models import affine_grid

DEMO = Path(__file__).parents[1] / "src/transmiter_cli/demo"
EPOCHS = 12


def read_digits(preprocess: object) -> tuple[Tensor, Tensor]:
    """All train images, preprocessed, and their labels."""
    images, labels = [], []
    for label, word in enumerate(DIGITS):
        for path in sorted((DEMO / "digits/train" / word).glob("*.png")):
            images.append(preprocess(Image.open(path)))  # type: ignore[operator]
            labels.append(label)
    return torch.stack(images), torch.tensor(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weak", type=Path, default=DEMO / "models/demo-weak")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the order of sums, and so every bit, depends on the number of threads
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{options.weak}")
    tokens = open_clip.get_tokenizer(f"local-dir:{options.weak}")([f"a photo of a {word}." for word in DIGITS])
    images, labels = read_digits(preprocess)
    with torch.no_grad():
        text = model.eval().encode_text(tokens, normalize=True)
        classifier = model.logit_scale.exp() * text.T
    steps = EPOCHS * math.ceil(len(images) / 64)
    optimizer = torch.optim.AdamW(model.visual.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=generator).split(64):
            grid = affine_grid(len(rows), images.shape[-1], generator) * 0.9
            batch = F.grid_sample(images[rows], grid, padding_mode="border", align_corners=False)
            logits = model.encode_image(batch, normalize=True) @ classifier
            loss = F.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, options.out)
    print(json.dumps({"last_training_loss": round(loss.item(), 4), "images": len(images), "seed": options.seed}))


if __name__ == "__main__":
    main()
