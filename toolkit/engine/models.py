"""The model files that the engine pretends to have.

Owns their folders and names. Nothing lies on the disk: a name is all that a stand-in needs, and all that clients see of a file.
It must not know nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

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
