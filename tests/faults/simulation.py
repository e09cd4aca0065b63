"""A ComfyUI, a clock and a feeder in one process: virtual seconds, no sockets, so that a thousand histories fit into a minute.

What is real: Feeder, Run, Collector, Link, Ledger on SQLite, OutputStore with its files, and the parsers of the wire. What is not: the server
and its client (below, after recordings of 0.3.64), time, ids and chance (all from one seed), threads (their work is done in place) and the
live board (losable, so it may not matter). A process of ours dies by `Killed` at a counted call; from then on nothing it does has an effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import heapq
import json
import logging
import random
import selectors
import struct
import sys
import time
import uuid
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from toolkit.client import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, INTERRUPTS_BY_ID, ComfyClient
from toolkit.engine.catalog import catalog
from toolkit.errors import HomeUnusable, ServerUnreachable
from toolkit.feeder import collect, feeder, link, run, showing
from toolkit.ledger import Ledger
from toolkit.protocol import Answer, Event, ServerOutput, parse_message
from toolkit.settings import ServerAddress

URL = "http://simulated:8188"
IMAGE_NODES = ("CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage", "KSampler", "VAEDecode", "SaveImage", "EmptyImage")
OBJECT_INFO = {name: about for name, about in catalog().items() if name in IMAGE_NODES}
STARTED_AT_S = 1000.0
AGAIN_S = 1.0  # a studio with open jobs finds out within a second or two that no feeder runs
ANOTHERS = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "another/x"}},
}
ERRORS = {"error": ("RuntimeError", "it broke"), "oom": ("torch.OutOfMemoryError", "Allocation on device")}


# ---- time and chance --------------------------------------------------------------------------------------------------------


class Clock:
    """Stands in the toolkit's modules where `time` stood; only the wall clock can jump."""

    now = STARTED_AT_S
    wall = 1.8e9

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.wall + self.now

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"somebody blocks the only thread for {seconds} s")


class Chance(random.Random):
    """Stands where `random` and `uuid` stood."""

    def uuid4(self) -> uuid.UUID:
        return uuid.UUID(int=self.getrandbits(128), version=4)


CLOCK, CHANCE = Clock(), Chance()


class _Jump(selectors.SelectSelector):
    """Waits by moving the clock."""

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nothing will ever happen again"
        CLOCK.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """When nothing is ready it is already later; what others hand to threads is done in place, as one call that may be a process's last."""

    def __init__(self) -> None:
        super().__init__(_Jump())

    def time(self) -> float:
        return CLOCK.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()
        try:
            with PROCESS.get().one_call(of_home=True):
                value = func(*args)
            self.call_soon(lambda: future.done() or future.set_result(value))
        except (Exception, Killed) as error:
            failure = error
            self.call_soon(lambda: future.done() or future.set_exception(failure))
        return future


# ---- a process of ours ------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """SIGKILL: nobody catches it, and no effect follows."""


@dataclass
class Process:
    """One life of a feeder: `fate` befalls it at its `left`-th call of ledger, server or crash point from now, before or after the call's effect."""

    alive: bool = True
    left: int = -1
    fate: str = ""
    task: asyncio.Task[None] | None = None
    feeder: feeder.Feeder | None = None

    @contextlib.contextmanager
    def one_call(self, *, of_home: bool = False) -> Iterator[None]:
        if not self.alive:
            raise Killed
        counts = of_home or self.fate != "home"
        self.left -= counts
        fate = self.fate if counts and self.left == -1 else ""
        if fate == "before":
            self.die()
        if fate == "home":
            raise HomeUnusable("The disk of the home is full.", path="home")
        yield
        if fate == "after":
            self.die()

    def die(self) -> None:
        self.alive = False
        if self.task is not None:
            self.task.cancel()
        raise Killed

    def reached(self) -> None:
        with self.one_call():
            pass


PROCESS: ContextVar[Process] = ContextVar("PROCESS")


class SimulatedFeeder(feeder.Feeder):
    """Wakes for what the user does, since nobody polls here a hundred times a second."""

    async def _changed(self, version: int) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), 1.0)


class NoBoard:
    """The live board, lost."""

    def __init__(self, home: Path) -> None: ...

    def jobs_since(self, version: int) -> list[Any]:
        return []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: None


# ---- the server -------------------------------------------------------------------------------------------------------------


def picture(prompt_id: str, number: int, graph: Mapping[str, Any] | None = None) -> bytes:
    """A PNG of four pixels that only this output of this prompt has; with its graph in it, as ComfyUI writes it."""
    colours = hashlib.sha256(f"{prompt_id} {number}".encode()).digest()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    text = chunk(b"tEXt", b"prompt\0" + json.dumps(graph).encode()) if graph is not None else b""
    pixels = zlib.compress(b"\0" + colours[:6] + b"\0" + colours[6:12])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)) + text + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def without_texts(data: bytes) -> bytes:
    """A PNG without what it says of itself: what was drawn. By hand, since it judges what the toolkit writes."""
    found, at = data[:8], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        found += b"" if data[at + 4 : at + 8] in (b"tEXt", b"iTXt") else data[at:end]
        at = end
    return found


@dataclass(order=True)
class Prompt:
    """One entry of the queue."""

    number: float
    id: str
    graph: Mapping[str, Any] = field(compare=False)
    sid: str = field(compare=False)
    extra: Mapping[str, Any] = field(compare=False)
    step: int = field(default=0, compare=False)
    messages: list[Any] = field(default_factory=list, compare=False)
    over: bool = field(default=False, compare=False)  # its last event is sent, its history is not written yet

    @property
    def nodes(self) -> dict[str, str]:
        return {node["class_type"]: node_id for node_id, node in self.graph.items()}


@dataclass
class Socket:
    """One websocket: deaf when nothing arrives any more though it is open."""

    sid: str
    hear: Callable[[Event], None]
    ended: asyncio.Future[bool]
    deaf: bool = False
    doubles: bool = False
    swaps: bool = False
    held: str | None = None

    def deliver(self, frame: str) -> None:
        if self.deaf:
            return
        if self.swaps and self.held is None:
            self.held = frame
            return
        frames = [frame, *([self.held] if self.held else [])]
        self.held = None
        for text in frames * (2 if self.doubles else 1):
            self.hear(parse_message(text))


class Server:
    """A ComfyUI that works when it is told to: queue, one running prompt, history, sockets; `ends` tells what became of every prompt."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, has_instance: bool = False, version: str = "0.3.64") -> None:
        self.loop, self.has_instance, self.version = loop, has_instance, version
        self.boot, self.is_up, self.stalled, self.latency_s = 0, True, False, 0.0 if version < "0.3.56" else 0.002
        self.glitches: dict[str, str] = {}
        self.disk_full = False
        self.refuses_sockets = False
        self.files: dict[str, bytes] = {}
        self.journal: list[tuple[float, str, str]] = []
        self.ends: dict[str, str] = {}
        self.dropped: set[str] = set()  # prompts whose end nobody can read any more
        self.looked: dict[str, float] = {}
        self.others: set[str] = set()
        self.intended: dict[str, set[str]] = {}
        self.meddled: list[tuple[str, str]] = []
        self.sockets: dict[str, Socket] = {}
        self.open: list[Socket] = []
        self.buffered: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []
        self._forget()

    def _forget(self) -> None:
        self.boot += 1
        self.counter = 0
        self.pending: list[Prompt] = []
        self.running: Prompt | None = None
        self.history: dict[str, dict[str, Any]] = {}

    @property
    def instance(self) -> str | None:
        return f"boot-{self.boot}" if self.has_instance else None

    def note(self, what: str, prompt_id: str) -> None:
        self.journal.append((round(CLOCK.now, 3), what, prompt_id))

    def runs(self) -> list[str]:
        return [prompt_id for _, what, prompt_id in self.journal if what == "start" and prompt_id not in self.others]

    def knows(self, prompt_id: str) -> bool:
        return prompt_id in self.history or any(prompt.id == prompt_id for prompt in (*self.pending, *([self.running] if self.running else [])))

    # what it does by itself

    def post(self, graph: Mapping[str, Any], prompt_id: str, sid: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        self.note("post", prompt_id)
        heapq.heappush(self.pending, Prompt(self.counter, prompt_id, graph, sid, {**extra, "client_id": sid}))
        self.counter += 1
        self._status()
        return {"prompt_id": prompt_id, "number": self.counter - 1, "node_errors": {}}

    def step(self) -> None:
        """Take the next prompt, or bring the running one a step further."""
        if self.running is None and self.pending:
            self.running = prompt = heapq.heappop(self.pending)
            self.note("start", prompt.id)
            self._tell(prompt, "execution_start", timestamp=CLOCK.time() * 1000)
            self._tell(prompt, "execution_cached", nodes=[])
        elif self.running is not None and not self.running.over:
            prompt = self.running
            prompt.step += 1
            node = prompt.nodes.get("KSampler") or prompt.nodes["EmptyImage"]
            self._tell(prompt, "executing", node=node, display_node=node)
            self._tell(prompt, "progress", value=prompt.step, max=max(prompt.step, 8), node=node)

    def finish(self, how: str = "success", lag_s: float = 0.0) -> None:
        """End the running prompt: its last event first, its history `lag_s` later, as ComfyUI's main.py does."""
        prompt = self.running
        if prompt is None or prompt.over:
            return
        outputs: dict[str, Any] = {}
        prompt.over = True
        facts: dict[str, Any] = {"timestamp": CLOCK.time() * 1000}
        if how == "success":
            outputs = {prompt.nodes["SaveImage"]: {"images": self._draw(prompt)}}
            self._tell(prompt, "executed", node=prompt.nodes["SaveImage"], output=outputs[prompt.nodes["SaveImage"]])
        elif how != "interrupted":
            exception, message = ERRORS[how]
            facts |= {"node_id": prompt.nodes["SaveImage"], "node_type": "SaveImage", "exception_type": exception, "exception_message": message}
        self.ends[prompt.id] = how
        self.note(how, prompt.id)
        self._tell(prompt, f"execution_{how if how in ('success', 'interrupted') else 'error'}", **facts)
        boot = self.boot
        if lag_s:
            self.loop.call_later(lag_s, lambda: self._file(boot, prompt, how, outputs))
        else:
            self._file(boot, prompt, how, outputs)

    def _file(self, boot: int, prompt: Prompt, how: str, outputs: Mapping[str, Any]) -> None:
        if boot != self.boot:
            return
        said = {"status_str": "success" if how == "success" else "error", "completed": how == "success", "messages": prompt.messages}
        sent = [prompt.number, prompt.id, prompt.graph, prompt.extra, [prompt.nodes["SaveImage"]]]
        self.history[prompt.id] = {"prompt": sent, "outputs": outputs, "status": said, "meta": {}}
        self.running = None
        self._status()
        self._say(prompt.sid, "executing", {"node": None, "prompt_id": prompt.id})

    def _draw(self, prompt: Prompt) -> list[dict[str, str]]:
        folder, _, prefix = prompt.graph[prompt.nodes["SaveImage"]]["inputs"]["filename_prefix"].rpartition("/")
        size = prompt.graph[prompt.nodes["EmptyLatentImage"]]["inputs"]["batch_size"] if "EmptyLatentImage" in prompt.nodes else 1
        names = [f"{prefix}_{number:05}_.png" for number in range(1, size + 1)]
        self.files |= {f"{folder}/{name}": picture(prompt.id, number, prompt.graph) for number, name in enumerate(names, 1)}
        return [{"filename": name, "subfolder": folder, "type": "output"} for name in names]

    def work(self) -> None:
        """Bring the running prompt to its good end and take the next."""
        if self.running is not None:
            self.finish("success")
        self.step()

    def post_of_another(self) -> None:
        prompt_id = str(CHANCE.uuid4())
        self.others.add(prompt_id)
        self.post(ANOTHERS, prompt_id, "another", {})

    def lift_faults(self) -> None:
        self.is_up, self.disk_full, self.refuses_sockets = True, False, False
        self.glitches.clear()
        self.resume()

    def die(self) -> None:
        """Queue, running prompt, history and numbers are gone; files stay; every socket breaks; back when `is_up` is set."""
        self.is_up = self.stalled = False
        gone = [*self.pending, *([self.running] if self.running else [])]
        for prompt in gone:
            self.ends.setdefault(prompt.id, "forgotten")
        self.dropped |= {prompt.id for prompt in gone} | set(self.history)
        self.note("restart", "")
        self._forget()
        self.cut(certain=False)
        for future, _ in self.buffered:
            if not future.done():
                future.set_exception(unreachable(not_sent=False))
        self.buffered.clear()

    def resume(self) -> None:
        """Answer what came in while its loop stood still, in order."""
        self.stalled, buffered, self.buffered = False, self.buffered, []
        for future, effect in buffered:
            said = effect()
            if not future.done():
                future.set_result(said)

    def evict(self) -> None:
        self.dropped |= set(self.history)
        self.history.clear()

    def clear(self) -> None:
        """Somebody else empties the queue: no event, no history."""
        for prompt in self.pending:
            self.ends[prompt.id] = "cleared"
            self.note("cleared", prompt.id)
        self.pending.clear()
        self._status()

    # sockets

    def attach(self, sid: str, hear: Callable[[Event], None]) -> Socket:
        socket = self.sockets[sid] = Socket(sid, hear, self.loop.create_future())
        self.open.append(socket)
        self._status()
        return socket

    def detach(self, socket: Socket) -> None:
        if socket in self.open:
            self.open.remove(socket)
            self.sockets.pop(socket.sid, None)  # server.py: whoever ends takes the name with it, a newer socket of that name is deaf then

    def cut(self, *, certain: bool, notices_after_s: float = 0.0) -> None:
        for socket in self.open[:]:
            if not socket.ended.done():
                socket.ended.set_result(certain)
            if notices_after_s:
                self.open.remove(socket)
                self.loop.call_later(notices_after_s, self.sockets.pop, socket.sid, None)
            else:
                self.detach(socket)

    def _say(self, sid: str, kind: str, data: Mapping[str, Any]) -> None:
        socket = self.sockets.get(sid)
        if socket is not None and self.is_up and not self.stalled:
            if not socket.deaf and "prompt_id" in data:
                self.looked[data["prompt_id"]] = CLOCK.now
            socket.deliver(json.dumps({"type": kind, "data": data}))

    def _tell(self, prompt: Prompt, kind: str, **data: Any) -> None:
        if kind.startswith("execution"):
            prompt.messages.append([kind, {**data, "prompt_id": prompt.id}])
        self._say(prompt.sid, kind, {**data, "prompt_id": prompt.id})

    def _status(self) -> None:
        left = len(self.pending) + (self.running is not None)
        for sid in list(self.sockets):
            self._say(sid, "status", {"status": {"exec_info": {"queue_remaining": left}}})

    # requests

    def take(self, effect: Callable[[], Any]) -> asyncio.Future[Any]:
        """The future answer of a request: at once, or when the loop that stands still goes on, even if nobody waits any more."""
        future: asyncio.Future[Any] = self.loop.create_future()
        if not self.is_up:
            future.set_exception(unreachable(not_sent=True))
        elif self.stalled:
            self.buffered.append((future, effect))
        else:
            future.set_result(effect())
        return future

    def answer(self, method: str, path: str, body: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[int, Any]:
        """Status and JSON of every route that the toolkit uses."""
        prompt_id = path.split("/")[3] if path.count("/") > 2 else ""
        match method, path.split("/")[2], prompt_id:
            case "GET", "system_stats", _:
                return 200, {"system": {"comfyui_version": self.version, "instance_id": self.instance}}
            case "GET", "object_info", _:
                return 200, OBJECT_INFO
            case "GET", "queue", _:
                return 200, self._queue()
            case "GET", "history", _:
                self.looked[prompt_id] = CLOCK.now
                return 200, {prompt_id: self.history[prompt_id]} if prompt_id in self.history else {}
            case "GET", "jobs", _ if self.version >= "0.4":
                return self._job(prompt_id)
            case "POST", "jobs", _ if self.version >= "0.4":
                self.delete([prompt_id])
                self.interrupt(prompt_id)
                return 200, {"cancelled": True}
            case "POST", "prompt", _:
                return 200, self.post(body["prompt"], body["prompt_id"], body["client_id"], body["extra_data"])
            case "POST", "queue", _:
                self.delete(body["delete"])
                return 200, {}
            case "POST", "interrupt", _:
                self.interrupt(body["prompt_id"])
                return 200, {}
            case (("HEAD" | "GET"), "view", _):
                data = self.files.get(f"{params['subfolder']}/{params['filename']}")
                return (404, None) if data is None else (200, data if method == "GET" else None)
        return 404, None

    def _queue(self) -> dict[str, Any]:
        running = [self.running] if self.running else []
        for prompt in (*self.pending, *running):
            self.looked[prompt.id] = CLOCK.now
        said = [[[prompt.number, prompt.id, {}, prompt.extra, []] for prompt in prompts] for prompts in (running, self.pending)]
        return {"queue_running": said[0], "queue_pending": said[1]}

    def _job(self, prompt_id: str) -> tuple[int, Any]:
        self.looked[prompt_id] = CLOCK.now
        if prompt_id in self.history:
            entry = self.history[prompt_id]
            status = "completed" if entry["status"]["completed"] else "failed"
            return 200, {"id": prompt_id, "status": status, "priority": entry["prompt"][0], "outputs": entry["outputs"], "execution_status": entry["status"]}
        if self.running is not None and self.running.id == prompt_id:
            return 200, {"id": prompt_id, "status": "in_progress"}
        waits = any(prompt.id == prompt_id for prompt in self.pending)
        if not prompt_id:
            return 200, {"jobs": []}
        return (200, {"id": prompt_id, "status": "pending"}) if waits else (404, {"error": "Job not found"})

    def delete(self, prompt_ids: Sequence[str]) -> None:
        for prompt in [prompt for prompt in self.pending if prompt.id in prompt_ids]:
            self.pending.remove(prompt)
            self.ends[prompt.id] = "deleted"
            self.note("deleted", prompt.id)
            if prompt.id in self.others:
                self.meddled.append(("deleted", prompt.id))
        heapq.heapify(self.pending)

    def interrupt(self, prompt_id: str | None) -> None:
        if self.running is not None and (self.version < "0.3.56" or prompt_id is None or self.running.id == prompt_id):
            if self.running.id != prompt_id:
                self.meddled.append(("interrupted", self.running.id))
            self.finish("interrupted")


def unreachable(*, not_sent: bool) -> ServerUnreachable:
    return ServerUnreachable(f"{URL} does not answer.", server_url=URL, not_sent=not_sent)


REFUSAL = {
    "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": "", "extra_info": {}},
    "node_errors": {},
}
CALLS = {("POST", "prompt"): "submit", ("POST", "queue"): "delete", ("POST", "interrupt"): "cancel", ("POST", "jobs"): "cancel", ("GET", "jobs"): "history"}


class Client(ComfyClient):
    """The real client but for its wire: each request may be lost on the way there or back."""

    def __init__(self, address: ServerAddress, url: str, headers: Mapping[str, str]) -> None:
        self.address, self.url, self._headers, self._answers_jobs, self._version = address, url, {}, False, INTERRUPTS_BY_ID
        self.server, self.process = WORLD.get().server, PROCESS.get()

    async def close(self) -> None: ...

    async def _ask(self, method: str, path: str, **options: Any) -> Answer:
        server, boot = self.server, self.server.boot
        topic = path.split("/")[2]
        glitch = server.glitches.pop(CALLS.get((method, topic), topic), "")
        with self.process.one_call():
            await asyncio.sleep(server.latency_s)
            match glitch:
                case "reset":
                    raise unreachable(not_sent=False)
                case "503" | "500":
                    return Answer(int(glitch))
                case "refused":
                    return Answer(400, json.dumps(REFUSAL).encode())
            future = server.take(lambda: server.answer(method, path, options.get("json") or {}, options.get("params") or {}))
            if not future.done():
                await asyncio.wait([future], timeout=ANSWER_TIMEOUT_S)
            if not future.done() or glitch == "reply lost":
                future.cancel()
                raise unreachable(not_sent=False)
            status, said = future.result()
        await asyncio.sleep(server.latency_s)
        if boot != server.boot:
            raise unreachable(not_sent=False)
        if glitch == "garbage":
            return Answer(200, b"<html>")
        return Answer(status, said if isinstance(said, bytes) else json.dumps(said).encode())

    @contextlib.asynccontextmanager
    async def view(self, output: ServerOutput) -> AsyncIterator[tuple[int | None, AsyncIterator[bytes]]]:
        response = await self._ask("GET", "/api/view", params={"filename": output.filename, "subfolder": output.subfolder})
        self._refuse(response)
        yield len(response.body), self._chunks(response.body)

    async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
        if self.server.disk_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        yield data[:30]
        match self.server.glitches.pop("chunk", ""):
            case "short":
                return
            case "reset":
                raise unreachable(not_sent=False)
        yield data[30:]

    async def listen(self, client_id: str, on_event: Callable[[Event], None], on_open: Callable[[], None]) -> bool:
        server = self.server
        with self.process.one_call():
            await asyncio.sleep(CONNECT_TIMEOUT_S if server.stalled else server.latency_s)
            if not server.is_up or server.stalled or server.refuses_sockets:
                raise unreachable(not_sent=not server.refuses_sockets)
            socket = server.attach(client_id, on_event)
        try:
            on_open()
            return await socket.ended
        finally:
            server.detach(socket)


# ---- the world --------------------------------------------------------------------------------------------------------------


class _Stumbles(logging.LoggerAdapter[logging.Logger]):
    """Where the feeder writes what our own code could not handle: nothing of that may happen."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("simulation"))
        self.found: list[str] = []

    def exception(self, message: Any, *args: Any, **options: Any) -> None:
        self.found.append(f"{message % args}: {sys.exception()!r}")


STUMBLES = _Stumbles()


@contextlib.contextmanager
def simulated_modules() -> Iterator[None]:
    """Put clock, chance, client and crash points of the simulation where the toolkit's modules have the real ones."""
    ours = [module for name, module in sys.modules.items() if name.startswith(("toolkit.feeder", "toolkit.ledger", "toolkit.jobs", "toolkit.outputs"))]
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with pytest.MonkeyPatch.context() as patch:
        for module in ours:
            for name, real, ours_is in (("time", time, CLOCK), ("random", random, CHANCE), ("uuid", uuid, CHANCE)):
                if getattr(module, name, None) is real:
                    patch.setattr(module, name, ours_is)
            if hasattr(module, "reached"):
                patch.setattr(module, "reached", lambda *point: PROCESS.get().reached())
        patch.setattr(link, "ComfyClient", Client)
        patch.setattr(feeder, "LiveBoard", NoBoard)
        patch.setattr(showing, "SHOW_EVERY_S", 1.0)
        for module in (feeder, link, run, collect):
            patch.setattr(module, "log", STUMBLES)
        try:
            yield
        finally:
            logging.disable(before)


WORLD: ContextVar[World] = ContextVar("WORLD")


class World:
    """A home, its user, its feeder and a server, in virtual time."""

    def __init__(self, home: Path, seed: int = 0, **options: Any) -> None:
        CLOCK.now, CLOCK.wall = STARTED_AT_S, 1.8e9
        CHANCE.seed(seed)
        STUMBLES.found.clear()
        WORLD.set(self)
        self.home = home
        self.loop = VirtualLoop()
        self.server = Server(self.loop, **options)
        self.ledger = Ledger(home)
        self.process: Process | None = None
        self.lives = Counter[str]()
        self.start_feeder()

    def advance(self, seconds: float) -> None:
        self.loop.call_at(CLOCK.now + seconds, self.loop.stop)
        self.loop.run_forever()

    # ---- the feeder ---------------------------------------------------------------------------------------------------

    def start_feeder(self) -> None:
        """Another feeder takes the server, as a studio with open jobs would start one; the one before finds its epoch gone."""
        process = self.process = Process()
        context = copy_context()
        context.run(PROCESS.set, process)
        process.feeder = context.run(SimulatedFeeder, self.home, ServerAddress.parse(URL), {}, 20.0)
        process.task = self.loop.create_task(process.feeder.serve(), context=context)
        process.task.add_done_callback(lambda task: self._ended(process, task))
        self.lives["started"] += 1

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        assert process.feeder is not None
        process.feeder.ledger.close()
        error = None if task.cancelled() else task.exception()
        self.lives[type(error).__name__ if error else "killed" if not process.alive else "ended"] += 1
        if isinstance(error, Exception) and not isinstance(error, HomeUnusable):
            STUMBLES.found.append(f"the feeder ended with {error!r}")
        self.loop.call_later(AGAIN_S, self.tend)

    def tend(self) -> None:
        """What a studio does: start a feeder when jobs are open and none runs; wake the one that runs."""
        if self.process is not None and self.process.task is not None and not self.process.task.done():
            if self.process.feeder is not None:
                self.process.feeder._wake.set()
        elif self.ledger.open_jobs():
            self.start_feeder()

    def doom(self, calls: int, fate: str) -> None:
        if self.process is not None:
            self.process.left, self.process.fate = calls, fate

    def close(self) -> None:
        if self.process is not None and self.process.task is not None and not self.process.task.done():
            self.process.alive = False
            self.process.task.cancel()
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.advance(0.0)
        self.ledger.close()
        self.loop.close()
