"""The feed: jobs and progress over a websocket as they change, for pages and programs that would otherwise poll.

Owns the socket, its messages and how a watcher that reads too slowly is dropped. Knows no rule of jobs and none of a queue: states come from
the studio in REST's shapes (shapes.py), what a watcher is told in which order is mailbox.py's. News arrive on the studio's watcher thread, are
handed to the loop, and are rendered on a thread again, since that reads the ledger: the loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import weakref
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeAlias

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from toolkit import __version__
from toolkit.admission import Gate, Refused, parse_object
from toolkit.errors import ToolkitError
from toolkit.jobs import Job
from toolkit.mailbox import Mailbox, Update
from toolkit.progress import Progress
from toolkit.settings import Settings
from toolkit.shapes import counts_json, error_json, job_json, jobs_json
from toolkit.studio import Studio
from toolkit.visitors import THE_OWNER, Visitor, Visitors, caller

log = logging.getLogger(__name__)
# websockets logs a traceback for each client that vanishes or speaks something else; what we must know is logged here
_quiet = logging.getLogger("toolkit.feed.sockets")
_quiet.setLevel(logging.CRITICAL)

MESSAGE_LIMIT = 64 * 1024  # bytes of a client's message; the longest has an id in it
SEND_TIMEOUT_S = 5.0  # a watcher that reads nothing for so long is dropped
CLOSE_TIMEOUT_S = 0.5  # the program ends within 2 s
SEND_BUFFER = 64 * 1024  # bytes the system holds for a watcher; by default 4 MB fill up before a stuck one shows
LOOK_AGAIN_S = 1.0  # whether who watches still may
TURN = 50  # updates handed out before the senders get their turn

News: TypeAlias = Job | tuple[str, Progress]
EVERY_JOB = "*"
KNOWN = ("subscribe", "unsubscribe", "get_statistics", "get_job_progress")


class Feed:
    """The feed of a studio: `await start()`, `await stop()`, or `async with`."""

    def __init__(self, studio: Studio, settings: Settings, *, send_timeout_s: float = SEND_TIMEOUT_S) -> None:
        self._studio, self._settings = studio, settings
        self._gate = Gate.of(settings)
        self._visitors = Visitors(studio._ledger, settings)
        self._send_timeout_s = send_timeout_s
        self._watchers: set[_Watcher] = set()
        self._server: Server | None = None
        self._visitor_of: weakref.WeakKeyDictionary[ServerConnection, Visitor] = weakref.WeakKeyDictionary()
        self._looked_at = 0.0
        self._publisher: asyncio.Task[None] | None = None
        self._leave: Callable[[], None] = lambda: None

    async def start(self, listening: socket.socket | None = None) -> int:
        """Listen, on a bound socket if one is given, and tell from now on; returns the port."""
        place: dict[str, Any] = {"sock": listening} if listening else {"host": self._settings.host, "port": self._settings.feed_port}
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[News] = asyncio.Queue()
        self._server = await serve(
            self._attend, **place, process_request=self._admit, max_size=MESSAGE_LIMIT, compression=None,
            close_timeout=CLOSE_TIMEOUT_S, server_header=None, logger=_quiet,
        )  # fmt: skip
        self._publisher = asyncio.create_task(self._publish(), name="feed-publisher")
        self._leave = self._studio._watcher.subscribe_all(self._hand_over)
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def stop(self) -> None:
        """Tell no more and close; who does not close with us within `CLOSE_TIMEOUT_S` is cut off."""
        self._leave()
        if self._publisher is not None:
            self._publisher.cancel()
            await asyncio.gather(self._publisher, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 2 * CLOSE_TIMEOUT_S)

    async def __aenter__(self) -> Feed:
        await self.start()
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.stop()

    def count(self) -> int:
        """How many follow it now."""
        return len(self._watchers)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(next(iter(self._server.sockets)).getsockname()[1])

    # ---- from the studio to the watchers ------------------------------------------------------------------------------

    def _hand_over(self, news: News) -> None:
        """Called on the studio's watcher thread with every change of the home."""
        if self._watchers:  # who comes later gets a snapshot
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._news.put_nowait, news)

    async def _publish(self) -> None:
        while True:
            batch = [await self._news.get()]
            while not self._news.empty():
                batch.append(self._news.get_nowait())
            try:
                updates = await asyncio.to_thread(self._render, batch)
            except Exception:
                log.exception("%d news could not be rendered", len(batch))
                continue
            self._see_out()
            for number, update in enumerate(updates, 1):
                for watcher in list(self._watchers):
                    watcher.tell(update)
                if number % TURN == 0:
                    await asyncio.sleep(0)

    def _see_out(self) -> None:
        """End the connections of those who were removed, or signed out, since they came; looks once a second at most."""
        if self._loop.time() - self._looked_at < LOOK_AGAIN_S:
            return
        self._looked_at = self._loop.time()
        for watcher in [watcher for watcher in self._watchers if not self._visitors.still(watcher.visitor)]:
            self._watchers.discard(watcher)
            watcher.connection.transport.abort()

    def _render(self, batch: Sequence[News]) -> list[Update]:
        jobs = [news for news in batch if isinstance(news, Job)]
        try:
            shown = jobs_json(self._studio, jobs)
        except ToolkitError as error:  # the home cannot be read just now: the jobs themselves are known
            log.warning("progress of %d jobs: %s", len(jobs), error)
            shown = [job_json(job, self._studio._progress_of(job) if job.is_final else Progress()) for job in jobs]
        states = iter([_state(job, about) for job, about in zip(jobs, shown, strict=True)])
        return [next(states) if isinstance(news, Job) else Update(news[0], news[1].as_json()) for news in batch]

    def _snapshot(self, job_id: str, visitor: Visitor) -> list[Update]:
        ledger = self._studio._ledger
        jobs = ledger.jobs(status="open", person=visitor.only, limit=-1)[::-1] if job_id == EVERY_JOB else [ledger.job(job_id)]
        return [_state(job, about) for job, about in zip(jobs, jobs_json(self._studio, jobs), strict=True)]

    # ---- from the watchers --------------------------------------------------------------------------------------------

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Judge the upgrade: browsers do not keep other sites' pages from opening websockets."""
        try:
            self._gate.check_host(_only(request, "Host"))
            self._gate.check_page(_only(request, "Origin"), self._settings.port)
            address = caller(str(connection.remote_address[0]), _only(request, "X-Forwarded-For"), self._settings)
            authorization, cookie = _only(request, "Authorization"), _only(request, "Cookie")
            self._visitor_of[connection] = self._visitors.identify(authorization, cookie, address)
            if request.path.split("?")[0] != "/":
                raise Refused(404, "not_found", "The feed is at /.")
        except ToolkitError as error:
            refused = error if isinstance(error, Refused) else Refused(503, error.code, error.message)  # the home cannot be read just now
            response = connection.respond(HTTPStatus(refused.status), json.dumps(error_json(refused, home=self._studio.home)) + "\n")
            del response.headers["Content-Type"]
            for name, value in {"Content-Type": "application/json", **refused.headers}.items():
                response.headers[name] = value
            return response
        return None

    async def _attend(self, connection: ServerConnection) -> None:
        """One watcher from its first message to its last."""
        watcher = _Watcher(connection, self._visitor_of.get(connection, THE_OWNER))
        self._watchers.add(watcher)
        tasks = [asyncio.create_task(watcher.send_all(self._send_timeout_s)), asyncio.create_task(self._listen(watcher))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._watchers.discard(watcher)
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, TimeoutError):
                    connection.transport.abort()
                elif isinstance(ended, Exception) and not isinstance(ended, ConnectionClosed):
                    log.error("a watcher's connection failed", exc_info=ended)

    async def _listen(self, watcher: _Watcher) -> None:
        await watcher.answer({"type": "connection_established", "version": __version__, "watchers": len(self._watchers)})
        async for raw in watcher.connection:
            if not self._visitors.still(watcher.visitor):
                return
            try:
                await self._obey(watcher, _parsed(raw))
            except ToolkitError as error:
                await watcher.answer({"type": "error", **error_json(error, home=self._studio.home)})

    async def _obey(self, watcher: _Watcher, message: dict[str, Any]) -> None:
        match message:
            case {"type": "subscribe", "job_id": str(job_id)}:
                await self._subscribe(watcher, job_id)
            case {"type": "unsubscribe", "job_id": str(job_id)}:
                watcher.mailbox.unsubscribe(job_id if job_id == EVERY_JOB else await asyncio.to_thread(self._whole, job_id, watcher))
            case {"type": "get_statistics"}:
                await watcher.answer(await asyncio.to_thread(self._statistics, watcher))
            case {"type": "get_job_progress", "job_id": str(job_id)}:
                (update,) = await asyncio.to_thread(self._snapshot, await asyncio.to_thread(self._whole, job_id, watcher), watcher.visitor)
                await watcher.answer(update)
            case {"type": str(kind)} if kind in KNOWN:
                raise Refused(422, "request_invalid", f"`{kind}` needs `job_id`, an id or '*', as a string.", field="job_id")
            case _:
                raise Refused(422, "unknown_type", f"`type` must be one of {', '.join(KNOWN)}.", field="type")

    async def _subscribe(self, watcher: _Watcher, job_id: str) -> None:
        """Let news in first and read the snapshot then: nothing falls between, and the mailbox drops what is older."""
        found = job_id if job_id == EVERY_JOB else await asyncio.to_thread(self._whole, job_id, watcher)
        watcher.mailbox.subscribe(found)
        for update in await asyncio.to_thread(self._snapshot, found, watcher.visitor):
            await watcher.show(update)
        if found == EVERY_JOB:  # says that the snapshot is complete, also when no job is open
            await watcher.answer(await asyncio.to_thread(self._statistics, watcher))

    def _whole(self, job_id: str, watcher: _Watcher) -> str:
        """The full id, of a job that the watcher may see; the studio sees to it that an open job is worked on."""
        if job_id == EVERY_JOB:
            raise Refused(422, "request_invalid", "Give one id.", field="job_id")
        return self._studio.job(job_id, person=watcher.visitor.only).id

    def _statistics(self, watcher: _Watcher) -> dict[str, Any]:
        return {"type": "statistics", **counts_json(self._studio._ledger.counts(watcher.visitor.only)), "watchers": len(self._watchers)}


class _Watcher:
    """One connection and its mailbox."""

    def __init__(self, connection: ServerConnection, visitor: Visitor) -> None:
        self.connection, self.visitor = connection, visitor
        self.mailbox = Mailbox()
        self._news, self._space = asyncio.Event(), asyncio.Event()
        self._is_overfull = False
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def tell(self, update: Update) -> None:
        """Put news in; never waits. A guest gets no state of another's job, and without one no progress of it either."""
        if update.job is not None and self.visitor.only not in (None, update.job["person"]):
            return
        self._is_overfull |= not self.mailbox.offer(update)
        self._news.set()

    async def show(self, update: Update) -> None:
        """Put a part of a snapshot in as soon as there is room."""
        await self._wait_for_room()
        self.mailbox.offer(update, snapshot=True)
        self._news.set()

    async def answer(self, message: dict[str, Any] | Update) -> None:
        """Put in what was asked for as soon as there is room."""
        await self._wait_for_room()
        if isinstance(message, Update):
            self.mailbox.answer_progress(message)
        else:
            self.mailbox.answer(message)
        self._news.set()

    async def _wait_for_room(self) -> None:
        while self.mailbox.is_full:
            self._space.clear()
            await self._space.wait()

    async def send_all(self, timeout_s: float) -> None:
        """Send what the mailbox holds, for good.

        Raises:
            TimeoutError: the watcher does not read, or too slowly for what happens.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            while (message := self.mailbox.take()) is not None:
                if self._is_overfull:
                    raise TimeoutError
                async with asyncio.timeout(timeout_s):
                    await self.connection.send(json.dumps(message, ensure_ascii=False))
                self._space.set()
                await asyncio.sleep(0)  # a send into an empty buffer does not let others run


def _state(job: Job, about: dict[str, Any]) -> Update:
    return Update(job.id, about["progress"], about, job.revision, job.is_final)


def _only(request: Request, name: str) -> str | None:
    """A header's value; several of one name are joined, and so fit nothing."""
    return ", ".join(request.headers.get_all(name)) or None


def _parsed(raw: str | bytes) -> dict[str, Any]:
    if isinstance(raw, bytes):
        raise Refused(400, "bad_json", "Messages are JSON text, not bytes.")
    return parse_object(raw)
