"""The clothes: five outfits on one body, from the neck down to the soles.

Owns the body's outline (shoulders, arms laid behind the back, skirt or robe, legs) and what lies on it, all as tables. It knows
the person only by traits. Every outfit is the same torso with its own collar and marks: the bust is what most pictures show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from toolkit.engine.ink import Shape, group, oval
from toolkit.engine.words import Traits

if TYPE_CHECKING:
    from toolkit.engine.portrait import Paint, Pose

_NECK = (
    Shape("M-25 84V168C-32 188 -58 196 -58 204L0 262L58 204C58 196 32 188 25 168V84Z", "skin", "skin_line"),
    Shape("M-25 100H25V168C26 174 28 178 31 182C6 184 -20 170 -25 152Z", "skin_shade", opacity=0.85),
    Shape("M-44 208Q-26 210 -14 220M44 208Q26 210 14 220", "none", "skin_shade"),
)


def _torso(fill: str, shade: float) -> tuple[Shape, ...]:
    return (
        Shape("M-40 176C-80 190 -112 196 -118 232C-112 280 -92 310 -86 350C-82 390 -74 410 -72 440C-76 490 -90 520 -96 560"
              "H96C90 520 76 490 72 440C74 410 82 390 86 350C92 310 112 280 118 232C112 196 80 190 40 176Z", fill, "cloth_line", 3.5),
        Shape("M118 232C112 280 92 310 86 350C82 390 74 410 72 440C76 490 90 520 96 560H50C46 470 60 330 84 214C104 212 114 220 118 232Z",
              "cloth_shade", opacity=shade),
        Shape("M-86 350C-60 372 -30 380 -8 378M86 350C64 368 48 374 30 376M-70 440C-40 452 0 456 30 450", "none", "cloth_line", 2.5, 0.4), *_NECK,
    )  # fmt: skip


_OUTFITS: Mapping[str, Sequence[Shape]] = {
    "uniform": (
        *_torso("trim", 0.25),
        Shape("M-62 182C-100 190 -104 220 -100 262L-66 272L0 348L66 272L100 262C104 220 100 190 62 182L0 300Z", "cloth", "cloth_line"),
        Shape("M-88 258L-60 262L0 332L60 262L88 258", "none", "trim", 5),
        Shape("M-6 330L-34 420L-8 408L0 340L12 412L36 416L8 330Z", "accent", "accent_shade", root=330),
        Shape("M0 318C-24 290 -62 292 -60 322C-58 348 -24 344 0 326C24 344 58 348 60 322C62 292 24 290 0 318Z", "accent", "accent_shade"),
        Shape("M0 323V325", "none", "accent_shade", 24),
    ),
    "kimono": (
        *_torso("cloth", 0.7), Shape("M66 186L38 180L-40 372L-4 372Z", "trim", "cloth_line"),
        Shape("M-112 240L-70 190L36 424H-78L-84 350Z", "cloth"), Shape("M-66 186L-38 180L66 424H34Z", "trim", "cloth_line"),
        Shape("M-84 287V294M-77 303L-75 307M-91 303L-93 307M78 249V256M85 265L87 269M71 265L69 269"
              "M90 327V334M97 343L99 347M83 343L81 347M-58 379V386M-51 395L-49 399M-65 395L-67 399", "none", "trim", 12),
        Shape("M-84 300h.1M78 262h.1M90 340h.1M-58 392h.1", "none", "#ffd05e", 8),
        Shape("M-80 420Q0 436 80 420L86 520Q0 536 -86 520Z", "accent", "accent_shade"), Shape("M-82 468Q0 484 82 468", "none", "#ffd98a", 8),
    ),
    "hoodie": (
        *_torso("cloth", 0.7),
        Shape("M-40 150C-96 158 -120 196 -100 226C-70 262 -30 286 0 292C30 286 70 262 100 226C120 196 96 158 40 150"
              "C62 190 40 236 0 250C-40 236 -62 190 -40 150Z", "cloth", "cloth_line", 3.5),
        Shape("M-88 226C-60 256 -26 276 0 280C26 276 60 256 88 226", "none", "cloth_shade", 5),
        Shape("M-30 268Q-32 320 -28 350M30 268Q34 316 30 340", "none", "badge", 6, root=268),
        Shape("M0 338l12 26 28 3-21 19 6 28-25-14-25 14 6-28-21-19 28-3z", "badge", opacity=0.9),
        Shape("M-58 452H58L72 540H-72Z", "cloth_shade", "cloth_line", 2.5, 0.7),
    ),
    "dress": (
        Shape("M-25 84V160C-30 186 -56 190 -80 198C-104 206 -118 218 -118 244L-92 300H92L118 244C118 218 104 206 80 198C56 190 30 186 25 160V84Z", "skin"),
        *_NECK[1:], Shape("M-76 272L-66 188M76 272L66 188", "none", "cloth", 15),
        Shape("M-25 100V160C-30 186 -56 190 -80 198M25 100V160C30 186 56 190 80 198M-104 262Q-94 280 -94 304M104 262Q94 280 94 304", "none", "skin_line"),
        Shape("M-92 262H92C92 310 84 330 84 350C82 390 74 410 72 440C76 490 90 520 96 560H-96C-90 520 -76 490 -72 440C-74 410 -82 390 -84 350"
              "C-84 330 -92 310 -92 262Z", "cloth", "cloth_line", 3.5),
        Shape("M-92 264" + "q11.5 22 23 0" * 8, "trim", "trim", 6),
        Shape("M0 330C-18 308 -46 312 -44 332C-42 352 -16 348 0 334C16 348 42 352 44 332C46 312 18 308 0 330Z", "accent", "accent_shade"),
        Shape("M-74 420Q0 436 74 420L74 454Q0 470 -74 454Z", "accent", "accent_shade"),
    ),
    "jacket": (
        *_torso("cloth", 0.7), Shape("M-46 182L0 420L46 182L0 230Z", "trim", "cloth_line", 2.5),
        Shape("M-13 226H13L9 250L20 372L0 396L-20 372L-9 250Z", "accent", "accent_shade"),
        Shape("M-40 170L-52 200L-22 246L0 222L22 246L52 200L40 170L0 222Z", "trim", "cloth_line", 2.5),
        Shape("M-54 184L-84 214L-70 262L-88 280L-2 440L2 432L-46 200ZM54 184L84 214L70 262L88 280L2 440L-2 432L46 200Z", "cloth_shade", "cloth_line"),
        Shape("M10 470h.1M10 516h.1", "none", "#f2d27a", 12),
    ),
}  # fmt: skip
_SCARF = (
    Shape("M30 226L74 218C84 280 92 340 84 400L34 404C44 340 40 280 30 226Z", "accent_shade", "accent_shade", root=226),
    Shape("M35 384L85 380", "none", "trim", 8, root=226),
    Shape("M-66 146C-104 176 -92 220 -58 238C-20 258 30 256 64 236C96 216 100 172 66 146C40 176 -36 178 -66 146Z", "accent", "accent_shade", 3.5),
    Shape("M-60 200C-30 220 30 222 66 196M-50 178C-20 196 30 198 58 176", "none", "accent_shade", 3.5, 0.7),
)
_SLEEVE = "M84 196C130 198 142 236 148 300C156 400 156 470 128 560L84 580C104 480 100 380 88 300Z"
_WIDE_SLEEVE = "M84 196C132 200 150 250 168 330C188 430 190 560 176 640C140 660 100 640 84 600C100 480 98 380 88 300Z"
_SLEEVE_SHADE = Shape("M148 300C156 400 156 470 128 560L110 568C130 480 138 400 134 280Z", "cloth_shade", opacity=0.3)
_ROBE = (
    Shape("M-92 520C-110 700 -112 900 -104 1190L104 1190C112 900 110 700 92 520Z", "cloth", "cloth_line", 3.5),
    Shape("M10 540C20 760 26 980 20 1190M-40 700C-46 900 -44 1000 -46 1190", "none", "cloth_line", 3, 0.6),
)
_TROUSERS = Shape("M-96 540C-98 600 -96 640 -92 680H-4L0 640L4 680H92C96 640 98 600 96 540Z", "dark", "cloth_line")
_LEG = "M8 600C6 800 22 900 26 1195H62C66 950 92 800 88 580Z"
_SOCK = Shape("M17 870Q20 1000 26 1195H62Q66 1000 80 862Z", "dark", "ink", 2.5)
_SHOE = Shape("M18 1240Q16 1185 44 1184Q74 1186 84 1240Z", "shoe", "ink", 2.5)


def worn(traits: Traits, colours: Paint, at: Pose) -> str:
    """Draw the body with what it wears."""
    sleeve, line = {"uniform": ("trim", "cloth_line"), "dress": ("skin", "skin_line")}.get(traits.clothes, ("cloth", "cloth_line"))
    arm = [Shape(_WIDE_SLEEVE if traits.clothes == "kimono" else _SLEEVE, sleeve, line, 3.5)]
    arm += [] if traits.clothes in ("kimono", "dress") else [_SLEEVE_SHADE]
    boy = traits.person == "boy"
    leg = [Shape(_LEG, "dark", "cloth_line", 2.5), _SHOE] if boy else [Shape(_LEG, "skin", "skin_line", 2.5), _SOCK, _SHOE]
    below = _ROBE if traits.clothes == "kimono" else (_TROUSERS,) if boy else _skirt(traits.clothes)
    scarf = _SCARF if traits.ornament == "scarf" else ()
    body = _both(arm, colours, at) + at.shapes((*below, *_OUTFITS[traits.clothes], *scarf), colours)
    legs = oval(0, 1240, 170, 20, "#1a1838", opacity=0.25) + _both(leg, colours, at)
    return legs + group(body, f"translate(0 -20) scale({1.1 if boy else 1:g} 1)")


def _both(rows: Sequence[Shape], colours: Paint, at: Pose) -> str:
    """Draw what a body has twice, given for the right of the picture."""
    return "".join(group(at.shapes(rows, colours), f"scale({side} 1)") for side in (-1, 1))


def _skirt(clothes: str) -> Sequence[Shape]:
    low, wide = (860, 190) if clothes == "dress" else (720, 150)
    edge = f"M-82 500C-100 590 -120 {low - 60} {-wide} {low}Q0 {low + 34} {wide} {low}C120 {low - 60} 100 590 82 500Z"
    pleats = "".join(f"M{x * 0.5:.0f} 520Q{x * 0.8:.0f} {low - 120} {x} {low + 10}" for x in range(-120, 121, 40))
    fill = "dark" if clothes == "hoodie" else "cloth"
    return Shape(edge, fill, "cloth_line", 3.5, root=500), Shape(pleats, "none", "cloth_line", 2.5, 0.5, root=500)
