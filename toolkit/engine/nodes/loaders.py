"""Files and what is done to a model before it samples.

Owns the loaders: the stand-in of a file is its name, after the time that loading takes. It must not know which files there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from toolkit.engine.values import Made, Node, Stage, Weights


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


def pass_model(stage: Stage, *, model: Weights, **_: Any) -> Made:
    """Pass the model on: the stand-in has no noise schedule to shift."""
    return Made((model,))


NODES: Mapping[str, Node] = MappingProxyType(
    {
        "CheckpointLoaderSimple": load_checkpoint,
        "UNETLoader": load_diffusion_model,
        "CLIPLoader": load_text_encoder,
        "VAELoader": load_vae,
        "ModelSamplingSD3": pass_model,
    }
)
