"""What gradio 6.31 does wrong with a page that stays open, mended; `tests/test_ui.py` tells when gradio needs it no more."""

from __future__ import annotations

from typing import Any

from gradio.blocks import Block
from gradio.state_holder import SessionState

_put = SessionState.__setitem__


def keep_ids() -> None:
    """Let a session's copy of a component have the component's id.

    With each update, `gr.skip()` too, gradio makes the session a new copy (blocks.py, postprocess_data), which has an id of its own. The next value is
    then kept under that id as well, so that a page held one more copy, with all it ever showed, for every job until it was closed.
    """
    SessionState.__setitem__ = _put_with_id  # type: ignore[method-assign]


def _put_with_id(self: SessionState, key: int, value: Any) -> None:
    if isinstance(value, Block):
        value._id = key
    _put(self, key, value)
