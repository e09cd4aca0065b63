"""A TCP proxy in front of a layer or an engine: what a network does to bytes, below HTTP. With `tls` it is the end of an https address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.faults.aside import Aside

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing sends RST, not FIN
CHUNK = 2**16


class Proxy(Aside):
    """`url` is what a client is given; it stays the same while the proxy refuses, stalls and goes on."""

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        parts = urlsplit(target)
        self._target, self._tls = (parts.hostname or "", parts.port or 80), tls
        self._flows, self._tasks, self._moves = set[asyncio.StreamWriter](), set[asyncio.Task[None]](), asyncio.Event()
        self._moves.set()
        self._bytes_s: float | None = None
        self._place = socket.socket()  # bound and never listening: refused connections, and nobody else gets the port
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self._port: int = self._place.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._port}{parts.path}"
        self.on_data: Callable[[bytes], bytes] = lambda data: data  # corrupt what the server sends
        self.connections = 0

    def cut(self) -> None:
        """Reset every connection."""
        self.call(self._cut())

    def stall(self) -> None:
        """Forward nothing either way, tell nobody, accept and stay silent: a half-open connection."""
        self._loop.call_soon_threadsafe(self._moves.clear)

    def go_on(self) -> None:
        """Forward again, what was held back first."""
        self._loop.call_soon_threadsafe(self._moves.set)

    def throttle(self, bytes_s: float | None) -> None:
        """Forward at most so many bytes a second, each way of each connection; None: as they come."""
        self._bytes_s = bytes_s

    def refuse(self) -> None:
        """Reset every connection and refuse new ones, as where no process listens."""

        async def refuse() -> None:
            self._server.close()
            await self._cut()

        self.call(refuse())

    def accept(self) -> None:
        """Listen again, on the same port."""
        self.call(self._listen())

    async def _start(self) -> None:
        await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self._port, ssl=self._tls)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _stop(self) -> None:
        self._moves.set()
        self._server.close()
        await self._cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._place.close()

    async def _cut(self) -> None:
        for writer in list(self._flows):
            end: socket.socket | None = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                if end is not None:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        ends = {writer}
        self._flows.add(writer)
        try:
            there, back = await asyncio.open_connection(*self._target)
            ends.add(back)
            self._flows.add(back)
            up = asyncio.create_task(self._pump(reader, back, lambda data: data))
            await self._pump(there, writer, lambda data: self.on_data(data))
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
        except OSError:  # nobody at the target
            writer.transport.abort()
        finally:
            for end in ends:
                end.close()
            self._flows -= ends

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rule: Callable[[bytes], bytes]) -> None:
        """Forward until one end is gone, then close the other."""
        with contextlib.suppress(OSError):
            while data := await reader.read(int(min(CHUNK, max(1, (self._bytes_s or CHUNK * 20) / 20)))):
                await self._moves.wait()
                if self._bytes_s is not None:
                    await asyncio.sleep(len(data) / self._bytes_s)
                writer.write(rule(data))
                await writer.drain()
        await self._moves.wait()
        writer.close()
