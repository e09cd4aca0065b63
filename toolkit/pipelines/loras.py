"""Which architecture a LoRA was trained for, by what its file says, and whether a family can use it.

Owns the words that trainers write into a file's metadata. A LoRA of another architecture does nothing and says nothing, so it is refused; one
that says nothing of itself passes. Knows no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import ModelUnknown
from toolkit.pipelines.families import FAMILIES

ARCHITECTURES: Mapping[str, tuple[tuple[str, ...], str]] = {  # words in the metadata (kohya's ss_base_model_version, modelspec.architecture)
    "sdxl": (("sdxl", "stable-diffusion-xl"), "SDXL"),
    "sd1": (("sd_v1", "stable-diffusion-v1", "sd1."), "SD 1.5"),
    "sd2": (("sd_v2", "stable-diffusion-v2"), "SD 2"),
    "sd3": (("sd3", "stable-diffusion-3"), "SD 3"),
    "flux": (("flux",), "FLUX"),
    "wan": (("wan2", "wan-2", "wan_2"), "Wan"),
    "lumina": (("lumina",), "Lumina"),
    "anima": (("anima", "cosmos"), "Anima"),
    "qwen_image": (("qwen-image", "qwen_image"), "Qwen-Image"),
    "z_image": (("z-image", "z_image"), "Z-Image"),
    "ltx": (("ltx",), "LTX"),
    "hunyuan": (("hunyuan",), "HunyuanVideo"),
}
OF_FAMILY: Mapping[str, str] = {
    **dict.fromkeys(("illustrious", "noobai", "animagine", "pony", "sdxl"), "sdxl"),
    "sd15": "sd1", "netayume": "lumina", "anima": "anima", "qwen_image": "qwen_image", "z_image_turbo": "z_image",
    **{family.name: "wan" for family in FAMILIES if family.name.startswith("wan")},
    **{family.name: "ltx" for family in FAMILIES if family.name.startswith("ltx")},
}  # fmt: skip


def architecture_of(metadata: Mapping[str, Any] | None) -> str | None:
    """What a file says it was trained for; None if it says nothing that is known."""
    said = " ".join(str((metadata or {}).get(name) or "") for name in ("modelspec.architecture", "ss_base_model_version")).lower()
    return next((name for name, (words, _) in ARCHITECTURES.items() if any(word in said for word in words)), None)


def refuse_foreign(family: str | None, found: Mapping[str, Mapping[str, Any] | None]) -> None:
    """See that every LoRA of a graph fits its family.

    Args:
        family: the family's name; None for a graph that is nobody's, which passes.
        found: the metadata of each LoRA by its name.

    Raises:
        ModelUnknown: naming the LoRA, what it is for and what it was to change.
    """
    wanted = OF_FAMILY.get(family or "")
    for name, metadata in found.items():
        own = architecture_of(metadata)
        if own is not None and wanted is not None and own != wanted:
            title = next(one.title for one in FAMILIES if one.name == family)
            said = f"The LoRA {name} was made for {ARCHITECTURES[own][1]} and does nothing to {title}."
            raise ModelUnknown(said, hint="Leave it out, or choose a model it was made for.", field="loras")
