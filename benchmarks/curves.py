"""Curves over the number of labels as a small SVG, written by hand: no plotting library is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

COLOURS = ("#888888", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00")
WIDTH, HEIGHT, MARGIN = 300, 220, 40


def svg_curves(panels: Mapping[str, Mapping[str, Sequence[float]]], shots: Sequence[int]) -> str:
    """A panel per bed, a line per way, the labels per class on a logarithmic axis."""
    names = list(next(iter(panels.values())))
    lowest = 5 * int(min(value for curves in panels.values() for row in curves.values() for value in row) // 5)
    parts = [panel(title, curves, shots, place, lowest) for place, (title, curves) in enumerate(panels.items())]
    wide, high = WIDTH * len(panels), HEIGHT + 20 + 16 * ((len(names) + 3) // 4)
    for place, name in enumerate(names):
        x, y = MARGIN + (place % 4) * 200, HEIGHT + 16 + 16 * (place // 4)
        parts.append(f'<path d="M{x} {y - 4}h20" stroke="{COLOURS[place]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 26}" y="{y}">{escape(name)}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="11">'
    )
    return "\n".join([head, f'<rect width="{wide}" height="{high}" fill="#fff"/>', *parts, "</svg>\n"])


def panel(title: str, curves: Mapping[str, Sequence[float]], shots: Sequence[int], place: int, lowest: int) -> str:
    """One bed's axes and lines."""
    left, right, top, bottom = place * WIDTH + MARGIN, (place + 1) * WIDTH - 12, 24, HEIGHT - 30
    across = [left + (right - left) * step / (len(shots) - 1) for step in range(len(shots))]

    def up(value: float) -> float:
        return bottom - (bottom - top) * (value - lowest) / (100 - lowest)

    parts = [f'<text x="{(left + right) / 2}" y="14" text-anchor="middle" font-weight="bold">{escape(title)}</text>']
    for tick in range(lowest, 101, 5):
        parts.append(f'<path d="M{left} {up(tick):.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 5}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
    for x, count in zip(across, shots, strict=True):
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{count}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 27}" text-anchor="middle">labels per class</text>')
    for colour, row in zip(COLOURS, curves.values(), strict=False):
        points = " ".join(f"{x:.1f},{up(value):.1f}" for x, value in zip(across, row, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return "\n".join(parts)
