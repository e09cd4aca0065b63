"""Widths, heights and frames: what a family can do nearest to what was asked for, and what was rounded."""

from __future__ import annotations

import math

from toolkit.errors import RequestInvalid
from toolkit.pipelines.families import Family, Preset
from toolkit.requests import ImageRef, VideoRequest


def rounded(value: float, multiple: int) -> int:
    """The nearest multiple, at least one."""
    return max(multiple, round(value / multiple) * multiple)


def size_of(family: Family, preset: Preset, width: int | None, height: int | None, aspect: str | None, image: ImageRef | None = None) -> tuple[int, int]:
    """Width and height in pixels: as given, by aspect, after the input picture, or the preset's; one given side keeps the shape.

    Raises:
        RequestInvalid: aspect and sides together, or an aspect the family does not know.
    """
    if aspect is not None:
        if width or height:
            raise RequestInvalid("Give width and height, or aspect, not both.", field="aspect")
        return _by_aspect(aspect, family)
    if width and height:
        return width, height
    shape = (preset.width, preset.height)
    if image is not None and image.width and image.height:
        shape = fitted(image.width, image.height, preset.width * preset.height, family.multiple)
    scale = width / shape[0] if width else height / shape[1] if height else 1.0
    sides = [rounded(side * scale, family.multiple) for side in shape]
    return width or sides[0], height or sides[1]


def _by_aspect(aspect: str, family: Family) -> tuple[int, int]:
    """The family's size of this name, or, for numbers, its trained area in that shape."""
    if aspect in family.aspects:
        return family.aspects[aspect]
    numbers = aspect.split(":")
    if len(numbers) == 2 and all(number.isdecimal() and int(number) for number in numbers):
        ratio = int(numbers[0]) / int(numbers[1])
        if 0.2 <= ratio <= 5:
            return min(family.aspects.values(), key=lambda size: abs(math.log(size[0] / size[1] / ratio)))
    known = ", ".join(family.aspects)
    raise RequestInvalid(f"`aspect` is '{aspect}': it must be one of {known}, or two numbers as in 21:9.", field="aspect")


def fitted(width: int, height: int, area: int, multiple: int) -> tuple[int, int]:
    """A picture's shape at about this area at most, in multiples: the shorter side is rounded, the longer one follows it."""
    short = rounded(min(width, height) * min(1.0, math.sqrt(area / (width * height))), multiple)
    long = rounded(short * max(width, height) / min(width, height), multiple)
    return (long, short) if width >= height else (short, long)


def frames_of(request: VideoRequest, family: Family, default: int, fps: float) -> tuple[int, list[str]]:
    """The frame count, of the form step * n + 1, and what was rounded."""
    wanted = request.frames or (round(request.seconds * fps) if request.seconds else default)
    frames = max(1, round((wanted - 1) / family.frame_step)) * family.frame_step + 1
    if frames == wanted or (request.frames is None and request.seconds is None):
        return frames, []
    return frames, [f"{family.title} makes {family.frame_step}n + 1 frames: {frames} frames ({frames / fps:.2f} s) instead of {wanted}."]
