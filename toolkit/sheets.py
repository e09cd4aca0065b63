"""Contact sheets: many pictures on one, in rows and columns that say what they are.

Owns layout, type and colours of a sheet. Knows no job: labels and pictures come in, a PNG goes out. The letters are Pillow's own, so that a
sheet looks the same on every machine.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

SIDE_LIMIT = 6000  # pixels of a sheet
CELL, CELL_LEAST, GAP, EDGE = 256, 64, 10, 24
GROUND, INK, MUTED, FAULT = "#fbfafc", "#2c2636", "#756d82", "#b3362b"
TITLE, LABEL, NOTE = 20, 15, 13  # pixels of type
ROW_CHARACTERS = 18

Picture: TypeAlias = "Image.Image | str"
"""A cell: its picture, or what there is to say instead."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What stands on a sheet; `cells` are keyed by the places of their row and column."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Mapping[tuple[int, int], Picture]
    row_axis: str = ""
    column_axis: str = ""
    captions: Mapping[tuple[int, int], str] | None = None

    def draw(self) -> Image.Image:
        """The sheet as an RGB picture of at most 6000 pixels a side."""
        from PIL import Image, ImageDraw

        width, height = self._cell_size()
        left = EDGE + (max((_text_width(line, LABEL) for row in self.rows for line in _lines(row)), default=0) + GAP if any(self.rows) else 0)
        left = max(left, EDGE + _text_width(self.row_axis, NOTE) + GAP) if self.row_axis else left
        below = NOTE + GAP if self.captions else 0
        top = EDGE + TITLE + GAP * 2 + (LABEL + GAP if any(self.columns) else 0) + (NOTE + GAP if self.row_axis or self.column_axis else 0)
        wide = max(left + len(self.columns) * (width + GAP) - GAP, EDGE + _text_width(self.title, TITLE)) + EDGE
        sheet = Image.new("RGB", (wide, top + len(self.rows) * (height + below + GAP) - GAP + EDGE), GROUND)
        pen = ImageDraw.Draw(sheet)
        self._write_heads(pen, left, top, width, height + below)
        for (row, column), picture in self.cells.items():
            at = left + column * (width + GAP), top + row * (height + below + GAP)
            _place(sheet, pen, picture, (*at, width, height))
            if self.captions:
                pen.text((at[0] + width / 2, at[1] + height + 3), self.captions.get((row, column), ""), MUTED, _font(NOTE), anchor="ma")
        return sheet

    def _cell_size(self) -> tuple[int, int]:
        """As large as fits, in the shape of the first picture."""
        sizes = [picture.size for picture in self.cells.values() if not isinstance(picture, str)]
        wide, high = sizes[0] if sizes else (1, 1)
        room = min(CELL, SIDE_LIMIT // max(len(self.columns), 1) - GAP, SIDE_LIMIT // max(len(self.rows), 1) - GAP)
        room = max(room, CELL_LEAST)
        return max(room * wide // max(wide, high), CELL_LEAST), max(room * high // max(wide, high), CELL_LEAST)

    def _write_heads(self, pen: ImageDraw.ImageDraw, left: int, top: int, width: int, height: int) -> None:
        pen.text((EDGE, EDGE), self.title, INK, _font(TITLE))
        above = top - GAP - (LABEL if any(self.columns) else 0)
        if self.row_axis:
            pen.text((left - GAP, top - GAP / 2), self.row_axis, MUTED, _font(NOTE), anchor="rd")
        if self.column_axis:
            pen.text((left, above - GAP / 2), self.column_axis, MUTED, _font(NOTE), anchor="ld")
        for place, text in enumerate(self.columns):
            pen.text((left + place * (width + GAP) + width / 2, top - GAP / 2), _shortened(text, width, LABEL), INK, _font(LABEL), anchor="md")
        for place, text in enumerate(self.rows):
            middle = top + place * (height + GAP) + height / 2
            pen.multiline_text((left - GAP, middle), "\n".join(_lines(text)), INK, _font(LABEL), anchor="rm", align="right")


def wrapped(title: str, pictures: Sequence[Picture], captions: Sequence[str]) -> Sheet:
    """A sheet without axes: in rows of about the golden shape, each picture with its caption."""
    across = max(1, min(len(pictures), math.ceil(math.sqrt(len(pictures) * 1.6))))
    cells = {divmod(place, across): picture for place, picture in enumerate(pictures)}
    told = {divmod(place, across): caption for place, caption in enumerate(captions)}
    return Sheet(title, [""] * math.ceil(len(pictures) / across), [""] * across, cells, captions=told)


def _place(sheet: Image.Image, pen: ImageDraw.ImageDraw, picture: Picture, where: tuple[int, int, int, int]) -> None:
    left, top, width, height = where
    if isinstance(picture, str):
        pen.rounded_rectangle((left, top, left + width - 1, top + height - 1), 6, outline=FAULT)
        said = textwrap.fill(picture, max(8, width // (NOTE // 2 + 1)), max_lines=max(1, height // (NOTE + 5) - 1), placeholder=" …")
        pen.multiline_text((left + width / 2, top + height / 2), said, FAULT, _font(NOTE), anchor="mm", align="center")
        return
    small = picture.copy()
    small.thumbnail((width, height))
    sheet.paste(small, (left + (width - small.width) // 2, top + (height - small.height) // 2))


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _text_width(text: str, size: int) -> int:
    return int(_font(size).getlength(text)) + 1


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, ROW_CHARACTERS, max_lines=4, placeholder=" …") or [""]


def _shortened(text: str, width: int, size: int) -> str:
    while len(text) > 1 and _text_width(text, size) > width:
        text = text[:-2] + "…"
    return text
