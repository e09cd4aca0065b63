"""The drawing the built-in engine makes in place of a diffusion model.

Owns the brief, the camera and the putting together: a still scene rendered once per brief, a figure and weather rendered for
the moment, and the mark that says what this is. It knows nothing of graphs, nodes or sockets. The picture is SVG, in
thousandths of its height, so that any size and any preview is the same composition; the same arguments give the same bytes in
any process, since every choice comes from the brief by `words.generator`. A look is put on at the end: thicker or thinner lines
in the SVG, a wash of colour over the pixels.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from toolkit.engine import looks, portrait, scene, words
from toolkit.engine.ink import box, gradient, group
from toolkit.engine.values import Look

MARK = "stand-in drawing"

_FRAMINGS = {  # visible height and width in the figure's units, the figure's y that is anchored, where in the picture (0..1)
    "close": (410.0, 330.0, 8.0, 0.52),
    "bust": (640.0, 440.0, -10.0, 0.37),
    "cowboy": (950.0, 540.0, -10.0, 0.28),
    "full": (1600.0, 640.0, 500.0, 0.52),
}
_SOFT = 0.6  # a scene behind a large figure is rendered this much smaller: soft as behind a portrait lens, and 106 ms instead of 266 at 832x1216
_HEADROOM = {"cat": 50.0, "fox": 120.0, "rabbit": 280.0}


@dataclass(frozen=True, slots=True)
class Brief:
    """What is to be drawn: words, seed (0 .. 2**64-1), size in pixels (16..4096 each way), and the LoRAs that change the look."""

    prompt: str
    negative_prompt: str
    seed: int
    width: int
    height: int
    look: Look = ()


def draw(brief: Brief, moment_s: float = 0.0, *, scale: float = 1.0, marked: bool = True) -> NDArray[np.uint8]:
    """Draw a brief at one second of its clip.

    Args:
        brief: what to draw.
        moment_s: the second of the clip, 0 for a still; frame n of a clip is `n / fps`.
        scale: below 1 a smaller version of the same composition, for previews.
        marked: whether the mark is on it; who leaves it out has to put it on what becomes of the drawing.

    Returns:
        (height, width, 3) uint8 RGB, each side times `scale`.

    """
    size = scaled(brief.width, brief.height, scale)
    picture = _camera(_backdrop(brief, size), size, moment_s)
    picture.alpha_composite(_rendered(_foreground(brief, moment_s), size, brief))
    plain = looks.washed(picture.convert("RGB"), looks.style(brief.look))
    return marked_up(plain) if marked else np.array(plain)


def scaled(width: int, height: int, scale: float) -> tuple[int, int]:
    """Give the size of a scaled picture, no side below a pixel."""
    return max(1, round(width * scale)), max(1, round(height * scale))


def marked_up(picture: Image.Image, strength: float = 1.0, *, left_side: bool = False) -> NDArray[np.uint8]:
    """Put the mark on a picture; on the left side if it moves over a drawing, which bears one on the right."""
    plate, (left, top) = _mark(picture.size)
    left = picture.width - plate.width - left if left_side else left
    corner = picture.crop((left, top, left + plate.width, top + plate.height)).convert("RGBA")
    corner.alpha_composite(_faint(plate, strength))
    result = picture.copy()
    result.paste(corner.convert("RGB"), (left, top))
    return np.array(result)


def falling(brief: Brief, moment_s: float, size: tuple[int, int], strength: float) -> Image.Image:
    """Draw what falls or floats in the brief's air, or petals, on nothing; for a clip that starts from a picture."""
    traits = _traits(brief)
    weather = traits.weather if traits.weather in scene.FALLING else "petals"
    svg = "".join(scene.air(replace(traits, weather=weather, place="plain"), _width(brief), brief.seed, moment_s, near=near) for near in (False, True))
    return _faint(_rendered(svg, size, brief), strength)


def _faint(picture: Image.Image, strength: float) -> Image.Image:
    if strength >= 1:
        return picture
    faint = picture.copy()
    faint.putalpha(picture.getchannel("A").point(lambda alpha: alpha * strength))
    return faint


def emerging(picture: NDArray[np.uint8], share: float, seed: int) -> NDArray[np.uint8]:
    """Show a picture coming out of noise, as previews of latent diffusion do: blobs of colour first, details last.

    Args:
        picture: (height, width, 3) uint8 RGB.
        share: 0 gives pure noise, 1 the picture.
        seed: of the noise.

    Returns:
        (height, width, 3) uint8 RGB.

    """
    share = min(1.0, max(0.0, share))
    if share == 1.0:
        return picture.copy()
    height, width = picture.shape[:2]
    cell = max(1.0, min(width, height) / 12 * (1 - share) ** 1.6)
    coarse = Image.fromarray(picture).resize((max(1, round(width / cell)), max(1, round(height / cell))), Image.Resampling.BOX)
    return np.array(Image.blend(_noise(width, height, seed), coarse.resize((width, height), Image.Resampling.BILINEAR), share**0.8))


@lru_cache(maxsize=4)
def _noise(width: int, height: int, seed: int) -> Image.Image:
    """Make colourful noise with the grain of a latent: cells of 8 pixels, and a little fine grain."""
    rng = words.generator(seed, "noise")
    cells = rng.integers(0, 256, (max(1, height // 8), max(1, width // 8), 3), dtype=np.uint8)
    large = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
    grain = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return Image.blend(large, grain, 0.3)


@lru_cache(maxsize=64)
def _traits(brief: Brief) -> words.Traits:
    return words.read(brief.prompt, brief.negative_prompt, brief.seed)


def _width(brief: Brief) -> float:
    return 1000 * brief.width / brief.height


@lru_cache(maxsize=4)
def _backdrop(brief: Brief, size: tuple[int, int]) -> Image.Image:
    """Render sky and land, once for all moments of a brief."""
    traits, width, now = _traits(brief), _width(brief), scene.hour(_traits(brief))
    corners = gradient("vignette", (0.6, now.zenith, 0), (1, "#1a1540", 0.18))
    svg = scene.sky(traits, now, width) + scene.land(traits, now, width, brief.seed) + corners + box(0, 0, width, 1000, "url(#vignette)")
    sharpness = 0.8 if traits.framing == "full" or traits.person == "nobody" else _SOFT
    return _rendered(svg, (math.ceil(size[0] * sharpness), math.ceil(size[1] * sharpness)), brief)


def _camera(still: Image.Image, size: tuple[int, int], moment_s: float) -> Image.Image:
    """Move slowly over the still scene: a breath of zoom and pan."""
    width, height = still.size
    zoom = 1.05 - 0.03 * math.cos(moment_s * 0.4)
    wide, high = width / zoom, height / zoom
    x = (width - wide) * (0.5 + 0.4 * math.sin(moment_s * 0.33))
    y = (height - high) * (0.5 + 0.2 * math.sin(moment_s * 0.27))
    return still.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + wide, y + high))


def _foreground(brief: Brief, moment_s: float) -> str:
    traits, width = _traits(brief), _width(brief)
    far, near = (scene.air(traits, width, brief.seed, moment_s, near=near) for near in (False, True))
    if traits.person == "nobody":
        return far + near
    colours = portrait.paint(traits, scene.hour(traits).light)
    person = portrait.figure(traits, colours, portrait.pose(traits, brief.seed, moment_s), brief.seed)
    return far + group([person], _placed(brief, traits, moment_s)) + near


def _placed(brief: Brief, traits: words.Traits, moment_s: float) -> str:
    """Put the figure into the picture: as large as its framing fits, off the middle where there is room."""
    high, wide, anchor, at = _FRAMINGS[traits.framing]
    room = _HEADROOM.get(traits.ears, 0.0)  # above the head, for tall ears
    width = _width(brief)
    size = min(1000 / (high + room / 2), width / wide)
    aside = words.generator(brief.seed, "aside").choice([-0.14, 0.0, 0.14]) if width > 1300 else 0.0
    size *= 1 + 0.008 * math.sin(moment_s * 0.5)
    return f"translate({width * (0.5 + aside):.2f} {1000 * at:.2f}) scale({size:.4f}) translate(0 {room / 2 - anchor:g})"


def _rendered(svg: str, size: tuple[int, int], brief: Brief) -> Image.Image:
    view = f'viewBox="0 0 {_width(brief):.3f} 1000" preserveAspectRatio="none"'
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" {view}>'
    inked = looks.inked(svg, looks.style(brief.look))
    png = resvg_py.svg_to_bytes(svg_string=f"{frame}{inked}</svg>", skip_system_fonts=True)
    return Image.open(io.BytesIO(png)).convert("RGBA")


@lru_cache(maxsize=16)
def _mark(size: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """Write the mark in the lower right corner; the font is Pillow's own."""
    size_px = max(7.0, min(size) / 42)
    size_px *= min(1.0, size[0] / ImageFont.load_default(size_px).getlength(MARK) / 1.25)
    font = ImageFont.load_default(max(1.0, size_px))
    left, top, right, bottom = font.getbbox(MARK)
    pad, margin = max(1.0, (bottom - top) * 0.45), min(size) // 60
    plate = Image.new("RGBA", (min(size[0], math.ceil(right - left + 2 * pad)), min(size[1], math.ceil(bottom - top + 2 * pad))))
    pen = ImageDraw.Draw(plate)
    pen.rounded_rectangle((0, 0, plate.width - 1, plate.height - 1), radius=plate.height / 2, fill=(24, 18, 48, 120))
    pen.text((pad - left, pad - top), MARK, font=font, fill=(255, 255, 255, 235))
    return plate, (max(0, size[0] - plate.width - margin), max(0, size[1] - plate.height - margin))
