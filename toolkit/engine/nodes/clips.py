"""Clips: latents that become one, led by pictures or not, and the file in the end.

Owns Wan's and Hunyuan's latents; LTX has a module of its own. It must not know how a clip moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from toolkit.engine import files
from toolkit.engine.values import Clip, Guide, Latent, Made, Node, Pixels, Stage, Weights, Words


def empty_clip_latent(stage: Stage, *, width: int, height: int, length: int, batch_size: int) -> Made:
    """Make a latent for a clip: 4 n + 1 frames, since four frames share one latent frame."""
    return Made((_clip(width, height, length, batch_size),))


def wan_latent(stage: Stage, *, vae: Weights, width: int, height: int, length: int, batch_size: int, start_image: Pixels | None = None) -> Made:
    """Make a Wan 2.2 5B latent (16 px steps), from a start picture or none."""
    return Made((_clip(width, height, length, batch_size, grain=16, start=start_image),))


def wan_from_picture(
    stage: Stage, *, positive: Words, negative: Words, vae: Weights, width: int, height: int, length: int, batch_size: int,
    start_image: Pixels | None = None, **_: Any,
) -> Made:  # fmt: skip
    """Make a Wan latent that starts with a picture."""
    return Made((positive, negative, _clip(width, height, length, batch_size, start=start_image)))


def wan_between_pictures(
    stage: Stage, *, positive: Words, negative: Words, vae: Weights, width: int, height: int, length: int, batch_size: int,
    start_image: Pixels | None = None, end_image: Pixels | None = None, **_: Any,
) -> Made:  # fmt: skip
    """Make a Wan latent that goes from one picture to another."""
    return Made((positive, negative, _clip(width, height, length, batch_size, start=start_image, end=end_image)))


def _clip(width: int, height: int, length: int, batch: int, *, grain: int = 8, start: Pixels | None = None, end: Pixels | None = None) -> Latent:
    frames = (length - 1) // 4 * 4 + 1
    guides = led_by(start, 0, frames) if start is not None else ()
    if end is not None:
        last = end[-frames:]
        guides += led_by(last, frames - len(last), frames)
    return Latent(width // grain * grain, height // grain * grain, frames, batch, guides=guides)


def led_by(pictures: Pixels, first: int, frames: int) -> tuple[Guide, ...]:
    """Let a clip show pictures one after the other, the first at one of its frames."""
    return tuple(Guide(first + place, picture) for place, picture in enumerate(pictures) if first + place < frames)


def create_video(stage: Stage, *, images: Pixels, fps: float, audio: Any = None) -> Made:
    """Put frames and rate together; the stand-in's sound is silence, and left out."""
    return Made((Clip(images, fps),))


def save_video(stage: Stage, *, video: Clip, filename_prefix: str, format: str, codec: str, prompt: Any, extra_pnginfo: Any) -> Made:
    """Write an H.264 MP4; like the real one it stands under `images`, marked as animated."""
    notes = files.notes(prompt, extra_pnginfo)
    saved = files.save_clip(stage.folder("output"), filename_prefix, video.frames, video.fps, notes)
    return Made(told={"images": [saved], "animated": [True]})


NODES: Mapping[str, Node] = MappingProxyType(
    {
        "EmptyHunyuanLatentVideo": empty_clip_latent,
        "Wan22ImageToVideoLatent": wan_latent,
        "WanImageToVideo": wan_from_picture,
        "WanFirstLastFrameToVideo": wan_between_pictures,
        "CreateVideo": create_video,
        "SaveVideo": save_video,
    }
)
