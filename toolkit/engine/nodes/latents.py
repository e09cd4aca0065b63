"""Latents before they are sampled: how large, how long, how many."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from toolkit.engine.values import Latent, Made, Node, Stage


def empty_latent(stage: Stage, *, width: int, height: int, batch_size: int) -> Made:
    """Make a latent for pictures; like the real one it rounds sizes down to 8 px."""
    return Made((Latent(width // 8 * 8, height // 8 * 8, 1, batch_size),))


NODES: Mapping[str, Node] = MappingProxyType({"EmptyLatentImage": empty_latent})
