"""LTX: its clips with sound, the pictures that lead them, and their second size.

Owns what only LTX graphs use. A clip and its sound travel as one latent; the sound is silence. It must not know how a clip moves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from toolkit.engine.nodes.clips import led_by
from toolkit.engine.values import Latent, Made, Node, Pixels, Sound, Stage, Weights, Words


def empty_clip(stage: Stage, *, width: int, height: int, length: int, batch_size: int) -> Made:
    """Make a latent of 32 px steps and 8 n + 1 frames."""
    return Made((_clip(width, height, length, batch_size),))


def _clip(width: int, height: int, length: int, batch: int) -> Latent:
    return Latent(width // 32 * 32, height // 32 * 32, (length - 1) // 8 * 8 + 1, batch)


def from_picture(
    stage: Stage, *, positive: Words, negative: Words, image: Pixels, width: int, height: int, length: int, batch_size: int, strength: float, **_: Any
) -> Made:
    """Make a latent that starts with a picture."""
    return Made((positive, negative, _led(_clip(width, height, length, batch_size), image, 0, strength)))


def put_picture_in(stage: Stage, *, image: Pixels, latent: Latent, strength: float, bypass: bool = False, **_: Any) -> Made:
    """Let a latent start with a picture, unless bypassed."""
    return Made((latent if bypass else _led(latent, image, 0, strength),))


def add_guide(stage: Stage, *, positive: Words, negative: Words, latent: Latent, image: Pixels, frame_idx: int, strength: float, **_: Any) -> Made:
    """Let a latent show a picture at one frame, counted from the end below 0."""
    return Made((positive, negative, _led(latent, image, frame_idx if frame_idx >= 0 else max(0, latent.frames + frame_idx), strength)))


def _led(latent: Latent, pictures: Pixels, first: int, strength: float) -> Latent:
    """Add guides; a picture that is there for that frame already gives way."""
    if strength <= 0:
        return latent
    new = led_by(pictures, first, latent.frames)
    taken = {guide.frame for guide in new}
    return replace(latent, guides=(*(guide for guide in latent.guides if guide.frame not in taken), *new))


def crop_guides(stage: Stage, *, positive: Words, negative: Words, latent: Latent) -> Made:
    """Pass on: guides here lie beside the frames, not behind them."""
    return Made((positive, negative, latent))


def set_rate(stage: Stage, *, positive: Words, negative: Words, frame_rate: float) -> Made:
    """Pass on: the stand-in moves by the frame."""
    return Made((positive, negative))


def preprocess(stage: Stage, *, image: Pixels, img_compression: int) -> Made:
    """Pass on: a clip from a clean picture stays clean."""
    return Made((image,))


def enlarge(stage: Stage, *, samples: Latent, upscale_model: Weights, vae: Weights) -> Made:
    """Enlarge a latent by the factor in the model's name (x2 without one)."""
    found = re.search(r"x(\d(?:\.\d+)?)(?!\d)", upscale_model.name)
    factor = float(found[1]) if found else 2.0
    width, height = (round(side / 32 * factor) * 32 for side in (samples.width, samples.height))
    return Made((replace(samples, width=width, height=height),))


def empty_sound(stage: Stage, *, frames_number: int, frame_rate: float, **_: Any) -> Made:
    """Make a latent of as much sound as the frames last."""
    return Made((Sound(frames_number / frame_rate),))


def join_sound(stage: Stage, *, video_latent: Latent, audio_latent: Sound) -> Made:
    """Let a clip and its sound travel together."""
    return Made((replace(video_latent, sound=audio_latent),))


def part_from_sound(stage: Stage, *, av_latent: Latent) -> Made:
    """Give a clip and its sound apart."""
    return Made((replace(av_latent, sound=None), av_latent.sound))


def decode_sound(stage: Stage, *, samples: Sound | Latent, audio_vae: Weights) -> Made:
    """Make a sound: silence."""
    return Made((samples.sound if isinstance(samples, Latent) else samples,))


NODES: Mapping[str, Node] = MappingProxyType(
    {
        "EmptyLTXVLatentVideo": empty_clip,
        "LTXVImgToVideo": from_picture,
        "LTXVImgToVideoInplace": put_picture_in,
        "LTXVAddGuide": add_guide,
        "LTXVCropGuides": crop_guides,
        "LTXVConditioning": set_rate,
        "LTXVPreprocess": preprocess,
        "LTXVLatentUpsampler": enlarge,
        "LTXVEmptyLatentAudio": empty_sound,
        "LTXVConcatAVLatent": join_sound,
        "LTXVSeparateAVLatent": part_from_sound,
        "LTXVAudioVAEDecode": decode_sound,
    }
)
