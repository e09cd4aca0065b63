"""What one node gets to work with: time, folders, models, and the telling of its progress.

Owns the frames that a working node sends (progress, previews, texts) and their order, which is recorded. It must not know what
the node does. Apart from execution.py, which runs nodes, since this is the side that nodes see.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.engine import files, uploads
from toolkit.engine.values import Pixels

if TYPE_CHECKING:
    from toolkit.engine.execution import Run

PREVIEW, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class NodeStage:
    """What one node gets to work with (values.Stage)."""

    def __init__(self, run: Run, node_id: str) -> None:
        self._run, self._node_id, self._worker = run, node_id, run.worker

    def load(self, folder: str, name: str) -> None:
        """Load a model file."""
        self._worker.load(folder, name)

    def go_on(self) -> None:
        """Raise Stopped if the engine ends."""
        self._worker.go_on()

    def folder(self, kind: str) -> Path:
        """Give a folder of files."""
        return self._worker.stock.home / kind

    def picture(self, name: str) -> Path:
        """Give an uploaded picture.

        Raises:
            FileNotFoundError: it is gone.
        """
        found = uploads.found(self._worker.stock.home, name)
        if found is None:
            raise FileNotFoundError(f"[Errno 2] No such file or directory: '{self._worker.stock.home / 'input' / name}'")
        return found

    def say(self, text: str) -> None:
        """Show a line on the node."""
        name = self._node_id.encode()
        self._worker.outbox.post_bytes(TEXT, len(name).to_bytes(4, "big") + name + text.encode(), self._run.client)

    @property
    def letters(self) -> str:
        """Give the node's five letters, drawn at first use."""
        node = (self._node_id, self._run.graph[self._node_id]["class_type"])
        return self._worker.letters.setdefault(node, "".join(random.choices(LETTERS, k=5)))

    def step(self, value: int, total: int, weight: float, preview: Callable[[], Pixels] | None = None) -> None:
        """Take a step's time, the preview's included, then report it, if nobody interrupted."""
        ends = time.monotonic() + self._worker.step_time(weight)
        wanted = self._worker.options.previews and self._worker.outbox.listens(self._run.client)
        picture = files.jpeg(preview()) if wanted and preview else None
        self._worker.spend(ends - time.monotonic())
        self._worker.check()
        self._report(value, total, picture)

    def _report(self, value: int, total: int, picture: bytes | None) -> None:
        """Send progress_state, progress and the preview: type 4 before `progress`, type 1 after it (recorded)."""
        run, outbox, client = self._run, self._worker.outbox, self._run.client
        run.report(self._node_id, value=value, max=total)
        rich = outbox.wants_metadata(client)
        if picture and rich:
            outbox.post_bytes(PREVIEW_WITH_METADATA, self._labelled(picture), client)
        outbox.post("progress", {"value": value, "max": total, "prompt_id": run.prompt_id, "node": self._node_id}, client)
        if picture and not rich:
            outbox.post_bytes(PREVIEW, (1).to_bytes(4, "big") + picture, client)  # 1 is JPEG

    def _labelled(self, picture: bytes) -> bytes:
        node_id = self._node_id
        label: dict[str, Any] = {"node_id": node_id, "prompt_id": self._run.prompt_id, "display_node_id": node_id}
        label |= {"parent_node_id": None, "real_node_id": node_id, "image_type": "image/jpeg"}
        text = json.dumps(label).encode()
        return len(text).to_bytes(4, "big") + text + picture
