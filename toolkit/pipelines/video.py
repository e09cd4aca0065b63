"""Clips: from words, from a first frame, from a first and a last one."""

from __future__ import annotations

from toolkit.errors import RequestInvalid
from toolkit.graph import Graph, NodeCatalog, title_of
from toolkit.pipelines import rewriting
from toolkit.pipelines.built import Built
from toolkit.pipelines.choosing import choose
from toolkit.pipelines.families import Family
from toolkit.pipelines.filling import filled
from toolkit.pipelines.sizes import frames_of, rounded, size_of
from toolkit.prompts import Wildcards
from toolkit.requests import VideoRequest
from toolkit.roles import recipe_of

SMALLEST = 64  # pixels of a side of the first latents, as EmptyLTXVLatentVideo takes them


def build_video(request: VideoRequest, catalog: NodeCatalog, folder: str, wildcards: Wildcards) -> Built:
    """The family's graph with the request's texts, settings, models and frames."""
    pictures = [image for image in (request.image, request.last_image) if image is not None]
    choice = choose("video", catalog, request.model, pictures=len(pictures))
    family, preset = choice.family, choice.family.presets[request.preset]
    fps = request.fps or family.fps or 24.0
    frames, rounding = frames_of(request, family, preset.frames, fps)
    wanted = size_of(family, preset, request.width, request.height, request.aspect, request.image)
    width, height = (max(rounded(side, family.multiple), round(SMALLEST / family.latents)) for side in wanted)
    if (width, height) != (request.width or width, request.height or height):
        rounding.append(f"{family.title} works in steps of {family.multiple} pixels: {width}x{height} is made.")
    graph, facts, warnings = filled(request, choice, {"width": width, "height": height, "frames": frames, "fps": fps}, catalog, wildcards)
    _give_frames(graph, request, family)
    graph.nodes[rewriting.find(graph, "SaveVideo")]["inputs"]["filename_prefix"] = f"{folder}/clip"
    return Built(graph.nodes, lambda: {**recipe_of(graph.nodes), **facts, "width": width, "height": height}, (*warnings, *rounding))


def _give_frames(graph: Graph, request: VideoRequest, family: Family) -> None:
    """Put the input pictures where the graph loads its first and last frame, or where a family that can do without takes one."""
    loaders = {title_of(node_id, node): node for node_id, node in graph.nodes.items() if node["class_type"] == "LoadImage"}
    for title, name, image in (("First frame", "start_image", request.image), ("Last frame", "end_image", request.last_image)):
        if image is None:
            continue
        if title in loaders:
            loaders[title]["inputs"]["image"] = image.server_name
        elif family.takes_picture:
            latent = graph.nodes[rewriting.link_of(graph, rewriting.samplers(graph)[0], "latent_image").node_id]
            latent["inputs"][name] = list(graph.add("LoadImage", image=image.server_name, title=title))
        else:
            raise RequestInvalid(f"{family.title} takes no {title.lower()}.", field="image")
