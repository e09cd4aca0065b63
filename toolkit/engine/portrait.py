"""The figure: one anime girl or boy, head and body, as an expression, a haircut, the second and the wind move them.

Owns the colours the figure is painted with, its pose at a moment (`Pose`, with the wind), face and hair, and the order of the
layers, back to front. It knows no scene but the light it stands in. Its unit: the head is 250 high, its middle is at (0, 0), the
soles are at 1245; whoever frames the picture scales that. Most shapes are rows of tables; the pose moves what hangs. Eyes are
drawn open and pressed together towards their lower lid, so that a blink is one number; both look at the same light, so highlights
are not mirrored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolkit.engine import clothes
from toolkit.engine.ink import Point, Shape, gradient, group, lit, mix, oval, path
from toolkit.engine.words import Traits, generator

Paint = Mapping[str, str]

_COLOURS: Mapping[str, tuple[str, str, str]] = {  # of hair, eyes and cloth
    "silver": ("#d5dcec", "#93a5c4", "#b9bfd2"), "white": ("#e4e6f2", "#a9b4cc", "#f6f4fa"), "black": ("#4a4763", "#4d4a63", "#3d3a52"),
    "navy": ("#56639f", "#3f5aa8", "#3b4a86"), "brown": ("#96664f", "#a5643c", "#99684c"), "blonde": ("#f8d77e", "#e8b62e", "#f0c95c"),
    "red": ("#d9534f", "#dc3d4b", "#d64a50"), "orange": ("#f29a4f", "#ee8a2a", "#ee9450"), "pink": ("#f9a9c4", "#ee5f9c", "#f29bb8"),
    "purple": ("#a98be0", "#8f5fdc", "#8d70cc"), "blue": ("#6d9ff0", "#3d86ee", "#5488dc"), "aqua": ("#74d3d6", "#25b3c4", "#54bcc2"),
    "green": ("#83c48b", "#3aae67", "#58a878"),
}  # fmt: skip
_CONTRASTS: Mapping[str, str] = {"red": "#3f5fb0", "pink": "#8d70cc", "orange": "#3f8f8a"}
_SKINS: Mapping[str, tuple[str, str]] = {"fair": ("#ffe8dc", "#f6bfae"), "tan": ("#f0c29c", "#d3916f"), "dark": ("#b57a58", "#8b5540")}


@dataclass(frozen=True, slots=True)
class _Mood:
    mouth: str
    lids: float = 1.0  # how far the eyes open; above 1 is wide
    brow_lift: float = 0.0
    brow_tilt: float = 0.0  # degrees; positive lowers the inner ends
    blush: float = 0.35
    iris: float = 1.0
    shut: tuple[int, ...] = ()  # 1 is the eye to the right in the picture


_MOODS: Mapping[str, _Mood] = {
    "smile": _Mood("smile", blush=0.6), "laugh": _Mood("open", lids=1.02, brow_lift=6, blush=0.8), "wink": _Mood("open", blush=0.7, shut=(1,)),
    "angry": _Mood("frown", lids=0.9, brow_lift=-8, brow_tilt=22), "sad": _Mood("frown", lids=0.82, brow_tilt=-13),
    "crying": _Mood("wavy", lids=0.9, brow_tilt=-17, blush=0.9), "surprised": _Mood("round", lids=1.1, brow_lift=14, iris=0.64),
    "shy": _Mood("wavy", lids=0.93, brow_tilt=-9, blush=1.0), "smug": _Mood("cat", lids=0.8, brow_tilt=5),
    "serious": _Mood("flat", lids=0.9, blush=0.15), "asleep": _Mood("smile", brow_tilt=-4, shut=(-1, 1)),
}  # fmt: skip
_MOUTHS: Mapping[str, Sequence[Shape]] = {
    "smile": (Shape("M-17 86Q0 101 17 86", "none", "lip", 3.4), Shape("M-6 101Q0 104 6 101", "none", "skin_shade", 2.4)),
    "frown": (Shape("M-13 95Q0 84 13 95", "none", "lip", 3.4),),
    "flat": (Shape("M-11 90Q0 92 11 90", "none", "lip", 3.4),),
    "wavy": (Shape("M-15 93Q-8 85 0 91T15 89", "none", "lip", 3.4),),
    "cat": (Shape("M-17 86Q-11 96 -1 88Q9 97 19 83", "none", "lip", 3.4),),
    "open": (
        Shape("M-22 82Q0 88 22 82Q20 112 0 112Q-20 112 -22 82Z", "#9c3347", "lip"),
        Shape("M-19 84Q0 90 19 84Q18 91 0 92Q-18 91 -19 84Z", "white"), Shape("M-5 105H5", "none", "#f48a94", 12),
    ),
    "round": (Shape("M-8 94a8 10 0 1 0 16 0a8 10 0 1 0 -16 0Z", "#9c3347", "lip"), Shape("M-1 99H1", "none", "#f48a94", 8)),
}  # fmt: skip
_MARKS: Mapping[str, Sequence[Shape]] = {
    "shy": (Shape("M-74 70l6 -11M-62 71l6 -11M-50 70l6 -11M46 70l6 -11M58 71l6 -11M70 70l6 -11", "none", "#e8566f", 2.5, 0.7),),
    "angry": tuple(Shape("M-68 -115Q-71 -101 -85 -103M-60 -114Q-63 -100 -48 -98M-72 -78Q-69 -92 -84 -94M-64 -77Q-61 -91 -47 -89", "none", *pen)
                   for pen in (("white", 11.0), ("#e0344a", 5.0))),
    "crying": (Shape("M-58 60Q-46 82 -58 88Q-70 82 -58 60ZM58 66Q70 88 58 94Q46 88 58 66ZM-66 55Q-50 62 -30 57M66 55Q50 62 30 57", "#cfeaff", "#9fcdf2", 2.5),),
}  # fmt: skip
_SKULL = (
    Shape("M-102 -30C-104 20 -99 48 -76 76C-54 101 -18 123 0 123C18 123 54 101 76 76C99 48 104 20 102 -30C104 -108 60 -142 0 -142C-60 -142 -104 -108 -102 -30Z",
          "skin", "skin_line"),
    Shape("M-60 92C-42 109 -14 123 0 123C18 123 54 101 76 76C92 56 100 34 101 4C94 46 76 72 50 90C26 106 -30 110 -60 92Z", "skin_shade", opacity=0.35),
    Shape("M-1 62Q4 67 0 70", "none", "skin_line", 2.4),
)  # fmt: skip
_LASHES: Mapping[str, str] = {
    "girl": "M-30 6C-27 -24 -9 -43 8 -43C24 -43 34 -27 38 -16L46 -22Q45 -13 39 -7L45 -9C42 -2 37 3 31 6C31 -13 21 -31 6 -31C-8 -31 -21 -20 -25 -1Z",
    "boy": "M-29 7C-25 -24 -8 -40 8 -40C24 -40 33 -20 35 -4L32 4C30 -14 20 -32 6 -32C-8 -32 -20 -20 -25 4Z",
}
_EYEBALL = Shape("M-28 8C-25 -20 -10 -35 5 -36C20 -36 30 -16 31 0C28 18 18 30 2 31C-14 31 -24 22 -28 8Z", "eyeball")
_LIDS = (
    Shape("M-27 2C-22 -22 -8 -35 5 -35C20 -35 28 -18 30 -2C22 -16 14 -23 4 -23C-8 -23 -20 -12 -27 2Z", "#8f94bf", opacity=0.5),
    Shape("M29 10Q18 30 2 31", "none", "ink", 2.2), Shape("M-12 29Q-4 32 2 31", "none", "ink", 1.4, 0.6),
    Shape("M-16 -48Q6 -56 28 -43", "none", "skin_line", 2),
)  # fmt: skip
_CLOSED = (Shape("M-27 8Q0 32 28 8L37 10", "none", "ink", 5.5), Shape("M17 19L22 26M4 22L5 29", "none", "ink"))
_EARS: Mapping[str, tuple[Sequence[Shape], str]] = {  # shapes and where the right one stands
    "cat": ((Shape("M-52 0C-62 -60 -40 -116 -18 -132C12 -110 44 -60 50 0Z", "hair", "hair_line"),
             Shape("M-30 -8C-36 -50 -26 -84 -14 -100C4 -84 24 -50 28 -8Z", "inner")), "translate(78 -118) rotate(20)"),
    "fox": ((Shape("M-56 0C-70 -80 -44 -160 -12 -186C24 -150 54 -80 56 0Z", "hair", "hair_line"),
             Shape("M-32 -8C-42 -66 -26 -118 -10 -140C10 -116 32 -66 32 -8Z", "inner"),
             Shape("M-44 -118C-38 -150 -26 -176 -12 -186C8 -170 28 -142 38 -112C20 -126 8 -120 -6 -134C-16 -118 -30 -126 -44 -118Z", "hair_line")),
            "translate(80 -112) rotate(22)"),
    "rabbit": ((Shape("M-34 0C-60 -110 -52 -240 -8 -262C36 -240 44 -110 34 0Z", "hair", "hair_line"),
                Shape("M-18 -10C-36 -100 -30 -200 -8 -222C16 -200 22 -100 18 -10Z", "inner")), "translate(58 -130) rotate(14)"),
    "none": ((Shape("M98 0C112 -20 122 -4 118 24C114 48 104 56 96 52Z", "skin", "skin_line"),
              Shape("M106 14Q114 22 104 40", "none", "skin_shade")), "scale(1 1)"),
}  # fmt: skip
_ORNAMENTS: Mapping[str, tuple[Sequence[Shape], str]] = {
    "ribbon": ((Shape("M-4 4Q-22 34 -34 62L-14 58L-8 70Q0 40 6 4Z", "accent_shade", "ink", 2.5, root=-30),
                Shape("M0 0C-20 -38 -58 -40 -60 -14C-62 16 -30 20 0 0C20 -38 58 -40 60 -14C62 16 30 20 0 0Z", "accent", "ink", 2.5),
                Shape("M0 -3V-1", "none", "accent_shade", 22)), "translate(92 -112) rotate(28)"),
    "flower": ((Shape("M0 -21V-15M20 -6L14 -5M12 17L9 12M-12 17L-9 12M-20 -6L-14 -5", "none", "trim", 25), Shape("M0 0h.1", "none", "#ffc94d", 19)),
               "translate(96 -78) scale(1.15)"),
    "glasses": ((Shape("M-49 -6a38 33 0 1 0 .1 0ZM49 -6a38 33 0 1 0 .1 0Z", "#ffffff", opacity=0.13),
                 Shape("M-49 -6a38 33 0 1 0 .1 0ZM49 -6a38 33 0 1 0 .1 0ZM-11 18Q0 11 11 18M-87 16L-102 8M87 16L102 8", "none", "ink", 4)), "scale(1 1)"),
}  # fmt: skip
_BANGS: Mapping[str, tuple[float, Sequence[Point]]] = {  # the parting, and tips from the left temple to the right one
    "soft": (0, ((-92, 40), (-62, -2), (-30, 6), (2, 28), (34, 2), (64, 0), (94, 42))),
    "parted": (-38, ((-96, 46), (-74, 2), (-46, -18), (18, 10), (48, 14), (76, 10), (97, 48))),
    "straight": (0, ((-90, 30), (-64, -4), (-38, -2), (-12, 2), (14, 2), (40, -2), (66, -4), (91, 30))),
    "spiky": (18, ((-98, 34), (-70, -6), (-38, 12), (-14, -14), (22, 24), (48, -10), (74, 4), (99, 36))),
}
_ENDS: Mapping[str, tuple[float, float]] = {"short": (130, 92), "medium": (235, 168), "long": (520, 268)}  # of mane and side locks
_TAIL = (  # the right one of the tails, bound at (120, -90)
    Shape("M100 -96C200 -130 236 20 206 206C198 299 196 337 222 374C170 367 150 352 152 314C140 337 128 322 124 299C140 187 120 40 104 -60Z",
          "url(#cap)", "hair_line", 3.5, root=-60),
    Shape("M120 -80C180 -60 190 60 172 262M112 -70C150 -30 160 60 146 243", "none", "hair_line", 2.5, 0.6, root=-60),
    Shape("M196 -40Q216 20 200 80Q204 20 196 -40Z", "hair_light", root=-60),
)  # fmt: skip
_AHOGE = Shape("M-8 -150C-8 -206 14 -226 52 -214C28 -208 12 -194 14 -150Z", "hair", "hair_line")
_SHINE = (
    "M-104 -52Q-86 -96 -46 -110L-40 -100L-30 -114Q-8 -119 12 -117L10 -104L22 -116Q42 -113 56 -105L46 -82L36 -93L24 -76L12 -96L-4 -82L-14 -98L-30 -76"
    "L-42 -92L-54 -62L-64 -80L-76 -48L-86 -66ZM70 -98Q94 -82 104 -54L92 -64L86 -50L78 -74L68 -64Z"
)


@dataclass(frozen=True, slots=True)
class Pose:
    """Where everything is at one second of a clip; sways are in the figure's units, openness is 0..1."""

    moment_s: float
    openness: float
    breath: float
    tilt: float
    gaze: Point

    def sway(self, depth: float, phase: float = 0.0) -> float:
        """Tell how far the wind has carried a strand sideways, growing with its depth below the root."""
        slow = math.sin(self.moment_s * 1.9 - depth / 170 + phase)
        return (slow + 0.35 * math.sin(self.moment_s * 4.1 - depth / 90 + phase * 2)) * max(0.0, depth) * 0.034

    def blown(self, d: str, root: float) -> str:
        """Let the wind carry every point of a path that lies below its root; the path has absolute `x y` pairs only."""
        return re.sub(r"(-?[\d.]+) (-?[\d.]+)", lambda pair: f"{float(pair[1]) + self.sway(float(pair[2]) - root, float(pair[1]) / 190):.1f} {pair[2]}", d)

    def shapes(self, rows: Iterable[Shape], colours: Paint) -> str:
        """Draw the rows of a table at this moment."""
        parts = []
        for d, fill, line, width, opacity, root in rows:
            moved = d if root is None else self.blown(d, root)
            parts.append(path(moved, colours.get(fill, fill), line=colours.get(line, line), width=width, opacity=opacity))
        return "".join(parts)


def paint(traits: Traits, light: tuple[float, float, float]) -> Paint:
    """Mix the figure's colours, softening the light: a face must stay readable at night."""
    (skin, shade), hair = _SKINS[traits.skin], _COLOURS[traits.hair_color][0]
    eye, cloth = _COLOURS[traits.eye_color][1], _COLOURS[traits.clothes_color][2]
    worn = _COLOURS[traits.accent_color][2] if traits.accent_color in _COLOURS else _CONTRASTS.get(traits.clothes_color, "#e0525f")
    red, green, blue = (1 - (1 - factor) * 0.3 for factor in light)
    skin, shade, eye, white = (lit(colour, (red, green, blue)) for colour in (skin, shade, eye, "#ffffff"))
    red, green, blue = (1 - (1 - factor) * 0.62 for factor in light)
    hair, cloth, accent, trim = (lit(colour, (red, green, blue)) for colour in (hair, cloth, worn, "#fffaf4"))
    line, cloth_line = mix(shade, "#8a3b3b", 0.5), mix(cloth, "#221a40", 0.6)
    return {
        "skin": skin, "skin_shade": shade, "skin_line": line, "lip": mix(line, "#6b1f2e", 0.45), "blush": mix(shade, "#ff4f6a", 0.6),
        "hair": hair, "hair_shade": mix(hair, "#4a2f78", 0.3), "hair_light": mix(hair, "#ffffff", 0.55), "hair_line": mix(hair, "#2b1c47", 0.62),
        "eye": eye, "pupil": mix(eye, "#140f38", 0.72), "glint": mix(eye, "#ffffff", 0.62), "white": white, "eyeball": mix(white, "#dfe6f7", 0.25),
        "ink": mix(mix(hair, "#2b1a30", 0.8), "#2b1a30", 0.4), "inner": mix(mix(skin, shade, 0.55), "#ff9fb0", 0.25),
        "cloth": cloth, "cloth_shade": mix(cloth, "#38306e", 0.28), "cloth_line": cloth_line, "dark": mix(cloth_line, "#2a2f4f", 0.5),
        "trim": trim, "badge": accent if traits.clothes_color in ("white", "silver") else trim,
        "accent": accent, "accent_shade": mix(accent, "#38206e", 0.35), "shoe": "#4d2f33",
    }  # fmt: skip


def pose(traits: Traits, seed: int, moment_s: float) -> Pose:
    """Find the figure at a moment: breathing every 3.6 s, a blink about every 3 s, the head leaning slowly."""
    rng = generator(seed, "pose")
    lean, start, beat = rng.uniform(-5, 5), rng.uniform(1.1, 2.2), rng.uniform(2.6, 3.4)
    since = (moment_s - start) % beat if moment_s >= start else 1.0
    openness = min(1.0, abs(1 - since / 0.13)) if since < 0.26 else 1.0
    breath = math.sin(moment_s * 2 * math.pi / 3.6)
    return Pose(moment_s, openness, breath, lean + 1.3 * math.sin(moment_s * 0.9), (1.5 * math.sin(moment_s * 0.7), 0.8 * math.sin(moment_s * 0.5)))


def figure(traits: Traits, colours: Paint, at: Pose, seed: int) -> str:
    """Draw the whole figure, back to front."""
    bangs, end, spread, ahoge = _cut(traits, seed)
    turn = f"translate(0 {at.breath * 1.8:.2f}) rotate({at.tilt:.2f} 0 130)"
    body = group(clothes.worn(traits, colours, at), f"translate(0 {at.breath * 1.1:.2f})")
    lock = group(at.shapes([_AHOGE], colours), f"rotate({at.sway(150):.2f} 3 -150)") if ahoge else ""
    front = group(_front(traits, bangs, lock, colours, at), turn)
    return _gradients(colours) + group(_behind(traits, end, spread, colours, at), turn) + body + front


def _gradients(colours: Paint) -> str:
    eye, hair, shade, blush = colours["eye"], colours["hair"], colours["hair_shade"], colours["blush"]
    deep, light = mix(eye, "#140f38", 0.68), mix(hair, colours["hair_light"], 0.4)
    return (
        gradient("iris", (0, deep, 1), (0.42, mix(eye, deep, 0.3), 1), (0.75, eye, 1), (1, mix(eye, "#ffffff", 0.5), 1))
        + gradient("cap", (0, mix(hair, shade, 0.35), 1), (0.45, hair, 1), (1, light, 1))
        + gradient("mane", (0, shade, 1), (0.6, mix(hair, shade, 0.55), 1), (1, hair, 1))
        + gradient("blush", (0, blush, 0.75), (1, blush, 0), kind="radial")
    )


def _cut(traits: Traits, seed: int) -> tuple[str, float, float, bool]:
    """Choose what of the haircut the words leave open: the kind of bangs, where long hair ends, how far it spreads, whether a lock stands up."""
    rng = generator(seed, "cut")
    kinds = ("spiky", "parted", "soft") if traits.person == "boy" else ("soft", "parted", "straight", "soft")
    return str(rng.choice(kinds)), _ENDS[traits.hair_length][0] + rng.uniform(-10, 10), rng.uniform(0.94, 1.08), bool(rng.random() < 0.6)


def _behind(traits: Traits, long: float, spread: float, colours: Paint, at: Pose) -> str:
    """Draw the hair behind neck and shoulders, and the tails."""
    sides = {"twintails": (-1, 1), "ponytail": (1,)}.get(traits.hair_style, ())
    end, narrow = (34.0, True) if sides else (long, traits.person == "boy")
    edge, strands = _mane(end, (122 if narrow else 138 + max(0.0, end - 140) * 0.09) * spread)
    mane = (Shape(edge, "url(#mane)", "hair_line", 3.5, root=0), Shape(strands, "none", "hair_line", 2.5, 0.5, root=0))
    tail = group(at.shapes(_TAIL, colours), f"translate(0 -90) scale(1 {(max(long * 0.72, 190.0) + 90) / 464:.3f}) translate(0 90)")
    tail += path("M112 -124q30 -4 40 20q6 28 -22 44q-26 -16 -18 -64z", colours["accent"], line=colours["ink"])
    return "".join(group(tail, f"scale({side} 1)") for side in sides) + at.shapes(mane, colours)


def _mane(end: float, wide: float) -> tuple[str, str]:
    """Give the edge of the long hair, pointed at its end, and the lines between its strands."""
    count, lift, strands = 7 if end > 200 else 6, max(20.0, end * 0.11), ""
    tips = [(wide * (2 * n / count - 1), end + (18 if n % 2 else -12)) for n in range(count + 1)]
    tips = [(x * 1.04, y - 30 * (x / wide) ** 2) for x, y in tips]
    edge = f"M-60 -150C-150 -130 -140 0 {-wide * 0.95:.1f} {end * 0.45:.1f}Q{-wide:.1f} {end * 0.75:.1f} {tips[0][0]:.1f} {tips[0][1]:.1f}"
    for x, y in tips[1:]:
        gap = x / 1.04 - wide / count
        edge += f"Q{gap - 6:.1f} {y - 8:.1f} {gap:.1f} {y - lift:.1f}Q{gap + 6:.1f} {y - 8:.1f} {x:.1f} {y:.1f}"
        strands += f"M{gap:.1f} {y - lift:.1f}Q{gap:.1f} {y - lift - end * 0.15:.1f} {gap * 0.9:.1f} {end * 0.42:.1f}"
    return edge + f"Q{wide:.1f} {end * 0.75:.1f} {wide * 0.95:.1f} {end * 0.45:.1f}C140 0 150 -130 60 -150Z", strands


def _front(traits: Traits, bangs: str, ahoge: str, colours: Paint, at: Pose) -> str:
    """Draw face and ears, the cap of hair over them, and what lies on the hair."""
    mood, (edge, lines) = _MOODS[traits.expression], _bangs(bangs)
    shade = Shape(f"M99 -40L97 -20{edge}L-97 -20L-99 -40C-90 -90 90 -90 99 -40Z", "skin_shade", opacity=0.75, root=-20)
    end = min(_ENDS[traits.hair_length][1], 150 if traits.hair_style == "twintails" else 999) * (0.6 if traits.person == "boy" else 1.0)
    locks = (Shape(_lock(side, end), "url(#cap)", "hair_line", 3, root=-20) for side in (-1, 1))
    cap = f"M-114 52C-146 -70 -104 -172 0 -172C104 -172 146 -70 114 52C108 30 104 0 98 -24{edge}Q-100 -10 -102 6Q-106 34 -114 52Z"
    hair = (Shape(cap, "url(#cap)", "hair_line", 3.5, root=-20), Shape(lines, "hair_line", opacity=0.6), Shape(_SHINE, "hair_light", opacity=0.7))
    (ears, place), animal = _EARS[traits.ears], traits.ears != "none"
    twitch = animal * (7 * max(0.0, math.sin(at.moment_s * 2.3)) ** 12 + at.sway(60))
    parts = [group(at.shapes(ears, colours), f"scale({side} 1) {place} rotate({twitch:.2f})") for side in (-1, 1)]
    parts += [at.shapes(_SKULL, colours), group(at.shapes([shade], colours), "translate(0 16) scale(0.96 1)"), _features(traits, mood, colours, at)]
    brow = path("M-23 3Q0 -8 25 3", line=colours["hair_line"], width=6.5 if traits.person == "boy" or mood.brow_tilt > 10 else 4.6, opacity=0.9)
    brows = (group(brow, f"translate({s * 49} {-34 - mood.brow_lift:g}) rotate({s * -mood.brow_tilt:g})") for s in (-1, 1))
    marks, (ornament, where) = at.shapes(_MARKS.get(traits.expression, ()), colours), _ORNAMENTS.get(traits.ornament, ((), ""))
    return "".join((*parts, ahoge, at.shapes((*locks, *hair), colours), *brows, marks, group(at.shapes(ornament, colours), where)))


def _bangs(kind: str) -> tuple[str, str]:
    """Give the edge of the bangs from the right temple to the left one, and the lines between the strands."""
    (part, tips), edge, lines = _BANGS[kind], "", ""
    for (x, y), left in zip(reversed(tips), [*reversed(tips[:-1]), None], strict=True):
        side = 1 if x > part else -1
        edge += f"Q{x + 9 + side * 3:.1f} {y - 22:.1f} {x:.1f} {y:.1f}"
        if left:
            vx, vy = (x + left[0]) / 2, min(y, left[1]) - 34
            bend, top = part + (vx - part) * 0.9, part + (vx - part) * 0.4
            edge += f"Q{(x + vx) / 2 - 3 + side * 2:.1f} {y - 12:.1f} {vx:.1f} {vy:.1f}"
            lines += f"M{vx - 1.6:.1f} {vy - 2:.1f}Q{bend - 1:.1f} {vy - 50:.1f} {top:.1f} -146Q{bend + 2:.1f} {vy - 50:.1f} {vx + 1.8:.1f} {vy - 2:.1f}Z"
    return edge, lines


def _lock(side: int, end: float) -> str:
    """Give a strand before the ear: a belly bent outwards, one pointed tip."""
    x, bend, half, middle = side * 103, side * 117.5, 22, (end - 52) / 2
    return (
        f"M{x - half} -52C{bend - half * 1.25:.1f} {middle - 20:.1f} {bend - half:.1f} {middle + 20:.1f} {side * 108} {end:.1f}"
        f"C{bend + half:.1f} {middle + 30:.1f} {bend + half * 1.25:.1f} {middle - 10:.1f} {x + half} -52Z"
    )


def _features(traits: Traits, mood: _Mood, colours: Paint, at: Pose) -> str:
    """Draw what is in the face, below the hair."""
    parts = [oval(x, 66, 27, 15, "url(#blush)", opacity=mood.blush) for x in (-62, 62)] + [at.shapes(_MOUTHS[mood.mouth], colours)]
    for side in (-1, 1):
        lids = mood.lids * at.openness * (0.84 if traits.person == "boy" else 1.0)
        if side in mood.shut or lids < 0.22:
            happy = len(mood.shut) == 1
            eye = path("M-27 16Q0 -18 29 14L36 10", line=colours["ink"], width=5.5) if happy and lids >= 0.22 else at.shapes(_CLOSED, colours)
            parts.append(group(eye, f"translate({side * 47} 26) scale({side} 1)"))
            continue
        frame = at.shapes([_EYEBALL], colours) + _iris(side, mood.iris, colours, at)
        frame += at.shapes((Shape(_LASHES["boy" if traits.person == "boy" else "girl"], "ink"), *_LIDS), colours)
        parts.append(group(frame, f"translate({side * 47} 42) scale({side} {lids:.3f}) rotate({-mood.brow_tilt * 0.45:.2f}) translate(0 -16)"))
    return "".join(parts)


def _iris(side: int, size: float, colours: Paint, at: Pose) -> str:
    """Draw iris and lights; they are mirrored back, so that both eyes face the same light and look the same way."""
    parts = [
        oval(0, 0, 24, 32, colours["pupil"]), oval(0, 0.6, 21.8, 29.6, "url(#iris)"), oval(0, -2, 10, 14.7, colours["pupil"]),
        path("M-17.3 11.5Q0 39.7 17.3 11.5Q0 27.5 -17.3 11.5Z", colours["glint"], opacity=0.85),
        oval(-8.6, -13.4, 8.9, 9.9, colours["white"]), oval(10.1, 12.8, 4.8, 5.1, colours["white"], opacity=0.95),
    ]  # fmt: skip
    return group(parts, f"scale({side} 1) translate({side * 0.5 + at.gaze[0]:.2f} {at.gaze[1] - 2.5:.2f}) scale({size})")
