"""Clips: latents that become one, and the file in the end."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from toolkit.engine import files
from toolkit.engine.values import Clip, Latent, Made, Node, Pixels, Stage, Weights


def empty_clip_latent(stage: Stage, *, width: int, height: int, length: int, batch_size: int) -> Made:
    """Make a latent for a clip: 4 n + 1 frames, since four frames share one latent frame."""
    return Made((Latent(width // 8 * 8, height // 8 * 8, (length - 1) // 4 * 4 + 1, batch_size),))


def wan_latent(stage: Stage, *, vae: Weights, width: int, height: int, length: int, batch_size: int, start_image: Any = None) -> Made:
    """Make a Wan 2.2 latent (16 px steps); a start picture is accepted and not drawn into the clip."""
    return Made((Latent(width // 16 * 16, height // 16 * 16, (length - 1) // 4 * 4 + 1, batch_size),))


def create_video(stage: Stage, *, images: Pixels, fps: float, audio: Any = None) -> Made:
    """Put frames and rate together; the stand-in has no sound."""
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
        "CreateVideo": create_video,
        "SaveVideo": save_video,
    }
)
