"""How a feeder asks its database: a short write at once, if nothing is before it, nobody holds the lock and the disk is quick; else on a thread.

Owns what is answered together: all that waits while the thread is at a commit goes into the next one, so that one fsync does for several.
A caller goes on only when what it wrote is durable. Where one of a batch fails all of it is undone, and each is done by itself: nobody
suffers for another's fault. Knows no table.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar, cast

from toolkit.errors import HomeUnusable
from toolkit.ledger import impatient
from toolkit.pace import Pace

T = TypeVar("T")
Work: TypeAlias = Callable[[], Any]


class Clerk:
    """Answers in the order asked."""

    def __init__(self, together: Callable[[], AbstractContextManager[object]]) -> None:
        """Batch with `together`, a block whose transactions are one."""
        self._together, self._executor = together, ThreadPoolExecutor(1, "ledger")
        self._waiting: list[tuple[Work, asyncio.Future[Any]]] = []
        self._busy = False
        self._pace = Pace()

    async def ask(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, once it is durable."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, answer))
        if not self._busy:
            self._begin()
        return cast(T, await answer)

    async def write(self, work: Callable[[], T]) -> T:
        """The same for a short write, which is done at once where nothing speaks against it."""
        if not self._busy and self._pace.is_quick():
            with contextlib.suppress(HomeUnusable), self._pace.timed(), impatient():  # locked, as a rule: what cannot be used at all says so again
                return work()
        return await self.ask(work)

    def close(self) -> None:
        """Wait for what is under way."""
        self._executor.shutdown()

    def _begin(self) -> None:
        batch = [(work, answer) for work, answer in self._waiting if not answer.done()]  # who was cancelled wants nothing any more
        self._waiting, self._busy = [], bool(batch)
        if batch:
            under_way = asyncio.get_running_loop().run_in_executor(self._executor, self._answers, [work for work, _ in batch])
            under_way.add_done_callback(lambda done: self._deliver([answer for _, answer in batch], done))

    def _answers(self, works: Sequence[Work]) -> list[tuple[Any, Exception | None]]:
        if len(works) > 1:
            try:
                with self._together():
                    return [(work(), None) for work in works]
            except Exception:  # undone: whose fault it was shows below
                pass
        return [_tried(work) for work in works]

    def _deliver(self, answers: Sequence[asyncio.Future[Any]], done: asyncio.Future[list[tuple[Any, Exception | None]]]) -> None:
        failure = done.exception()
        results = done.result() if failure is None else [(None, failure)] * len(answers)
        for answer, (value, error) in zip(answers, results, strict=True):
            if answer.done():
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)
        self._begin()


def _tried(work: Work) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # the top of the thread: it is for who asked
        return None, error
