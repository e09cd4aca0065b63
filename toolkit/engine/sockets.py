"""The open sockets and who gets what: ComfyUI's bookkeeping, its faults included.

Owns the table from client id to socket, the feature flags, and the one task that sends. It must not know prompts. The faults
are kept on purpose, since clients have to live with them: a second socket with the same id steals everything, whichever of
the two closes takes the other one's entry with it (deaf for ever, pings still answered), a client that stops reading freezes
all, and what nobody receives is dropped. Recorded in tests/recordings/l*.jsonl.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import ClientError, WSMsgType, web

FEATURES = {"supports_preview_metadata": True, "max_upload_size": 104_857_600}

Frame = tuple[str | bytes, str | None]


class Sockets:
    """Every open websocket; `post` and `post_bytes` may be called from any thread."""

    def __init__(self) -> None:
        self.open = 0
        self._by_id: dict[str, web.WebSocketResponse] = {}
        self._all: set[web.WebSocketResponse] = set()
        self._flags: dict[str, dict[str, Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()
        self._muted = False
        self._sender = asyncio.create_task(self._send_all(), name="engine sender")

    def post(self, event: str, data: dict[str, Any], client: str | None) -> None:
        """Send a JSON message to one client, or with None to every socket."""
        self._put(json.dumps({"type": event, "data": data}), client)

    def post_bytes(self, event: int, data: bytes, client: str | None) -> None:
        """Send a binary message."""
        self._put(event.to_bytes(4, "big") + data, client)

    def listens(self, client: str | None) -> bool:
        """Say whether anybody would get a message for this client."""
        return bool(self._by_id) if client is None else client in self._by_id

    def wants_metadata(self, client: str | None) -> bool:
        """Say whether this client negotiated previews of type 4."""
        return client is not None and bool(self._flags.get(client, {}).get("supports_preview_metadata"))

    async def serve(self, request: web.Request, greet: Callable[[str], list[dict[str, Any]]]) -> web.WebSocketResponse:
        """Speak with one socket until it closes; `greet` gives its first messages."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.query.get("clientId", "") or uuid.uuid4().hex
        self._by_id[sid], self._flags[sid] = socket, {}
        self._all.add(socket)
        self.open += 1
        try:
            for message in greet(sid):
                await _send(socket, json.dumps(message))
            await self._listen(socket, sid)
        finally:
            self.open -= 1
            self._all.discard(socket)
            self._by_id.pop(sid, None)  # whichever socket has the id now: ComfyUI's fault, kept
            self._flags.pop(sid, None)
        return socket

    async def _listen(self, socket: web.WebSocketResponse, sid: str) -> None:
        """Read on; only the first message may be feature flags."""
        first = True
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            flags = _flags(message.data) if first else None
            if flags is not None:
                self._flags[sid] = flags
                self.post("feature_flags", FEATURES, sid)
            first = False

    async def close(self) -> None:
        """Say goodbye to every socket, deaf ones too, and stop sending."""
        self.mute()
        self._sender.cancel()
        await asyncio.gather(self._sender, return_exceptions=True)
        await asyncio.gather(*(socket.close(code=1001, message=b"engine ends") for socket in list(self._all)))

    def mute(self) -> None:
        """Send nothing more: a run given up by the engine's end is not an interrupted one."""
        self._muted = True

    def _put(self, frame: str | bytes, client: str | None) -> None:
        if not self._muted:
            self._loop.call_soon_threadsafe(self._frames.put_nowait, (frame, client))

    async def _send_all(self) -> None:
        while True:
            frame, client = await self._frames.get()
            named = self._by_id.get(client) if client is not None else None
            for socket in list(self._by_id.values()) if client is None else [named]:
                if socket is not None:
                    await _send(socket, frame)


async def _send(socket: web.WebSocketResponse, frame: str | bytes) -> None:
    with suppress(ClientError, ConnectionError):  # its reader notices and cleans up
        await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))


def _flags(text: str) -> dict[str, Any] | None:
    try:
        message = json.loads(text)
    except ValueError:
        return None
    flags = message.get("data", {}) if isinstance(message, dict) and message.get("type") == "feature_flags" else None
    return flags if isinstance(flags, dict) else None
