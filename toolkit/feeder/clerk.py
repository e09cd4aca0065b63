"""How a feeder asks its database: a short write at once, if nothing is before it, nobody holds the lock and the disk is quick; else on a thread.

Owns what is answered together, so that one fsync does for several: all that waits while the thread is at a commit goes into the next one, and what
nobody is in a hurry for goes with the next short write. A caller goes on only when what it wrote is durable. Where one of a batch fails all of it
is undone, and each is done by itself: nobody suffers for another's fault. Knows no table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, TypeVar, cast

from toolkit.errors import HomeUnusable
from toolkit.ledger import impatient
from toolkit.pace import Pace

T = TypeVar("T")
Work: TypeAlias = Callable[[], Any]
Asked: TypeAlias = tuple[Work, asyncio.Future[Any]]

UNHURRIED_S = 0.02  # at most, that a write waits for the next one to go with


class Clerk:
    """Answers in the order asked, but for what is in no hurry."""

    def __init__(self, together: Callable[[], AbstractContextManager[object]]) -> None:
        """Batch with `together`, a block whose transactions are one."""
        self._together, self._executor = together, ThreadPoolExecutor(1, "ledger")
        self._waiting: list[Asked] = []  # for the thread
        self._short: list[Asked] = []  # for the next short write
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._pace = Pace()

    async def ask(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, once it is durable."""
        answer = self._noted(self._waiting, work)
        self._begin()
        return cast(T, await answer)

    async def write(self, work: Callable[[], T]) -> T:
        """The same for a short write, which is done at once where nothing speaks against it."""
        answer = self._noted(self._short, work)
        self._write()
        return cast(T, await answer)

    async def write_with_next(self, work: Callable[[], T]) -> T:
        """The same for a short write that may wait a moment for the next one."""
        answer = self._noted(self._short, work)
        self._timer = self._timer or asyncio.get_running_loop().call_later(UNHURRIED_S, self._write)
        return cast(T, await answer)

    def close(self) -> None:
        """Wait for what is under way."""
        self._executor.shutdown()

    def _noted(self, where: list[Asked], work: Work) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        where.append((work, answer))
        return answer

    def _write(self) -> None:
        """Do the short ones here, else leave them to the thread."""
        if self._timer is not None:
            self._timer.cancel()
        short, self._short, self._timer = _wanted(self._short), [], None
        if short and not self._busy and self._pace.is_quick():
            with self._pace.timed(), impatient():
                answers = self._answers([work for work, _ in short])
            asked, short = short, []
            for one, (value, error) in zip(asked, answers, strict=True):
                if isinstance(error, HomeUnusable):  # locked, as a rule: what cannot be used at all says so again
                    short.append(one)
                else:
                    _deliver(one[1], value, error)
        self._waiting += short
        self._begin()

    def _begin(self) -> None:
        """Give the thread what waits for it, unless it is at work: then it goes on with that afterwards."""
        if self._busy:
            return
        batch, self._waiting = _wanted(self._waiting), []
        if batch:
            self._busy = True
            under_way = asyncio.get_running_loop().run_in_executor(self._executor, self._answers, [work for work, _ in batch])
            under_way.add_done_callback(lambda done: self._done([answer for _, answer in batch], done))

    def _answers(self, works: Sequence[Work]) -> list[tuple[Any, Exception | None]]:
        if len(works) > 1:
            try:
                with self._together():
                    return [(work(), None) for work in works]
            except Exception:  # undone: whose fault it was shows below
                pass
        return [_tried(work) for work in works]

    def _done(self, answers: Sequence[asyncio.Future[Any]], done: asyncio.Future[list[tuple[Any, Exception | None]]]) -> None:
        failure = done.exception()
        results = done.result() if failure is None else [(None, failure)] * len(answers)
        for answer, (value, error) in zip(answers, results, strict=True):
            _deliver(answer, value, error)
        self._busy = False
        self._begin()


def _wanted(asked: Sequence[Asked]) -> list[Asked]:
    """Those whose callers still wait: who was cancelled wants nothing any more."""
    return [(work, answer) for work, answer in asked if not answer.done()]


def _deliver(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(value)


def _tried(work: Work) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:  # the top of the thread: it is for who asked
        return None, error
