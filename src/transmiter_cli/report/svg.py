"""From a matplotlib figure to an inline SVG that takes its colours and its font from the page."""

from __future__ import annotations

import html
import re
import warnings
from io import StringIO
from typing import Any

WIDTH = 4.4
"""Inches of every figure: small enough that its text is readable on a phone, where it is as wide as the screen."""
NAMES = ("text", "muted", "line", "before", "after", "gain", "loss", "card")
COLOURS = {name: f"#0{i}0{i}0{i}" for i, name in enumerate(NAMES, 1)}
"""Stand-ins for CSS variables: matplotlib needs numbers, the page has two sets of colours."""
SETTINGS: Any = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.titlecolor": COLOURS["text"],
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": COLOURS["text"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["text"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def inline_svg(figure: Any, alt: str, salt: str) -> str:
    """The figure as an <svg> element; the same figure always gives the same text.

    Args:
        figure: a matplotlib figure.
        alt: what it shows, for those who do not see it.
        salt: makes the element's ids its own among those of the page.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's font draws them, not matplotlib's
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font(-family)?: (\d[\d.]*px )?('[^']*'(, ?)?|[\w-]+(, )?)+", lambda m: font(m[2]), text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    box = re.search(r'viewBox="[^"]*"', text)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    begin = f'<svg {names} {box[0] if box else ""} role="img" aria-label="{html.escape(alt, quote=True)}">'
    return re.sub(r"<svg[^>]*>", lambda _: begin, text, count=1)


def font(size: str | None) -> str:
    """The page's own font, in the figure's size."""
    return f"font: {size}var(--font)" if size else "font-family: var(--font)"
