"""Masks: from pictures, to pictures, and what they cut out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from PIL import Image

from toolkit.engine.nodes.pictures import centred, resized
from toolkit.engine.values import Made, Mask, Node, Pixels, Stage


def show_mask(stage: Stage, *, mask: Mask) -> Made:
    """Make a grey picture of a mask."""
    grey = (mask * 255 + 0.5).astype(np.uint8)
    return Made((np.repeat(grey[..., None], 3, axis=3),))


def take_channel(stage: Stage, *, image: Pixels, channel: str) -> Made:
    """Make a mask of one channel; pictures here are opaque, so alpha is 1 everywhere."""
    if channel == "alpha":
        return Made((np.ones(image.shape[:3], dtype=np.float32),))
    return Made((image[..., ["red", "green", "blue"].index(channel)].astype(np.float32) / 255,))


def compose(stage: Stage, *, destination: Pixels, source: Pixels, x: int, y: int, resize_source: bool, mask: Mask | None = None) -> Made:
    """Lay pictures on others, where a mask is 1; what sticks out is cut off."""
    count, tall, wide, _ = destination.shape
    source = resized(source, wide, tall, "bilinear") if resize_source else source
    share = np.ones((1, *source.shape[1:3]), dtype=np.float32) if mask is None else resized_mask(mask, *source.shape[2:0:-1])
    result = destination.copy()
    for place in range(count):
        under = result[place, y : y + source.shape[1], x : x + source.shape[2]]
        over, part = (one[place % len(one)][: under.shape[0], : under.shape[1]] for one in (source, share))
        under[:] = (under + (over.astype(np.float32) - under) * part[..., None] + 0.5).astype(np.uint8)
    return Made((result,))


def resized_mask(mask: Mask, width: int, height: int, crop: str = "disabled") -> Mask:
    """Bring masks to a size."""
    _, tall, wide = mask.shape
    if (wide, tall) == (width, height):
        return mask
    box = centred(wide, tall, width / height) if crop == "center" else (0, 0, wide, tall)
    return np.stack([np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR, box)) for one in mask])


def resize_either(stage: Stage, *, input: Pixels | Mask, resize_type: Mapping[str, Any], scale_method: str) -> Made:
    """Resize pictures or masks in one of nine ways (ComfyUI comfy_extras/nodes_post_processing.py)."""
    tall, wide = input.shape[1:3]
    width, height = _wanted(resize_type, wide, tall)
    crop = "center" if resize_type["resize_type"] == "scale to multiple" else resize_type.get("crop", "disabled")
    if input.ndim == 3:
        return Made((resized_mask(cast(Mask, input), width, height, crop),))
    return Made((resized(cast(Pixels, input), width, height, scale_method, crop),))


def _wanted(how: Mapping[str, Any], wide: int, tall: int) -> tuple[int, int]:
    """Give the size that a way of resizing asks for; a side of 0 follows the other."""
    match how["resize_type"]:
        case "scale dimensions" | "scale width" | "scale height":
            width, height = how.get("width", 0), how.get("height", 0)
            if width == height == 0:
                return wide, tall
            return width or max(1, round(wide * height / tall)), height or max(1, round(tall * width / wide))
        case "match size":
            tall, wide = how["match"].shape[1:3]
            return wide, tall
        case "scale to multiple":
            return max(1, wide // how["multiple"]) * how["multiple"], max(1, tall // how["multiple"]) * how["multiple"]
        case "scale total pixels":
            factor, multiple = (how["megapixels"] * 1024 * 1024 / (wide * tall)) ** 0.5, how["multiple"]
            return max(1, round(wide * factor / multiple)) * multiple, max(1, round(tall * factor / multiple)) * multiple
        case "scale by multiplier":
            factor = how["multiplier"]
        case "scale longer dimension":
            factor = how["longer_size"] / max(wide, tall)
        case "scale shorter dimension":
            factor = how["shorter_size"] / min(wide, tall)
        case unknown:
            raise ValueError(f"Unsupported resize type: {unknown}")
    return max(1, round(wide * factor)), max(1, round(tall * factor))


NODES: Mapping[str, Node] = MappingProxyType(
    {
        "MaskToImage": show_mask,
        "ImageToMask": take_channel,
        "ImageCompositeMasked": compose,
        "ResizeImageMaskNode": resize_either,
    }
)
