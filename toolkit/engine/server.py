"""The engine over HTTP and websockets: ComfyUI 0.3.64's routes, each also under /api.

Owns the routes, the check of Origin and Host, and the life of an engine from listening to its last goodbye. It must not know
nodes or the order of events. aiohttp.web because ComfyUI is built on it: Range, HEAD, 413 and "Server got itself in trouble"
then come out the same by themselves.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import platform
import shutil
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from toolkit.engine import files, jobs, models, uploads
from toolkit.engine.catalog import Catalog, catalog, with_choices
from toolkit.engine.execution import Journal, Options, Stock, Worker
from toolkit.engine.queue import PromptQueue
from toolkit.engine.sockets import FEATURES, Sockets
from toolkit.engine.validation import validate

VERSION = "0.3.64"
DEVICE = "built-in engine (draws, no model)"
GREETING = "anime-toolkit's built-in engine: it speaks ComfyUI's protocol and draws stand-in art. Connect a ComfyUI to make real ones.\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Engine:
    """One engine on one home: its files live in `home`/engine. That it is the only one there, __main__.py sees to.

    Args:
        home: the toolkit's home.
        options: times, previews, classes and model files.
        port: 0 lets the system pick one.

    Raises:
        ValueError: the options ask for models that cannot be.
    """

    def __init__(self, home: Path, options: Options | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.home, self.options = home.resolve() / "engine", options or Options()
        self.host, self.port, self.url = host, port, ""
        self.instance_id = str(uuid.uuid4())
        stocked = models.chosen(self.options.models, newer=self.options.newer)
        self.stock = Stock(self.home, stocked, catalog(stocked, newer=self.options.newer))
        self._number = 0
        self._last_use = time.monotonic()

    async def start(self) -> str:
        """Listen and begin to take prompts; gives the address.

        Raises:
            OSError: the port is taken.
        """
        listener = socket.create_server((self.host, self.port))
        self.port = listener.getsockname()[1]
        self.url = f"http://{self.host}:{self.port}"
        self._make_folders()
        self.sockets = Sockets()
        self.queue = PromptQueue(lambda remaining: self.sockets.post("status", _status(remaining), None))
        journal = Journal(self.home / "runs.jsonl", self.instance_id)
        self.worker = Worker(self.queue, self.sockets, self.stock, journal, self.options)
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=1.0)  # 1 s: a download may end
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        self.worker.start()
        return self.url

    async def stop(self) -> None:
        """Close sockets, give up what runs, and listen no more."""
        self.sockets.mute()
        await asyncio.to_thread(self.worker.stop)
        await self.sockets.close()
        await self._runner.cleanup()

    def idle_s(self) -> float:
        """Say how long nobody has wanted anything: no socket, no job, no request."""
        if self.sockets.open or self.queue.remaining():
            self._last_use = time.monotonic()
        return time.monotonic() - self._last_use

    def _make_folders(self) -> None:
        shutil.rmtree(self.home / "temp", ignore_errors=True)
        for kind in uploads.KINDS:
            (self.home / kind).mkdir(parents=True, exist_ok=True)

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=FEATURES["max_upload_size"], middlewares=[self._guard])
        for prefix in ("", "/api"):
            for path, handler in self._readers().items():
                app.router.add_get(prefix + path, handler)
            for path, handler in self._writers().items():
                app.router.add_post(prefix + path, handler)
        if self.options.jobs_api:
            app.router.add_get("/api/jobs", self._jobs)
            app.router.add_get("/api/jobs/{prompt_id}", self._job)
            app.router.add_post("/api/jobs/{prompt_id}/cancel", self._cancel_job)
        app.router.add_get("/", self._greet)
        app.router.add_get("/{unknown:.*}", self._unknown)
        return app

    def _readers(self) -> dict[str, Handler]:
        return {
            "/ws": self._socket,
            "/prompt": self._remaining,
            "/queue": self._queue,
            "/history": self._history,
            "/history/{prompt_id}": self._past,
            "/view": self._view,
            "/object_info": self._object_info,
            "/object_info/{name}": self._object_info,
            "/system_stats": self._system_stats,
            "/features": self._features,
            "/models": self._models,
            "/models/{folder}": self._models,
            "/view_metadata/{folder}": self._view_metadata,
            "/embeddings": self._embeddings,
            "/extensions": self._nothing,
        }

    def _writers(self) -> dict[str, Handler]:
        return {
            "/prompt": self._submit,
            "/queue": self._change_queue,
            "/interrupt": self._interrupt,
            "/history": self._change_history,
            "/free": self._free,
            "/upload/image": self._upload,
        }

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what a foreign page sends through the user's browser, by Origin (recorded) or by a name that leads here."""
        self._last_use = time.monotonic()
        try:
            if not _from_here(request.headers.get("Host", ""), request.headers.get("Origin")):
                return web.Response(status=403)
            return web.Response() if request.method == "OPTIONS" else await handler(request)
        finally:
            self._last_use = time.monotonic()

    async def _greet(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=GREETING)

    async def _unknown(self, request: web.Request) -> web.StreamResponse:
        """Answer 404 like ComfyUI's folder of static files: no text, an octet stream."""
        return web.FileResponse(self.home / "no such file")

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        return await self.sockets.serve(request, self._welcome)

    def _welcome(self, sid: str) -> list[dict[str, Any]]:
        """Greet a socket; one whose job runs learns the current node, without prompt id (recorded)."""
        first = {"type": "status", "data": _status(self.queue.remaining()) | {"sid": sid}}
        at = self.worker.attention
        if at.client == sid and at.node is not None:
            return [first, {"type": "executing", "data": {"node": at.node}}]
        return [first]

    async def _remaining(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(_status(self.queue.remaining())["status"])

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = self._next_number(body)
        if "prompt" not in body:
            error = {"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided", "extra_info": {}}
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        prompt_id, graph = str(body.get("prompt_id", uuid.uuid4())), body["prompt"]
        verdict = validate(graph, self.stock.catalog, self._is_there, body.get("partial_execution_targets"))
        if verdict.error:
            return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        extra = body.get("extra_data", {})
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        self.queue.put((number, prompt_id, graph, extra, verdict.outputs))
        return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})

    def _is_there(self, name: str) -> bool:
        return uploads.found(self.home, name) is not None

    def _next_number(self, body: Any) -> float:
        """Give a prompt its place; the counter moves for rejected ones too, and not for a number that was sent."""
        if "number" in body:
            return float(body["number"])
        number = -self._number if isinstance(body, dict) and body.get("front") else self._number
        self._number += 1
        return number

    async def _queue(self, request: web.Request) -> web.StreamResponse:
        running, pending = self.queue.now()
        return web.json_response({"queue_running": running, "queue_pending": pending})

    async def _change_queue(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("clear"):
            self.queue.clear()
        for prompt_id in body.get("delete", ()):
            self.queue.delete(prompt_id)
        return web.Response()

    async def _interrupt(self, request: web.Request) -> web.StreamResponse:
        """Interrupt what runs; a prompt id that does not run makes it a no-op, no body means whatever runs."""
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        prompt_id = body.get("prompt_id")
        if not prompt_id or self.queue.runs(prompt_id):
            self.worker.interrupt()
        return web.Response()

    async def _jobs(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        wanted = {word for word in query.get("status", "").split(",") if word}
        limit = int(query["limit"]) if "limit" in query else None
        return web.json_response(jobs.jobs(self.queue, wanted, limit, int(query.get("offset", 0))))

    async def _job(self, request: web.Request) -> web.StreamResponse:
        found = jobs.job(self.queue, request.match_info["prompt_id"])
        return web.json_response({"error": "Job not found"}, status=404) if found is None else web.json_response(found)

    async def _cancel_job(self, request: web.Request) -> web.StreamResponse:
        """Dequeue or interrupt; a job that has ended or is unknown is no error."""
        prompt_id = request.match_info["prompt_id"]
        waits = any(item[1] == prompt_id for item in self.queue.now()[1])
        runs = self.queue.runs(prompt_id)
        self.queue.delete(prompt_id)
        if runs:
            self.worker.interrupt()
        return web.json_response({"cancelled": waits or runs})

    async def _history(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        max_items = int(query["max_items"]) if "max_items" in query else None
        return web.json_response(self.queue.history(max_items, int(query.get("offset", -1))))

    async def _past(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.queue.past(request.match_info["prompt_id"]))

    async def _change_history(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("clear"):
            self.queue.forget()
        if "delete" in body:
            self.queue.forget(body["delete"])
        return web.Response()

    async def _view(self, request: web.Request) -> web.StreamResponse:
        found = uploads.viewed(self.home, dict(request.query))
        if isinstance(found, int):
            return web.Response(status=found)
        named = {"Content-Disposition": f'filename="{found.name}"'}
        if "preview" not in request.query:
            return web.FileResponse(found, headers=named)
        format, _, quality = request.query["preview"].partition(";")
        format = format if format in ("webp", "jpeg") else "webp"
        body = await asyncio.to_thread(files.reencoded, found, format, int(quality) if quality.isdigit() else 90)
        return web.Response(body=body, content_type=f"image/{format}", headers=named)

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        answer = uploads.keep(self.home, dict(await request.post()))
        return web.Response(status=answer) if isinstance(answer, int) else web.json_response(answer)

    async def _object_info(self, request: web.Request) -> web.StreamResponse:
        name, entries = request.match_info.get("name"), self._catalog_now()
        wanted = entries if name is None else {name: entries[name]} if name in entries else {}
        return web.json_response(dict(wanted))

    def _catalog_now(self) -> Catalog:
        """Give the catalog with the pictures that are there now."""
        pictures, everything = (uploads.listing(self.home, pictures=only) for only in (True, False))
        return with_choices(with_choices(self.stock.catalog, "LoadImage", "image", pictures), "LoadImageMask", "image", everything)

    async def _system_stats(self, request: web.Request) -> web.StreamResponse:
        total, free = _memory("SC_PHYS_PAGES"), _memory("SC_AVPHYS_PAGES")
        system = {
            "os": os.name,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": VERSION,
            "required_frontend_version": "none",
            "installed_templates_version": "none",
            "required_templates_version": "none",
            "python_version": platform.python_version(),
            "pytorch_version": "none",
            "embedded_python": False,
            "argv": ["toolkit.engine"],
            "simulated": True,
            "engine": "anime-toolkit stand-in",
            "instance_id": self.instance_id,
        }
        memory = {"vram_total": total, "vram_free": free, "torch_vram_total": total, "torch_vram_free": free}
        return web.json_response({"system": system, "devices": [{"name": DEVICE, "type": "cpu", "index": None} | memory]})

    async def _features(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(FEATURES)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        folder, stocked = request.match_info.get("folder"), self.stock.files
        if folder is None:
            return web.json_response(list(stocked))
        return web.json_response(stocked[folder]) if folder in stocked else web.Response(status=404)

    async def _view_metadata(self, request: web.Request) -> web.StreamResponse:
        """Give the header of a safetensors file; one without `__metadata__` is as good as none (ComfyUI server.py)."""
        folder, name = request.match_info["folder"], request.query.get("filename", "")
        known = name.endswith(".safetensors") and name in self.stock.files.get(folder, ())
        header = models.header(folder, name) if known else None
        return web.Response(status=404) if header is None else web.json_response(dict(header))

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        return web.json_response([os.path.splitext(name)[0] for name in self.stock.files["embeddings"]])

    async def _nothing(self, request: web.Request) -> web.StreamResponse:
        return web.json_response([])

    async def _free(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.queue.flag(*(flag for flag in ("unload_models", "free_memory") if body.get(flag)))
        return web.Response()


def _memory(pages: str) -> int:
    """Say how many bytes this count of pages is; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf(pages)
    except (AttributeError, ValueError, OSError):
        return 0


def _status(remaining: int) -> dict[str, Any]:
    return {"status": {"exec_info": {"queue_remaining": remaining}}}


def _from_here(host: str, origin: str | None) -> bool:
    """Say whether Host names this machine and Origin, where there is one, names the same place."""
    at = urlsplit(f"//{host.lower()}")
    if not _is_loopback(at.hostname):
        return False
    if origin is None:
        return True
    page = urlsplit(origin.lower())
    if page.port is None or at.port is None:  # some browsers leave the port out
        return page.hostname == at.hostname
    return page.netloc == at.netloc


def _is_loopback(name: str | None) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False
