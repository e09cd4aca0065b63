"""Pictures: read, made, changed, saved and shown.

Owns what happens to pixels between decoding and a file; the files themselves are written by files.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from toolkit.engine import files
from toolkit.engine.values import Made, Node, Pixels, Stage, Weights


def empty_image(stage: Stage, *, width: int, height: int, batch_size: int, color: int) -> Made:
    """Fill pictures with one colour (0xRRGGBB)."""
    colour = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], dtype=np.uint8)
    return Made((np.broadcast_to(colour, (batch_size, height, width, 3)),))


def invert(stage: Stage, *, image: Pixels) -> Made:
    """Turn every channel around."""
    return Made((255 - image,))


def load_picture(stage: Stage, *, image: str) -> Made:
    """Read an uploaded picture, every frame of a moving one, and its mask: 1 where it is transparent."""
    with Image.open(stage.picture(image)) as file:
        frames = [ImageOps.exif_transpose(frame) for frame in ImageSequence.Iterator(file)]
    frames = [frame for frame in frames if frame.size == frames[0].size]
    pictures = np.stack([np.asarray(frame.convert("RGB")) for frame in frames])
    return Made((pictures, np.stack([_transparency(frame) for frame in frames])))


def _transparency(picture: Image.Image) -> NDArray[np.float32]:
    """Give 1 where a picture is transparent; one that cannot be is a small mask of zeros (ComfyUI nodes.py)."""
    if "A" not in picture.getbands() and not (picture.mode == "P" and "transparency" in picture.info):
        return np.zeros((64, 64), dtype=np.float32)
    alpha = np.asarray(picture.convert("RGBA").getchannel("A"), dtype=np.float32)
    return np.float32(1) - alpha / np.float32(255)


def load_mask(stage: Stage, *, image: str, channel: str) -> Made:
    """Read one channel of an uploaded picture as a mask; alpha the other way round."""
    with Image.open(stage.picture(image)) as file:
        picture = ImageOps.exif_transpose(file).convert("RGBA")
    values = np.asarray(picture.getchannel(channel[0].upper()), dtype=np.float32) / 255
    return Made(((1 - values if channel == "alpha" else values)[None],))


def scale(stage: Stage, *, image: Pixels, upscale_method: str, width: int, height: int, crop: str) -> Made:
    """Resize; a side of 0 follows the other, both 0 change nothing."""
    _, tall, wide, _ = image.shape
    if width == height == 0:
        return Made((image,))
    return Made((resized(image, width or max(1, round(wide * height / tall)), height or max(1, round(tall * width / wide)), upscale_method, crop),))


def scale_by(stage: Stage, *, image: Pixels, upscale_method: str, scale_by: float) -> Made:
    """Resize by a factor."""
    _, tall, wide, _ = image.shape
    return Made((resized(image, round(wide * scale_by), round(tall * scale_by), upscale_method),))


def scale_to_pixels(stage: Stage, *, image: Pixels, upscale_method: str, megapixels: float, **_: Any) -> Made:
    """Resize to about so many square megapixels."""
    _, tall, wide, _ = image.shape
    factor = math.sqrt(megapixels * 1024 * 1024 / (wide * tall))
    return Made((resized(image, round(wide * factor), round(tall * factor), upscale_method),))


def enlarge(stage: Stage, *, upscale_model: Weights, image: Pixels) -> Made:
    """Enlarge by the factor in the model's name (x4, 2x; 4 without one), picture by picture, a progress step each."""
    found = re.search(r"(?<![0-9a-z])x?([1-8])x?(?![0-9])", upscale_model.name.lower())
    factor = int(found[1]) if found else 4
    _, tall, wide, _ = image.shape
    larger = np.empty((len(image), tall * factor, wide * factor, 3), dtype=np.uint8)
    for place, picture in enumerate(image):
        larger[place] = np.asarray(Image.fromarray(picture).resize((wide * factor, tall * factor), Image.Resampling.LANCZOS))
        stage.step(place + 1, len(image), ENLARGING)
    return Made((larger,))


def resized(image: Pixels, width: int, height: int, method: str, crop: str = "disabled") -> Pixels:
    """Resize pictures; `center` cuts off evenly what does not fit the new shape."""
    _, tall, wide, _ = image.shape
    box = centred(wide, tall, width / height) if crop == "center" else (0, 0, wide, tall)
    return np.stack([np.asarray(Image.fromarray(one).resize((width, height), RESAMPLING[method], box)) for one in image])


def centred(wide: int, tall: int, aspect: float) -> tuple[int, int, int, int]:
    """Give the largest box of an aspect in the middle of a picture (ComfyUI comfy/utils.py common_upscale)."""
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
ENLARGING = 0.5  # how long enlarging a picture takes, in sampling steps


def blur(stage: Stage, *, image: Pixels, blur_radius: int, sigma: float) -> Made:
    """Blur with a bell of this radius in pixels and this width in radii (ComfyUI comfy_extras/nodes_post_processing.py)."""
    bell = np.exp(-(np.linspace(-1, 1, 2 * blur_radius + 1, dtype=np.float32) ** 2) / (2 * sigma * sigma))
    bell /= bell.sum()
    soft = image.astype(np.float32)
    for axis in (1, 2):
        edges = [(blur_radius, blur_radius) if one == axis else (0, 0) for one in range(4)]
        padded, length = np.pad(soft, edges, "reflect"), soft.shape[axis]
        soft = sum(part * padded.take(range(place, place + length), axis) for place, part in enumerate(bell))
    return Made(((soft + 0.5).astype(np.uint8),))


def measure(stage: Stage, *, image: Pixels, unique_id: str) -> Made:
    """Give width, height and number of pictures, and show them on the node."""
    count, height, width, _ = image.shape
    stage.say(f"width: {width}, height: {height}\n batch size: {count}")
    return Made((width, height, count))


def save_image(stage: Stage, *, images: Pixels, filename_prefix: str, prompt: Any, extra_pnginfo: Any) -> Made:
    """Write PNG files to the output folder."""
    notes = files.notes(prompt, extra_pnginfo)
    return Made(told={"images": files.save_pictures(stage.folder("output"), "output", filename_prefix, images, notes)})


def preview_image(stage: Stage, *, images: Pixels, prompt: Any, extra_pnginfo: Any) -> Made:
    """Write PNG files to the temporary folder, under five letters that this node keeps."""
    notes, prefix = files.notes(prompt, extra_pnginfo), f"ComfyUI_temp_{stage.letters}"
    return Made(told={"images": files.save_pictures(stage.folder("temp"), "temp", prefix, images, notes)})


NODES: Mapping[str, Node] = MappingProxyType(
    {
        "LoadImage": load_picture,
        "LoadImageMask": load_mask,
        "EmptyImage": empty_image,
        "ImageInvert": invert,
        "ImageBlur": blur,
        "ImageScale": scale,
        "ImageScaleBy": scale_by,
        "ImageScaleToTotalPixels": scale_to_pixels,
        "ImageUpscaleWithModel": enlarge,
        "GetImageSize": measure,
        "SaveImage": save_image,
        "PreviewImage": preview_image,
    }
)
