"""What a graph's inputs mean: prompt, seed, steps, size, models, found by walking the graph, not by titles.

Owns the reading of roles for anything in API format, ours or a user's: the names of `toolkit run --set`, and the recipe that the log
stores. Knows class shapes (an input called `sampler_name` beside `positive` makes a sampler), no model family and no server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from toolkit.graph import graph_hash, is_link, sources

MODEL_INPUTS: Mapping[str, str] = {
    "ckpt_name": "checkpoints",
    "unet_name": "diffusion_models",
    "clip_name": "text_encoders",
    "clip_name1": "text_encoders",
    "clip_name2": "text_encoders",
    "clip_name3": "text_encoders",
    "vae_name": "vae",
    "lora_name": "loras",
    "control_net_name": "controlnet",
    "model_name": "upscale_models",
    "style_model_name": "style_models",
    "clip_vision": "clip_vision",
}
SAMPLER_ROLES = {
    "seed": "seed",
    "noise_seed": "seed",
    "steps": "steps",
    "cfg": "cfg",
    "sampler_name": "sampler",
    "scheduler": "scheduler",
    "denoise": "denoise",
}
SIZE_ROLES = {"width": "width", "height": "height", "batch_size": "batch_size", "length": "frames"}
TEXT_INPUTS = ("text", "prompt", "text_g", "text_l", "t5xxl", "clip_l", "value", "string")
STAGES = ("load", "encode", "sample", "decode", "save", "other")


@dataclass(frozen=True, slots=True)
class Role:
    """One input of one node that plays a role; a graph with two samplers has two seeds."""

    name: str
    node_id: str
    input: str
    value: Any


def stage_of(class_type: str, is_output: bool = False) -> str:
    """Which of the six stages of a run a node's time belongs to."""
    name = class_type.lower()
    if is_output or name.startswith(("save", "preview")):
        return "save"
    words = (("loader", "load"), ("decode", "decode"), ("encode", "encode"), ("sampler", "sample"))
    excluded = ("samplerselect", "modelsampling", "loadimage")
    if any(word in name.replace("_", "") for word in excluded):
        return "load" if "loadimage" in name else "other"
    return next((stage for word, stage in words if word in name), "other")


def model_of(node: Mapping[str, Any]) -> str | None:
    """The file a loader node reads."""
    inputs = node.get("inputs", {})
    return next((str(inputs[name]) for name in MODEL_INPUTS if isinstance(inputs.get(name), str)), None)


def is_sampler(node: Mapping[str, Any]) -> bool:
    """Whether a node denoises a latent from conditioning."""
    inputs = node.get("inputs", {})
    return is_link(inputs.get("latent_image")) and (is_link(inputs.get("positive")) or "guider" in inputs)


def find_roles(graph: Mapping[str, Any]) -> list[Role]:
    """All roles of a graph, in graph order of their samplers, then size, video and models; each input once."""
    found: dict[tuple[str, str], Role] = {}
    for role in _walk(graph):
        found.setdefault((role.node_id, role.input), role)
    return list(found.values())


def _walk(graph: Mapping[str, Any]) -> Iterator[Role]:
    for node_id in (node_id for node_id, node in graph.items() if is_sampler(node)):
        inputs = graph[node_id]["inputs"]
        for side, name in (("positive", "prompt"), ("negative", "negative_prompt")):
            yield from _texts(graph, inputs.get(side), name)
        for name, role in SAMPLER_ROLES.items():
            if name in inputs and not is_link(inputs[name]):
                yield Role(role, node_id, name, inputs[name])
        yield from _sizes(graph, inputs.get("latent_image"))
    for node_id, node in graph.items():
        if node.get("class_type", "").startswith("Empty"):
            yield from _own_sizes(node_id, node)
        if _is_literal(node, "fps") or _is_literal(node, "frame_rate"):
            name = "fps" if "fps" in node["inputs"] else "frame_rate"
            yield Role("fps", node_id, name, node["inputs"][name])
        for name, value in node.get("inputs", {}).items():
            if name in MODEL_INPUTS and isinstance(value, str):
                yield Role("lora" if name == "lora_name" else "model", node_id, name, value)


def _texts(graph: Mapping[str, Any], link: Any, name: str) -> Iterator[Role]:
    """The first literal texts upstream of a conditioning link."""
    todo, seen = [link], set[str]()
    while todo:
        link = todo.pop()
        if not is_link(link) or link[0] not in graph or link[0] in seen:
            continue
        seen.add(link[0])
        inputs = graph[link[0]].get("inputs", {})
        own = [text for text in TEXT_INPUTS if isinstance(inputs.get(text), str)]
        for text in own:
            yield Role(name, link[0], text, inputs[text])
        if not own:
            side = "negative" if name == "negative_prompt" else "positive"
            todo += [inputs[side]] if side in inputs else [value for value in reversed(inputs.values()) if is_link(value)]


def _sizes(graph: Mapping[str, Any], link: Any) -> Iterator[Role]:
    """Width, height, batch and frames at the source of a latent."""
    todo, seen = [link], set[str]()
    while todo:
        link = todo.pop()
        if not is_link(link) or link[0] not in graph or link[0] in seen:
            continue
        seen.add(link[0])
        if _is_literal(graph[link[0]], "width"):
            yield from _own_sizes(link[0], graph[link[0]])
        else:
            todo += [[source, 0] for source in reversed(list(sources(graph, link[0])))]


def _own_sizes(node_id: str, node: Mapping[str, Any]) -> Iterator[Role]:
    for name, role in SIZE_ROLES.items():
        if _is_literal(node, name):
            yield Role(role, node_id, name, node["inputs"][name])


def _is_literal(node: Mapping[str, Any], name: str) -> bool:
    return isinstance(node.get("inputs", {}).get(name), (int, float))


def plain_model_name(file: str) -> str:
    """A model file as the log names it: forward slashes, no extension."""
    path = PurePosixPath(file.replace("\\", "/"))
    return str(path.with_suffix("")) if path.suffix.lower() in (".safetensors", ".ckpt", ".pt", ".pth", ".gguf", ".sft") else str(path)


def recipe_of(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a graph that the log stores: one value a role, None where it has none or several that differ."""
    roles = find_roles(graph)
    facts: dict[str, Any] = {name: _single(roles, name) for name in ("prompt", "negative_prompt", "seed", "cfg", "sampler", "scheduler", "denoise")}
    facts |= {name: _first(roles, name) for name in ("width", "height", "batch_size", "frames", "fps")}
    steps = [int(role.value) for role in roles if role.name == "steps" and isinstance(role.value, (int, float)) and math.isfinite(role.value)]
    models = [plain_model_name(role.value) for role in roles if role.name == "model"]
    main = [role.value for role in roles if role.input in ("ckpt_name", "unet_name")]
    loras = [
        {"name": plain_model_name(role.value), "strength": _strength(graph[role.node_id]["inputs"].get("strength_model", 1.0))}
        for role in roles
        if role.name == "lora"
    ]
    return {
        **facts,
        "steps": sum(steps) if steps else None,
        "model": plain_model_name(main[0]) if main else None,
        "models": models,
        "loras": loras,
        "graph_hash": graph_hash(graph),
        "parameters": {f"{role.node_id}.{role.input}": role.value for role in roles},
    }


def _strength(value: Any) -> float | None:
    """The strength of a LoRA; None where another node decides it."""
    return float(value) if isinstance(value, (int, float)) else None


def _single(roles: Sequence[Role], name: str) -> Any:
    values = [role.value for role in roles if role.name == name]
    return values[0] if values and all(value == values[0] for value in values) else None


def _first(roles: Sequence[Role], name: str) -> Any:
    return next((role.value for role in roles if role.name == name), None)
