"""Printed characters: what they are called and how they are drawn.

Everything the demo models ever see comes from here: glyphs of freely licensed fonts, and captions made
from the characters' names. No handwriting, and no font that imitates it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import BinaryIO

import torch
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CANVAS = 96
"""Side of the square on which a glyph is drawn, in pixels."""

FONT_PACKAGES = {
    "fonts-dejavu-core": "Bitstream Vera licence / public domain",
    "fonts-dejavu-extra": "Bitstream Vera licence / public domain",
    "fonts-liberation2": "SIL OFL 1.1",
    "fonts-crosextra-carlito": "SIL OFL 1.1",
    "fonts-freefont-ttf": "GPL-3+ with font exception",
    "fonts-linuxlibertine": "SIL OFL 1.1 / GPL-2 with font exception",
    "fonts-open-sans": "Apache-2.0",
    "fonts-roboto-unhinted": "Apache-2.0",
    "fonts-gfs-didot": "SIL OFL 1.1",
    "fonts-gfs-neohellenic": "SIL OFL 1.1",
    "fonts-gfs-artemisia": "SIL OFL 1.1",
    "fonts-cmu": "SIL OFL 1.1",
    "fonts-ebgaramond": "SIL OFL 1.1",
    "fonts-firacode": "SIL OFL 1.1",
    "fonts-jetbrains-mono": "SIL OFL 1.1",
    "fonts-hack": "MIT / Bitstream Vera licence",
    "fonts-go": "BSD-3-Clause",
    "fonts-sil-gentium": "SIL OFL 1.1",
    "fonts-sil-charis": "SIL OFL 1.1",
    "fonts-jura": "SIL OFL 1.1",
    "fonts-comfortaa": "SIL OFL 1.1",
    "fonts-play": "SIL OFL 1.1",
    "fonts-vollkorn": "SIL OFL 1.1",
    "fonts-mononoki": "SIL OFL 1.1",
    "fonts-fantasque-sans": "SIL OFL 1.1",
    "fonts-inconsolata": "SIL OFL 1.1",
    "fonts-cantarell": "SIL OFL 1.1",
    "fonts-urw-base35": "AGPL-3 with font exception",
    "fonts-texgyre": "GUST Font License (LPPL)",
    "fonts-lato": "SIL OFL 1.1",
    "fonts-cabin": "SIL OFL 1.1",
    "fonts-dosis": "SIL OFL 1.1",
    "fonts-quicksand": "SIL OFL 1.1",
}
"""Debian packages whose fonts are drawn, with their licences. All allow rendering without conditions on the result."""

NOT_PRINT = ("Z003", "chorus", "Symbol", "D050000L", "Math")
"""Parts of the file names of faces that imitate a hand or hold no letters."""

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma "
    "tau upsilon phi chi psi omega"
)
GREEK_SMALL = {char: word for char, word in zip("αβγδεζηθικλμνξοπρστυφχψω", GREEK.split(), strict=True) if char != "ο"}
GREEK_CAPITAL = {char.upper(): word for char, word in GREEK_SMALL.items() if char in "γδθλξπσφψω"}
PUNCTUATION = {
    "!": ["exclamation mark", "exclamation point"],
    "?": ["question mark"],
    "#": ["hash sign", "number sign"],
    "$": ["dollar sign"],
    "%": ["percent sign"],
    "&": ["ampersand", "and sign"],
    "@": ["at sign"],
    "*": ["asterisk", "star"],
    "+": ["plus sign"],
    "=": ["equals sign"],
    "/": ["slash", "forward slash"],
    "\\": ["backslash"],
    "(": ["opening parenthesis", "left parenthesis"],
    ")": ["closing parenthesis", "right parenthesis"],
    "[": ["opening bracket", "left square bracket"],
    "]": ["closing bracket", "right square bracket"],
    "{": ["opening brace", "left curly brace"],
    "}": ["closing brace", "right curly brace"],
    "<": ["less-than sign", "left angle bracket"],
    ">": ["greater-than sign", "right angle bracket"],
    ":": ["colon"],
    ";": ["semicolon"],
    '"': ["quotation mark", "double quote"],
    "^": ["caret", "circumflex"],
    "~": ["tilde"],
    "_": ["underscore", "low line"],
    "|": ["vertical bar", "pipe sign"],
    "£": ["pound sign", "sterling sign"],
    "¥": ["yen sign"],
    "€": ["euro sign"],
    "§": ["section sign"],
    "¶": ["paragraph sign", "pilcrow"],
    "±": ["plus-minus sign"],
    "÷": ["division sign", "obelus"],
    "×": ["multiplication sign", "times sign"],
    "©": ["copyright sign"],
    "®": ["registered sign"],
    "«": ["opening guillemet", "left angle quote"],
    "»": ["closing guillemet", "right angle quote"],
}

TEMPLATES = (
    "{}",
    "a {}",
    "the {}",
    "a photo of a {}.",
    "a photo of the {}.",
    "an image of the {}",
    "a picture of a {}",
    "a printed {}",
    "the character {}",
)


def glyph_names() -> dict[str, list[str]]:
    """Every character and its names, the most usual first."""
    names = {str(i): [word, f"digit {word}", f"number {word}", f"numeral {word}"] for i, word in enumerate(DIGITS)}
    for code in range(ord("a"), ord("z") + 1):
        small = chr(code)
        names[small] = [f"letter {small}", f"small letter {small}", f"lowercase letter {small}"]
        names[small.upper()] = [f"capital letter {small}", f"uppercase letter {small}", f"big letter {small}"]
    for char, word in GREEK_SMALL.items():
        names[char] = [f"greek letter {word}", word, f"small greek letter {word}"]
    for char, word in GREEK_CAPITAL.items():
        names[char] = [f"capital greek letter {word}", f"capital {word}", f"uppercase greek letter {word}"]
    return names | PUNCTUATION


def captions(names: list[str]) -> list[str]:
    """All captions of one character: each of its names in each template."""
    return [template.format(name) for name in names for template in TEMPLATES]


def find_faces() -> list[Path]:
    """The faces of the installed FONT_PACKAGES, in a fixed order; handwriting-like and symbol fonts left out."""
    faces = []
    for package in sorted(FONT_PACKAGES):
        listing = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=True).stdout
        files = {Path(line).resolve() for line in listing.splitlines() if line.endswith((".ttf", ".otf"))}
        faces += sorted(path for path in files if not any(word in path.name for word in NOT_PRINT))
    return faces


def draw(face: Path | BinaryIO, char: str) -> Image.Image | None:
    """The character in white on black, its ink centred; None where the face draws nothing."""
    font = ImageFont.truetype(face, size=60)
    left, top, right, bottom = font.getbbox(char)
    if right <= left or bottom <= top or max(right - left, bottom - top) > CANVAS:
        return None
    image = Image.new("L", (CANVAS, CANVAS))
    position = ((CANVAS - left - right) / 2, (CANVAS - top - bottom) / 2)
    ImageDraw.Draw(image).text(position, char, fill=255, font=font)
    return image


def render(faces: list[Path], characters: str) -> tuple[Tensor, Tensor]:
    """Draw every character in every face that has it.

    Returns:
        uint8 images (n, CANVAS, CANVAS), ink 255, and the index of each one's character (n).
    """
    images, labels = [], []
    for face in faces:
        covered = TTFont(str(face), lazy=True).getBestCmap() or {}
        for label, char in enumerate(characters):
            if ord(char) in covered and (image := draw(face, char)) is not None:
                images.append(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(CANVAS, CANVAS))
                labels.append(label)
    return torch.stack(images), torch.tensor(labels)
