"""Pictures: from words, from a picture, within a mask, with a second pass, or only enlarged."""

from __future__ import annotations

import re
from typing import Any

from toolkit.errors import ModelUnknown
from toolkit.graph import Graph, Link, NodeCatalog
from toolkit.pipelines import rewriting
from toolkit.pipelines.built import Built
from toolkit.pipelines.choosing import UPSCALER, choose, names_of
from toolkit.pipelines.families import Family
from toolkit.pipelines.filling import filled
from toolkit.pipelines.sizes import rounded, size_of
from toolkit.prompts import Wildcards
from toolkit.requests import ImageRef, ImageRequest
from toolkit.roles import recipe_of

VELOCITY = re.compile(r"v.?pred", re.IGNORECASE)
DENOISE = 0.6  # of a picture that is begun with, where the request does not say
DENOISE_MASKED = 1.0
DENOISE_AGAIN = {True: 0.4, False: 0.55}  # of a second pass over a picture from an upscale model, or over a latent, which is softer


def build_image(request: ImageRequest, catalog: NodeCatalog, folder: str, wildcards: Wildcards) -> Built:
    """The family's graph with the request's texts, settings and models, changed by what it begins and ends with."""
    if request.image is not None and request.upscale is not None and not request.denoise:
        return _enlarged(request, request.image, catalog, folder)
    choice = choose("image", catalog, request.model, prefer=request.prefer_model)
    family = choice.family
    width, height = size_of(family, family.presets[request.preset], request.width, request.height, request.aspect, request.image)
    values = {"width": width, "height": height, "batch_size": request.batch_size}
    graph, facts, warnings = filled(request, choice, values, catalog, wildcards)
    if family.clip_skip:
        rewriting.skip_clip(graph, family.clip_skip)
    if VELOCITY.search(choice.files[0]):
        rewriting.predict_v(graph)
    _begin_and_end(graph, request, family, catalog, width, height)
    graph.nodes[rewriting.find(graph, "SaveImage")]["inputs"]["filename_prefix"] = f"{folder}/picture"

    def recipe() -> dict[str, Any]:
        found = {**recipe_of(graph.nodes), **facts, "frames": 1}
        return found | {"width": found["width"] or width, "height": found["height"] or height}

    return Built(graph.nodes, recipe, warnings)


def _begin_and_end(graph: Graph, request: ImageRequest, family: Family, catalog: NodeCatalog, width: int, height: int) -> None:
    """Begin with a picture where there is one; end larger where that is asked for."""
    upscaler = _upscaler(catalog)
    larger = request.upscale or 1.0
    large = rounded(width * larger, family.multiple), rounded(height * larger, family.multiple)
    if request.image is not None:
        pixels = graph.add("LoadImage", image=request.image.server_name)
        if request.upscale is not None:  # begun with at its final size
            pixels = rewriting.enlarge(graph, pixels, upscaler, *large) if upscaler else rewriting.scaled(graph, pixels, *large)
        else:
            pixels = rewriting.scaled(graph, pixels, width, height)
        _begin(graph, request, pixels)
    elif request.upscale is not None:
        denoise = DENOISE_AGAIN[upscaler is not None] if request.denoise is None else request.denoise
        rewriting.second_pass(graph, *large, denoise, upscaler)


def _begin(graph: Graph, request: ImageRequest, pixels: Link) -> None:
    mask = graph.add("LoadImageMask", image=request.mask.server_name, channel="red") if request.mask is not None else None
    rewriting.begin_with(graph, pixels, batch_size=request.batch_size, mask=mask)
    usual = DENOISE if mask is None else DENOISE_MASKED
    for sampler in rewriting.samplers(graph):
        graph.nodes[sampler]["inputs"]["denoise"] = usual if request.denoise is None else request.denoise
    if mask is not None:
        rewriting.keep_outside(graph, pixels, mask)


def _upscaler(catalog: NodeCatalog) -> str | None:
    """The server's upscale model, one made for drawings first."""
    names = names_of("upscale_models", catalog)
    return next((name for name in names if "anime" in name.lower()), names[0] if names else None)


def _enlarged(request: ImageRequest, image: ImageRef, catalog: NodeCatalog, folder: str) -> Built:
    """A picture through an upscale model and nothing else."""
    upscaler = _upscaler(catalog)
    if upscaler is None:
        raise ModelUnknown("The server has no upscale model.", hint=UPSCALER.advice, field="upscale")
    graph, factor = Graph(), request.upscale or 1.0
    pixels = graph.add("LoadImage", image=image.server_name)
    if image.width and image.height:
        large = rewriting.enlarge(graph, pixels, upscaler, round(image.width * factor), round(image.height * factor))
    else:
        large = graph.add("ImageUpscaleWithModel", upscale_model=graph.add("UpscaleModelLoader", model_name=upscaler), image=pixels)
    graph.add("SaveImage", images=large, filename_prefix=f"{folder}/picture")
    facts = {"family": None, "preset": request.preset, "frames": 1, "choice": f"only enlarged, by {upscaler}"}
    return Built(graph.nodes, lambda: recipe_of(graph.nodes) | facts)
