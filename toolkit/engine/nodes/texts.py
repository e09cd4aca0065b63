"""Words, and what is made of them before they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from toolkit.engine.values import Made, Node, Stage, Weights, Words


def encode_text(stage: Stage, *, text: str, clip: Weights) -> Made:
    """Keep the words."""
    return Made((Words(text),))


NODES: Mapping[str, Node] = MappingProxyType({"CLIPTextEncode": encode_text})
