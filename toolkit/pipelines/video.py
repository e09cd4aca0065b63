"""Clips: text to clip with Wan 2.2 5B."""

from __future__ import annotations

from toolkit.graph import Graph, NodeCatalog
from toolkit.pipelines.families import WAN22_5B, Built, Family, choose_all, rounded
from toolkit.requests import VideoRequest
from toolkit.roles import recipe_of


def build_video(request: VideoRequest, catalog: NodeCatalog, folder: str) -> Built:
    """UNETLoader + CLIPLoader + VAELoader -> ModelSamplingSD3 -> KSampler -> VAEDecode -> CreateVideo -> SaveVideo."""
    family = WAN22_5B
    preset = family.presets[request.preset]
    unet, encoder, decoder = choose_all(family, catalog, request.model)
    fps = request.fps or family.fps or 24.0
    frames, warnings = _frames(request, family, preset.frames, fps)
    width, height = (rounded(side or default, family.multiple) for side, default in ((request.width, preset.width), (request.height, preset.height)))
    if (width, height) != (request.width or width, request.height or height):
        warnings.append(f"{family.title} works in steps of {family.multiple} pixels: {width}x{height} is made.")
    graph = Graph()
    model = graph.add("UNETLoader", unet_name=unet, weight_dtype="default")
    clip = graph.add("CLIPLoader", clip_name=encoder, type="wan", device="default")
    vae = graph.add("VAELoader", vae_name=decoder)
    shifted = graph.add("ModelSamplingSD3", model=model, shift=family.shift)
    positive = graph.add("CLIPTextEncode", title="Prompt", text=request.prompt, clip=clip)
    negative = family.negative if request.negative_prompt is None else request.negative_prompt
    negated = graph.add("CLIPTextEncode", title="Negative prompt", text=negative, clip=clip)
    latent = graph.add("Wan22ImageToVideoLatent", vae=vae, width=width, height=height, length=frames, batch_size=1)
    sampled = graph.add(
        "KSampler",
        model=shifted,
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
    pictures = graph.add("VAEDecode", samples=sampled, vae=vae)
    video = graph.add("CreateVideo", images=pictures, fps=fps)
    graph.add("SaveVideo", video=video, filename_prefix=f"{folder}/clip", format="mp4", codec="h264")
    recipe = recipe_of(graph.nodes) | {"family": family.name, "preset": request.preset}
    return Built(graph.nodes, recipe, warnings)


def _frames(request: VideoRequest, family: Family, default: int, fps: float) -> tuple[int, list[str]]:
    """The frame count, of the form step * n + 1, and what was rounded."""
    wanted = request.frames or (round(request.seconds * fps) if request.seconds else default)
    frames = max(1, round((wanted - 1) / family.frame_step)) * family.frame_step + 1
    if frames == wanted or (request.frames is None and request.seconds is None):
        return frames, []
    return frames, [f"{family.title} makes {family.frame_step}n + 1 frames: {frames} frames ({frames / fps:.2f} s) instead of {wanted}."]
