"""From the page's fields to a request: what is empty is left to the preset, the rest is checked by the request itself.

Owns which field belongs to pictures and which to clips, and the choices of size. Knows no server, and no limits: those are the request's,
so that the page and REST refuse the same things with the same sentence. Numbers arrive as the text that was typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.errors import RequestInvalid
from toolkit.requests import BY_KIND, ImageRequest, VideoRequest

AS_PRESET, OWN_SIZE = "preset", "own"
PRESETS = [("Draft\na quick look", "draft"), ("Standard\nthe usual", "standard"), ("High\nslow, careful", "high")]
PICTURE_SIZES = [
    ("As the quality says", AS_PRESET), ("Portrait", "portrait"), ("Square", "square"), ("Landscape", "landscape"), ("Tall", "tall"), ("Wide", "wide"),
    ("My own", OWN_SIZE),
]  # fmt: skip
# clips have no named shapes in a request; the two shapes the families are trained on are offered in pixels
CLIP_SIZES = [("As the quality says", AS_PRESET), ("Landscape 832 × 480", "832x480"), ("Portrait 480 × 832", "480x832"), ("My own", OWN_SIZE)]
SIZES: Mapping[str, list[tuple[str, str]]] = {"image": PICTURE_SIZES, "video": CLIP_SIZES}
CLIP_ONLY = ("seconds", "frames", "fps")


def request_of(values: Mapping[str, Any]) -> ImageRequest | VideoRequest:
    """The request that the filled page asks for.

    Raises:
        RequestInvalid: with the sentence to show.
    """
    kind = str(values.get("kind"))
    if kind not in SIZES:
        raise RequestInvalid("Choose a picture or a clip.", field="kind")
    fields = {name: _filled(value) for name, value in values.items() if name not in ("kind", "prompt", "size", "width", "height")}
    fields |= {"prompt": values.get("prompt") or "", **_size(kind, str(values.get("size")), values)}
    if kind == "image":
        fields = {name: value for name, value in fields.items() if name not in CLIP_ONLY}
    made = BY_KIND[kind](**{name: value for name, value in fields.items() if value is not None})
    assert isinstance(made, ImageRequest | VideoRequest)
    return made


def _filled(value: Any) -> Any:
    """What a field holds; an empty one holds nothing."""
    return (value.strip() or None) if isinstance(value, str) else value


def _size(kind: str, size: str, values: Mapping[str, Any]) -> dict[str, Any]:
    if size not in {choice for _, choice in SIZES[kind]}:
        raise RequestInvalid(f"`size` is '{size[:40]}': choose one of the list.", field="size")
    if size == AS_PRESET:
        return {}
    if size == OWN_SIZE:
        return {name: _filled(values.get(name)) for name in ("width", "height")}
    if kind == "image":
        return {"aspect": size}
    width, height = size.split("x")
    return {"width": int(width), "height": int(height)}
