"""A family's graph filled with what a request says: texts, settings, models and LoRAs, each put where the graph has its role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.graph import Api, Graph, NodeCatalog
from toolkit.pipelines import rewriting
from toolkit.pipelines.choosing import Choice, names_of
from toolkit.pipelines.families import Family, Fast
from toolkit.pipelines.texts import texts_of
from toolkit.prompts import Wildcards
from toolkit.requests import ImageRequest, VideoRequest
from toolkit.roles import MODEL_INPUTS, named_roles


@dataclass(frozen=True, slots=True)
class Settings:
    """Values by role, and the LoRAs that make few steps enough."""

    values: Mapping[str, Any]
    loras: Sequence[tuple[str, float, float]] = ()


def filled(
    request: ImageRequest | VideoRequest, choice: Choice, values: Mapping[str, Any], catalog: NodeCatalog, wildcards: Wildcards
) -> tuple[Graph, Mapping[str, Any], Sequence[str]]:
    """The graph of a choice with a request's words and `values` in it, what the log shall know of that, and what was left out."""
    family, graph = choice.family, Graph(choice.family.template())
    negative = next((str(role.value) for role in named_roles(graph.nodes).get("negative_prompt", ())), "")
    texts = texts_of(request, family, negative, catalog, wildcards)
    settings = settings_of(request, family, catalog)
    latents = {side: round(values[side] * family.latents) for side in ("width", "height")}
    said = {**settings.values, **values, **latents, "prompt": texts.prompt, "negative_prompt": texts.negative_prompt, "seed": request.seed}
    has_place = set_all(graph.nodes, said)
    unsaid = []
    if request.negative_prompt and not has_place["negative_prompt"]:
        unsaid.append(f"{family.title} takes no negative prompt: it is left out.")
    elif request.negative_prompt and all(role.value == 1 for role in named_roles(graph.nodes).get("cfg", ())):
        unsaid.append(f"{family.title} runs with cfg 1 here, where a negative prompt has no effect.")
    for node in graph.nodes.values():  # where a picture is brought to the size of the clip
        node["inputs"] |= {f"resize_type.{side}": values[side] for side in ("width", "height") if f"resize_type.{side}" in node["inputs"]}
    if request.steps is not None and not has_place["steps"]:
        unsaid.append(f"{family.title} has steps of its own: {request.steps} is left out.")
    set_models(graph.nodes, family, choice.files)
    rewriting.add_loras(graph, [*settings.loras, *texts.loras])
    facts = {"family": family.name, "preset": request.preset, "choice": choice.why, "fast": bool(settings.loras)}
    return graph, facts, (*choice.warnings, *texts.warnings, *unsaid)


def settings_of(request: ImageRequest | VideoRequest, family: Family, catalog: NodeCatalog) -> Settings:
    """Steps, cfg, sampler and scheduler: the request's, else the fast way of a draft, else the preset's and the family's; None: the template's."""
    wishes = {name: getattr(request, name) for name in ("steps", "cfg", "sampler", "scheduler")}
    usual: dict[str, Any] = {"steps": family.presets[request.preset].steps, "cfg": family.cfg, "sampler": family.sampler, "scheduler": family.scheduler}
    loras: list[tuple[str, float, float]] = []
    if family.fast is not None and request.preset == "draft" and wishes["steps"] is None and wishes["cfg"] is None:
        found = _fast_files(family.fast, catalog)
        if found:
            loras = [(name, 1.0, 1.0) for name in found]
            usual |= {"steps": family.fast.steps, "cfg": family.fast.cfg}
    return Settings({name: usual[name] if wish is None else wish for name, wish in wishes.items()}, loras)


def _fast_files(fast: Fast, catalog: NodeCatalog) -> list[str]:
    """The server's file for each of these LoRAs; nothing unless it has them all."""
    names = names_of("loras", catalog)
    found = [next((name for name in names if file.fits(name)), None) for file in fast.files]
    return [] if None in found else [name for name in found if name]


def set_all(graph: Api, values: Mapping[str, Any]) -> dict[str, bool]:
    """Put values into the inputs that play their role, None leaving the template's; returns which had a place."""
    roles = named_roles(graph)
    places = {name: [place for group, found in roles.items() if group == name or group.startswith(f"{name}_") for place in found] for name in values}
    for name, value in values.items():
        for role in places[name] if value is not None else ():
            graph[role.node_id]["inputs"][role.input] = value
    if values.get("steps") is not None:
        _share_steps(graph, values["steps"])
    return {name: bool(found) for name, found in places.items()}


def _share_steps(graph: Api, steps: int) -> None:
    """Two experts share the steps as they do in the template: half each."""
    for node in graph.values():
        inputs = node["inputs"]
        if "end_at_step" in inputs:
            first = inputs["start_at_step"] == 0
            inputs["start_at_step"], inputs["end_at_step"] = (0, steps // 2) if first else (steps // 2, max(steps, min(inputs["end_at_step"], steps)))


def set_models(graph: Api, family: Family, files: Sequence[str]) -> None:
    """Put the server's files where the template has its own: by that name, else folder by folder in the same order."""
    for folder in {file.folder for file in family.files}:
        own = {file.name: name for file, name in zip(family.files, files, strict=True) if file.folder == folder}
        texts = [(node, name, value) for node in graph.values() for name, value in node["inputs"].items() if isinstance(value, str)]
        places = [(node, name) for node, name, value in texts if value in own or MODEL_INPUTS.get(name) == folder]
        usual = list(dict.fromkeys(node["inputs"][name] for node, name in places))
        by_order = dict(zip((value for value in usual if value not in own), (name for file, name in own.items() if file not in usual), strict=False))
        for node, name in places:
            node["inputs"][name] = {**by_order, **own}.get(node["inputs"][name], node["inputs"][name])
