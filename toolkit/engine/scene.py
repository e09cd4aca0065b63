"""What is behind the figure: the sky of an hour, one of seven places, and what falls or floats in the air.

Owns `Hour`, the light that the figure is painted under as well. It knows no people. Every place leaves the sky open above it, or
is a wall with a window; far things are mixed with the colour of the horizon, as air does it. The horizon lies at 640, so that a
figure of any framing stands in front of something. All lengths are thousandths of the picture's height; x = 0 is its left edge.
Sky and place are still: they are rendered once per picture, and the camera moves over them. What falls is a start from the
seed, a steady fall and a sway of its own, taken round at the edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from toolkit.engine.ink import Point, box, gradient, group, lit, mix, oval, path, puff, smooth
from toolkit.engine.words import Traits, generator


@dataclass(frozen=True, slots=True)
class Hour:
    """The colours of a time of day: three of the sky downwards, the cloud's two, sun or moon, and the light on all else."""

    zenith: str
    middle: str
    horizon: str
    cloud: str
    cloud_shade: str
    disc: str
    disc_y: float
    light: tuple[float, float, float]


_HOURS: Mapping[str, Hour] = {
    "dawn": Hour("#7fa8e8", "#f3b8cf", "#ffe9c4", "#fff2f0", "#e9b9d2", "#fff3d6", 470, (1.0, 0.93, 0.93)),
    "day": Hour("#3f8ff0", "#85c6fb", "#e2f6ff", "#ffffff", "#bfdcf5", "#fffdf0", 130, (1.0, 1.0, 1.0)),
    "sunset": Hour("#4b4a9c", "#f0768a", "#ffcf7c", "#ffb59a", "#c5668f", "#ffe08a", 500, (1.0, 0.87, 0.82)),
    "night": Hour("#0d1440", "#26357c", "#6a7cc4", "#4a5aa3", "#2b3878", "#fff6d0", 170, (0.68, 0.72, 0.94)),
}
_OVERCAST: Mapping[str, float] = {"rain": 0.55, "snow": 0.4}
_LEAF = "M0 -20C15 -8 13 10 0 20C-13 10 -15 -8 0 -20Z"
_PETAL = "M0 -16C14 -12 16 8 2 18L0 12L-3 18C-16 8 -14 -12 0 -16Z"
FALLING: Mapping[str, tuple[int, float, float]] = {  # how many in a square picture, fall and drift in a second
    "rain": (90, 1500, -220), "snow": (70, 70, 18), "petals": (34, 95, 60), "leaves": (26, 120, 70), "fireflies": (30, -16, 6),
}  # fmt: skip


def hour(traits: Traits) -> Hour:
    """Give the light of the traits' time and weather: rain and snow take colour out of the sky."""
    clear, share = _HOURS[traits.time], _OVERCAST.get(traits.weather, 0.0)
    if not share:
        return clear
    grey = lit("#aab6c8", clear.light) if traits.time != "night" else "#39456b"
    zenith, middle, horizon, cloud, shade = (mix(c, grey, share) for c in (clear.zenith, clear.middle, clear.horizon, clear.cloud, clear.cloud_shade))
    red, green, blue = clear.light
    return Hour(zenith, middle, horizon, cloud, shade, clear.disc, clear.disc_y, (red * 0.9, green * 0.93, blue * 0.97))


def sky(traits: Traits, now: Hour, width: float) -> str:
    """Draw the sky over the whole picture."""
    parts = [gradient("sky", (0, now.zenith, 1), (0.45, now.middle, 1), (0.74, now.horizon, 1)), box(0, 0, width, 1000, "url(#sky)")]
    if traits.time == "night":
        count, rng = int(min(220, 30 + width * 0.09)), generator(0, "stars")
        stars = zip(rng.uniform(0, width, count), rng.uniform(0, 620, count), rng.exponential(1.1, count) + 0.8, strict=True)
        parts += [oval(x, y, s, s, "#fffbe6", opacity=0.55 + 0.4 * (s > 2)) for x, y, s in stars]
    if traits.time == "night" or traits.weather not in _OVERCAST:
        parts.append(_sun_or_moon(now, width, night=traits.time == "night"))
    if traits.weather in ("clouds", *_OVERCAST) or traits.place == "beach":
        parts.append(_clouds(traits, now, width))
    return "".join(parts)


def _sun_or_moon(now: Hour, width: float, *, night: bool) -> str:
    x, radius = width * (0.8 if night else 0.2), min(62.0, width * 0.09)
    halo = gradient("halo", (0, now.disc, 0.85), (0.25, now.disc, 0.4), (1, now.disc, 0), kind="radial") + oval(0, 0, 5, 5, "url(#halo)")
    craters = [oval(a, b, r, r, "#e6d8a8", opacity=0.7) for a, b, r in ((-0.3, -0.2, 0.2), (0.25, 0.3, 0.26), (0.3, -0.4, 0.12)) if night]
    return group([halo, oval(0, 0, 1, 1, now.disc), *craters], f"translate({x:.1f} {now.disc_y}) scale({radius:.2f})")


def _clouds(traits: Traits, now: Hour, width: float) -> str:
    rng, count = generator(7, "clouds", traits.place), int(min(14, (3 if traits.weather == "clear" else 5) + width / 300))
    parts = []
    for n in range(count):
        x, y = width * (n + rng.uniform(0.1, 0.9)) / count, rng.uniform(70, 430)
        size = rng.uniform(55, 120) * (0.6 + y / 600)
        heaps = ((0.0, 0.0, 1.0), (-1.15, 0.25, 0.62), (1.1, 0.2, 0.7))
        body = " ".join(puff(x + a * size, y + b * size, size * s, size * 0.55 * s, 9, rng) for a, b, s in heaps)
        parts += [group(path(body, now.cloud_shade), f"translate(0 {size * 0.16:.1f})"), path(body, now.cloud)]
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a place is drawn: its width, light, hour and weather by name, and its chance."""

    width: float
    now: Hour
    time: str
    weather: str
    rng: np.random.Generator

    def tint(self, colour: str, distance: float = 0.0) -> str:
        """Show a thing's colour in this light, `distance` (0..1) away; snow lies on everything."""
        white = mix(colour, "#f4f8ff", 0.55) if self.weather == "snow" else colour
        return mix(lit(white, self.now.light), self.now.horizon, distance)

    def along(self, step: float, most: int = 60) -> list[float]:
        """Give positions from left to right, about `step` apart, a little irregular."""
        count = max(2, min(most, round(self.width / step) + 1))
        return [float(x) for x in (np.arange(count) + self.rng.uniform(-0.3, 0.3, count)) * self.width / (count - 1)]


def land(traits: Traits, now: Hour, width: float, seed: int) -> str:
    """Draw what stands on the ground, farthest first."""
    return _PLACES[traits.place](Ground(width, now, traits.time, traits.weather, generator(seed, "place", traits.place)))


def _ridge(ground: Ground, y: float, rise: float, step: float, colour: str) -> str:
    """Draw a soft line of hills, filled down to the lower edge."""
    points = [(x, y - ground.rng.uniform(0, rise)) for x in ground.along(step)]
    return path(f"{smooth([(-60, y - rise / 2), *points, (ground.width + 60, y - rise / 2)])}V1010H-60Z", colour)


def _floor(ground: Ground, name: str, y: float, far: str, near: str) -> str:
    return gradient(name, (0, far, 1), (1, near, 1)) + box(-5, y, ground.width + 10, 1005 - y, f"url(#{name})")


def _tree(ground: Ground, x: float, y: float, size: float, crown: str, distance: float) -> str:
    heaps = ((0, -1.15, 0.62, 0.48), (-0.48, -0.95, 0.42, 0.33), (0.5, -0.98, 0.44, 0.34))
    spots = ((-0.06, -1.32, 0.36, 0.22), (-0.48, -1.08, 0.22, 0.13), (0.36, -1.12, 0.24, 0.14))
    dark, bright = (" ".join(puff(a * size, b * size, c * size, d * size, 11, ground.rng) for a, b, c, d in table) for table in (heaps, spots))
    wood = group(path("M-9 0Q0 -50 -3 -100h8Q3 -40 12 0Z", ground.tint("#6e4a52", distance)), f"scale({size / 100:.3f})")
    leaves = path(dark, ground.tint(mix(crown, "#5b2f6b", 0.28), distance)) + path(bright, ground.tint(crown, distance))
    return group(wood + leaves, f"translate({x:.1f} {y:.1f})")


def _cherry(ground: Ground) -> str:
    tint, rng, width = ground.tint, ground.rng, ground.width
    parts = [_ridge(ground, 620, 90, 260, tint("#8fb5a0", 0.55)), _ridge(ground, 660, 50, 180, tint("#f3b6cd", 0.35))]
    parts.append(_floor(ground, "lawn", 655, tint("#b9d98a", 0.2), tint("#6fae6a")))
    parts += [_tree(ground, x, 680, rng.uniform(110, 150), "#ffc4da", 0.25) for x in ground.along(150, 30)]
    parts.append(group(path("M-18 662h36Q60 800 280 1010H-280Q-60 800 -18 662Z", tint("#f4e3d0", 0.1)), f"translate({width / 2:.0f} 0)"))
    sides = (-0.02, 0.15, 0.87, 1.03) if width > 1200 else (-0.04, 1.04)
    parts += [_tree(ground, side * width, 860, rng.uniform(400, 460), "#ffb7d2", 0.0) for side in sides]
    dots = zip(rng.uniform(0, width, 70), rng.uniform(690, 1000, 70), strict=True)
    return "".join(parts) + "".join(oval(x, y, 3 + (y - 690) / 60, 1.6 + (y - 690) / 140, tint("#ffc9dd"), opacity=0.8) for x, y in dots)


def _shrine(ground: Ground) -> str:
    tint, middle = ground.tint, ground.width / 2
    parts = [_ridge(ground, 610, 110, 240, tint("#6f9a8c", 0.5)), _ridge(ground, 650, 60, 130, tint("#4f8560", 0.3))]
    parts += [_tree(ground, x, 700, 170, "#6fb36a", 0.25) for x in ground.along(170, 24)]
    parts.append(_floor(ground, "court", 690, tint("#d9cdb8", 0.2), tint("#b3a48e")))
    parts += [box(middle - 90 - n * 62, 705 + n * n * 11, 180 + n * 124, 9 + n * 5, tint("#e8e0d2", 0.1)) for n in range(6)]
    parts += [_gate(ground, middle, 730, 0.62, 0.35), _gate(ground, middle, 880, 1.12, 0.0)]
    return "".join(parts) + "".join(_lantern(ground, middle + side * min(430, ground.width * 0.4), 900) for side in (-1, 1))


def _gate(ground: Ground, x: float, y: float, size: float, distance: float) -> str:
    red, shade, black = (ground.tint(c, distance) for c in ("#e4483a", "#b32f2f", "#3a2b33"))
    parts = [
        path("M-259 0L-225 -640H-185L-211 0ZM211 0L185 -640H225L259 0ZM-270 -520H270V-480H-270ZM-330 -640Q0 -600 330 -640L340 -690Q0 -640 -340 -690Z", red),
        path("M-229 0L-199 -640H-185L-211 0ZM241 0L211 -640H225L259 0ZM-270 -490H270V-478H-270Z", shade),
        path("M-267 -50h64v50h-64zM203 -50h64v50h-64zM-26 -590h52v80h-52zM-340 -686Q0 -638 340 -686L352 -726Q0 -668 -352 -726Z", black),
    ]
    return group(parts, f"translate({x:.1f} {y:.1f}) scale({size:g})")


def _lantern(ground: Ground, x: float, y: float) -> str:
    fire = "#ffe08a" if ground.time in ("night", "sunset") else ground.tint("#e8d9a8")
    parts = [path("M-16 -150h32V0h-32zM-44 -240h88v90h-88zM-13 -296a13 13 0 1 0 26 0a13 13 0 1 0 -26 0z", ground.tint("#a9a8b4"))]
    parts += [path("M-46 -12h92v22h-92zM-74 -238Q0 -262 74 -238L26 -290H-26Z", ground.tint("#7f7e90")), box(-26, -224, 52, 56, fire)]
    if ground.time == "night":
        parts.append(gradient("flame", (0, "#ffd87a", 0.6), (1, "#ffd87a", 0), kind="radial") + oval(0, -196, 150, 150, "url(#flame)"))
    return group(parts, f"translate({x:.1f} {y:.1f})")


def _forest(ground: Ground) -> str:
    tint, rng = ground.tint, ground.rng
    parts = []
    for layer, (distance, step, green) in enumerate(((0.72, 70, "#8fcf9a"), (0.45, 130, "#5fae78"), (0.15, 240, "#3f8a5e"))):
        y, girth, leaf = 680 + layer * 60, (14 + layer * 17) / 10, tint(green, distance * 0.8)
        trunk = path(f"M-14 {y + 40}Q-10 400 -10 -10H10Q6 400 16 {y + 40}Z", tint("#5a4a4c", distance))
        parts += [group(trunk, f"translate({x:.1f} 0) skewX({rng.uniform(-1.5, 1.5):.2f}) scale({girth:g} 1)") for x in ground.along(step, 40)]
        crowns = " ".join(puff(x, 40 - layer * 40, step * 0.8, 150 - layer * 24, 12, rng) for x in ground.along(step * 1.1, 34))
        bushes = " ".join(puff(x, y + 10, step * 0.55, 44 + layer * 14, 10, rng) for x in ground.along(step * 0.8, 34))
        parts += [path(f"{crowns} {bushes}", leaf), _floor(ground, f"moss{layer}", y, leaf, tint("#4c9a5e", distance * 0.6))]
        if layer == 1 and ground.time != "night" and ground.weather not in ("rain", "snow"):
            rays = "".join(f"M{x:.0f} -10h60L{x - 150:.0f} 800h-130Z" for x in ground.along(330, 8))
            parts.append(gradient("beam", (0, "#fffbe0", 0.55), (1, "#fffbe0", 0)) + path(rays, "url(#beam)"))
    return "".join(parts)


def _city(ground: Ground) -> str:
    tint, rng, end = ground.tint, ground.rng, ground.width + 10
    parts = []
    for layer, (distance, step, low, high) in enumerate(((0.7, 70, 380, 560), (0.45, 110, 300, 540), (0.12, 190, 330, 620))):
        for x in ground.along(step, 50):
            wide, top = step * rng.uniform(0.75, 1.15), rng.uniform(low, high)
            colour = tint(mix("#7488b8", "#c08aa8", rng.uniform(0, 0.6)), distance)
            parts += [box(x - wide / 2, top, wide, 1000 - top, colour), box(x + wide * 0.18, top, wide * 0.32, 1000 - top, "#1a1f4a", opacity=0.13)]
            if layer > 0:
                parts.append(_windows(ground, x - wide / 2, top, wide, 15 if layer == 2 else 8))
            if layer == 2 and rng.random() < 0.5:
                parts.append(path(f"M{x:.0f} {top:.0f}v-90m-14 24h28", line=colour, width=5))
    parts.append(_floor(ground, "terrace", 850, tint("#9aa0b8", 0.15), tint("#6f7490")))
    rail = "".join(f"M{x:.0f} 850v-90" for x in np.linspace(0, ground.width, int(min(60, 3 + ground.width / 60))))
    return "".join(parts) + path(f"{rail}M-10 760H{end:.0f}M-10 800H{end:.0f}", line=tint("#4c5170", 0.1), width=7)


def _windows(ground: Ground, x: float, top: float, wide: float, side: int) -> str:
    glowing, gap, cells = ground.time in ("night", "sunset"), side * 2 + 4, ["", ""]
    columns, rows = max(0, int((wide - 16) / gap)), max(0, min(16, int((860 - top) / (gap * 1.2))))
    for row, column in np.argwhere(ground.rng.random((rows, columns)) < (0.5 if glowing else 0.7)):
        cells[int((row * 7 + column * 3) % 5 == 0)] += f"M{x + 12 + column * gap:.0f} {top + 20 + row * gap * 1.2:.0f}h{side}v{side * 1.3:.0f}h-{side}z"
    air = ground.now.horizon
    usual, other = ("#ffe39a", "#9fe8ff") if glowing else (mix(air, "#ffffff", 0.4), air)
    return path(cells[0], usual, opacity=0.85) + path(cells[1], other, opacity=0.8)


def _beach(ground: Ground) -> str:
    tint, rng, width = ground.tint, ground.rng, ground.width
    island = f"M{width * 0.6:.0f} 602Q{width * 0.72:.0f} 540 {width * 0.84:.0f} 590T{width * 0.98:.0f} 602Z"
    parts = [_floor(ground, "sea", 600, tint("#7fd0e8", 0.35), tint("#2f9fc8")), path(island, tint("#5a9a8a", 0.45))]
    for y in (622, 646, 676, 712, 752):
        waves = "".join(f"M{x:.0f} {y + rng.uniform(-8, 8):.0f}h{rng.uniform(30, 60) * (y / 620) ** 3:.0f}" for x in ground.along(150, 24))
        parts.append(path(waves, line=tint("#ffffff", 0.1), width=3 + (y - 620) / 40, opacity=0.75))
    shore: list[Point] = [(x, 815 + 26 * (-1) ** n) for n, x in enumerate(np.linspace(-40, width + 40, int(min(30, 4 + width / 260))))]
    for drop, colour in ((-16, tint("#dff6fb")), (6, tint("#e8cfa0")), (22, tint("#f6e3b4"))):
        parts.append(path(f"{smooth([(x, y + drop) for x, y in shore])}V1010H-40Z", colour))
    fronds = ((-210, -40), (-170, -130), (-60, -180), (90, -160), (190, -90), (200, 10), (-190, 50))
    palm = [path("M40 560Q50 260 -10 0L12 -6Q90 260 86 560Z", tint("#a37c5a"))]
    for n, (a, b) in enumerate(fronds):
        palm.append(path(f"M0 0Q{a * 0.5:.0f} {b - 80} {a} {b + 50}Q{a * 0.45:.0f} {b * 0.5 - 10:.0f} 0 0Z", tint("#4fae6c" if n % 2 else "#34875a")))
    return "".join(parts) + group(palm, f"translate({width * 0.93 - 69:.1f} 386) scale(1.15)")


def _room(ground: Ground) -> str:
    tint, width, middle, half = ground.tint, ground.width, ground.width / 2, min(520.0, ground.width * 0.4)
    left, right, wood = middle - half, middle + half, tint("#a9775a")
    wall = path(f"M-5 -5H{width + 5:.0f}V1005H-5ZM{left:.0f} 90V640H{right:.0f}V90Z", tint("#f0dccb"))
    parts = [_ridge(ground, 640, 70, 120, tint("#7fae8f", 0.4)), wall, box(-5, 760, width + 10, 250, tint("#dcbfae")), box(-5, 750, width + 10, 14, wood)]
    bars = f"M{left:.0f} 90H{right:.0f}V640H{left:.0f}ZM{middle:.0f} 90V640M{left:.0f} 330H{right:.0f}"
    parts += [path(bars, line=wood, width=18), box(left - 40, 636, half * 2 + 80, 26, tint("#c08d6c"))]
    curtain = path("M-90 50Q-20 400 -10 740H80Q60 300 70 50Z", tint("#f7b9b4"))
    curtain += path("M-40 60Q10 400 20 735M20 60Q40 400 52 735", line=tint("#dd938f"), width=7)
    parts += [group(curtain, f"translate({x:.0f} 0) scale({side} 1)") for side, x in ((1, left), (-1, right))]
    parts.append(path(f"M{left - 130:.0f} 52H{right + 130:.0f}", line=wood, width=14))
    return "".join(parts)


def _plain(ground: Ground) -> str:
    tint, rng, width = ground.tint, ground.rng, ground.width
    hue, radius = rng.choice(["#ffd9e6", "#d9ecff", "#e3f5dc", "#ffeccc", "#e8defc"]), min(430.0, width * 0.48)
    paper = gradient("paper", (0, tint(mix(hue, "#ffffff", 0.55)), 1), (1, tint(hue), 1)) + box(-5, -5, width + 10, 1010, "url(#paper)")
    spots = zip(rng.uniform(0, width, 26), rng.uniform(0, 1000, 26), rng.uniform(6, 26, 26), strict=True)
    return paper + "".join(oval(x, y, s, s, tint("#ffffff"), opacity=0.5) for x, y, s in ((width / 2, 470, radius), *spots))


def air(traits: Traits, width: float, seed: int, moment_s: float, *, near: bool) -> str:
    """Draw the far two thirds (behind the figure) or the near third (before it) of what falls; indoors nothing does."""
    kind = traits.weather
    if kind not in FALLING or traits.place == "room":
        return ""
    rng, (count, fall, drift) = generator(seed, "weather", kind), FALLING[kind]
    parts = [gradient("spark", (0, "#f4ffb0", 0.95), (0.3, "#e2f77a", 0.5), (1, "#d8f060", 0), kind="radial")]
    for n, (a, b, c, d) in enumerate(rng.random((int(count * min(1.7, max(0.6, width / 1000))), 4))):
        if (n % 3 == 0) == near:
            size, phase = (0.75 if near else 0.4) + 0.5 * c, d * 2 * math.pi
            wander = 26 * math.sin(moment_s * (0.9 + size) + phase)
            x = (a * (width + 120) + drift * size * moment_s + wander) % (width + 120) - 60
            y = (b * 1120 + fall * size * moment_s) % 1120 - 60
            parts.append(group(_one(kind, size, phase, moment_s), f"translate({x:.1f} {y:.1f}) scale({size:.3f})"))
    return "".join(parts)


def _one(kind: str, size: float, phase: float, moment_s: float) -> str:
    """Draw one drop, flake or glow; a leaf tumbles: it turns in the plane and narrows as it turns away."""
    match kind:
        case "rain":
            return path("M0 0L-9 62", line="#e6f2ff", width=2.4, opacity=0.3 + 0.25 * size)
        case "snow":
            return oval(0, 0, 8, 8, "#ffffff", opacity=0.6 + 0.25 * size)
        case "fireflies":
            pulse = 0.55 + 0.45 * math.sin(moment_s * 2.1 + phase * 3)
            return oval(0, 0, 24, 24, "url(#spark)", opacity=pulse) + oval(0, 0, 4, 4, "#fdffe0", opacity=pulse)
    shape, first, second = (_PETAL, "#ffd3e2", "#ffb3cd") if kind == "petals" else (_LEAF, "#f2a047", "#d9603f")
    turn, thin = math.degrees(phase) + moment_s * 50, 0.45 + 0.55 * abs(math.cos(moment_s * 1.3 + phase))
    leaf = path(shape, mix(first, second, math.sin(phase * 5) * 0.5 + 0.5), opacity=0.92)
    return group(leaf, f"rotate({turn:.1f}) scale({thin:.3f} 1)")


_PLACES: Mapping[str, Callable[[Ground], str]] = {
    "cherry": _cherry, "shrine": _shrine, "forest": _forest, "city": _city, "beach": _beach, "room": _room, "plain": _plain,
}  # fmt: skip
