"""The eighteen node classes: what /object_info says of them, and what each does with its values.

Owns the catalog (catalog.json, recorded from a ComfyUI 0.3.64, with the engine's own file lists filled in), the values that
travel along links, and one function per class. It must not know queues, sockets or prompt ids: a node asks its `Stage` for
time, folders and models, so that the same functions run under any pace. Files are written by files.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from toolkit.engine import files

CATALOG_FILE = Path(__file__).with_name("catalog.json")
CLIP_FPS = 16.0  # frame n of a clip shows the moment n / 16 s
PREVIEW_SIDE = 512  # ComfyUI's --preview-size
SEEDS = 2**64

# The order of GET /models is the recorded one.
MODEL_FOLDERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "checkpoints": ("standin_xl.safetensors", "standin_xl_b.safetensors"),
        "configs": (),
        "loras": (),
        "vae": ("wan2.2_vae.safetensors",),
        "text_encoders": ("umt5_xxl_fp8_e4m3fn_scaled.safetensors",),
        "diffusion_models": ("wan2.2_ti2v_5B_fp16.safetensors",),
        **dict.fromkeys(("clip_vision", "style_models", "embeddings", "diffusers", "vae_approx", "controlnet", "gligen"), ()),
        **dict.fromkeys(("upscale_models", "custom_nodes", "hypernetworks", "photomaker", "classifiers"), ()),
        **dict.fromkeys(("model_patches", "audio_encoders"), ()),
    }
)
# VAELoader offers "pixel_space" after the files (recorded).
FILE_INPUTS: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType(
    {
        ("CheckpointLoaderSimple", "ckpt_name"): MODEL_FOLDERS["checkpoints"],
        ("UNETLoader", "unet_name"): MODEL_FOLDERS["diffusion_models"],
        ("CLIPLoader", "clip_name"): MODEL_FOLDERS["text_encoders"],
        ("VAELoader", "vae_name"): (*MODEL_FOLDERS["vae"], "pixel_space"),
    }
)

Pixels = NDArray[np.uint8]
"""A picture (height, width, 3) or several (n, height, width, 3), RGB."""


class Stage(Protocol):
    """What a node may ask of the run it takes part in."""

    def load(self, kind: str, name: str) -> None:
        """Take the time that loading this model file takes, unless it is loaded."""

    def step(self, value: int, total: int, weight: float, preview: Callable[[], Pixels]) -> None:
        """Take the time of one sampling step, then report it; raises when the run was interrupted."""

    def go_on(self) -> None:
        """Raise if the engine ends; for nodes that take long. An interrupt does not reach into them, as in ComfyUI."""

    def folder(self, kind: str) -> Path:
        """Give the folder of `output`, `temp` or `input` files."""

    @property
    def letters(self) -> str:
        """The five letters in the names of this node's temporary files."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A loaded model, text encoder or VAE: the stand-in of one keeps its file's name."""

    name: str


@dataclass(frozen=True, slots=True)
class Words:
    """A conditioning: the words it came from."""

    text: str


@dataclass(frozen=True, slots=True)
class Latent:
    """A latent: the size of what it will become and, once sampled, what to draw."""

    width: int
    height: int
    frames: int
    batch: int
    prompt: str | None = None
    negative: str = ""
    seed: int = 0
    steps: int = 0
    denoise: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A video: its frames and their rate."""

    frames: Pixels
    fps: float


@dataclass(frozen=True, slots=True)
class Made:
    """What a node made: a value per output slot, and for output nodes what clients are told."""

    values: tuple[Any, ...] = ()
    told: Mapping[str, list[Any]] | None = None


@cache
def catalog() -> Mapping[str, Mapping[str, Any]]:
    """Read /object_info: class name to entry, inputs in their real order, file lists filled in."""
    recorded = json.loads(CATALOG_FILE.read_text(encoding="utf-8"))["nodes"]
    return MappingProxyType({name: _filled(name, entry) for name, entry in recorded.items()})


def _filled(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    order = entry["input_order"]
    inputs = {group: {key: entry["input"][group][key] for key in order[group]} for group in sorted(order, reverse=True)}
    for (node, key), choices in FILE_INPUTS.items():
        if node == name:
            inputs["required"][key][0] = list(choices)
    return entry | {"input": inputs}


def load_checkpoint(stage: Stage, *, ckpt_name: str) -> Made:
    """Load a checkpoint: model, text encoder and VAE in one file."""
    stage.load("model", ckpt_name)
    return Made((Weights(ckpt_name),) * 3)


def load_diffusion_model(stage: Stage, *, unet_name: str, weight_dtype: str) -> Made:
    """Load a diffusion model alone."""
    stage.load("model", unet_name)
    return Made((Weights(unet_name),))


def load_text_encoder(stage: Stage, *, clip_name: str, **_: Any) -> Made:
    """Load a text encoder."""
    stage.load("text encoder", clip_name)
    return Made((Weights(clip_name),))


def load_vae(stage: Stage, *, vae_name: str) -> Made:
    """Load a VAE."""
    stage.load("vae", vae_name)
    return Made((Weights(vae_name),))


def encode_text(stage: Stage, *, text: str, clip: Weights) -> Made:
    """Keep the words."""
    return Made((Words(text),))


def empty_latent(stage: Stage, *, width: int, height: int, batch_size: int) -> Made:
    """Make a latent for pictures; like the real one it rounds sizes down to 8 px."""
    return Made((Latent(width // 8 * 8, height // 8 * 8, 1, batch_size),))


def empty_clip_latent(stage: Stage, *, width: int, height: int, length: int, batch_size: int) -> Made:
    """Make a latent for a clip: 4 n + 1 frames, since four frames share one latent frame."""
    return Made((Latent(width // 8 * 8, height // 8 * 8, (length - 1) // 4 * 4 + 1, batch_size),))


def wan_latent(stage: Stage, *, vae: Weights, width: int, height: int, length: int, batch_size: int, start_image: Any = None) -> Made:
    """Make a Wan 2.2 latent (16 px steps); a start picture is accepted and not drawn into the clip."""
    return Made((Latent(width // 16 * 16, height // 16 * 16, (length - 1) // 4 * 4 + 1, batch_size),))


def shift_model(stage: Stage, *, model: Weights, shift: float) -> Made:
    """Pass the model on: the stand-in has no noise schedule to shift."""
    return Made((model,))


def sample(stage: Stage, *, seed: int, steps: int, positive: Words, negative: Words, latent_image: Latent, denoise: float, **_: Any) -> Made:
    """Take a step's time `steps` times and show the drawing emerge from noise."""
    latent = replace(latent_image, prompt=positive.text, negative=negative.text, seed=seed, steps=steps, denoise=denoise)
    sketch = cache(partial(_sketch, latent))
    for value in range(1, steps + 1):
        stage.step(value, steps, _weight(latent), partial(_emerging, sketch, value / steps, seed))
    return Made((latent,))


def _weight(latent: Latent) -> float:
    """Say how many times the usual a step takes: 1 up to a square megapixel, growing slowly to 3 for a long clip."""
    pixels = latent.width * latent.height * latent.frames * latent.batch
    return float(min(3.0, max(1.0, (pixels / 2**20) ** 0.25)))


def _emerging(sketch: Callable[[], Pixels], share: float, seed: int) -> Pixels:
    from toolkit.engine import drawing  # imported at first need: start-up has to be quick

    return drawing.emerging(sketch(), share, seed)


def _sketch(latent: Latent) -> Pixels:
    return _drawn(latent, 0, 0.0, scale=min(1.0, PREVIEW_SIDE / max(latent.width, latent.height)))


def _drawn(latent: Latent, item: int, moment_s: float, *, scale: float = 1.0) -> Pixels:
    from toolkit.engine import drawing

    brief = drawing.Brief(latent.prompt or "", latent.negative, (latent.seed + item) % SEEDS, latent.width, latent.height)
    return drawing.draw(brief, moment_s, scale=scale)


def decode(stage: Stage, *, samples: Latent, vae: Weights) -> Made:
    """Draw every frame of every batch item; a latent that was never sampled decodes to flat grey."""
    shape = (samples.batch * samples.frames, samples.height, samples.width, 3)
    if samples.prompt is None:
        return Made((np.full(shape, 127, dtype=np.uint8),))
    moments = [(item, frame / CLIP_FPS) for item in range(samples.batch) for frame in range(samples.frames)]
    pictures = np.empty(shape, dtype=np.uint8)
    for place, (item, moment_s) in enumerate(moments):
        stage.go_on()
        pictures[place] = _drawn(samples, item, moment_s)
    return Made((pictures,))


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


def create_video(stage: Stage, *, images: Pixels, fps: float, audio: Any = None) -> Made:
    """Put frames and rate together; the stand-in has no sound."""
    return Made((Clip(images, fps),))


def save_video(stage: Stage, *, video: Clip, filename_prefix: str, format: str, codec: str, prompt: Any, extra_pnginfo: Any) -> Made:
    """Write an H.264 MP4; like the real one it stands under `images`, marked as animated."""
    notes = files.notes(prompt, extra_pnginfo)
    saved = files.save_clip(stage.folder("output"), filename_prefix, video.frames, video.fps, notes)
    return Made(told={"images": [saved], "animated": [True]})


FUNCTIONS: Mapping[str, Callable[..., Made]] = MappingProxyType(
    {
        "CheckpointLoaderSimple": load_checkpoint,
        "UNETLoader": load_diffusion_model,
        "CLIPLoader": load_text_encoder,
        "VAELoader": load_vae,
        "CLIPTextEncode": encode_text,
        "EmptyLatentImage": empty_latent,
        "EmptyHunyuanLatentVideo": empty_clip_latent,
        "Wan22ImageToVideoLatent": wan_latent,
        "ModelSamplingSD3": shift_model,
        "KSampler": sample,
        "VAEDecode": decode,
        "EmptyImage": empty_image,
        "ImageInvert": invert,
        "ImageScale": scale,
        "SaveImage": save_image,
        "PreviewImage": preview_image,
        "CreateVideo": create_video,
        "SaveVideo": save_video,
    }
)
