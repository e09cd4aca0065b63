"""What others see of an attempt while it is on its way: progress, the latest preview, and what holds it up.

Owns the pace at which the live board is written. Losable like the board: a job goes on where this fails. Knows neither ledger nor server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.ledger import LiveBoard
from toolkit.progress import Progress, ProgressTracker
from toolkit.protocol import Preview

SHOW_EVERY_S = 0.05  # 20 steps in 2 s shall show as 20 steps; a write to the live board costs 50 microseconds
PREVIEW_EVERY_S = 0.2
PREVIEW_LIMIT = 300_000  # bytes
AT_LEAST_EVERY_S = 1.0
STALL_S = 300.0  # without a word, where no job of this kind has ended yet; never under a fifth of it


class Showing:
    """One attempt on the live board, while a block of `meanwhile` lasts."""

    def __init__(self, board: LiveBoard, write: Callable[..., Awaitable[Any]], job_id: str, tracker: ProgressTracker, on_server: asyncio.Event) -> None:
        self._board, self._write, self._job_id, self._tracker, self._on_server = board, write, job_id, tracker, on_server
        self._held_up: str | None = None
        self._stall_s = STALL_S
        self._preview: Preview | None = None
        self._preview_at = 0.0
        self.is_shown = False  # whether the board may have a line of it

    def say(self, sentence: str | None) -> None:
        """Tell what holds the job up; None: nothing any more."""
        self._held_up = sentence

    def expect(self, longest_s: float | None) -> None:
        """Take the longest time that such a job ever ran: silence beyond it is worth a sentence."""
        self._stall_s = STALL_S if longest_s is None else max(longest_s, STALL_S / 5)

    def preview(self, preview: Preview) -> None:
        """Take a preview; huge ones are left out."""
        if len(preview.data) <= PREVIEW_LIMIT:
            self._preview = preview

    @contextlib.asynccontextmanager
    async def meanwhile(self) -> AsyncIterator[None]:
        """Show what goes on inside the block; what is over before anybody could look costs nothing."""
        begun: list[asyncio.Task[None]] = []
        timer = asyncio.get_running_loop().call_later(SHOW_EVERY_S, lambda: begun.append(asyncio.create_task(self._go_on())))
        try:
            yield
        finally:
            timer.cancel()
            for task in begun:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _go_on(self) -> None:
        """Put what changed on the board, at a bounded pace."""
        shown, shown_at = None, 0.0
        while True:
            progress, now = self._now(), time.monotonic()
            key = (progress.fraction, progress.node, progress.step, progress.stalled is None, self._preview is not None)
            if key != shown or now - shown_at >= AT_LEAST_EVERY_S:
                data, kind = self._due_preview(now)
                text, self.is_shown = progress.dump(), True
                with contextlib.suppress(ToolkitError):  # the board is losable; the job is not
                    await self._write(lambda text=text, data=data, kind=kind: self._board.show(self._job_id, text, data, kind))
                shown, shown_at = key, now
            await asyncio.sleep(SHOW_EVERY_S)

    def _now(self) -> Progress:
        started = self._tracker.started_at is not None
        progress = self._tracker.shown_at(time.monotonic()) if started else self._tracker.progress
        return replace(progress, stalled=self._held_up or self._stalled())

    def _stalled(self) -> str | None:
        """A sentence when the server has been silent for longer than any job of this kind ever took there."""
        started_at = self._tracker.started_at
        if started_at is None or not self._on_server.is_set():
            return None
        silent_s = time.monotonic() - max(started_at, self._tracker.last_event_at or 0.0)
        return f"Nothing has moved for {silent_s:.0f} s, longer than any such job took here: look at the server." if silent_s > self._stall_s else None

    def _due_preview(self, now: float) -> tuple[bytes | None, str | None]:
        if self._preview is None or now - self._preview_at < PREVIEW_EVERY_S:
            return None, None
        preview, self._preview, self._preview_at = self._preview, None, now
        return preview.data, preview.media_type
