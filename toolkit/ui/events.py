"""What every event of the page shares: nobody else's API, no limit on how many run at once, and who pressed.

A press submits and returns; following a job is an event of its own, so gradio's queue never holds a job.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from toolkit.visitors import THE_OWNER, Visitor

# private, unlimited, and without gradio's own spinner over our pictures
QUIET: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
# a press on anything with data-act tells what and of which job; HTML is redrawn often, so the listener sits on what stays
ON_PRESS = """element.addEventListener('click', (event) => {
  const pressed = event.target.closest('[data-act]');
  if (pressed && pressed.dataset.act !== 'notify') trigger('select', {...pressed.dataset});
});"""


def pressable(value: str, elem_id: str) -> gr.HTML:
    """HTML whose buttons tell what was pressed."""
    return gr.HTML(value, apply_default_css=False, elem_id=elem_id, js_on_load=ON_PRESS)


def plain(value: str, elem_id: str) -> gr.HTML:
    """HTML that is only looked at."""
    return gr.HTML(value, apply_default_css=False, elem_id=elem_id, js_on_load=None)


def pressed(event: gr.EventData) -> dict[str, str]:
    """What a press said of itself; anything but text came from no button of ours."""
    return {str(name): value for name, value in event._data.items() if isinstance(value, str)} if isinstance(event._data, dict) else {}


def visitor_of(request: gr.Request) -> Visitor:
    """Who pressed, as the door in front of the page found."""
    assert request.request is not None  # gradio's own word for: nobody asked over HTTP
    found: Visitor = request.request.scope.get("visitor", THE_OWNER)
    return found
