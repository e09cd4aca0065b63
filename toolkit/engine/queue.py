"""The queue and the history: what waits, what runs, what was.

Owns both, in memory only: like ComfyUI's they are gone with the process. It must not know nodes or sockets. Apart from
execution.py because the HTTP routes read and change it while the worker runs; one lock guards all of it. It keeps ComfyUI's
five-tuples in a plain heap, so that order, ties and even the fatal tie (same number, same id) come out the same.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Container
from typing import Any

from toolkit.engine.validation import Graph

Item = tuple[float, str, Graph, dict[str, Any], list[str]]
"""Number, prompt id, graph, extra_data, outputs to run."""

LONGEST_HISTORY = 10_000
SECRETS = frozenset({"auth_token_comfy_org", "api_key_comfy_org"})  # stripped from history, not from /queue


class PromptQueue:
    """What waits, runs and has run; `changed` is called under the lock after every change, with the number remaining."""

    def __init__(self, changed: Callable[[int], None]) -> None:
        self._lock = threading.Condition(threading.RLock())
        self._changed = changed
        self._heap: list[Item] = []
        self._running: list[Item] = []
        self._history: dict[str, dict[str, Any]] = {}
        self._flags: set[str] = set()
        self._closed = False

    def put(self, item: Item) -> None:
        """Queue a prompt.

        Raises:
            TypeError: the heap had to compare two graphs: same number and same id; the item is in the heap all the same.
        """
        with self._lock:
            heapq.heappush(self._heap, item)
            self._tell()
            self._lock.notify_all()

    def take(self) -> Item | None:
        """Wait for the next prompt and mark it as running; None when woken for flags or by `close`."""
        with self._lock:
            self._lock.wait_for(lambda: self._heap or self._flags or self._closed)
            if self._closed or not self._heap:
                return None
            item = heapq.heappop(self._heap)
            self._running.append(item)
            self._tell()
            return item

    def done(self, item: Item, result: dict[str, Any], status: dict[str, Any]) -> None:
        """Move the running prompt into history."""
        number, prompt_id, graph, extra, outputs = item
        with self._lock:
            self._running.remove(item)
            if len(self._history) > LONGEST_HISTORY:
                self._history.pop(next(iter(self._history)))
            kept = {key: value for key, value in extra.items() if key not in SECRETS}
            self._history[prompt_id] = {"prompt": [number, prompt_id, graph, kept, outputs], "outputs": {}, "status": status} | result
            self._tell()

    def remaining(self) -> int:
        """Count what waits and runs."""
        with self._lock:
            return len(self._heap) + len(self._running)

    def closed(self) -> bool:
        """Say whether the worker should end."""
        return self._closed

    def now(self) -> tuple[list[Item], list[Item]]:
        """Give what runs and what waits; the latter in heap order, as ComfyUI does."""
        with self._lock:
            return list(self._running), list(self._heap)

    def runs(self, prompt_id: str) -> bool:
        """Say whether this prompt runs right now."""
        return any(item[1] == prompt_id for item in self.now()[0])

    def clear(self) -> None:
        """Drop all that waits; nobody is told what was dropped."""
        with self._lock:
            self._heap.clear()
            self._tell()

    def delete(self, prompt_id: str) -> None:
        """Drop one waiting prompt; anything else is no error."""
        with self._lock:
            for place, item in enumerate(self._heap):
                if item[1] == prompt_id:
                    del self._heap[place]
                    heapq.heapify(self._heap)
                    self._tell()
                    return

    def history(self, max_items: int | None = None, offset: int = -1) -> dict[str, Any]:
        """Give history entries, oldest first; without offset the newest."""
        with self._lock:
            start = len(self._history) - max_items if offset < 0 and max_items is not None else offset
            found: dict[str, Any] = {}
            for place, (prompt_id, entry) in enumerate(self._history.items()):
                if place >= start:
                    found[prompt_id] = entry
                    if max_items is not None and len(found) >= max_items:
                        break
            return found

    def past(self, prompt_id: str) -> dict[str, Any]:
        """Give one history entry under its id, or nothing."""
        with self._lock:
            return {prompt_id: self._history[prompt_id]} if prompt_id in self._history else {}

    def forget(self, prompt_ids: Container[str] | None = None) -> None:
        """Drop these history entries, or all."""
        with self._lock:
            self._history = {prompt_id: entry for prompt_id, entry in self._history.items() if prompt_ids is not None and prompt_id not in prompt_ids}

    def flag(self, *names: str) -> None:
        """Ask the worker for something between two prompts (`unload_models`, `free_memory`)."""
        with self._lock:
            self._flags.update(names)
            self._lock.notify_all()

    def flags(self) -> set[str]:
        """Take what the worker was asked for."""
        with self._lock:
            flags, self._flags = self._flags, set()
            return flags

    def close(self) -> None:
        """Let the worker end."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    def _tell(self) -> None:
        self._changed(self.remaining())
