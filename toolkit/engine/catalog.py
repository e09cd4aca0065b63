"""What /object_info says: every class an engine has, with its inputs in their real order, and which inputs a node of it has.

Owns the recorded entries (catalog.json), those of newer servers that were only read (catalog_newer.json), the filling in of the
engine's own file lists, and the unfolding of inputs that depend on other inputs. It must not know what a class does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from toolkit.engine.models import ModelFiles, chosen

RECORDED = Path(__file__).with_name("catalog.json")
READ = Path(__file__).with_name("catalog_newer.json")

Catalog = Mapping[str, Mapping[str, Any]]
Inputs = Mapping[str, Mapping[str, list[Any]]]
"""Specifications by name, by group: required, optional, hidden."""

# The folders whose files an input offers; VAELoader offers "pixel_space" after them (recorded).
FILE_INPUTS: Mapping[tuple[str, str], Sequence[str]] = MappingProxyType(
    {
        ("CheckpointLoaderSimple", "ckpt_name"): ["checkpoints"],
        ("UNETLoader", "unet_name"): ["diffusion_models"],
        ("CLIPLoader", "clip_name"): ["text_encoders"],
        ("DualCLIPLoader", "clip_name1"): ["text_encoders"],
        ("DualCLIPLoader", "clip_name2"): ["text_encoders"],
        ("VAELoader", "vae_name"): ["vae"],
        ("LoraLoader", "lora_name"): ["loras"],
        ("LoraLoaderModelOnly", "lora_name"): ["loras"],
        ("UpscaleModelLoader", "model_name"): ["upscale_models"],
        ("LatentUpscaleModelLoader", "model_name"): ["latent_upscale_models"],
        ("LTXVAudioVAELoader", "ckpt_name"): ["vae", "checkpoints"],
        ("LTXAVTextEncoderLoader", "text_encoder"): ["text_encoders"],
        ("LTXAVTextEncoderLoader", "ckpt_name"): ["checkpoints"],
    }
)
MORE_CHOICES: Mapping[tuple[str, str], Sequence[str]] = MappingProxyType({("VAELoader", "vae_name"): ["pixel_space"]})
DYNAMIC = ("COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3")


def catalog(files: ModelFiles | None = None, *, newer: bool = True) -> Catalog:
    """Read /object_info: class name to entry, inputs in their real order, file lists filled in.

    Args:
        files: the engine's model files; all it can have unless given.
        newer: whether classes that 0.3.64 lacks are there.
    """
    files = chosen("all", newer=newer) if files is None else files
    entries = json.loads(RECORDED.read_text(encoding="utf-8"))["nodes"]
    if newer:
        entries |= json.loads(READ.read_text(encoding="utf-8"))["nodes"]
    for entry in entries.values():
        order = entry["input_order"]
        entry["input"] = {group: {key: entry["input"][group][key] for key in order[group]} for group in sorted(order, reverse=True)}
    found: Catalog = MappingProxyType(entries)
    for (name, key), folders in FILE_INPUTS.items():
        choices = [file for folder in folders for file in files.get(folder, ())]
        found = with_choices(found, name, key, [*dict.fromkeys(choices), *MORE_CHOICES.get((name, key), ())])
    return found


def with_choices(entries: Catalog, name: str, key: str, choices: list[str]) -> Catalog:
    """Give a catalog in which one required input of a class offers these choices, as a list or as COMBO options."""
    if name not in entries:
        return entries
    entry = entries[name]
    kind, *more = entry["input"]["required"][key]
    spec = [kind, {**more[0], "options": choices}] if kind == "COMBO" else [choices, *more]
    inputs = {**entry["input"], "required": {**entry["input"]["required"], key: spec}}
    return MappingProxyType({**entries, name: {**entry, "input": inputs}})


def picture_inputs(entry: Mapping[str, Any]) -> list[str]:
    """Name the inputs that take an uploaded picture."""
    return [key for key, spec in entry["input"].get("required", {}).items() if settings(spec).get("image_upload")]


def lazy(entry: Mapping[str, Any]) -> set[str]:
    """Name the inputs that are worked out only when the node asks for them."""
    groups = (entry["input"].get(group, {}) for group in ("required", "optional"))
    return {key for inputs in groups for key, spec in inputs.items() if settings(spec).get("lazy")}


def settings(spec: list[Any]) -> Mapping[str, Any]:
    """Give what a specification says beside the type."""
    found: Mapping[str, Any] = spec[1] if len(spec) > 1 else {}
    return found


def unfolded(entry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """Give the inputs of a node as its values make them: a chosen option brings its own, `values` grows by a, b, c (ComfyUI comfy_api/latest/_io.py)."""
    groups: dict[str, dict[str, list[Any]]] = {"required": {}, "optional": {}}
    for group, name, spec in _unfolded(entry["input"], given, ""):
        groups[group][name] = spec
    return groups


def _unfolded(inputs: Inputs, given: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, list[Any]]]:
    for group in ("required", "optional"):
        for key, spec in inputs.get(group, {}).items():
            name = prefix + key
            if spec[0] == "COMFY_DYNAMICCOMBO_V3":
                yield group, name, spec
                for option in spec[1]["options"]:
                    if option["key"] == given.get(name):
                        yield from _unfolded(option["inputs"], given, f"{name}.")
            elif spec[0] == "COMFY_AUTOGROW_V3":
                yield from _grown(spec[1]["template"], name)
            else:
                yield group, name, spec


def _grown(template: Mapping[str, Any], name: str) -> Iterator[tuple[str, str, list[Any]]]:
    group = "required" if template["input"]["required"] else "optional"
    spec = next(iter(template["input"][group].values()))
    for place, key in enumerate(template["names"]):
        yield group if place < template["min"] else "optional", f"{name}.{key}", spec


def nested(entry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Gather dotted values under their dynamic input: `size`, `size.width` become `size = {"size": ..., "width": ...}`."""
    dynamic = {key for group in entry["input"].values() for key, spec in group.items() if spec[0] in DYNAMIC}
    if not dynamic:
        return dict(given)
    result: dict[str, Any] = {key: {} for key in dynamic}
    for name, value in given.items():
        key, _, part = name.partition(".")
        if key in dynamic:
            result[key][part or key] = value
        else:
            result[name] = value
    return result
