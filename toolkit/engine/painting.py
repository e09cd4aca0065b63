"""From a latent to pixels.

Owns what a latent looks like, whole or as a sketch for previews. It must not know nodes or time.
"""

from __future__ import annotations

from toolkit.engine import drawing
from toolkit.engine.values import Latent, Pixels

PREVIEW_SIDE = 512  # ComfyUI's --preview-size
SEEDS = 2**64


def sketch(latent: Latent) -> Pixels:
    """Draw a small version for previews."""
    return drawn(latent, 0, 0.0, scale=min(1.0, PREVIEW_SIDE / max(latent.width, latent.height)))


def drawn(latent: Latent, item: int, moment_s: float, *, scale: float = 1.0) -> Pixels:
    """Draw one batch item at one second of its clip."""
    brief = drawing.Brief(latent.prompt or "", latent.negative, (latent.seed + item) % SEEDS, latent.width, latent.height)
    return drawing.draw(brief, moment_s, scale=scale)
