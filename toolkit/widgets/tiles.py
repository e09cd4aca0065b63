"""Pictures in a grid, each with a heart and a bin: what batches and galleries are made of.

Owns a tile and the grid that shows so many of them at once. What heart and bin do is the output's own: a heart keeps, a bin rejects and
moves the file to the bin of the home, and pressed again both take it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets

from toolkit.errors import ToolkitError
from toolkit.studio.handles import OutputHandle
from toolkit.widgets import pictures

TILE_SIDE = 160
LIVE = (640, 30_000)  # longer side in pixels and bytes: it grows while it has the focus
STILL_BYTES = 5_000
TILES_AT_ONCE = 60


class Tile:
    """One output with its number, heart and bin."""

    def __init__(self, output: OutputHandle, number: int, verdict: str | None, about: str) -> None:
        self._output, self._number, self._about = output, number, about
        self._verdict, self._is_trashed = verdict, output.file.disk == "trashed"
        self.picture = ipywidgets.HTML()
        self.heart, self.bin = ipywidgets.Button(), ipywidgets.Button()
        self.heart.on_click(lambda _: self._press(self._love))
        self.bin.on_click(lambda _: self._press(self._throw))
        self.box = ipywidgets.VBox([self.picture, ipywidgets.HBox([self.heart, self.bin])])
        self.box.add_class("toolkit-tile")
        self._draw()

    def _press(self, action: Any) -> None:
        try:
            action()
        except ToolkitError as error:
            self._draw(str(error))
        else:
            self._draw()

    def _love(self) -> None:
        if self._verdict == "keep":
            self._output.unrate()
            self._verdict = None
        else:
            self._output.keep()
            self._verdict = "keep"

    def _throw(self) -> None:
        if self._is_trashed:
            self._output.restore()
            self._output.unrate()
        else:
            self._output.reject()
            self._output.trash()
        self._is_trashed = not self._is_trashed
        self._verdict = "reject" if self._is_trashed else None

    def _draw(self, trouble: str = "") -> None:
        kept, number = self._verdict == "keep", self._number
        self.picture.value = tile(self._output, number, self._verdict, self._about, LIVE, dimmed=self._is_trashed) + (
            f'<div class="toolkit-error">{escape(trouble)}</div>' if trouble else ""
        )
        self.heart.icon, self.heart.tooltip = ("heart", f"Kept: take back {number}") if kept else ("heart-o", f"Keep {number}")
        self.heart.button_style = "danger" if kept else ""
        self.bin.icon, self.bin.tooltip = ("undo", f"Bring {number} back from the bin") if self._is_trashed else ("trash-o", f"Put {number} into the bin")
        self.heart.disabled = self._is_trashed


class Grid:
    """Many tiles, 60 at once, in the order they are given; what stands for an output that is not there yet is plain HTML."""

    def __init__(self) -> None:
        self._pieces: list[Any] = []
        self._shown = TILES_AT_ONCE
        self._flow = ipywidgets.Box([])
        self._flow.add_class("toolkit-grid")
        self.more = ipywidgets.Button(layout=ipywidgets.Layout(display="none", width="auto"))
        self.more.on_click(self._show_more)
        self.box = ipywidgets.VBox([self._flow, self.more])

    def put(self, pieces: Sequence[Any]) -> None:
        """Show these widgets."""
        self._pieces = list(pieces)
        left = len(self._pieces) - self._shown
        self._flow.children = self._pieces[: self._shown]
        self.more.layout.display = None if left > 0 else "none"
        self.more.description = f"{left} more"

    def _show_more(self, _: Any) -> None:
        self._shown += TILES_AT_ONCE
        self.put(self._pieces)


def waiting(number: int, words: str, *, failed: bool = False) -> ipywidgets.HTML:
    """A place without a picture: what became of it, or what it waits for."""
    made = ipywidgets.HTML(empty_tile(number, words, failed=failed))
    made.add_class("toolkit-tile")
    return made


def empty_tile(number: int, words: str, *, failed: bool = False) -> str:
    """The same as plain HTML."""
    return f'<div class="toolkit-empty{" toolkit-error" if failed else ""}"><span>{number}</span><div>{escape(words)}</div></div>'


def tile(output: OutputHandle, number: int, verdict: str | None, about: str, limits: tuple[int, int], *, dimmed: bool = False) -> str:
    """A picture with its number and verdict as plain HTML."""
    mark = {"keep": " ♥", "reject": " ✕"}.get(verdict or "", "")
    found = pictures.figure(output.file, about, limits, playing=False, caption=f"{number}{mark}", side=TILE_SIDE)
    return f'<div class="toolkit-dimmed">{found}</div>' if dimmed else found


def still_grid(tiles: Sequence[str], left_out: int = 0) -> str:
    """A grid that needs no kernel."""
    rest = f'<div class="toolkit-muted">and {left_out} more</div>' if left_out else ""
    return f'<div class="toolkit-grid">{"".join(f"<div class=toolkit-tile>{one}</div>" for one in tiles)}</div>{rest}'


def budget(count: int, total: int = 60_000) -> tuple[int, int]:
    """How many pictures a saved notebook shows of so many, and bytes for each: with six cards it stays below 300 kB."""
    shown = min(count, TILES_AT_ONCE)
    return shown, min(STILL_BYTES, total // max(shown, 1))


Verdicts = Mapping[tuple[str, int], str | None]
