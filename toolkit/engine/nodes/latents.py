"""Latents before they are sampled: how large, made from what, to be new where.

Owns the making of a latent out of nothing or out of pictures, and its change of size. It must not know how it is painted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.engine.nodes.masks import resized_mask
from toolkit.engine.nodes.pictures import centred
from toolkit.engine.values import Latent, Made, Mask, Node, Pixels, Stage, Weights

_GREY = 127
_OF_CLIPS = re.compile(r"wan|ltx|qwen_image|hunyuan", re.IGNORECASE)  # VAEs that take several pictures as the frames of one clip
_GRAINS = ((re.compile(r"ltx", re.IGNORECASE), 32), (re.compile(r"wan2\.2", re.IGNORECASE), 16))


def empty_latent(stage: Stage, *, width: int, height: int, batch_size: int) -> Made:
    """Make a latent for pictures; like the real one it rounds sizes down to 8 px."""
    return Made((Latent(width // 8 * 8, height // 8 * 8, 1, batch_size),))


def encode(stage: Stage, *, pixels: Pixels, vae: Weights) -> Made:
    """Make a latent of pictures, cut to whole latent pixels in the middle."""
    return Made((_encoded(_cut(pixels, vae), vae),))


def encode_for_inpainting(stage: Stage, *, pixels: Pixels, vae: Weights, mask: Mask, grow_mask_by: int) -> Made:
    """Make a latent that is grey under the mask, and let what is drawn reach a few pixels further."""
    whole = resized_mask(mask, *pixels.shape[2:0:-1]).round()
    hollow = np.where(whole[..., None] > 0, np.uint8(_GREY), pixels)
    return Made((replace(_encoded(_cut(hollow, vae), vae), mask=_cut(_grown(whole, grow_mask_by), vae)),))


def set_mask(stage: Stage, *, samples: Latent, mask: Mask) -> Made:
    """Let the next sampling draw under the mask only."""
    return Made((replace(samples, mask=mask),))


def _encoded(pixels: Pixels, vae: Weights) -> Latent:
    count, height, width, _ = pixels.shape
    frames = (count - 1) // 4 * 4 + 1 if _OF_CLIPS.search(vae.name) else 1
    return Latent(width, height, frames, 1 if frames > 1 else count, source=pixels)


def grain(vae: Weights) -> int:
    """Say how many pixels wide a latent pixel is."""
    return next((size for name, size in _GRAINS if name.search(vae.name)), 8)


def _cut(pictures: NDArray[Any], vae: Weights) -> NDArray[Any]:
    """Keep whole latent pixels, in the middle."""
    size = grain(vae)
    tall, wide = pictures.shape[1:3]
    top, left, high, across = tall % size // 2, wide % size // 2, tall // size * size, wide // size * size
    return pictures[:, top : top + high, left : left + across]


def _grown(mask: Mask, pixels: int) -> Mask:
    """Widen a mask on all sides: each point takes the most of a square of so many pixels around it."""
    before = pixels // 2
    for axis in (1, 2) if pixels else ():
        edges, length = [(before, pixels - 1 - before) if one == axis else (0, 0) for one in range(3)], mask.shape[axis]
        padded = np.pad(mask, edges)
        mask = reduce(np.maximum, (padded.take(range(place, place + length), axis) for place in range(pixels)))
    return mask


def enlarge(stage: Stage, *, samples: Latent, upscale_method: str, width: int, height: int, crop: str) -> Made:
    """Give a latent another size; a side of 0 follows the other, and neither is below 64 (ComfyUI nodes.py)."""
    if width == height == 0:
        return Made((samples,))
    width = max(64, width or round(samples.width * height / samples.height))
    height = max(64, height or round(samples.height * width / samples.width))
    kept = _centre(samples, width / height) if crop == "center" else samples
    return Made((replace(kept, width=width // 8 * 8, height=height // 8 * 8),))


def enlarge_by(stage: Stage, *, samples: Latent, upscale_method: str, scale_by: float) -> Made:
    """Enlarge a latent, to whole latent pixels."""
    width, height = (max(1, round(side / 8 * scale_by)) * 8 for side in (samples.width, samples.height))
    return Made((replace(samples, width=width, height=height),))


def _centre(latent: Latent, aspect: float) -> Latent:
    """Keep the middle of what a latent was made from, in another shape."""
    if latent.source is None:
        return latent
    left, top, right, bottom = centred(latent.source.shape[2], latent.source.shape[1], aspect)
    return replace(latent, source=latent.source[:, top:bottom, left:right])


NODES: Mapping[str, Node] = MappingProxyType(
    {
        "EmptyLatentImage": empty_latent,
        "EmptySD3LatentImage": empty_latent,
        "VAEEncode": encode,
        "VAEEncodeForInpaint": encode_for_inpainting,
        "SetLatentNoiseMask": set_mask,
        "LatentUpscale": enlarge,
        "LatentUpscaleBy": enlarge_by,
    }
)
