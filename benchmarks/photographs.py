"""Generated photographs of camera size, for benchmarks: they look and compress like natural ones, and need no download.

Dead leaves: opaque shapes whose sizes follow a power law and which hide each other, as objects do (Lee, Mumford and
Huang, "Occlusion models for natural images", IJCV 2001). Each has a colour of its own; the whole has 1/f texture, light
from one side, the blur of a lens and the noise of a sensor.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from transmiter_cli.embedding.decoding import usable_processors

SIZE = (4000, 3000)
QUALITY = 90
LEAVES = 6000
PALETTE = ((94, 116, 62), (146, 132, 98), (181, 204, 226), (70, 62, 55), (203, 188, 160), (52, 84, 118), (168, 72, 50))


def pink_noise(size: int, seed: int) -> np.ndarray:
    """A square texture with an amplitude of 1 / frequency, zero mean and unit deviation."""
    noise = np.fft.rfft2(np.random.default_rng(seed).standard_normal((size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    texture = np.fft.irfft2(noise / frequency, (size, size))
    return texture / texture.std()


def leaves(size: tuple[int, int], seed: int) -> Image.Image:
    """Ellipses and polygons that hide each other; radii follow a power law with exponent 3."""
    chance = random.Random(seed)
    width, height = size
    image = Image.new("RGB", size, chance.choice(PALETTE))
    draw = ImageDraw.Draw(image)
    largest, smallest = 0.45 * height, 0.004 * height
    for _ in range(LEAVES):
        u = chance.random()
        radius = (u / largest**2 + (1 - u) / smallest**2) ** -0.5
        x, y = chance.uniform(0, width), chance.uniform(0, height)
        base = chance.choice(PALETTE)
        color = tuple(max(0, min(255, round(channel * chance.uniform(0.6, 1.3)))) for channel in base)
        if chance.random() < 0.5:
            flat = radius * chance.uniform(0.3, 1)
            draw.ellipse((x - radius, y - flat, x + radius, y + flat), fill=color)
        else:
            draw.regular_polygon((x, y, radius), chance.randint(3, 7), chance.uniform(0, 360), fill=color)
    return image


def photograph(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """One generated photograph."""
    width, height = size
    scene = np.asarray(leaves(size, seed), dtype=np.float32)
    tile = pink_noise(1024, seed).astype(np.float32)
    coarse = Image.fromarray(tile[:256, :256]).resize(size, Image.Resampling.BICUBIC)
    fine = np.tile(tile, (height // 1024 + 1, width // 1024 + 1))[:height, :width]
    light = np.linspace(0.75, 1.2, width, dtype=np.float32)[None, :]
    scene *= (light * (1 + 0.08 * np.asarray(coarse) + 0.05 * fine))[..., None]
    lens = Image.fromarray(scene.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    noise = np.random.default_rng(seed).normal(0, 2, (1024, 1024, 1)).astype(np.float32)
    grain = np.tile(noise, (height // 1024 + 1, width // 1024 + 1, 1))[:height, :width]
    return Image.fromarray((np.asarray(lens, dtype=np.float32) + grain).clip(0, 255).astype(np.uint8))


def write_photographs(folder: Path, count: int, distinct: int, size: tuple[int, int] = SIZE) -> None:
    """Write `count` JPEG files into one class folder, of `distinct` different pictures, in turn.

    A number after the end of the picture makes each file another one: the store encodes equal files once.
    """
    target = folder / "photographs"
    target.mkdir(parents=True, exist_ok=True)

    def encode(seed: int) -> bytes:
        path = target / f"{seed:06d}.jpg"
        photograph(seed, size).save(path, quality=QUALITY)
        return path.read_bytes()

    with ThreadPoolExecutor(usable_processors()) as pool:
        pictures = list(pool.map(encode, range(distinct)))
    for number in range(distinct, count):
        (target / f"{number:06d}.jpg").write_bytes(pictures[number % distinct] + number.to_bytes(8))
