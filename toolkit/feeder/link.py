"""The connection to one server: its client, its one socket, and whether it can be reached.

Owns reconnecting and the routing of frames to runs by prompt id. The socket is a hint: when it is refused or deaf, runs ask over HTTP.
Knows no job: a listener is anything that takes events.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from toolkit.client import ComfyClient
from toolkit.errors import ServerError, ServerUnreachable
from toolkit.processes import ensure_engine
from toolkit.protocol import Event, Executing, NodeProgress, Preview, Whereabouts
from toolkit.settings import ServerAddress

log = logging.getLogger(__name__)

RETRY_FROM_S, RETRY_TO_S = 0.3, 5.0
HISTORY_WAIT_S = 10.0  # success is sent before history is written (ComfyUI main.py); 5 ms as a rule
HISTORY_STEPS_S = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2)


class Listener(Protocol):
    """Takes the events of its prompt, with the instant they arrived on the monotonic clock."""

    def hear(self, event: Event, at: float) -> None:
        """Take one event; must not block."""

    def nudge(self) -> None:
        """Look for yourself: the socket tells no more."""


class Link:
    """One server as seen by its feeder."""

    def __init__(self, home: Path, address: ServerAddress, headers: Mapping[str, str]) -> None:
        self.address = address
        self._home = home
        self.headers = headers
        self._client: ComfyClient | None = None
        self.client_id = uuid.uuid4().hex
        self.listeners: dict[str, Listener] = {}
        self.is_open = asyncio.Event()
        self.socket_tried = asyncio.Event()
        self.reachable = False
        self.trouble: str | None = None
        self.last_down_at: float | None = None
        self.lost_sight_at = 0.0  # of the server, which may have restarted since then: `time.monotonic()`
        self.instance: str | None = None
        self.witness: str | None = None  # a prompt that its history has, one of the newest: gone from there, the server has restarted
        self._told: str | None = None
        self.sockets = 0  # that were opened
        self.reconnected = asyncio.Event()
        self.number: float | None = None  # the server's count of prompts, as of the latest one it took
        self.superseded: set[str] = set()  # prompts given up as lost: one that turns up after all shall not run twice
        self._patience: asyncio.Timeout | None = None
        self._connecting = asyncio.Lock()

    @property
    def client(self) -> ComfyClient:
        """The open client.

        Raises:
            ServerUnreachable: before the first connection.
        """
        if self._client is None:
            raise ServerUnreachable(f"Not connected to {self.address.url} yet.", server_url=self.address.url, not_sent=True)
        return self._client

    async def connect(self) -> ComfyClient:
        """A client for where the server is now; the built-in engine is started, and may have moved to another port."""
        async with self._connecting:
            url = await asyncio.to_thread(ensure_engine, self._home) if self.address.is_engine else self.address.url
            if self._client is None or self._client.url != url:
                if self._client is not None:
                    await self._client.close()
                self._client = ComfyClient(self.address, url, self.headers)
            return self._client

    def up(self) -> None:
        """Note that the server answered."""
        if not self.reachable:
            log.info("%s answers", self.address.url)
            self.reconnected.set()
        self.reachable, self.trouble = True, None

    def down(self, error: ServerError) -> None:
        """Note that the server could not be asked, and why."""
        if self.reachable or self.trouble is None:
            log.warning("%s", error)
        self.reachable, self.trouble = False, error.message
        self.lost_sight_at = time.monotonic()
        if isinstance(error, ServerUnreachable) and error.not_sent:
            self.last_down_at = time.monotonic()

    async def keep_listening(self) -> None:
        """Hold the socket open for ever, with back-off and jitter; the client id stays only if the old socket's end is certain."""
        pause = RETRY_FROM_S
        while True:
            certain = False
            try:
                client = await self.connect()
                async with asyncio.timeout(None) as self._patience:
                    certain = await client.listen(self.client_id, self._route, self._opened)
                pause = RETRY_FROM_S
            except TimeoutError:
                log.warning("the socket of %s is open and brings nothing: a new one", self.address.url)
            except ServerUnreachable as error:
                log.info("socket: %s", error.message)
                if not error.not_sent:  # HTTP may well answer where the upgrade is refused
                    pause = max(pause, 1.0)
            except Exception:  # the socket is a hint: whatever breaks it, HTTP goes on and the next one is tried
                log.exception("socket of %s", self.address.url)
            finally:
                self.socket_tried.set()
                was_open = self.is_open.is_set()
                self.is_open.clear()
            if was_open:
                self._lose_sight()
                if not certain:
                    self.client_id = uuid.uuid4().hex
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))
            pause = min(pause * 2, RETRY_TO_S)

    def _lose_sight(self) -> None:
        self.lost_sight_at = time.monotonic()
        for listener in self.listeners.values():
            listener.nudge()

    async def history_soon(self, prompt_id: str) -> Whereabouts:
        """Where a prompt is after its final event: in the history at once, or within milliseconds; bounded, since it may never come."""
        deadline = time.monotonic() + HISTORY_WAIT_S
        steps = iter(HISTORY_STEPS_S)
        where = Whereabouts()
        while where.history is None and not where.waits and time.monotonic() < deadline:
            await asyncio.sleep(next(steps, 0.5))
            entry = await self.client.history(prompt_id)  # one question as a rule: this is the way of every job
            where = Whereabouts(history=entry) if entry is not None else await self.client.whereabouts(prompt_id)
        return where

    def saw_end(self, prompt_id: str, *, in_history: bool) -> None:
        """Take a prompt that has ended; one of which the socket told alone is in the history when the next one starts (ComfyUI main.py)."""
        self.witness, self._told = prompt_id if in_history else self._told or self.witness, prompt_id

    def is_deaf(self, client_id: str | None) -> None:
        """Note that a prompt sent under this client id ran, and the socket told nothing of it: drop that socket."""
        if client_id == self.client_id and self.is_open.is_set() and self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time())

    async def drop_superseded(self) -> None:
        """Take prompts out of the server's queue whose POST arrived after it was given up: their successors are on the way."""
        if self.superseded:
            late = [entry.prompt_id for entry in (await self.client.queue()).pending if entry.prompt_id in self.superseded]
            if late:
                await self.client.delete(late)

    def _opened(self) -> None:
        self.sockets += 1
        self.is_open.set()
        self.socket_tried.set()
        self.up()

    def _route(self, event: Event) -> None:
        """Hand an event to the run of its prompt; what cannot be attributed is credited to nobody."""
        at = time.monotonic()
        if isinstance(event, Executing | NodeProgress | Preview) and event.prompt_id is None:
            return
        prompt_id = getattr(event, "prompt_id", None)
        listener = self.listeners.get(prompt_id) if isinstance(prompt_id, str) else None
        if listener is not None:
            listener.hear(event, at)

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.close()
