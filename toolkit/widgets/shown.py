"""What is displayed in a cell, and what it leaves there.

A widget view in a saved notebook is an error line as soon as the kernel is gone: JupyterLab prefers it to the HTML beside it and does not
save widget state by itself. So the output of a card is replaced when it ends by HTML that needs nobody. What only a living kernel can offer
(buttons, a playing clip) is a second output below it, hidden where it cannot be shown.
"""

from __future__ import annotations

import contextvars
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import ipywidgets
from IPython.core.getipython import get_ipython
from IPython.display import display


class Card:
    """The widget of something open, and then its end; subclasses draw `box` and `live` and say what stays."""

    def __init__(self) -> None:
        self.box, self.live = ipywidgets.VBox([]), ipywidgets.VBox([], layout=ipywidgets.Layout(display="none"))
        self.box.add_class("toolkit-card")
        self.live.add_class("toolkit-live")
        self._lock = threading.RLock()  # the watcher's thread and the kernel's draw the same card
        self._display_id = f"toolkit-{uuid.uuid4().hex}"
        self._cell: contextvars.Context | None = None
        self._ended = False

    def static(self) -> tuple[str, str]:
        """Text and HTML for whoever has no kernel."""
        raise NotImplementedError

    def show(self) -> None:
        """Display it in the running cell; the output is replaced when it ends."""
        with self._lock:
            self._cell = contextvars.copy_context() if in_notebook() else None  # names the cell, for what is displayed later
            publish(self._repr_mimebundle_(), self._display_id)
            if self._ended:
                self._show_live()

    _ipython_display_ = show

    def _finish(self, *live: Any) -> None:
        """Leave the end in the cell, and below it what needs a kernel; called with the lock held."""
        self._ended = True
        self.live.children = live
        self.live.layout.display = None if live else "none"
        if self._cell is not None:
            # not in the cell's context: headless runs only take messages of the cell that runs now
            publish(self._still(), self._display_id, update=True)
            self._show_live()

    def _show_live(self) -> None:
        if self.live.children and self._cell is not None:
            self._cell.copy().run(publish, {**self.live._repr_mimebundle_(), "text/plain": "", "text/html": ""})

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """HTML and text for everybody, and the widget while it is open."""
        with self._lock:
            widget = {} if self._ended else self.box._repr_mimebundle_(include=include, exclude=exclude)
            return {**widget, **self._still()}

    def _still(self) -> dict[str, str]:
        text, html = self.static()
        return {"text/plain": text, "text/html": html}

    def __repr__(self) -> str:
        return self.static()[0]


def in_notebook() -> bool:
    """Whether a display can be replaced; IPython in a terminal would print the replacement."""
    return getattr(get_ipython(), "kernel", None) is not None


def publish(bundle: Mapping[str, Any], display_id: str | None = None, *, update: bool = False) -> None:
    """Display a bundle in the cell of this context, or replace what was displayed under this id."""
    display(bundle, raw=True, display_id=display_id, update=update)  # type: ignore[no-untyped-call]


def said(error: Exception) -> ipywidgets.HTML:
    """An error where its button is: a print would land in the wrong cell."""
    from html import escape

    return ipywidgets.HTML(f'<div class="toolkit-error">{escape(str(error))}</div>')
