"""What travels along the links of a graph, and what a node may ask of its run.

Owns the stand-ins for models, conditionings, latents, pictures and clips, all small and frozen: a latent says what is to be
drawn, and the drawing waits for whoever decodes it. It must not know how any of it is made. Apart from the nodes so that they,
the painting and the worker share these words without knowing each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""A picture (height, width, 3) or several (n, height, width, 3), RGB."""
Look = tuple[tuple[str, float], ...]
"""LoRAs by name and strength, in the order they were put on."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A loaded model, text encoder or VAE: the stand-in of one keeps its file's name."""

    name: str


@dataclass(frozen=True, slots=True)
class Words:
    """A conditioning: the words it came from."""

    text: str


@dataclass(frozen=True, slots=True)
class Latent:
    """A latent: the size of what it will become and, once sampled, what to draw."""

    width: int
    height: int
    frames: int
    batch: int
    prompt: str | None = None
    negative: str = ""
    seed: int = 0
    steps: int = 0
    denoise: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A video: its frames and their rate."""

    frames: Pixels
    fps: float


@dataclass(frozen=True, slots=True)
class Made:
    """What a node made: a value per output slot, and for output nodes what clients are told."""

    values: tuple[Any, ...] = ()
    told: Mapping[str, list[Any]] | None = None


Node = Callable[..., Made]
"""What a class does: `node(stage, **inputs)`."""


class Stage(Protocol):
    """What a node may ask of the run it takes part in."""

    def load(self, kind: str, name: str) -> None:
        """Take the time that loading this model file takes, unless it is loaded."""

    def step(self, value: int, total: int, weight: float, preview: Callable[[], Pixels]) -> None:
        """Take the time of one sampling step, then report it; raises when the run was interrupted."""

    def go_on(self) -> None:
        """Raise if the engine ends; for nodes that take long. An interrupt does not reach into them, as in ComfyUI."""

    def folder(self, kind: str) -> Path:
        """Give the folder of `output`, `temp` or `input` files."""

    @property
    def letters(self) -> str:
        """The five letters in the names of this node's temporary files."""
