"""Pictures: made, changed, saved and shown.

Owns what happens to pixels between decoding and a file; the files themselves are written by files.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from toolkit.engine import files
from toolkit.engine.values import Made, Node, Pixels, Stage


def empty_image(stage: Stage, *, width: int, height: int, batch_size: int, color: int) -> Made:
    """Fill pictures with one colour (0xRRGGBB)."""
    colour = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], dtype=np.uint8)
    return Made((np.broadcast_to(colour, (batch_size, height, width, 3)),))


def invert(stage: Stage, *, image: Pixels) -> Made:
    """Turn every channel around."""
    return Made((255 - image,))


def scale(stage: Stage, *, image: Pixels, upscale_method: str, width: int, height: int, crop: str) -> Made:
    """Resize; a side of 0 follows the other, both 0 change nothing."""
    _, tall, wide, _ = image.shape
    if width == height == 0:
        return Made((image,))
    width = width or max(1, round(wide * height / tall))
    height = height or max(1, round(tall * width / wide))
    box = _centred(wide, tall, width / height) if crop == "center" else (0, 0, wide, tall)
    method = RESAMPLING[upscale_method]
    return Made((np.stack([np.asarray(Image.fromarray(one).resize((width, height), method, box)) for one in image]),))


def _centred(wide: int, tall: int, aspect: float) -> tuple[int, int, int, int]:
    left = round((wide - tall * aspect) / 2) if wide / tall > aspect else 0
    top = round((tall - wide / aspect) / 2) if wide / tall < aspect else 0
    return left, top, wide - left, tall - top


RESAMPLING: Mapping[str, Image.Resampling] = MappingProxyType(
    {
        "nearest-exact": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "area": Image.Resampling.BOX,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
)


def save_image(stage: Stage, *, images: Pixels, filename_prefix: str, prompt: Any, extra_pnginfo: Any) -> Made:
    """Write PNG files to the output folder."""
    notes = files.notes(prompt, extra_pnginfo)
    return Made(told={"images": files.save_pictures(stage.folder("output"), "output", filename_prefix, images, notes)})


def preview_image(stage: Stage, *, images: Pixels, prompt: Any, extra_pnginfo: Any) -> Made:
    """Write PNG files to the temporary folder, under five letters that this node keeps."""
    notes, prefix = files.notes(prompt, extra_pnginfo), f"ComfyUI_temp_{stage.letters}"
    return Made(told={"images": files.save_pictures(stage.folder("temp"), "temp", prefix, images, notes)})


NODES: Mapping[str, Node] = MappingProxyType(
    {"EmptyImage": empty_image, "ImageInvert": invert, "ImageScale": scale, "SaveImage": save_image, "PreviewImage": preview_image}
)
