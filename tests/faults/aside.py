"""What serves on a thread and loop of its own while the test goes on: a layer, a proxy, a feeder within reach of monkeypatch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from toolkit.feeder.feeder import Feeder
from toolkit.ledger import LiveBoard
from toolkit.processes import feeder_lock
from toolkit.settings import ServerAddress

T = TypeVar("T")


class Aside:
    """Started by `with`; a subclass says what that means in `_start` and `_stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.call(self._start())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *args: object) -> None:
        try:
            self.call(self._stop())
        finally:
            self._end()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        raise NotImplementedError

    async def _stop(self) -> None:
        raise NotImplementedError


class FeederHere(Aside):
    """The feeder of a server and home in this process, so that a test can patch its clock and limits; it holds the lock, so it is the only one."""

    def __init__(self, home: Path, url: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._home, self._address, self._headers = home, ServerAddress.parse(url), dict(headers or {})

    def beats(self) -> bool:
        """Whether its pulse stands on the live board, so that a studio accepts without a look of its own."""
        board = LiveBoard(self._home)
        try:
            return board.server(self._address.url) is not None
        finally:
            board.close()

    async def _start(self) -> None:
        self._lock = feeder_lock(self._home, self._address.url)
        self._lock.acquire(timeout=5.0)
        self._task = asyncio.create_task(Feeder(self._home, self._address, self._headers, 60.0).serve())

    async def _stop(self) -> None:
        self._task.cancel()
        try:
            await asyncio.gather(self._task, return_exceptions=True)
        finally:
            self._lock.release()
