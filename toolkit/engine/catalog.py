"""What /object_info says: every class the engine has, with its inputs in their real order.

Owns the recorded entries (catalog.json) and the filling in of the engine's own file lists. It must not know what a class does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from toolkit.engine.models import MODEL_FOLDERS

CATALOG_FILE = Path(__file__).with_name("catalog.json")

Catalog = Mapping[str, Mapping[str, Any]]

# VAELoader offers "pixel_space" after the files (recorded).
FILE_INPUTS: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType(
    {
        ("CheckpointLoaderSimple", "ckpt_name"): MODEL_FOLDERS["checkpoints"],
        ("UNETLoader", "unet_name"): MODEL_FOLDERS["diffusion_models"],
        ("CLIPLoader", "clip_name"): MODEL_FOLDERS["text_encoders"],
        ("VAELoader", "vae_name"): (*MODEL_FOLDERS["vae"], "pixel_space"),
    }
)


@cache
def catalog() -> Catalog:
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
