"""A folder of everything that goes wrong with images: nothing kills the run, and the list says why."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import Cli, cli, shared_cache  # noqa: F401
from tests.embedding.conftest import ListReporter
from transmiter_cli.embedding.encoders.models import resolve_model
from transmiter_cli.embedding.sources import open_images
from transmiter_cli.embedding.workspace import Workspace

LETTER = Image.new("L", (32, 32), 255)
for _x in range(8, 24):
    for _y in range(4, 12):
        LETTER.putpixel((_x, _y), 0)


def truncated(path: Path) -> None:
    LETTER.convert("RGB").resize((400, 400)).save(path)
    path.write_bytes(path.read_bytes()[:900])


def transparent(path: Path) -> None:
    image = Image.new("RGBA", LETTER.size, (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), mask=LETTER.point(lambda value: 255 - value))
    image.convert("P").save(path, transparency=image.convert("P").getpixel((0, 0)))


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    LETTER.rotate(90).save(path, exif=exif, quality=100)


def animated(path: Path) -> None:
    LETTER.save(path, save_all=True, append_images=[LETTER.rotate(90)])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated.jpg": (truncated, "truncated"),
    "zero.png": (lambda path: path.touch(), "empty file"),
    "text.jpg": (lambda path: path.write_text("hello"), "not an image"),
    "bomb.png": (lambda path: Image.new("1", (20_000, 20_000)).save(path), "178 million pixels"),
    "loop.png": (lambda path: path.symlink_to(path.name), ""),
    "dangling.png": (lambda path: path.symlink_to("absent.png"), ""),
}
GOOD: dict[str, Callable[[Path], object]] = {
    "plain.png": LETTER.save,
    "cmyk.jpg": lambda path: LETTER.convert("CMYK").save(path, quality=100),
    "sixteen.png": lambda path: Image.fromarray(np.asarray(LETTER).astype(np.uint16) * 257).save(path),
    "palette.png": transparent,
    "rotated.jpg": rotated,
    "animated.gif": animated,
    "animated.webp": animated,
    "new\nline.png": LETTER.save,
    os.fsdecode(b"latin-\xe9.png"): LETTER.save,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "letter").mkdir(parents=True)
    (folder / "letter" / "around").symlink_to(folder, target_is_directory=True)
    for name, make in GOOD.items():
        make(folder / "letter" / name)
    for name, (make, _) in BAD.items():
        make(folder / "letter" / name)
    return folder


def test_each_bad_image_is_skipped_with_its_reason_and_each_good_one_looks_right(folder: Path, tmp_path: Path):
    reporter = ListReporter()
    encoder = Workspace(cache=tmp_path / "cache", reporter=reporter).open(resolve_model("demo-weak"))
    images = open_images(str(folder), None)
    found = encoder.image_embeddings(images.files)
    kept = {Path(images.files[i].name).name: row for i, row in zip(found.kept, found.rows, strict=True)}
    assert set(kept) == set(GOOD)
    plain = kept["plain.png"]
    likeness = {name: torch.dot(plain, row).item() for name, row in kept.items()}
    assert min(likeness.values()) > 0.99, likeness
    reasons = {Path(skipped.name).name: skipped.reason for skipped in found.skipped}
    for name, (_, said) in BAD.items():
        assert said in reasons.get(name, "" if not said else "not skipped"), (name, reasons)
    assert len([line for line in reporter.warnings if "Skipped" in line]) == len(found.skipped)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads whatever it wants")
def test_an_unreadable_image_is_skipped(folder: Path, tmp_path: Path):
    (folder / "letter" / "plain.png").chmod(0)
    encoder = Workspace(cache=tmp_path / "cache").open(resolve_model("demo-weak"))
    found = encoder.image_embeddings(open_images(str(folder), None).files)
    assert "Permission denied" in {skipped.reason for skipped in found.skipped}


def test_the_command_line_lists_them_and_strict_fails(cli: Cli, folder: Path):  # noqa: F811
    lenient = cli("embed", "--model", "demo-weak", "--data", folder, "--out", "rows.safetensors")
    assert lenient.code == 0, lenient.err
    assert "bomb.png: more than 178 million pixels" in lenient.err
    strict = cli("embed", "--model", "demo-weak", "--data", folder, "--strict")
    assert strict.code == 1
    assert "cannot be decoded; the first is" in strict.err
