"""Changes to a family's graph: LoRAs between a model and what uses it, a picture in place of an empty latent, a second pass, an enlargement.

Owns where new nodes go: found by links, never by ids or titles, so that each change works on every family's template. Knows no request's fields
and no file names beyond those handed in. Each function changes the graph it is given and returns what the next one needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.graph import Graph, Link, is_link
from toolkit.roles import is_sampler

LOADS_MODEL = ("CheckpointLoaderSimple", "UNETLoader")


def find(graph: Graph, class_type: str) -> str:
    """The id of the one node of this class."""
    return next(node_id for node_id, node in graph.nodes.items() if node["class_type"] == class_type)


def link_of(graph: Graph, node_id: str, name: str) -> Link:
    """Where an input comes from."""
    value = graph.nodes[node_id]["inputs"][name]
    return Link(value[0], value[1])


def relink(graph: Graph, old: Link, new: Link, *, but: Sequence[str] = ()) -> None:
    """Let everything that took `old` take `new`, the nodes named in `but` excepted."""
    for node_id, node in graph.nodes.items():
        for name, value in node["inputs"].items():
            if node_id not in but and is_link(value) and tuple(value) == tuple(old):
                node["inputs"][name] = list(new)


def samplers(graph: Graph) -> list[str]:
    """The ids of the samplers, in graph order."""
    return [node_id for node_id, node in graph.nodes.items() if is_sampler(node)]


def add_loras(graph: Graph, loras: Sequence[tuple[str, float, float]]) -> None:
    """Put LoRAs (file, strength of the model, of the text encoder) behind every model; one that names an expert goes to that expert alone."""
    loaders = [node_id for node_id, node in graph.nodes.items() if node["class_type"] in LOADS_MODEL]
    for loader in loaders:
        for name, model_strength, clip_strength in loras:
            if len(loaders) == 1 or _is_for(name, str(next(iter(graph.nodes[loader]["inputs"].values())))):
                _add_lora(graph, loader, name, model_strength, clip_strength)


def _is_for(lora: str, model: str) -> bool:
    words = [word for word in ("high", "low") if word in lora.lower().rsplit("/", 1)[-1]]
    return len(words) != 1 or words[0] in model.lower()


def _add_lora(graph: Graph, loader: str, name: str, model_strength: float, clip_strength: float) -> None:
    end = _last_of(graph, loader)
    clip = end.output(1)
    if not any(tuple(value) == clip for node in graph.nodes.values() for value in node["inputs"].values() if is_link(value)):
        lora = graph.add("LoraLoaderModelOnly", lora_name=name, strength_model=model_strength, model=end)  # its text encoder is another file's
    else:
        lora = graph.add("LoraLoader", lora_name=name, strength_model=model_strength, strength_clip=clip_strength, model=end, clip=clip)
        relink(graph, clip, lora.output(1), but=[lora.node_id])
    relink(graph, end, lora, but=[lora.node_id])


def _last_of(graph: Graph, loader: str) -> Link:
    """The model as it leaves the last LoRA behind a loader."""
    end = Link(loader)
    while True:
        after = [n for n, node in graph.nodes.items() if node["class_type"].startswith("LoraLoader") and tuple(node["inputs"]["model"]) == tuple(end)]
        if not after:
            return end
        end = Link(after[0])


def skip_clip(graph: Graph, layers: int) -> None:
    """Read the text encoder's output some layers before its last one."""
    clip = link_of(graph, find(graph, "CLIPTextEncode"), "clip")
    earlier = graph.add("CLIPSetLastLayer", stop_at_clip_layer=-layers, clip=clip)
    relink(graph, clip, earlier, but=[earlier.node_id])


def predict_v(graph: Graph) -> None:
    """Sample a model that predicts velocity, with a schedule that ends at zero noise."""
    model = link_of(graph, samplers(graph)[0], "model")
    predicting = graph.add("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True, model=model)
    relink(graph, model, predicting, but=[predicting.node_id])


def begin_with(graph: Graph, pixels: Link, *, batch_size: int, mask: Link | None = None) -> None:
    """Let the first sampler begin with a picture instead of an empty latent; with a mask only its white part is made anew."""
    sampler, decoder = samplers(graph)[0], find(graph, "VAEDecode")
    empty = link_of(graph, sampler, "latent_image")
    latent = graph.add("VAEEncode", pixels=pixels, vae=link_of(graph, decoder, "vae"))
    if mask is not None:
        latent = graph.add("SetLatentNoiseMask", samples=latent, mask=mask)
    if batch_size > 1:
        latent = graph.add("RepeatLatentBatch", samples=latent, amount=batch_size)
    relink(graph, empty, latent)
    del graph.nodes[empty.node_id]


def keep_outside(graph: Graph, original: Link, mask: Link) -> None:
    """Put what was not to change back over the decoded picture, pixel for pixel."""
    saver = find(graph, "SaveImage")
    made = link_of(graph, saver, "images")
    whole = graph.add("ImageCompositeMasked", destination=original, source=made, x=0, y=0, resize_source=False, mask=mask)
    graph.nodes[saver]["inputs"]["images"] = list(whole)


def enlarge(graph: Graph, pixels: Link, model: str, width: int, height: int) -> Link:
    """The picture through an upscale model, then brought to exactly this size."""
    upscaler = graph.add("UpscaleModelLoader", model_name=model)
    large = graph.add("ImageUpscaleWithModel", upscale_model=upscaler, image=pixels)
    return scaled(graph, large, width, height)


def scaled(graph: Graph, pixels: Link, width: int, height: int) -> Link:
    """The picture at this size, its middle where the shape differs."""
    return graph.add("ImageScale", image=pixels, upscale_method="lanczos", width=width, height=height, crop="center")


def second_pass(graph: Graph, width: int, height: int, denoise: float, upscaler: str | None) -> None:
    """Enlarge what was made and sample it again: through an upscale model where there is one, else as a latent."""
    sampler, decoder = samplers(graph)[-1], find(graph, "VAEDecode")
    vae = link_of(graph, decoder, "vae")
    if upscaler is None:
        latent = graph.add("LatentUpscale", samples=Link(sampler), upscale_method="bislerp", width=width, height=height, crop="disabled")
    else:
        latent = graph.add("VAEEncode", pixels=enlarge(graph, Link(decoder), upscaler, width, height), vae=vae)
    inputs: dict[str, Any] = {**graph.nodes[sampler]["inputs"], "latent_image": list(latent), "denoise": denoise}
    again = graph.add(graph.nodes[sampler]["class_type"], title="Second pass", **inputs)
    made = graph.add("VAEDecode", samples=again, vae=vae)
    graph.nodes[find(graph, "SaveImage")]["inputs"]["images"] = list(made)
