"""One ComfyUI server over HTTP and its websocket: the only importer of aiohttp.

Owns addresses, timeouts, headers, and the translation of foreign exceptions into ServerError. Never parses: every body and frame goes
through protocol.py. Never decides: whether a silent job lives is for reconcile.py. Every route is asked below /api, where old and new
servers have it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

from toolkit import protocol
from toolkit.errors import PromptRejected, ServerError, ServerRefused, ServerUnreachable, WireError
from toolkit.failures import silence_words, status_words
from toolkit.graph import NodeCatalog
from toolkit.protocol import Answer, Event, HistoryEntry, ServerOutput, ServerQueue, Whereabouts
from toolkit.settings import ServerAddress

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0  # gc and model loads stall a real server's loop for 0.3 to 20 s; silence is not an answer
FRAME_LIMIT = 256 * 2**20  # `executed` frames of 1.2 MB are recorded; the library's default of 1 MiB closes the socket
PING_INTERVAL_S = 25.0  # of silence; who does not answer within half of it is gone
CHUNK_BYTES = 2**18
OLDEST = (0, 3, 44)  # the first to take our own prompt ids, without which a lost reply could not be reconciled
INTERRUPTS_BY_ID = (0, 3, 56)  # older ones stop whatever runs
REDACTED = re.compile(r"(--[\w-]*(?:key|token|password|secret)[\w-]*)([= ]\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ServerLook:
    """What a server said of itself: facts for the log, its catalog, and its instance id if it has one."""

    facts: Mapping[str, Any]
    catalog: NodeCatalog = field(repr=False)
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer 200 of POST /prompt; `refused` lists output branches that were dropped."""

    number: float | None
    refused: protocol.Rejection | None = None


class ComfyClient:
    """HTTP and websocket of one server, on one event loop; `async with` it, or `close()`."""

    def __init__(
        self, address: ServerAddress, url: str | None = None, headers: Mapping[str, str] | None = None, *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        """Talk to `url`, by default the address's own; the engine's address has none, its port changes."""
        self.address = address
        self.url = url or address.url
        self._headers = {**(headers or {}), **_authorization(address)}
        self._answers_jobs = False  # known after `look`
        self._version = INTERRUPTS_BY_ID
        # of its own, since aiohttp reads the environment's certificates once, when it is imported
        trusted = ssl.create_default_context() if self.url.startswith("https:") else True
        self._http = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(ssl=trusted),
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # a proxy may want its cookie back under an address too
            timeout=aiohttp.ClientTimeout(sock_connect=min(CONNECT_TIMEOUT_S, timeout_s), sock_read=timeout_s),
            json_serialize=_dumped,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def __aenter__(self) -> ComfyClient:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.close()

    # ---- asking -------------------------------------------------------------------------------------------------------

    async def look(self) -> ServerLook:
        """The server's configuration and catalog."""
        stats = await self._json("GET", "/api/system_stats")
        object_info = await self._json("GET", "/api/object_info")
        if not isinstance(stats, Mapping) or not isinstance(object_info, Mapping) or not isinstance(stats.get("system"), Mapping):
            raise WireError(f"{self.address.url} is not a ComfyUI server.", server_url=self.address.url, hint="Is the address right?")
        self._check_version(str(stats["system"].get("comfyui_version")))
        jobs = await self._ask("GET", "/api/jobs", params={"limit": 1})
        self._answers_jobs = jobs.status == 200 and jobs.has("jobs")  # a proxy may answer 200 to anything
        embeddings = (await self._ask("GET", "/api/embeddings")).json_or_text()
        catalog = NodeCatalog(object_info, embeddings if isinstance(embeddings, list) else None)
        return ServerLook(_facts(stats, object_info), catalog, stats["system"].get("instance_id"))

    def _check_version(self, said: str) -> None:
        """Remember the server's version; one that cannot be read passes as new enough."""
        numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", said)
        if numbers is None:
            return
        self._version = (int(numbers[1]), int(numbers[2]), int(numbers[3]))
        if self._version < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise WireError(f"{self.address.url} is ComfyUI {said}: at least {oldest} is needed.", server_url=self.address.url, hint="Update ComfyUI there.")

    async def is_comfyui(self) -> bool:
        """Whether a ComfyUI answers there."""
        try:
            stats = await self._json("GET", "/api/system_stats")
        except ServerError:
            return False
        return isinstance(stats, Mapping) and isinstance(stats.get("system"), Mapping) and "comfyui_version" in stats["system"]

    async def instance(self) -> str | None:
        """The engine's instance id: another one means that it forgot everything; a real server has none."""
        stats = await self._json("GET", "/api/system_stats")
        return stats.get("system", {}).get("instance_id") if isinstance(stats, Mapping) else None

    async def queue(self) -> ServerQueue:
        """What runs and what waits on the server."""
        return await self._parsed(protocol.parse_queue, "GET", "/api/queue")

    async def history(self, prompt_id: str) -> HistoryEntry | None:
        """How a prompt ended; None while it has not, or if the server does not know it."""
        return await self._parsed(lambda data: protocol.parse_history(data, prompt_id), "GET", f"/api/history/{prompt_id}")

    async def ended(self, latest: int | None) -> list[HistoryEntry]:
        """How the latest prompts ended, whoever sent them, the last one last; None: as many as the server remembers."""
        return await self._parsed(protocol.parse_histories, "GET", "/api/history" + (f"?max_items={latest}" if latest is not None else ""))

    async def whereabouts(self, prompt_id: str) -> Whereabouts:
        """Where a prompt is now: in one question where the server knows /api/jobs, else its queue first and its history second."""
        if self._answers_jobs:
            response = await self._ask("GET", f"/api/jobs/{prompt_id}")
            if response.status != 404:
                return self._read(protocol.parse_job, response, "/api/jobs")
            if response.has("error"):
                return Whereabouts()
            self._answers_jobs = False  # a bare 404 does not speak of the job: the route is gone
        queue = await self.queue()
        runs, waits = queue.runs(prompt_id), queue.place(prompt_id) is not None
        return Whereabouts(runs, waits, None if runs or waits else await self.history(prompt_id))

    async def submit(self, graph: Mapping[str, Any], prompt_id: str, client_id: str, extra_data: Mapping[str, Any] | None = None) -> Accepted:
        """POST a prompt under our own id. Never retried here: POST /prompt is not idempotent.

        Raises:
            PromptRejected: the server refused the graph. ServerUnreachable: with `not_sent` if it cannot have arrived.
        """
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id, "extra_data": dict(extra_data or {})}
        response = await self._ask("POST", "/api/prompt", json=body)
        if response.status == 400:
            data = response.json_or_text()
            rejection = protocol.parse_rejection(data)
            errors = data.get("node_errors") if isinstance(data, Mapping) else None
            said, found = f"The server refused the graph: {rejection.sentence}", errors if isinstance(errors, Mapping) else {}
            raise PromptRejected(said, server_url=self.address.url, node_errors=found, kind=rejection.kind, reply=data)
        self._refuse(response)
        data = self._decoded(response)
        errors = data.get("node_errors") if isinstance(data, Mapping) else None
        number = data.get("number") if isinstance(data, Mapping) else None
        return Accepted(number, protocol.parse_rejection({"error": {"message": "some outputs were refused"}, "node_errors": errors}) if errors else None)

    async def delete(self, prompt_ids: Sequence[str]) -> None:
        """Take pending prompts out of the server's queue; running and unknown ones are not touched."""
        self._refuse(await self._ask("POST", "/api/queue", json={"delete": list(prompt_ids)}))

    async def cancel(self, prompt_id: str) -> None:
        """Take this prompt out of the queue, or stop it if it runs; never another's. Whether it worked is for `whereabouts` to say."""
        if self._answers_jobs:
            response = await self._ask("POST", f"/api/jobs/{prompt_id}/cancel")
            if response.status not in (404, 405):  # /api/jobs is older than this route
                return self._refuse(response)
        await self.delete([prompt_id])
        running = (await self.queue()).running
        alone = [entry.prompt_id for entry in running] == [prompt_id]
        if alone if self._version < INTERRUPTS_BY_ID else any(entry.prompt_id == prompt_id for entry in running):
            self._refuse(await self._ask("POST", "/api/interrupt", json={"prompt_id": prompt_id}))
        await self.delete([prompt_id])  # it may have come in between

    async def free(self) -> None:
        """Let the server unload its models and give memory back, once it is between two prompts."""
        self._refuse(await self._ask("POST", "/api/free", json={"unload_models": True, "free_memory": True}))

    async def model_metadata(self, folder: str, name: str) -> Mapping[str, Any] | None:
        """What a model file says of itself (the `__metadata__` of safetensors); None if it says nothing, or the server cannot tell."""
        response = await self._ask("GET", f"/api/view_metadata/{folder}", params={"filename": name})
        data = response.json_or_text() if response.status == 200 else None
        return data if isinstance(data, Mapping) else None

    async def upload(self, name: str, data: bytes) -> None:
        """Put a picture into the server's input folder under `subfolder/name`, over an equal one.

        Raises:
            WireError: the server kept it under another name.
        """
        subfolder, _, filename = name.rpartition("/")
        form = aiohttp.FormData({"subfolder": subfolder, "type": "input", "overwrite": "true"})
        form.add_field("image", data, filename=filename, content_type="image/png")
        response = await self._ask("POST", "/api/upload/image", data=form)
        self._refuse(response)
        said = self._decoded(response)
        kept = f"{said.get('subfolder')}/{said.get('name')}" if isinstance(said, Mapping) else None
        if kept != name:
            raise WireError(f"{self.address.url} kept an input picture as {kept}.", server_url=self.address.url)

    @contextlib.asynccontextmanager
    async def view(self, output: ServerOutput) -> AsyncIterator[tuple[int | None, AsyncIterator[bytes]]]:
        """A file of the server as its length in bytes, if said, and a stream of chunks.

        Raises:
            ServerRefused: status 404 when the file is gone.
        """
        params = {"filename": output.filename or "", "subfolder": output.subfolder, "type": output.folder}
        async with self._border(), self._http.get(f"{self.url}/api/view", params=params, allow_redirects=False) as response:
            self._refuse(Answer(response.status, location=response.headers.get("location")))
            yield response.content_length, response.content.iter_chunked(CHUNK_BYTES)

    async def has(self, output: ServerOutput) -> bool:
        """Whether the server has a file of this name."""
        params = {"filename": output.filename or "", "subfolder": output.subfolder, "type": output.folder}
        response = await self._ask("HEAD", "/api/view", params=params)
        if response.status != 404:
            self._refuse(response)
        return response.status == 200

    # ---- the socket ---------------------------------------------------------------------------------------------------

    async def listen(self, client_id: str, on_event: Callable[[Event], None], on_open: Callable[[], None]) -> bool:
        """Read frames until the socket ends; True if it ended by a close handshake, so that the same client id may be used again.

        Feature flags go first, so that previews carry their prompt id; deflate is not offered, since it would compress every JPEG.

        Raises:
            ServerUnreachable: the socket could not be opened, or broke.
        """
        address = f"{self.url}/api/ws?clientId={client_id}"
        lasting = aiohttp.ClientWSTimeout(ws_close=2.0)
        try:
            async with (
                asyncio.timeout(CONNECT_TIMEOUT_S) as opening,
                self._http.ws_connect(address, max_msg_size=FRAME_LIMIT, heartbeat=PING_INTERVAL_S, compress=0, timeout=lasting) as socket,
            ):
                opening.reschedule(None)
                await socket.send_str(protocol.FEATURE_FLAGS)
                on_open()
                async for frame in socket:
                    on_event(protocol.parse_message(frame.data))
                return socket.close_code not in (None, aiohttp.WSCloseCode.ABNORMAL_CLOSURE)
        except aiohttp.WSServerHandshakeError as error:
            raise ServerUnreachable(f"{self.address.url} refuses a websocket: {error.message}.", server_url=self.address.url) from error
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise ServerUnreachable(f"{self.address.url} does not answer.", server_url=self.address.url, not_sent=True) from error

    # ---- one request --------------------------------------------------------------------------------------------------

    async def _ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self._border(), self._http.request(method, f"{self.url}{path}", allow_redirects=False, **options) as response:
            return Answer(response.status, await response.read(), response.headers.get("location"))

    async def _json(self, method: str, path: str) -> Any:
        response = await self._ask(method, path)
        self._refuse(response)
        return self._decoded(response)

    async def _parsed(self, parse: Callable[[Any], T], method: str, path: str) -> T:
        return self._read(parse, await self._ask(method, path), path)

    def _read(self, parse: Callable[[Any], T], response: Answer, path: str) -> T:
        self._refuse(response)
        try:
            return parse(self._decoded(response))
        except ValueError as error:
            raise WireError(f"{self.address.url} answered {path} strangely: {error}.", server_url=self.address.url) from error

    def _decoded(self, response: Answer) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise WireError(f"{self.address.url} did not answer with JSON.", server_url=self.address.url, hint="Is it a ComfyUI server?") from error

    def _refuse(self, response: Answer) -> None:
        """Raise for a status that says no, each in its own words."""
        status, url = response.status, self.address.url
        if status < 300:
            return
        message, hint = status_words(status, url, response.location)
        raise ServerRefused(message, server_url=url, status=status, hint=hint)

    @contextlib.asynccontextmanager
    async def _border(self) -> AsyncIterator[None]:
        url = self.address.url
        try:
            yield
        except aiohttp.ClientError as error:
            raise _unreachable(error, url) from error


def _unreachable(error: aiohttp.ClientError, url: str) -> ServerUnreachable:
    """Why nothing came back, and what to try; only some errors are certain that the request cannot have arrived."""
    not_sent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    message, hint = silence_words([kind.__name__ for kind in type(error).__mro__], str(error), url)
    return ServerUnreachable(message, server_url=url, not_sent=not_sent, hint=hint)


def _authorization(address: ServerAddress) -> dict[str, str]:
    """The header for a user and password in an address (RFC 7617)."""
    if address.user is None:
        return {}
    said = f"{address.user}:{address.password or ''}"
    return {"Authorization": f"Basic {base64.b64encode(said.encode()).decode()}"}


def _dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _facts(stats: Mapping[str, Any], object_info: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the log's table servers, from /system_stats and the catalog."""
    system = stats["system"]
    devices = stats.get("devices") or [{}]
    modules = sorted((name, str(spec.get("python_module"))) for name, spec in object_info.items() if isinstance(spec, Mapping))
    simulated = bool(system.get("simulated", False))
    argv = " ".join(str(word) for word in system.get("argv") or [])
    return {
        "simulated": simulated,
        "device": devices[0].get("name"),
        "vram_bytes": devices[0].get("vram_total"),
        "comfyui_version": system.get("comfyui_version"),
        "pytorch_version": system.get("pytorch_version"),
        "python_version": system.get("python_version"),
        "os": system.get("os"),
        # the engine's own arguments hold a port and a folder that say nothing of its speed
        "arguments": [] if simulated else REDACTED.sub(r"\1 ***", argv).split()[1:],
        "packs_hash": hashlib.sha256(json.dumps(modules).encode()).hexdigest()[:16],
    }


def run_aside(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end on a thread and loop of its own: works inside a notebook's running loop too."""
    result: list[T] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            result.append(asyncio.run(work()))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="toolkit-look", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def ask_once(
    what: Callable[[ComfyClient], Awaitable[T]],
    address: ServerAddress,
    url: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 15.0,
) -> T:
    """One question to a server from synchronous code, e.g. `ask_once(ComfyClient.look, address)`."""

    async def ask() -> T:
        async with ComfyClient(address, url, headers, timeout_s=timeout_s) as client:
            return await what(client)

    return run_aside(ask)


def discover(urls: Sequence[str], timeout_s: float = 0.3) -> str | None:
    """The first of these loopback addresses at which a ComfyUI answers within the time."""

    async def answers(url: str) -> bool:
        async with ComfyClient(ServerAddress.parse(url), timeout_s=timeout_s) as client:
            return await client.is_comfyui()

    async def ask() -> list[bool]:
        waits: list[Awaitable[bool]] = [answers(url) for url in urls]
        return await asyncio.gather(*waits)

    return next((url for url, found in zip(urls, run_aside(ask), strict=True) if found), None)
