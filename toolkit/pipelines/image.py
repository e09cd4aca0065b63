"""Pictures: the checkpoint graph of the SDXL families."""

from __future__ import annotations

from toolkit.errors import RequestInvalid
from toolkit.graph import Graph, NodeCatalog
from toolkit.pipelines.families import SDXL, Built, Family, choose_all, rounded, with_quality
from toolkit.requests import ImageRequest
from toolkit.roles import recipe_of


def build_image(request: ImageRequest, catalog: NodeCatalog, folder: str) -> Built:
    """CheckpointLoaderSimple -> CLIPTextEncode x2 + EmptyLatentImage -> KSampler -> VAEDecode -> SaveImage."""
    family = SDXL
    preset = family.presets[request.preset]
    (checkpoint,) = choose_all(family, catalog, request.model)
    width, height = _size(request, family)
    negative = family.negative if request.negative_prompt is None else request.negative_prompt
    graph = Graph()
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=checkpoint)
    positive = graph.add("CLIPTextEncode", title="Prompt", text=with_quality(request.prompt, family, request.quality_tags), clip=loader.output(1))
    negated = graph.add("CLIPTextEncode", title="Negative prompt", text=negative, clip=loader.output(1))
    latent = graph.add("EmptyLatentImage", width=width, height=height, batch_size=request.batch_size)
    sampled = graph.add(
        "KSampler",
        model=loader,
        seed=request.seed,
        steps=request.steps or preset.steps,
        cfg=family.cfg if request.cfg is None else request.cfg,
        sampler_name=request.sampler or family.sampler,
        scheduler=request.scheduler or family.scheduler,
        positive=positive,
        negative=negated,
        latent_image=latent,
        denoise=1.0,
    )
    picture = graph.add("VAEDecode", samples=sampled, vae=loader.output(2))
    graph.add("SaveImage", images=picture, filename_prefix=f"{folder}/picture")
    recipe = recipe_of(graph.nodes) | {"family": family.name, "preset": request.preset, "frames": 1}
    return Built(graph.nodes, recipe)


def _size(request: ImageRequest, family: Family) -> tuple[int, int]:
    """Width and height in pixels: as given, by aspect, or the preset's; one given side keeps the preset's shape."""
    if request.aspect is not None:
        if request.width or request.height:
            raise RequestInvalid("Give width and height, or aspect, not both.", field="aspect")
        if request.aspect not in family.aspects:
            raise RequestInvalid(f"`aspect` is '{request.aspect}': it must be one of {', '.join(family.aspects)}.", field="aspect")
        return family.aspects[request.aspect]
    preset = family.presets[request.preset]
    if request.width and request.height:
        return request.width, request.height
    scale = (request.width or preset.width) / preset.width if request.width else (request.height or preset.height) / preset.height
    width, height = (rounded(round(side * scale), family.multiple) for side in (preset.width, preset.height))
    return request.width or width, request.height or height
