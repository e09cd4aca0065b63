"""Sampling and what comes of it: steps that take their time, previews that emerge, and the drawing at last.

Owns the samplers, what leads them, and the decoders. They must not know how a latent is painted: painting.py is imported at
first need, since start-up has to be quick. All samplers are one: noise levels from step to step (1 is nothing but noise). What
it leaves is a latent with one more coat. A second sampling with some noise keeps the composition and stirs it, one that goes on
from leftover noise ends what the first began.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np

from toolkit.engine.values import Coat, Guider, Latent, Look, Made, Node, Noise, Pixels, Sigmas, Stage, Weights, Words
from toolkit.engine.words import generator

_WHOLE = 0.999  # from such a noise level on nothing of what was there is left
_NEW_WORDS = 0.5  # from such a noise level on a second pass follows its own words
_STIRRED_S = 0.9  # as far a second pass moves hair and petals at most; the first blink comes later


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a sampler is asked for."""

    guider: Guider
    seed: int
    levels: Sequence[float]
    """Noise before the first step, and after each."""
    adds_noise: bool = True


def sample(stage: Stage, *, model: Weights, seed: int, steps: int, positive: Words, negative: Words, latent_image: Latent, denoise: float, **_: Any) -> Made:
    """Sample in `steps` steps, from as much noise as `denoise` says."""
    levels = _falling(denoise, steps) if denoise > 0 else ()
    return Made((_sampled(stage, latent_image, Sampling(Guider(model, positive, negative), seed, levels)),))


def sample_part(
    stage: Stage, *, model: Weights, add_noise: str, noise_seed: int, steps: int, positive: Words, negative: Words, latent_image: Latent,
    start_at_step: int, end_at_step: int, return_with_leftover_noise: str, **_: Any,
) -> Made:  # fmt: skip
    """Take some of the steps; without leftover noise the last one leaves none, however early it is (ComfyUI comfy/samplers.py)."""
    levels = _falling(1.0, steps)[start_at_step : end_at_step + 1]
    if levels and return_with_leftover_noise == "disable":
        levels = (*levels[:-1], 0.0)
    asked = Sampling(Guider(model, positive, negative), noise_seed, levels, add_noise == "enable")
    return Made((_sampled(stage, latent_image, asked),))


def sample_custom(
    stage: Stage, *, model: Weights, add_noise: bool, noise_seed: int, positive: Words, negative: Words, sigmas: Sigmas, latent_image: Latent, **_: Any
) -> Made:
    """Sample along given noise levels; the second output is without what noise is left."""
    return _both(_sampled(stage, latent_image, Sampling(Guider(model, positive, negative), noise_seed, sigmas, add_noise)))


def sample_led(stage: Stage, *, noise: Noise, guider: Guider, sampler: str, sigmas: Sigmas, latent_image: Latent) -> Made:
    """Sample along given noise levels, led by a guider."""
    return _both(_sampled(stage, latent_image, Sampling(guider, noise.seed, sigmas)))


def _both(latent: Latent) -> Made:
    return Made((latent, replace(latent, clean=1.0)))


def _falling(start: float, steps: int) -> Sigmas:
    return tuple(start * (1 - step / steps) for step in range(steps + 1))


def _sampled(stage: Stage, latent: Latent, asked: Sampling) -> Latent:
    """Take the time of each step and show the drawing emerge; without any step nothing changes."""
    levels = [min(1.0, max(0.0, level)) for level in asked.levels]
    if len(levels) < 2:
        return latent
    made = replace(_coated(latent, asked, levels[0]), clean=1.0)
    sketch, steps = cache(partial(_sketch, made)), len(levels) - 1
    for value in range(1, steps + 1):
        stage.step(value, steps, weight(latent), partial(_emerging, sketch, 1 - levels[value]))
    return replace(made, clean=1 - levels[-1])


def _coated(latent: Latent, asked: Sampling, level: float) -> Latent:
    """Put a coat on a latent, or change the one that is there: go on with it, refine it, or cover everything."""
    fresh = Coat(asked.guider.positive.text, asked.guider.negative.text, asked.seed, asked.guider.model.look, min(1.0, level), latent.mask)
    fresh = replace(fresh, share=1.0) if level >= _WHOLE else fresh
    last = latent.coats[-1] if latent.coats else None
    if last and latent.clean < 1:
        coat = replace(last, look=_joined(last.look, fresh.look))
    elif last and last.mask is latent.mask and level < _WHOLE:
        coat = _refined(last, fresh, level) if asked.adds_noise else replace(last, look=_joined(last.look, fresh.look))
    elif last and last.mask is latent.mask:
        coat = fresh
    else:
        return replace(latent, coats=(*latent.coats, fresh))
    return replace(latent, coats=(*latent.coats[:-1], coat))


def _refined(coat: Coat, fresh: Coat, level: float) -> Coat:
    """Keep the composition; much noise brings its own words and look, and any stirs hair and petals."""
    words = fresh if level >= _NEW_WORDS else coat
    stirred = coat.stirred_s + level * generator(fresh.seed, "stirred").uniform(0.1, _STIRRED_S)
    return replace(coat, prompt=words.prompt, negative=words.negative, look=_joined(coat.look, fresh.look), stirred_s=min(_STIRRED_S, float(stirred)))


def _joined(one: Look, other: Look) -> Look:
    return (*one, *(lora for lora in other if lora not in one))


def weight(latent: Latent) -> float:
    """Say how many times the usual a step takes: 1 up to a square megapixel, growing slowly to 3 for a long clip."""
    pixels = latent.width * latent.height * latent.frames * latent.batch
    return float(min(3.0, max(1.0, (pixels / 2**20) ** 0.25)))


def _sketch(latent: Latent) -> tuple[Any, Pixels]:
    from toolkit.engine import painting

    canvas = painting.sketch(latent)
    return canvas, painting.painted(canvas, 0, 0)


def _emerging(sketch: Callable[[], tuple[Any, Pixels]], share: float) -> Pixels:
    from toolkit.engine import painting

    canvas, picture = sketch()
    return painting.emerging(canvas, picture, share)


def decode(stage: Stage, *, samples: Latent, vae: Weights, **_: Any) -> Made:
    """Paint every frame of every batch item; a latent that was never sampled decodes to what it was made from, or to flat grey."""
    from toolkit.engine import painting

    canvas = painting.canvas(samples)
    pictures = np.empty((samples.batch * samples.frames, samples.height, samples.width, 3), dtype=np.uint8)
    for place in range(len(pictures)):
        stage.go_on()
        pictures[place] = painting.painted(canvas, *divmod(place, samples.frames))
    return Made((pictures,))


def lead(stage: Stage, *, model: Weights, positive: Words, negative: Words, cfg: float) -> Made:
    """Lead by words for and against."""
    return Made((Guider(model, positive, negative),))


def lead_simply(stage: Stage, *, model: Weights, conditioning: Words) -> Made:
    """Lead by words for."""
    return Made((Guider(model, conditioning),))


def make_noise(stage: Stage, *, noise_seed: int) -> Made:
    """Keep a seed."""
    return Made((Noise(noise_seed),))


def choose_sampler(stage: Stage, *, sampler_name: str) -> Made:
    """Keep a sampler's name; the stand-in has but one."""
    return Made((sampler_name,))


def choose_ancestral(stage: Stage, **_: Any) -> Made:
    """Name the sampler that adds noise on its way."""
    return Made(("euler_ancestral",))


def schedule(stage: Stage, *, model: Weights, scheduler: str, steps: int, denoise: float) -> Made:
    """Give noise levels, the last `steps` of as many as `denoise` makes of them (ComfyUI comfy_extras/nodes_custom_sampler.py)."""
    if denoise <= 0:
        return Made(((),))
    return Made((_falling(1.0, int(steps / denoise) if denoise < 1 else steps)[-(steps + 1) :],))


def schedule_ltx(stage: Stage, *, steps: int, max_shift: float, base_shift: float, stretch: bool, terminal: float, latent: Latent | None = None) -> Made:
    """Give noise levels that stay high the longer, the larger the clip, and end at `terminal` before 0 (ComfyUI comfy_extras/nodes_lt.py)."""
    tokens = 4096 if latent is None else ((latent.frames - 1) // 8 + 1) * (latent.height // 32) * (latent.width // 32)
    shift = math.exp(base_shift + (max_shift - base_shift) * (tokens - 1024) / (4096 - 1024))
    levels = [shift / (shift + (1 / level - 1)) for level in _falling(1.0, steps)[:-1]]
    if stretch and levels[-1] < 1:
        levels = [1 - (1 - level) * (1 - terminal) / (1 - levels[-1]) for level in levels]
    return Made(((*levels, 0.0),))


def read_sigmas(stage: Stage, *, sigmas: str) -> Made:
    """Read noise levels from a text."""
    return Made((tuple(float(number) for number in re.findall(r"[-+]?(?:\d*\.*\d+)", sigmas)),))


NODES: Mapping[str, Node] = MappingProxyType(
    {
        "KSampler": sample,
        "KSamplerAdvanced": sample_part,
        "SamplerCustom": sample_custom,
        "SamplerCustomAdvanced": sample_led,
        "RandomNoise": make_noise,
        "KSamplerSelect": choose_sampler,
        "SamplerEulerAncestral": choose_ancestral,
        "BasicScheduler": schedule,
        "LTXVScheduler": schedule_ltx,
        "ManualSigmas": read_sigmas,
        "BasicGuider": lead_simply,
        "CFGGuider": lead,
        "VAEDecode": decode,
        "VAEDecodeTiled": decode,
    }
)
