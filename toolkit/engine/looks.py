"""How LoRAs change a drawing: the weight of its lines, its colourfulness, and a wash of colour.

Owns the reading of a look from names and strengths. It must not know what is drawn. A name is hashed, since the stand-in of a
file has nothing else; only names that speak of lines decide something: they make them bold. Strength 0 changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from toolkit.engine.values import Look
from toolkit.engine.words import generator

_BOLD = re.compile(r"ink|line|sketch|manga|comic", re.IGNORECASE)
_GREY = (0.299, 0.587, 0.114)
_WASHES = (  # rose, peach, gold, sky, lilac, mint
    (1.09, 0.94, 0.97), (1.08, 0.99, 0.9), (1.07, 1.01, 0.89), (0.93, 0.99, 1.09), (1.01, 0.94, 1.1), (0.94, 1.04, 1.01),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    """Factors: of line widths, of colourfulness, and of red, green and blue."""

    ink: float = 1.0
    colour: float = 1.0
    wash: tuple[float, float, float] = (1.0, 1.0, 1.0)


@lru_cache(maxsize=64)
def style(look: Look) -> Style:
    """Read a look; every LoRA adds to the one before."""
    ink, colour, wash = 1.0, 1.0, np.ones(3)
    for name, strength in look:
        rng, by = generator(0, "lora", name), min(2.0, max(-2.0, strength))
        thicker = 1.1 if _BOLD.search(name) else rng.uniform(-0.45, 0.5)
        ink *= max(0.2, 1 + thicker * by)
        colour *= max(0.0, 1 + rng.uniform(-0.25, 0.3) * by)
        wash *= 1 + (np.array(_WASHES[rng.integers(len(_WASHES))]) - 1) * by
    return Style(ink, colour, (float(wash[0]), float(wash[1]), float(wash[2])))


def inked(svg: str, style: Style) -> str:
    """Draw every line as thick as the style has it."""
    if style.ink == 1:
        return svg
    return re.sub(r'stroke-width="([\d.]+)"', lambda width: f'stroke-width="{float(width[1]) * style.ink:.3g}"', svg)


def washed(picture: Image.Image, style: Style) -> Image.Image:
    """Change the colours of a picture."""
    if style.colour == 1 and style.wash == (1.0, 1.0, 1.0):
        return picture
    rows = [[gain * (grey * (1 - style.colour) + style.colour * (row == column)) for column, grey in enumerate(_GREY)] for row, gain in enumerate(style.wash)]
    return picture.convert("RGB", tuple(value for row in rows for value in (*row, 0.0)))
