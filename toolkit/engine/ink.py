"""Colours and strokes: the few SVG elements the drawing is made of.

Owns hex colours (mixing, light and shade) and the writing of paths, blobs and gradients as SVG text. It knows no faces and no
places. Plain strings instead of a tree of elements: a picture is written once, from back to front, and never changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Point = tuple[float, float]


class Shape(NamedTuple):
    """A path in a table: fill and line are names of the figure's colours or colours; what hangs has the y of its root."""

    d: str
    fill: str = "none"
    line: str = ""
    width: float = 3.0
    opacity: float = 1.0
    root: float | None = None


def mix(first: str, second: str, share: float) -> str:
    """Blend two `#rrggbb` colours; share 0 gives the first, 1 the second."""
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_channels(first), _channels(second), strict=True))


def lit(colour: str, light: tuple[float, float, float]) -> str:
    """Show a colour under a light given as factors for red, green and blue."""
    return "#" + "".join(f"{min(255, round(c * f)):02x}" for c, f in zip(_channels(colour), light, strict=True))


def _channels(colour: str) -> bytes:
    return bytes.fromhex(colour[1:])


def path(d: str, fill: str = "none", *, line: str = "", width: float = 2.5, opacity: float = 1.0) -> str:
    """Write a path; `line` is the colour of its outline, with round ends and corners."""
    stroke = f' stroke="{line}" stroke-width="{width:g}" stroke-linecap="round" stroke-linejoin="round"' if line else ""
    # not `opacity`, for which resvg paints a layer of its own: a figure of 832x1216 took 228 ms with it, 194 without (best of 8)
    faint = f' fill-opacity="{opacity:.3g}" stroke-opacity="{opacity:.3g}"' if opacity < 1 else ""
    return f'<path d="{d}" fill="{fill}"{stroke}{faint}/>'


def oval(x: float, y: float, rx: float, ry: float, fill: str, *, opacity: float = 1.0) -> str:
    """Write an ellipse around a centre."""
    return f'<ellipse cx="{x:.1f}" cy="{y:.1f}" rx="{rx:.1f}" ry="{ry:.1f}" fill="{fill}" fill-opacity="{opacity:.3g}"/>'


def box(x: float, y: float, width: float, height: float, fill: str, *, opacity: float = 1.0) -> str:
    """Write a rectangle from its upper left corner."""
    return path(f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z", fill, opacity=opacity)


def group(parts: str | Iterable[str], transform: str) -> str:
    """Put elements under one transform."""
    return f'<g transform="{transform}">{"".join(parts)}</g>'


def gradient(name: str, *stops: tuple[float, str, float], kind: str = "linear") -> str:
    """Define a gradient of (offset, colour, opacity): downwards, or outwards from the middle if `radial`."""
    marks = "".join(f'<stop offset="{at:g}" stop-color="{colour}" stop-opacity="{opacity:g}"/>' for at, colour, opacity in stops)
    ends = ' x2="0" y2="1"' if kind == "linear" else ""
    return f'<{kind}Gradient id="{name}"{ends}>{marks}</{kind}Gradient>'


def smooth(points: Sequence[Point]) -> str:
    """Lead a soft curve through points (Catmull-Rom written as Béziers)."""
    ends = [points[0], *points, points[-1]]
    d = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (ax, ay), (bx, by), (cx, cy), (dx, dy) in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        d += f"C{bx + (cx - ax) / 6:.1f} {by + (cy - ay) / 6:.1f} {cx - (dx - bx) / 6:.1f} {cy - (dy - by) / 6:.1f} {cx:.1f} {cy:.1f}"
    return d


def puff(x: float, y: float, rx: float, ry: float, bumps: int, rng: np.random.Generator) -> str:
    """Give the outline of a cloud or a tree's crown: an ellipse of round bumps."""
    angles = (np.arange(bumps) + rng.uniform(-0.3, 0.3, bumps)) * 2 * math.pi / bumps
    points = [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]
    d = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        radius = math.dist((ax, ay), (bx, by)) * 0.56
        d += f"A{radius:.1f} {radius:.1f} 0 0 1 {bx:.1f} {by:.1f}"
    return d + "Z"
