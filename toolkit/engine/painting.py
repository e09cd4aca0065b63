"""From a latent to pixels: drawings over what was encoded, and clips that lead from picture to picture.

Owns what a latent looks like, whole or as a sketch for previews. It must not know nodes or time. A canvas is a latent with its
pictures brought to size, made once for all frames. Where nothing was to be new the pixels stay those of the source, and where a
clip was given a picture it shows that very picture; everything else bears the mark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from toolkit.engine import drawing
from toolkit.engine.values import Coat, Latent, Mask, Pixels
from toolkit.engine.words import generator

PREVIEW_SIDE = 512  # ComfyUI's --preview-size
CLIP_FPS = 16.0  # frame n of a clip shows the moment n / 16 s
SEEDS = 2**64
GREY = 127
_AWAY_S = 0.5  # so long after a given picture the air is full and the mark whole

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """A latent at the size that is painted, with its masks and given pictures at that size."""

    latent: Latent
    size: Size
    scale: float
    masks: Sequence[Mask | None]
    guides: Sequence[tuple[int, Image.Image]]


def canvas(latent: Latent, scale: float = 1.0) -> Canvas:
    """Bring a latent's pictures to size; below 1 for a sketch."""
    size = drawing.scaled(latent.width, latent.height, scale)
    masks = [None if coat.mask is None else _fitted_mask(coat.mask, size) for coat in latent.coats]
    guides = sorted(((guide.frame, _fitted(guide.picture, size)) for guide in latent.guides), key=lambda guide: guide[0])
    return Canvas(latent, size, scale, masks, guides)


def sketch(latent: Latent) -> Canvas:
    """Give a small canvas for previews."""
    return canvas(latent, min(1.0, PREVIEW_SIDE / max(latent.width, latent.height)))


def _fitted(picture: Pixels, size: Size) -> Image.Image:
    """Bring a picture to size, cut off evenly where its shape differs."""
    return ImageOps.fit(Image.fromarray(picture), size, Image.Resampling.BICUBIC)


def _fitted_mask(mask: Mask, size: Size) -> Mask:
    """Bring masks to size."""
    if mask.shape[1:] == size[::-1]:
        return mask
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in mask])


def painted(canvas: Canvas, item: int, frame: int) -> Pixels:
    """Paint one frame of one batch item, with the noise that is left in it."""
    latent = canvas.latent
    picture = _led(canvas, item, frame) if canvas.guides else _layered(canvas, item, frame)
    return picture if latent.clean >= 1 else emerging(canvas, picture, latent.clean)


def emerging(canvas: Canvas, picture: Pixels, share: float) -> Pixels:
    """Show a picture coming out of noise, only where there is to be something new."""
    noisy = drawing.emerging(picture, share, canvas.latent.coats[-1].seed if canvas.latent.coats else 0)
    mask = canvas.masks[-1] if canvas.masks else None
    return noisy if mask is None else _within(picture, noisy, mask[0])


def _layered(canvas: Canvas, item: int, frame: int) -> Pixels:
    """Draw coat over coat, on the source or on grey."""
    place = item * canvas.latent.frames + frame
    picture = _ground(canvas, place)
    for coat, mask in zip(canvas.latent.coats, canvas.masks, strict=True):
        new = _drawn(canvas, coat, item, frame)
        marked = drawing.marked_up(Image.fromarray(new if coat.share >= 1 else mixed(picture, new, coat.share)))
        picture = marked if mask is None else _within(picture, marked, mask[place % len(mask)])
    return picture


def _ground(canvas: Canvas, place: int) -> Pixels:
    source = canvas.latent.source
    if source is None:
        return np.full((*canvas.size[::-1], 3), GREY, dtype=np.uint8)
    return np.asarray(Image.fromarray(source[place % len(source)]).resize(canvas.size, Image.Resampling.BICUBIC))


def _brief(canvas: Canvas, coat: Coat, item: int) -> drawing.Brief:
    return drawing.Brief(coat.prompt, coat.negative, (coat.seed + item) % SEEDS, canvas.latent.width, canvas.latent.height, coat.look)


def _drawn(canvas: Canvas, coat: Coat, item: int, frame: int) -> Pixels:
    return drawing.draw(_brief(canvas, coat, item), coat.stirred_s + frame / CLIP_FPS, scale=canvas.scale, marked=False)


def mixed(below: Pixels, above: Pixels, share: float) -> Pixels:
    """Let `share` of one picture show over another: colours in proportion, lines mostly of the stronger one, so that no face has two."""
    clear = share * share * (3 - 2 * share)
    clear = clear * clear * (3 - 2 * clear)
    soft = max(2.0, min(below.shape[:2]) / 48)
    (low, fine), (new_low, new_fine) = (_bands(picture, soft) for picture in (below, above))
    return _pixels(low + (new_low - low) * share + fine + (new_fine - fine) * clear)


def _bands(picture: Pixels, soft: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    low = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(soft))).astype(np.float32)
    return low, picture - low


def _within(below: Pixels, above: Pixels, mask: NDArray[np.float32]) -> Pixels:
    """Put a picture where the mask is; where it is 0 every pixel stays."""
    return _pixels(below + (above.astype(np.float32) - below) * mask[..., None])


def _pixels(values: NDArray[np.float32]) -> Pixels:
    rounded: Pixels = np.clip(values + 0.5, 0, 255).astype(np.uint8)
    return rounded


def _led(canvas: Canvas, item: int, frame: int) -> Pixels:
    """Show the given picture of this frame, or the way from the one before to the next."""
    before = next((guide for guide in reversed(canvas.guides) if guide[0] <= frame), None)
    after = next((guide for guide in canvas.guides if guide[0] > frame), None)
    if before and before[0] == frame:
        return np.asarray(before[1])
    coat = canvas.latent.coats[-1] if canvas.latent.coats else Coat("", "", 0)
    picture = _moved(before, frame, coat.seed) if before else Image.fromarray(_drawn(canvas, coat, item, frame))
    if after:
        picture = _crossed(picture, _moved(after, frame, coat.seed), frame, before[0] if before else 0, after[0])
    away = min(abs(frame - guide[0]) for guide in (before, after) if guide) / CLIP_FPS / _AWAY_S
    if before:
        picture = picture.convert("RGBA")
        picture.alpha_composite(drawing.falling(_brief(canvas, coat, item), frame / CLIP_FPS, canvas.size, away))
    return drawing.marked_up(picture.convert("RGB"), away, left_side=True)


def _moved(guide: tuple[int, Image.Image], frame: int, seed: int) -> Image.Image:
    """Let the camera drift into a picture the longer it is away from its frame."""
    away_s, picture = abs(frame - guide[0]) / CLIP_FPS, guide[1]
    zoom = 1 + 0.12 * (1 - math.exp(-away_s / 3))
    turn = generator(seed, "drift").uniform(0, 2 * math.pi)
    (width, height), (wide, high) = picture.size, (picture.width / zoom, picture.height / zoom)
    x, y = (width - wide) * (0.5 + 0.4 * math.cos(turn)), (height - high) * (0.5 + 0.4 * math.sin(turn))
    return picture.resize(picture.size, Image.Resampling.BICUBIC, box=(x, y, x + wide, y + high))


def _crossed(start: Image.Image, end: Image.Image, frame: int, first: int, last: int) -> Image.Image:
    share = (frame - first) / (last - first)
    return Image.blend(start, end, share * share * (3 - 2 * share))
