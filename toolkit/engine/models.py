"""The model files that the engine pretends to have.

Owns their folders, names and what stands in their headers, and the smaller sets with which missing files can be rehearsed.
Nothing lies on the disk: a name is all that a stand-in needs, and all that clients see of a file. It must not know nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

ModelFiles = Mapping[str, tuple[str, ...]]
"""Names by folder."""

# The order of GET /models is the recorded one.
FOLDERS = (
    "checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision", "style_models", "embeddings", "diffusers", "vae_approx",
    "controlnet", "gligen", "upscale_models", "custom_nodes", "hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders",
)  # fmt: skip
NEWER_FOLDER = "latent_upscale_models"  # after upscale_models (ComfyUI folder_paths.py after 0.3.64)

_SDXL: Mapping[str, tuple[str, ...]] = {
    "checkpoints": ("standin_xl.safetensors", "standin_xl_b.safetensors"),
    "loras": ("mika_v3.safetensors", "ink_lines_xl.safetensors"),
    "embeddings": ("easynegative.safetensors",),
    "upscale_models": ("RealESRGAN_x4plus_anime_6B.pth", "2x_standin.safetensors"),
}
# Every family by the names of its official template's files (comfyui-workflow-templates-json 0.1.123), or by a name that tells the family.
_ALL: Mapping[str, tuple[str, ...]] = {
    **_SDXL,
    "checkpoints": (
        *_SDXL["checkpoints"],
        *(f"standin_{family}.safetensors" for family in ("illustrious", "sd15", "pony", "noobai_vpred", "animagine")),
        "NetaYumev35_pretrained_all_in_one.safetensors",
        "ltx-2.3-22b-dev-fp8.safetensors",
        "ltx-2.3-22b-distilled-fp8.safetensors",
    ),
    "diffusion_models": (
        "wan2.2_ti2v_5B_fp16.safetensors",
        "anima-base-v1.0.safetensors",
        "z_image_turbo_bf16.safetensors",
        "qwen_image_2512_fp8_e4m3fn.safetensors",
        *(f"wan2.2_{task}_{noise}_noise_14B_fp8_scaled.safetensors" for task in ("t2v", "i2v") for noise in ("high", "low")),
    ),
    "text_encoders": (
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
        "qwen_3_06b_base.safetensors",
        "qwen_3_4b.safetensors",
        "qwen_2.5_vl_7b_fp8_scaled.safetensors",
        "gemma_3_12B_it_fp4_mixed.safetensors",
    ),
    "vae": ("wan2.2_vae.safetensors", "qwen_image_vae.safetensors", "ae.safetensors", "wan_2.1_vae.safetensors"),
    "loras": (
        *_SDXL["loras"],
        *(f"wan2.2_{task}_{noise}_noise.safetensors" for task in ("t2v_lightx2v_4steps_lora_v1.1", "i2v_lightx2v_4steps_lora_v1") for noise in ("high", "low")),
        "ltx_2.3_22b_distilled_1.1_lora_dynamic_fro09_avg_rank_111_bf16.safetensors",
        "gemma-3-12b-it-abliterated_lora_rank64_bf16.safetensors",
        "sd15_old_style.safetensors",
        "anima-turbo-lora-v0.2.safetensors",
        "Qwen-Image-2512-Lightning-4steps-V1.0-fp32.safetensors",
    ),
    NEWER_FOLDER: ("ltx-2.3-spatial-upscaler-x2-1.1.safetensors",),
}
PRESETS: Mapping[str, Mapping[str, Sequence[str]]] = MappingProxyType({"all": _ALL, "sdxl": _SDXL, "none": {}})

# As kohya's sd-scripts and musubi-tuner write them; files that nobody trained with those have none, like most.
_TRAINED_ON: Mapping[str, Mapping[str, str]] = {
    "xl": {"ss_base_model_version": "sdxl_base_v1-0", "modelspec.architecture": "stable-diffusion-xl-v1-base/lora"},
    "sd15": {"ss_base_model_version": "sd_v1", "modelspec.architecture": "stable-diffusion-v1/lora"},
    "wan": {"ss_base_model_version": "wan", "modelspec.architecture": "wan2.1/lora"},
}
_BASES: Mapping[str, str] = {"mika_v3": "xl", "ink_lines_xl": "xl", "sd15_old_style": "sd15"}


def chosen(asked: str | Mapping[str, Sequence[str]], *, newer: bool = True) -> ModelFiles:
    """Give the files of an engine in ComfyUI's order of folders.

    Args:
        asked: a preset (all, sdxl, none), `folder/name` several times with commas between, or names by folder.
        newer: whether there is the folder that only newer servers have.

    Raises:
        ValueError: a folder that ComfyUI does not have.
    """
    files = _named(asked) if isinstance(asked, str) else asked
    place = FOLDERS.index("upscale_models") + 1
    folders = [*FOLDERS[:place], *[NEWER_FOLDER] * newer, *FOLDERS[place:]]
    strange = sorted(set(files) - {*FOLDERS, NEWER_FOLDER})
    if strange:
        raise ValueError(f"There is no folder of models called {strange[0]}; there are {', '.join(folders)}.")
    return MappingProxyType({folder: tuple(files.get(folder, ())) for folder in folders})


def _named(asked: str) -> Mapping[str, Sequence[str]]:
    if asked in PRESETS:
        return PRESETS[asked]
    files: dict[str, list[str]] = {}
    for entry in asked.split(","):
        folder, slash, name = entry.strip().partition("/")
        if not slash:
            raise ValueError(f"'{asked}' is no set of models: give {', '.join(PRESETS)}, or `folder/name` with commas between.")
        files.setdefault(folder, []).append(name)
    return files


def header(folder: str, name: str) -> Mapping[str, str] | None:
    """Give the `__metadata__` of a safetensors file; None for one without."""
    if folder != "loras":
        return None
    stem = name.removesuffix(".safetensors")
    return _TRAINED_ON.get("wan" if stem.startswith("wan") else _BASES.get(stem, ""))
