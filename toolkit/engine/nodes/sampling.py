"""Sampling and what comes of it: steps that take their time, previews that emerge, and the drawing at last.

Owns the samplers and decoders. They must not know how a latent is painted: painting.py is imported at first need, since
start-up has to be quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np

from toolkit.engine.values import Latent, Made, Node, Pixels, Stage, Weights, Words

CLIP_FPS = 16.0  # frame n of a clip shows the moment n / 16 s


def sample(stage: Stage, *, seed: int, steps: int, positive: Words, negative: Words, latent_image: Latent, denoise: float, **_: Any) -> Made:
    """Take a step's time `steps` times and show the drawing emerge from noise."""
    latent = replace(latent_image, prompt=positive.text, negative=negative.text, seed=seed, steps=steps, denoise=denoise)
    sketch = cache(partial(_sketch, latent))
    for value in range(1, steps + 1):
        stage.step(value, steps, weight(latent), partial(_emerging, sketch, value / steps, seed))
    return Made((latent,))


def weight(latent: Latent) -> float:
    """Say how many times the usual a step takes: 1 up to a square megapixel, growing slowly to 3 for a long clip."""
    pixels = latent.width * latent.height * latent.frames * latent.batch
    return float(min(3.0, max(1.0, (pixels / 2**20) ** 0.25)))


def _emerging(sketch: Callable[[], Pixels], share: float, seed: int) -> Pixels:
    from toolkit.engine import drawing

    return drawing.emerging(sketch(), share, seed)


def _sketch(latent: Latent) -> Pixels:
    from toolkit.engine import painting

    return painting.sketch(latent)


def decode(stage: Stage, *, samples: Latent, vae: Weights) -> Made:
    """Draw every frame of every batch item; a latent that was never sampled decodes to flat grey."""
    from toolkit.engine import painting

    shape = (samples.batch * samples.frames, samples.height, samples.width, 3)
    if samples.prompt is None:
        return Made((np.full(shape, 127, dtype=np.uint8),))
    moments = [(item, frame / CLIP_FPS) for item in range(samples.batch) for frame in range(samples.frames)]
    pictures = np.empty(shape, dtype=np.uint8)
    for place, (item, moment_s) in enumerate(moments):
        stage.go_on()
        pictures[place] = painting.drawn(samples, item, moment_s)
    return Made((pictures,))


NODES: Mapping[str, Node] = MappingProxyType({"KSampler": sample, "VAEDecode": decode})
