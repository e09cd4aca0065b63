"""The program: settings -> studio -> REST, page and feed on one event loop.

Owns the listening sockets, the signals and what is printed. Knows nothing of jobs. Both ports are taken before anything slow happens (the page
imports in 4 s), so that a busy one is said at once and what listens is ours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from toolkit import logs
from toolkit.admission import Gate, is_loopback
from toolkit.errors import PortBusy, RequestInvalid, ToolkitError
from toolkit.feed import Feed
from toolkit.ledger import Ledger
from toolkit.service import build_service
from toolkit.settings import Settings, public_url
from toolkit.studio import Studio

HEAD_S = 10.0  # for the head of a request to arrive
GRACE_S = 1  # for answers on their way; open pages hold a stream that never ends by itself
LAST_S = 1.8  # then the process ends whatever a thread still waits for: all that matters is in the ledger


def main(argv: Sequence[str] | None = None) -> int:
    """Serve page, REST and feed until Ctrl-C; 2 when it cannot start, with one sentence saying why."""
    parser = argparse.ArgumentParser(prog="app.py", description="Serve the page, REST and the feed; TOOLKIT_* variables say where.")
    parser.add_argument("--public", metavar="URL", help="where others see the page through a proxy: sign-in is required; see docs/public.md")
    parser.add_argument("server", nargs="?", help="a ComfyUI, such as http://127.0.0.1:8188, or 'engine'; else COMFYUI_URL, or what is found")
    arguments = parser.parse_args(argv)
    try:
        return serve(in_public(Settings.read(), arguments.public), arguments.server)
    except ToolkitError as error:
        return _refuse(error)


def in_public(settings: Settings, url: str | None) -> Settings:
    """The settings with an address for others, if there is one.

    Raises:
        RequestInvalid: it is none.
    """
    return replace(settings, public_url=public_url(url)) if url else settings


def serve(settings: Settings, server: str | None = None) -> int:
    """Serve until SIGINT or SIGTERM; jobs go on without us.

    Returns:
        0 after a signal, 2 when it cannot start; the sentence is on stderr.
    """
    try:
        _check_door(settings)
        logs.set_up(os.environ, settings.secrets, logging.WARNING)
        with _ended_by_signal(), _listening(settings) as (page, feed):
            bound = replace(settings, port=page.getsockname()[1], feed_port=feed.getsockname()[1])
            with Studio(server, home=settings.home) as studio:
                if settings.public_url:
                    studio._ledger.people.set_public_url(settings.public_url)
                asyncio.run(_run(studio, bound, page, feed))
    except ToolkitError as error:
        return _refuse(error)
    except KeyboardInterrupt:  # before the loop took the signals over
        return 0
    return 0


def build_app(studio: Studio, settings: Settings) -> FastAPI:
    """REST, and the page where gradio and toolkit.ui are there; with a token the page asks for it as a password."""
    service = build_service(studio, settings)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read while gradio is imported
    try:
        import gradio

        ui = importlib.import_module("toolkit.ui")
    except ModuleNotFoundError as error:
        print(f"Page: none, {error.name} is not installed.", file=sys.stderr)
        return service
    ask_nobody()
    gate = Gate.of(settings)
    has_door = settings.public_url is not None or studio._ledger.people.exist()
    auth = (
        (lambda name, password: gate.is_token(password)) if settings.token and not has_door else None
    )  # else a token would close REST and leave the page open
    message = "Any name; the password is TOOLKIT_TOKEN." if auth else None
    page = ui.build_page(studio, is_public=settings.public_url is not None)
    mounted = gradio.mount_gradio_app(service, page, path="", auth=auth, auth_message=message, **ui.page_options(studio.home))
    assert isinstance(mounted, FastAPI)
    return mounted


def ask_nobody() -> None:
    """Take gradio its download of a file that a visitor names by its address: nothing here asks another machine for a visitor."""
    from gradio import Error, processing_utils

    async def fetch_nothing(url: str) -> Any:
        raise Error("Files are uploaded; addresses are not fetched.", print_exception=False)

    processing_utils.async_ssrf_protected_get = fetch_nothing


class Patient(H11Protocol):
    """uvicorn's protocol, which does not wait without end for the head of a request: hundreds of connections that say nothing hold nobody up."""

    _cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait from the first moment."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Wait no longer once a head is whole."""
        super().data_received(data)
        self._wait_for_head()

    def _wait_for_head(self) -> None:
        is_waiting = self.conn.their_state is h11.IDLE
        if self._cut is not None and not is_waiting:
            self._cut.cancel()
            self._cut = None
        elif self._cut is None and is_waiting:
            self._cut = self.loop.call_later(HEAD_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing."""
        super().connection_lost(exc)
        if self._cut is not None:
            self._cut.cancel()


class _Server(uvicorn.Server):
    """uvicorn without its signals: it raises them again after the end, which would end us with another code than 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _run(studio: Studio, settings: Settings, page: socket.socket, listening: socket.socket) -> None:
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        _end_in(LAST_S)

    with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows, or not the main thread: KeyboardInterrupt ends it
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)
    app = await asyncio.to_thread(build_app, studio, settings)
    await asyncio.to_thread(_resume, studio)
    feed = Feed(studio, settings)
    app.state.metrics.watchers = feed.count
    await feed.start(listening)
    proxied = settings.public_url is not None
    server = _Server(
        uvicorn.Config(
            app, access_log=False, log_config=None, log_level="warning", timeout_graceful_shutdown=GRACE_S, ws="none", http=Patient,
            proxy_headers=proxied, forwarded_allow_ips="127.0.0.1,::1", server_header=False,
        )
    )  # fmt: skip
    serving = asyncio.create_task(server.serve(sockets=[page]))
    _say(_links(settings))
    if proxied:
        _say(_for_guests(studio, settings))
    looking = asyncio.create_task(asyncio.to_thread(lambda: _say(f"Server  {studio!r}")))
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it writes a traceback for each open page that is cut off now
    server.should_exit = True
    looking.cancel()
    stopped.cancel()
    await asyncio.gather(serving, feed.stop(), looking, stopped, return_exceptions=True)


def _resume(studio: Studio) -> None:
    """See to it that jobs left open by an earlier run go on, without anybody asking for them."""
    urls = {url for job in studio._ledger.open_jobs() for url in job.servers}
    if urls:
        studio._feed(urls)


def _end_in(seconds: float) -> None:
    """End the process by then even if a thread waits for a server that says nothing."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """SIGTERM is Ctrl-C from here on, so that it ends us cleanly before the loop listens for it, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_door(settings: Settings) -> None:
    """Refuse to stand wide open."""
    has_people = (settings.home / "ledger.sqlite").exists() and _has_people(settings.home)
    if settings.public_url is not None and not has_people:
        hint = "`toolkit people add --owner` makes your own link, `toolkit people add NAME` a friend's."
        raise RequestInvalid(f"Nobody could come in at {settings.public_url}: this home has no people.", hint=hint, field="public")
    if settings.public_url is not None and not is_loopback(settings.host):
        hint = "Leave TOOLKIT_HOST at 127.0.0.1: a proxy on this machine stands in front; docs/public.md has it for nginx and caddy."
        raise RequestInvalid(f"TOOLKIT_HOST is {settings.host}, past the proxy.", hint=hint, field="TOOLKIT_HOST")
    if not is_loopback(settings.host) and settings.token is None and not has_people:
        raise RequestInvalid(
            f"TOOLKIT_HOST is {settings.host}, which others can reach, and there is neither a TOOLKIT_TOKEN nor people.",
            hint="Set TOOLKIT_TOKEN to a long random word, `toolkit people add --owner`, or set TOOLKIT_HOST to 127.0.0.1.",
            field="TOOLKIT_TOKEN",
        )


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both sockets, bound and listening; closed afterwards."""
    with contextlib.ExitStack() as stack:
        page = stack.enter_context(_bound(settings.host, settings.port, "TOOLKIT_PORT"))
        feed = stack.enter_context(_bound(settings.host, settings.feed_port, "TOOLKIT_FEED_PORT"))
        yield page, feed


def _bound(host: str, port: int, variable: str) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(place[0]), port), family=family, backlog=128)
    except socket.gaierror as error:
        raise RequestInvalid(f"TOOLKIT_HOST is '{host}', which has no address: {error.strerror}.", field="TOOLKIT_HOST") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = f"Set {variable} to another one; 0 takes any that is free."
            raise PortBusy(f"Port {port} is in use by another program.", port=port, hint=hint) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PortBusy(f"Port {port} may not be used by this account.", port=port, hint=f"Set {variable} to one above 1023.") from error
        raise RequestInvalid(f"TOOLKIT_HOST is '{host}', which cannot be listened on: {error.strerror}.", field="TOOLKIT_HOST") from error


def _links(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host.strip("[]")
    host = f"[{host}]" if ":" in host else host
    page = f"http://{host}:{settings.port}"
    return f"Page    {page}/\nREST    {page}/api/docs\nFeed    ws://{host}:{settings.feed_port}/"


def _has_people(home: Path) -> bool:
    ledger = Ledger(home)
    try:
        return ledger.people.exist()
    finally:
        ledger.close()


def _for_guests(studio: Studio, settings: Settings) -> str:
    """What stands open to whom."""
    rules, guests = studio._ledger.people.rules(), [person for person in studio._ledger.people.all() if not person.is_owner]
    models = f"with {', '.join(rules.models)}" if rules.models else "with any model"
    said = f"Public  {settings.public_url}/ for {len(guests)} guests and you, by sign-in; the proxy for it: docs/public.md\n"
    said += f"        Guests make pictures and clips {models}, see their own alone, and run no workflows; `toolkit people list` has their quotas."
    return said


def _say(text: str) -> None:
    print(text, flush=True)


def _refuse(error: ToolkitError) -> int:
    print(error, file=sys.stderr)
    return 2
