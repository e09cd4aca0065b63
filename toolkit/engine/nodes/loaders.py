"""Files, and what is done to a model before it samples.

Owns the loaders: the stand-in of a file is its name, after the time that loading takes. It must not know which files there are;
the stage refuses one that is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from toolkit.engine.values import Made, Node, Stage, Weights


def load_checkpoint(stage: Stage, *, ckpt_name: str) -> Made:
    """Load a checkpoint: model, text encoder and VAE in one file."""
    stage.load("checkpoints", ckpt_name)
    return Made((Weights(ckpt_name),) * 3)


def load_diffusion_model(stage: Stage, *, unet_name: str, weight_dtype: str) -> Made:
    """Load a diffusion model alone."""
    return _loaded(stage, "diffusion_models", unet_name)


def load_text_encoder(stage: Stage, *, clip_name: str, **_: Any) -> Made:
    """Load a text encoder."""
    return _loaded(stage, "text_encoders", clip_name)


def load_text_encoders(stage: Stage, *, clip_name1: str, clip_name2: str, **_: Any) -> Made:
    """Load two text encoders that belong together."""
    stage.load("text_encoders", clip_name1)
    return _loaded(stage, "text_encoders", clip_name2)


def load_vae(stage: Stage, *, vae_name: str) -> Made:
    """Load a VAE; `pixel_space` is none."""
    return Made((Weights(vae_name),)) if vae_name == "pixel_space" else _loaded(stage, "vae", vae_name)


def load_upscaler(stage: Stage, *, model_name: str) -> Made:
    """Load a model that enlarges pictures."""
    return _loaded(stage, "upscale_models", model_name)


def load_latent_upscaler(stage: Stage, *, model_name: str) -> Made:
    """Load a model that enlarges latents."""
    return _loaded(stage, "latent_upscale_models", model_name)


def load_audio_vae(stage: Stage, *, ckpt_name: str) -> Made:
    """Load the part of an LTX checkpoint that knows sound, or a file that has no other."""
    with suppress(FileNotFoundError):
        return _loaded(stage, "vae", ckpt_name)
    return _loaded(stage, "checkpoints", ckpt_name)


def load_ltx_text_encoder(stage: Stage, *, text_encoder: str, ckpt_name: str, **_: Any) -> Made:
    """Load a text encoder and what an LTX checkpoint adds to it."""
    stage.load("checkpoints", ckpt_name)
    return _loaded(stage, "text_encoders", text_encoder)


def _loaded(stage: Stage, folder: str, name: str) -> Made:
    stage.load(folder, name)
    return Made((Weights(name),))


def put_lora_on_both(stage: Stage, *, model: Weights, clip: Weights, lora_name: str, strength_model: float, strength_clip: float) -> Made:
    """Put a LoRA on a model and its text encoder; what both have strength 0 for is not even loaded (ComfyUI nodes.py)."""
    if strength_model == strength_clip == 0:
        return Made((model, clip))
    stage.load("loras", lora_name)
    return Made((_with(model, lora_name, strength_model), _with(clip, lora_name, strength_clip)))


def put_lora(stage: Stage, *, model: Weights, lora_name: str, strength_model: float) -> Made:
    """Put a LoRA on a model."""
    if strength_model == 0:
        return Made((model,))
    stage.load("loras", lora_name)
    return Made((_with(model, lora_name, strength_model),))


def _with(weights: Weights, lora: str, strength: float) -> Weights:
    return replace(weights, look=(*weights.look, (lora, strength))) if strength else weights


def pass_model(stage: Stage, *, model: Weights, **_: Any) -> Made:
    """Pass the model on: the stand-in has no noise schedule to shift."""
    return Made((model,))


def pass_clip(stage: Stage, *, clip: Weights, stop_at_clip_layer: int) -> Made:
    """Pass the text encoder on: the stand-in has no layers to skip."""
    return Made((clip,))


NODES: Mapping[str, Node] = MappingProxyType(
    {
        "CheckpointLoaderSimple": load_checkpoint,
        "UNETLoader": load_diffusion_model,
        "CLIPLoader": load_text_encoder,
        "DualCLIPLoader": load_text_encoders,
        "VAELoader": load_vae,
        "UpscaleModelLoader": load_upscaler,
        "LatentUpscaleModelLoader": load_latent_upscaler,
        "LTXVAudioVAELoader": load_audio_vae,
        "LTXAVTextEncoderLoader": load_ltx_text_encoder,
        "LoraLoader": put_lora_on_both,
        "LoraLoaderModelOnly": put_lora,
        "CLIPSetLastLayer": pass_clip,
        "ModelSamplingSD3": pass_model,
        "ModelSamplingAuraFlow": pass_model,
        "ModelSamplingDiscrete": pass_model,
    }
)
