"""What a graph's inputs mean: prompt, seed, steps, size, models, found by walking the graph, not by titles.

Owns the reading of roles for anything in API format, ours or a user's: the names of `toolkit run --set`, and the recipe that the log
stores. Knows class shapes (an input called `sampler_name` beside `positive` makes a sampler), no model family and no server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from toolkit.graph import ancestors, graph_hash, is_link, sources, topological

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
    "text_encoder": "text_encoders",
    "model_name": "upscale_models",
    "style_model_name": "style_models",
    "clip_vision": "clip_vision",
}
FOLDER_ROLES = {
    "checkpoints": "model", "diffusion_models": "model", "text_encoders": "text_encoder", "vae": "vae", "loras": "lora", "controlnet": "controlnet",
    "upscale_models": "upscale_model", "style_models": "style_model", "clip_vision": "clip_vision", "latent_upscale_models": "upscale_model",
}  # fmt: skip
MODEL_ROLES = frozenset(FOLDER_ROLES.values()) - {"lora"}
SAMPLER_ROLES = {
    "seed": "seed",
    "noise_seed": "seed",
    "steps": "steps",
    "cfg": "cfg",
    "sampler_name": "sampler",
    "scheduler": "scheduler",
    "denoise": "denoise",
}
SAMPLER_PARTS = ("noise", "guider", "sampler", "sigmas")  # nodes that a custom sampler is put together from
SIDES = {"positive": "prompt", "conditioning": "prompt", "cond1": "prompt", "negative": "negative_prompt"}
SIZE_ROLES = {"width": "width", "height": "height", "batch_size": "batch_size", "length": "frames", "frames_number": "frames"}
LATENTS = ("latent", "latent_image", "samples", "audio_latent", "video_latent")  # of a node that takes pictures too, what decides the size
STRENGTHS = ("strength_model", "strength_clip", "strength")
TEXT_INPUTS = ("text", "prompt", "text_g", "text_l", "t5xxl", "clip_l", "value", "string", "string_a", "string_b", "on_true", "on_false")
EVERYWHERE = frozenset({"prompt", "negative_prompt", "seed", "width", "height", "frames", "fps", "batch_size"})  # set in all places at once
STAGES = ("load", "encode", "sample", "decode", "save", "other")


@dataclass(frozen=True, slots=True)
class Role:
    """One input of one node that plays a role; a graph with two samplers has two seeds."""

    name: str
    node_id: str
    input: str
    value: Any


@lru_cache(maxsize=4096)
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


def steps_of(node: Mapping[str, Any]) -> int | None:
    """How many steps a sampler or its sigmas make: an expert that runs from one step to another makes those between; None if nobody says."""
    inputs = _inputs(node)
    if isinstance(inputs.get("sigmas"), str):  # ManualSigmas lists where each step begins, and the end
        return max(len(inputs["sigmas"].split(",")) - 1, 0)
    steps, start, end = (inputs.get(name) for name in ("steps", "start_at_step", "end_at_step"))
    if not isinstance(steps, (int, float)) or not math.isfinite(steps):
        return None
    first, last = (value if isinstance(value, int) else otherwise for value, otherwise in ((start, 0), (end, int(steps))))
    return max(min(last, int(steps)) - first, 0)


def steps_at(graph: Mapping[str, Any], node_id: str) -> int | None:
    """How many steps a sampler of a graph makes, also where a scheduler beside it says so."""
    found: str | None = node_id
    for _ in range(5):  # through what splits or extends sigmas
        if found is None:
            return None
        steps = steps_of(graph[found])
        if steps is not None:
            return steps
        found = _source(graph, _inputs(graph[found]).get("sigmas"))
    return None


def find_roles(graph: Mapping[str, Any]) -> list[Role]:
    """All roles of a graph, in graph order of their samplers, then size, video, pictures and models; each input once."""
    found: dict[tuple[str, str], Role] = {}
    graph = settled(graph)
    for role in _walk(graph, live_part(graph)):
        found.setdefault((role.node_id, role.input), role)
    return list(found.values())


def named_roles(graph: Mapping[str, Any]) -> dict[str, list[Role]]:
    """The parameters of a graph: a name and the inputs that it sets.

    Texts, seeds, sizes and rates have one name for all places. Of the others, places with equal values share a name, and what differs is
    numbered: `steps` and `steps_2` of two passes, `model` and `model_2` of two experts, `lora` and `lora_strength` of the first LoRA.
    """
    groups: dict[str, list[list[Role]]] = {}
    for role in find_roles(graph):
        known = groups.setdefault(role.name, [])
        same = known[0] if known and role.name in EVERYWHERE else next((group for group in known if _is_one(group[0], role)), None)
        known.append([role]) if same is None else same.append(role)
    return {name if place == 0 else f"{name}_{place + 1}": group for name, known in groups.items() for place, group in enumerate(known)}


def _is_one(role: Role, other: Role) -> bool:
    """Whether two places of one role are set together: never two LoRAs or two models, whatever their values."""
    if role.name in MODEL_ROLES or role.name in ("lora", "image", "mask"):
        return role.value == other.value and role.name != "lora"
    if role.name == "lora_strength":
        return role.node_id == other.node_id
    return type(role.value) is type(other.value) and bool(role.value == other.value)


def settled(graph: Mapping[str, Any]) -> Mapping[str, Any]:
    """The graph with switches that stand still left with the branch they choose: ComfyUI never asks for the other (comfy_extras/nodes_logic.py)."""
    return {node_id: _chosen(graph, node_id) if node.get("class_type") == "ComfySwitchNode" else node for node_id, node in graph.items()}


def _chosen(graph: Mapping[str, Any], node_id: str) -> Mapping[str, Any]:
    node = graph[node_id]
    states = [role.value for role in _literal(graph, node_id, "switch", "switch")]
    unused = {True: "on_false", False: "on_true"}.get(states[0]) if states and isinstance(states[0], bool) else None
    return {**node, "inputs": {name: value for name, value in _inputs(node).items() if name != unused}}


def live_part(graph: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run would execute: everything upstream of nodes that save or show; the whole graph if none does."""
    graph = settled(graph)
    ends = [node_id for node_id, node in graph.items() if stage_of(str(node.get("class_type"))) == "save"]
    part = ancestors(graph, ends)
    return {node_id: node for node_id, node in graph.items() if node_id in part} if ends else graph


def _walk(graph: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[Role]:
    samplers = _in_order(live)
    for node_id in samplers:
        inputs = graph[node_id]["inputs"]
        owners = [node_id, *(inputs[part][0] for part in SAMPLER_PARTS if is_link(inputs.get(part)) and inputs[part][0] in graph)]
        yield from _of_sampler(graph, owners)
        yield from _sizes(graph, inputs.get("latent_image"))
        used = ancestors(graph, [source for owner in owners if (source := _source(graph, _inputs(graph[owner]).get("model"))) is not None])
        for source in (source for source in live if source in used):  # so that `model` is the first sampler's, whatever its id
            yield from _models(graph, source)
    for node_id, node in live.items():
        yield from _of_node(graph, node_id, node, with_image_size=not samplers)


def _in_order(live: Mapping[str, Any]) -> list[str]:
    """The samplers, each after those whose latents it takes up; else in graph order."""
    samplers = [node_id for node_id in live if is_sampler(live[node_id])]
    if len(samplers) < 2:
        return samplers
    passes = dict.fromkeys(live, 0)
    for node_id in reversed(topological(live)):
        before = max((passes[source] for source in sources(live, node_id)), default=0)
        passes[node_id] = before + is_sampler(live[node_id])
    return sorted(samplers, key=passes.__getitem__)


def _of_sampler(graph: Mapping[str, Any], owners: Sequence[str]) -> Iterator[Role]:
    """Texts and settings of a sampler, its guider, noise and sigmas."""
    for owner in owners:
        for side, name in SIDES.items():
            yield from _texts(graph, _inputs(graph[owner]).get(side), name)
    for owner in owners:
        for name, role in SAMPLER_ROLES.items():
            yield from _literal(graph, owner, name, role)


def _of_node(graph: Mapping[str, Any], node_id: str, node: Mapping[str, Any], *, with_image_size: bool) -> Iterator[Role]:
    class_type = str(node.get("class_type", ""))
    if class_type.startswith("Empty") and (with_image_size or "Image" not in class_type or "Latent" in class_type):
        yield from _own_sizes(graph, node_id)
    for name in ("fps", "frame_rate"):
        yield from _literal(graph, node_id, name, "fps")
    if class_type.startswith("LoadImage"):
        yield from _literal(graph, node_id, "image", "mask" if "Mask" in class_type else "image")
    yield from _models(graph, node_id)


def _models(graph: Mapping[str, Any], node_id: str) -> Iterator[Role]:
    inputs = _inputs(graph[node_id])
    for name, value in inputs.items():
        if name in MODEL_INPUTS and isinstance(value, str):
            folder = "clip_vision" if "Vision" in str(graph[node_id].get("class_type")) else MODEL_INPUTS[name]
            yield Role(FOLDER_ROLES[folder], node_id, name, value)
    if isinstance(inputs.get("lora_name"), str):
        for name in STRENGTHS:
            yield from _literal(graph, node_id, name, "lora_strength")


def _inputs(node: Any) -> Mapping[str, Any]:
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    return inputs if isinstance(inputs, Mapping) else {}


def _source(graph: Mapping[str, Any], value: Any) -> str | None:
    return str(value[0]) if is_link(value) and value[0] in graph else None


def _literal(graph: Mapping[str, Any], node_id: str, name: str, role: str) -> Iterator[Role]:
    """The input itself if it is a value, else the value of the primitive that it is linked to, through settled switches."""
    value, seen = _inputs(graph[node_id]).get(name), set[str]()
    is_side = role in ("width", "height")  # LTX's first latents are half of what is set
    while (source := _source(graph, value)) is not None and source not in seen and (held := _holds(graph[source], scaled=is_side)) is not None:
        seen.add(source)
        node_id, name = source, held
        value = _inputs(graph[node_id]).get(name)
    if value is not None and not isinstance(value, (list, tuple, Mapping)):
        yield Role(role, node_id, name, value)


def _holds(node: Mapping[str, Any], *, scaled: bool) -> str | None:
    """The input whose value a node hands on, as it is or `scaled`; None if it makes something else of it, or there are two."""
    class_type, inputs = str(node.get("class_type")), _inputs(node)
    if class_type.startswith("Primitive"):
        return "value"
    names: tuple[str, ...] = ("on_true", "on_false") if class_type == "ComfySwitchNode" else ()
    if class_type == "ComfyMathExpression" and scaled:
        names = tuple(name for name in inputs if name.startswith("values."))
    held = [name for name in names if name in inputs]
    return held[0] if len(held) == 1 else None


def _texts(graph: Mapping[str, Any], link: Any, name: str) -> Iterator[Role]:
    """The first literal texts upstream of a conditioning link."""
    todo, seen = [link], set[str]()
    while todo:
        link = todo.pop()
        if not is_link(link) or link[0] not in graph or link[0] in seen:
            continue
        seen.add(link[0])
        inputs = _inputs(graph[link[0]])
        wanted = ("negative_prompt",) if name == "negative_prompt" and "negative_prompt" in inputs else TEXT_INPUTS  # some encode both sides
        own = [text for text in wanted if isinstance(inputs.get(text), str) and (inputs[text] or not text.startswith("string_"))]
        for text in own:
            yield Role(name if not inputs[text].rstrip().endswith("<Prompt Start>") else "system_prompt", link[0], text, inputs[text])
        if not own:
            side = "negative" if name == "negative_prompt" else "positive"
            todo += [inputs[side]] if side in inputs else [value for value in reversed(list(inputs.values())) if is_link(value)]


def _sizes(graph: Mapping[str, Any], link: Any) -> Iterator[Role]:
    """Width, height, batch and frames at the source of a latent."""
    todo, seen = [link], set[str]()
    while todo:
        link = todo.pop()
        if not is_link(link) or link[0] not in graph or link[0] in seen:
            continue
        seen.add(link[0])
        own = list(_own_sizes(graph, link[0]))
        yield from own
        if not any(role.name == "width" for role in own):
            inputs = _inputs(graph[link[0]])
            latents = [inputs[name] for name in LATENTS if is_link(inputs.get(name))]
            todo += latents or [[source, 0] for source in reversed(list(sources(graph, link[0])))]


def _own_sizes(graph: Mapping[str, Any], node_id: str) -> Iterator[Role]:
    for name, role in SIZE_ROLES.items():
        for found in _literal(graph, node_id, name, role):
            if isinstance(found.value, (int, float)) and not isinstance(found.value, bool):
                yield found


def plain_model_name(file: str) -> str:
    """A model file as the log names it: forward slashes, no extension."""
    path = PurePosixPath(file.replace("\\", "/"))
    return str(path.with_suffix("")) if path.suffix.lower() in (".safetensors", ".ckpt", ".pt", ".pth", ".gguf", ".sft") else str(path)


def outline_of(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a recipe that most decides how long a graph takes: sizes and model."""
    return _outline(find_roles(graph))


def _outline(roles: Sequence[Role]) -> dict[str, Any]:
    main = next((role.value for role in roles if role.input in ("ckpt_name", "unet_name")), None)
    sizes = {name: _first(roles, name) for name in ("width", "height", "batch_size", "frames", "fps")}
    return {**sizes, "model": plain_model_name(main) if main else None}


def recipe_of(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a graph that the log stores: one value a role, None where it has none or several that differ."""
    roles = find_roles(graph)
    facts: dict[str, Any] = {name: _single(roles, name) for name in ("prompt", "negative_prompt", "seed", "cfg", "sampler", "scheduler", "denoise")}
    counts = [steps_of({**graph[role.node_id], "inputs": {"steps": role.value, **_inputs(graph[role.node_id])}}) for role in roles if role.name == "steps"]
    counts += [steps_of(node) for node in live_part(graph).values() if isinstance(_inputs(node).get("sigmas"), str)]
    steps = [count for count in counts if count is not None]
    models = [plain_model_name(role.value) for role in roles if role.name in MODEL_ROLES]
    loras = [
        {"name": plain_model_name(role.value), "strength": _strength(graph[role.node_id]["inputs"].get("strength_model", 1.0))}
        for role in roles
        if role.name == "lora"
    ]
    return {
        **facts,
        **_outline(roles),
        "steps": sum(steps) if steps else None,
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
