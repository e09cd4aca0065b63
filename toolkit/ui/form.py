"""From the page's fields to a request and back: what is empty is left to the preset, the rest is checked by the request itself.

Owns which field belongs to pictures and which to clips, and the shapes that are offered. Knows no server, and no limits: those are the request's,
so that the page and REST refuse the same things with the same sentence. Numbers arrive as the text that was typed, pictures as references.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.errors import RequestInvalid
from toolkit.requests import BY_KIND, ImageRequest, Lora, Request, VideoRequest

PICTURE, CLIP, KEYFRAME = "image", "video", "keyframe"
KINDS = [("Picture", PICTURE), ("Clip", CLIP), ("Still, then clip", KEYFRAME)]
AS_PRESET, OWN_SIZE = "preset", "own"
PRESETS = [("Draft\na quick look", "draft"), ("Standard\nthe usual", "standard"), ("High\nslow, careful", "high")]
SIZES = [
    ("Usual", AS_PRESET), ("Portrait", "portrait"), ("Square", "square"), ("Landscape", "landscape"), ("Tall", "tall"), ("Wide", "wide"), ("My own", OWN_SIZE),
]  # fmt: skip
CLIP_ONLY, PICTURE_ONLY = ("seconds", "frames", "fps", "last_image"), ("mask", "denoise", "batch_size")
# what the form alone knows
OF_THE_FORM = ("kind", "prompt", "size", "width", "height", "motion", "lora", "lora_strength")


def request_of(values: Mapping[str, Any]) -> ImageRequest | VideoRequest:
    """The request that the filled page asks for; of a still that becomes a clip, the still.

    Raises:
        RequestInvalid: with the sentence to show, and the field it is about.
    """
    kind = str(values.get("kind"))
    if kind not in (PICTURE, CLIP, KEYFRAME):
        raise RequestInvalid("Choose a picture or a clip.", field="kind")
    others = PICTURE_ONLY if kind == CLIP else CLIP_ONLY
    fields = {name: _filled(value) for name, value in values.items() if name not in (*OF_THE_FORM, *others)}
    fields |= {"prompt": values.get("prompt") or "", "loras": _loras(values), **_size(values)}
    made = BY_KIND[PICTURE if kind == KEYFRAME else kind](**{name: value for name, value in fields.items() if value is not None})
    assert isinstance(made, ImageRequest | VideoRequest)
    return made


def clip_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the form says of the clip that a still becomes; its words are the still's own where it says none."""
    said = {name: _filled(values.get(name)) for name in ("seconds", "frames", "fps", "preset")}
    return {**said, "prompt": _filled(values.get("motion"))}


def values_of(request: Request, names: Sequence[str]) -> dict[str, Any]:
    """The form as it would ask for a request again: every field of `names`, those empty of which the request says nothing; pictures stay out."""
    said = {name: getattr(request, name, None) for name in names}
    shape = said.get("size") or getattr(request, "aspect", None)
    size = OWN_SIZE if said.get("width") or said.get("height") else shape if shape in {choice for _, choice in SIZES} else AS_PRESET
    loras: Sequence[Lora] = getattr(request, "loras", ())
    told = {"kind": getattr(request, "kind", PICTURE), "size": size, "lora": [lora.name for lora in loras], "preset": getattr(request, "preset", "standard")}
    told["lora_strength"] = f"{loras[0].strength:g}" if loras and loras[0].strength != 1 else ""
    told["batch_size"] = "" if said.get("batch_size") in (None, 1) else str(said["batch_size"])
    return {name: told.get(name, "" if said[name] is None else str(said[name])) for name in names}


def _filled(value: Any) -> Any:
    """What a field holds; an empty one holds nothing."""
    return (value.strip() or None) if isinstance(value, str) else value


def _size(values: Mapping[str, Any]) -> dict[str, Any]:
    size = str(values.get("size"))
    if size not in {choice for _, choice in SIZES}:
        raise RequestInvalid(f"`size` is '{size[:40]}': choose one of the list.", field="size")
    if size == AS_PRESET:
        return {}
    return {name: _filled(values.get(name)) for name in ("width", "height")} if size == OWN_SIZE else {"aspect": size}


def _loras(values: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The chosen LoRAs, all at the one strength that was typed; in the prompt `<lora:name:0.8>` gives each its own."""
    names = values.get("lora") or []
    strength = _filled(values.get("lora_strength"))
    if strength is not None and not re.fullmatch(r"-?\d+([.,]\d+)?", strength):
        raise RequestInvalid(f"The strength of a LoRA is '{strength[:40]}': it must be a number from -10 to 10.", field="lora_strength")
    about = {} if strength is None else {"strength": float(strength.replace(",", "."))}
    return [{"name": str(name), **about} for name in names] or None
