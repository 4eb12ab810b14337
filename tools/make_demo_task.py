"""Write the bundled task: 1,797 handwritten digits as image files, train/ and test/, a folder per class.

    python tools/make_demo_task.py --out src/transmiter_cli/demo/digits

The images are the test part of UCI's "Optical Recognition of Handwritten Digits" as scikit-learn ships it:
8 x 8 pixels, 17 levels. They are kept in that order: the first two thirds are train, the last third is test. Who wrote
which digit is not recorded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from glyphs import DIGITS

TRAIN_IMAGES = 1198


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    digits = load_digits()
    for number, (ink, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = out / ("train" if number < TRAIN_IMAGES else "test") / DIGITS[label]
        folder.mkdir(parents=True, exist_ok=True)
        paper = np.round(255 - ink * 255 / 16).astype(np.uint8)
        Image.fromarray(paper).save(folder / f"{number:04d}.png", optimize=True)


if __name__ == "__main__":
    main()
