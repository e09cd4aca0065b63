"""A scripted layer in front of the engine: real sockets in, real sockets out, and a rule for each frame and request.

The client sees a ComfyUI at another address. Rules are plain functions, so a case is a few lines: drop a frame, refuse the upgrade,
answer with something else, or close.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.faults.aside import Aside
from toolkit.engine.execution import Options
from toolkit.engine.server import Engine

OnRequest = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
Frames = str | bytes | list[str | bytes] | None
OnFrame = Callable[[str | bytes], Frames]


def without(kind: str) -> OnFrame:
    """A rule that loses the frames of a type: without `executed` nobody knows from the socket what was put out, and history is asked."""
    return lambda frame: None if isinstance(frame, str) and json.loads(frame)["type"] == kind else frame


async def _pass(_: web.Request) -> None:
    return None


class Layer(Aside):
    """An engine and the layer in front of it; `url` is what a client is given. With a `prefix` the server lives below that path only."""

    def __init__(self, home: Path, options: Options | None = None, prefix: str = "") -> None:
        super().__init__()
        self.on_request: OnRequest = _pass
        self.on_frame: OnFrame = lambda frame: frame
        self.requests: list[tuple[str, str]] = []
        self._home, self._options, self._prefix = home, options or Options(0.0, 0.0, 0.0, True, 0.0), prefix
        self.url = ""
        self.sockets: set[web.WebSocketResponse] = set()

    def forget(self) -> None:
        """Restart the engine behind the layer: queue, history and cache are gone, files stay."""
        self.call(self._restart())

    def cut(self) -> None:
        """Drop every websocket without a close handshake."""

        async def drop() -> None:
            for socket in list(self.sockets):
                transport = socket._req.transport if socket._req is not None else None
                if transport is not None:
                    transport.abort()

        self.call(drop())

    def runs(self) -> list[str]:
        """The prompt ids the engine ran, once for each run."""
        return [line["prompt_id"] for line in self.journal() if line["event"] == "start"]

    def finished(self) -> set[str]:
        """The prompt ids the engine brought to a good end."""
        return {line["prompt_id"] for line in self.journal() if line["event"] == "end" and line["status"] == "success"}

    def journal(self) -> list[dict[str, Any]]:
        """The engine's own account of its runs."""
        file = self._home / "engine" / "runs.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    async def _start(self) -> None:
        self._engine = Engine(self._home, self._options)
        self._engine_url = await self._engine.start()
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=200 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{self._prefix}"

    async def _stop(self) -> None:
        await self._session.close()
        await self._runner.cleanup()
        await self._engine.stop()

    async def _restart(self) -> None:
        await self._engine.stop()
        self._engine = Engine(self._home, self._options)
        self._engine_url = await self._engine.start()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if not request.path.startswith(f"{self._prefix}/"):
            return web.Response(status=404)
        self.requests.append((request.method, request.path))
        answer = await self.on_request(request)
        if answer is not None:
            return answer
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request)
        return await self.forward(request)

    async def forward(self, request: web.Request, path_qs: str | None = None) -> web.Response:
        """What the engine answers to a request, or to the same request under another path."""
        url = self._engine_url + (path_qs or request.path_qs).removeprefix(self._prefix)
        async with self._session.request(request.method, url, data=await request.read(), headers=_headers(request)) as reply:
            headers = {name: value for name, value in reply.headers.items() if name.lower() not in ("transfer-encoding", "content-length")}
            return web.Response(status=reply.status, body=await reply.read(), headers=headers)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        mine = web.WebSocketResponse(compress=False)
        await mine.prepare(request)
        self.sockets.add(mine)
        try:
            async with self._session.ws_connect(self._engine_url + request.path_qs.removeprefix(self._prefix), max_msg_size=0) as theirs:
                up = asyncio.create_task(self._upwards(mine, theirs))
                async for message in theirs:
                    frames = self.on_frame(message.data)
                    for frame in frames if isinstance(frames, list) else [frames]:
                        if isinstance(frame, str):
                            await mine.send_str(frame)
                        elif isinstance(frame, bytes):
                            await mine.send_bytes(frame)
                up.cancel()
        except (aiohttp.ClientError, ConnectionError):
            pass
        finally:
            self.sockets.discard(mine)
        return mine

    async def _upwards(self, mine: web.WebSocketResponse, theirs: aiohttp.ClientWebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):  # one end closes while the other's words are on their way
            async for message in mine:
                await theirs.send_str(message.data)
        await theirs.close()


def _headers(request: web.Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length", "transfer-encoding")}
