"""What travels along the links of a graph, and what a node may ask of its run.

Owns the stand-ins for models, conditionings, latents, pictures and clips, all small and frozen: a latent says what is to be
drawn over which picture, and the drawing waits for whoever decodes it. It must not know how any of it is made. Apart from the nodes so that they,
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
Mask = NDArray[np.float32]
"""Masks (n, height, width), 0..1; where a mask is 1 there is to be something new."""
Look = tuple[tuple[str, float], ...]
"""LoRAs by name and strength, in the order they were put on."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A loaded model, text encoder or VAE: the stand-in of one keeps its file's name, and the LoRAs put on it."""

    name: str
    look: Look = ()


@dataclass(frozen=True, slots=True)
class Words:
    """A conditioning: the words it came from."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Coat:
    """What one sampling drew: its words, seed and look, and how much of what was there it covers."""

    prompt: str
    negative: str
    seed: int
    look: Look = ()
    share: float = 1.0
    """0..1: of the picture below it leaves the rest."""
    mask: Mask | None = None
    """Where it drew; everywhere without one."""
    stirred_s: float = 0.0
    """How far a second pass moved hair and petals, in seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Guide:
    """A picture (height, width, 3) that a clip shows at one of its frames."""

    frame: int
    picture: Pixels


@dataclass(frozen=True, slots=True)
class Sound:
    """The latent of a sound, all of it silence."""

    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Latent:
    """A latent: the size of what it will become, what it was made from, and what to draw over that."""

    width: int
    height: int
    frames: int
    batch: int
    source: Pixels | None = None
    """What was encoded, (batch * frames, height, width, 3), of any size; grey without one."""
    mask: Mask | None = None
    """Where the next sampling draws."""
    coats: tuple[Coat, ...] = ()
    guides: tuple[Guide, ...] = ()
    clean: float = 1.0
    """0..1: below 1 there is noise left."""
    sound: Sound | None = None


@dataclass(frozen=True, slots=True)
class Guider:
    """What leads a sampling: the model and the words for and against."""

    model: Weights
    positive: Words
    negative: Words = Words("")


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise a sampling starts from."""

    seed: int


Sigmas = tuple[float, ...]
"""Noise levels from step to step, 1 is nothing but noise."""


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

    def load(self, folder: str, name: str) -> None:
        """Take the time that loading this model file takes, unless it is loaded; raises FileNotFoundError if there is none."""

    def step(self, value: int, total: int, weight: float, preview: Callable[[], Pixels] | None = None) -> None:
        """Take the time of one step, then report it; raises when the run was interrupted."""

    def go_on(self) -> None:
        """Raise if the engine ends; for nodes that take long. An interrupt does not reach into them, as in ComfyUI."""

    def folder(self, kind: str) -> Path:
        """Give the folder of `output`, `temp` or `input` files."""

    def picture(self, name: str) -> Path:
        """Give the file of an uploaded picture; raises FileNotFoundError if it is gone."""

    def say(self, text: str) -> None:
        """Show a line of text on the node."""

    @property
    def letters(self) -> str:
        """The five letters in the names of this node's temporary files."""
