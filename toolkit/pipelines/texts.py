"""Prompts of a request on their way into a graph: drawn, LoRAs taken out, the family's words added.

Owns in which order that happens, so that what is shown as sent is what was sent. Knows no graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.graph import NodeCatalog
from toolkit.pipelines.choosing import check_embeddings, pick_lora
from toolkit.pipelines.families import Family
from toolkit.prompts import Wildcards, expand
from toolkit.requests import ImageRequest, VideoRequest


@dataclass(frozen=True, slots=True)
class Texts:
    """What the text encoders get, and the LoRAs: file, strength of the model, strength of the text encoder."""

    prompt: str
    negative_prompt: str
    loras: Sequence[tuple[str, float, float]]
    warnings: Sequence[str]


def texts_of(request: ImageRequest | VideoRequest, family: Family, negative: str, catalog: NodeCatalog, wildcards: Wildcards) -> Texts:
    """The texts of a request for a family; `negative` is what its graph has.

    Raises:
        RequestInvalid: a wildcard that is not there. ModelUnknown: a LoRA or embedding that the server does not have.
    """
    seed = request.seed or 0
    said = expand(request.prompt, seed, wildcards)
    unsaid = expand(request.negative_prompt or "", seed, wildcards)
    check_embeddings([*said.embeddings, *unsaid.embeddings], catalog)
    asked = [*((lora.name, lora.strength, lora.strength) for lora in request.loras), *said.loras]
    warnings = [*said.warnings, *unsaid.warnings]
    if unsaid.loras:
        warnings.append("LoRAs in the negative prompt do nothing and are left out.")
    loras = [(pick_lora(name, catalog), model, clip) for name, model, clip in asked]
    default = negative if family.negative is None else family.negative
    prompt = family.prefix + with_quality(said.text, family, request.quality_tags)
    return Texts(prompt, default if request.negative_prompt is None else unsaid.text, loras, warnings)


def with_quality(prompt: str, family: Family, wanted: bool) -> str:
    """The prompt with the family's quality words in front, unless it has them or they are not wanted."""
    if not wanted or not family.quality or family.quality.lower() in prompt.lower():
        return prompt
    return f"{family.quality}, {prompt}"
