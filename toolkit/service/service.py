"""REST: the paths below /api, in terms of a studio.

Owns the statuses and the one shape of refusals, the gate before everything, and what is no route. Knows no rule of jobs: jobs.py,
house.py and answers.py call the studio and render what comes back (shapes.py); what may come in is admission.py's.
"""

from __future__ import annotations

import asyncio
import functools
import html
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit import __version__
from toolkit.admission import Gate, Refused, too_large
from toolkit.errors import (
    HomeUnusable,
    JobUnknown,
    NoServer,
    OutputError,
    QueryInvalid,
    QuotaReached,
    RequestInvalid,
    ServerError,
    ServerUnreachable,
    ToolkitError,
    WorkflowInvalid,
)
from toolkit.inputs import SIZE_LIMIT
from toolkit.service.answers import Answers
from toolkit.service.house import House
from toolkit.service.jobs import Jobs
from toolkit.service.metrics import CONTENT_TYPE, Metrics
from toolkit.service.schemas import REFUSALS, openapi_of
from toolkit.service.session import Session, sign_in_page
from toolkit.service.uploads import FORM_ROOM, Uploads
from toolkit.settings import Settings
from toolkit.shapes import error_json
from toolkit.studio import Studio
from toolkit.visitors import UPLOAD_PATHS, Visitors

log = logging.getLogger(__name__)
calls = logging.getLogger(f"{__name__}.calls")

ANY_BODY_LIMIT = SIZE_LIMIT + FORM_ROOM  # bytes; REST's own limits are lower where they can be
BODY_PAUSE_S = 20.0
PREFIX = "/api/anime"
ALIVE_PATH = f"{PREFIX}/health/live"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
STATUS_OF: Sequence[tuple[type[ToolkitError], int]] = (
    (RequestInvalid, 422),
    (WorkflowInvalid, 422),
    (QueryInvalid, 422),
    (JobUnknown, 404),
    (OutputError, 404),
    (ServerUnreachable, 503),
    (NoServer, 503),
    (HomeUnusable, 503),
    (ServerError, 502),
)


def build_service(studio: Studio, settings: Settings) -> FastAPI:
    """The REST application of a studio; the gate of `settings` stands before it and before whatever is mounted on it."""
    service = FastAPI(title="anime-toolkit", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False, openapi_url="/api/openapi.json")
    service.state.metrics = metrics = Metrics(studio)
    visitors = Visitors(studio._ledger, settings)
    service.add_middleware(Door, gate=Gate.of(settings), visitors=visitors, home=settings.home, metrics=metrics)
    _answer_errors(service, settings.home)
    for part in (Jobs(studio), Session(studio, visitors), Uploads(studio), House(studio), Answers(studio)):
        service.include_router(part.routes(), prefix=PREFIX, responses=REFUSALS)
    service.add_api_route("/sign-in", lambda: sign_in_page(), include_in_schema=False)
    service.openapi = functools.cache(lambda: openapi_of(service.routes))  # type: ignore[method-assign]
    service.add_api_route("/metrics", lambda: Response(metrics.text(), media_type=CONTENT_TYPE), include_in_schema=False)
    service.add_api_route("/api/docs", lambda: HTMLResponse(_docs(service.openapi())), include_in_schema=False)
    _close_the_rest(service)
    return service


class Door:
    """The gate as ASGI middleware: before routes, and before the page that is mounted behind them. Every call is counted and logged here."""

    def __init__(self, app: ASGIApp, gate: Gate, visitors: Visitors, home: Path, metrics: Metrics) -> None:
        self._app, self._gate, self._visitors, self._home, self._metrics = app, gate, visitors, home, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or answer the refusal."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        answer, began = _Answer(send), time.perf_counter()
        try:
            await self._let_in(scope, receive, answer)
        finally:
            if answer.status:
                self._note(scope, answer, time.perf_counter() - began)

    async def _let_in(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            self._check(scope)
            if scope["path"] in UPLOAD_PATHS and not scope["visitor"].is_owner:
                await run_in_threadpool(self._visitors.take_upload, scope["visitor"], _header(scope, b"content-length"))
        except ToolkitError as refused:
            if scope["type"] == "websocket":
                return await answer({"type": "websocket.close", "code": 1008, "reason": refused.message[:100]})
            wants_page = refused.code == "sign_in_required" and scope["method"] == "GET" and "text/html" in (_header(scope, b"accept") or "")
            return await (sign_in_page(401) if wants_page else _refusal(refused, self._home))(scope, receive, answer)
        await self._pass_on(scope, receive, answer)

    async def _pass_on(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Answer what nobody foresaw in one sentence and log it; passed on, uvicorn would cut off a connection that can be used again."""
        try:
            await self._app(scope, _bounded(receive), answer)
        except Refused as refused:  # of a body, by who reads it without REST's own limits
            if answer.status:
                raise
            await _refusal(refused)(scope, receive, answer)
        except Exception:
            if answer.status or scope["type"] != "http":
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            sentence = Refused(500, "internal_error", "Something failed that nobody foresaw.", hint="The program's own output says what.")
            await _refusal(sentence)(scope, receive, answer)

    def _note(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        """Count the call and log it, without its query, in which a caller may have put what is secret."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.count(method, getattr(scope.get("route"), "path", "other").removeprefix(PREFIX), answer.status, seconds)
        if calls.isEnabledFor(logging.INFO):
            path = scope["path"][:200]
            about = {"method": method, "path": path, "status": answer.status, "ms": round(1000 * seconds, 1)}
            job_id = scope.get("path_params", {}).get("job_id") or answer.job_id
            calls.info("%s %s: %d", method, path, answer.status, extra=about | {"job_id": job_id})

    def _check(self, scope: Scope) -> None:
        host, origin, authorization = (_header(scope, name) for name in (b"host", b"origin", b"authorization"))
        self._gate.check_host(host)
        self._gate.check_origin(origin, host)
        if scope["path"] == ALIVE_PATH:  # asks no ledger, so that a locked one is no reason to restart this process
            return self._gate.check_token(authorization)
        address, cookie = (scope["client"] or ("",))[0], (_header(scope, b"cookie") or "").replace(", ", "; ")
        scope["visitor"] = self._visitors.admit(scope.get("method", "GET"), scope["path"], authorization=authorization, cookie=cookie, address=address)


def _bounded(receive: Receive) -> Receive:
    """A body that neither grows nor lasts without end: 413 above the largest that anybody takes, 408 when nothing comes for `BODY_PAUSE_S`."""
    taken, has_more = 0, True

    async def bounded() -> Message:
        nonlocal taken, has_more
        if not has_more:  # what is awaited now is that the other side leaves
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), BODY_PAUSE_S)
        except TimeoutError as error:
            raise Refused(408, "body_too_slow", f"Nothing of the body came for {BODY_PAUSE_S:g} s.", headers={"Connection": "close"}) from error
        taken, has_more = taken + len(message.get("body", b"")), message.get("more_body", False)
        if taken > ANY_BODY_LIMIT:
            raise too_large(taken, ANY_BODY_LIMIT)
        return message

    return bounded


class _Answer:
    """What was answered so far: the status, 0 before it begins, and the job that was made."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.job_id: str | None = None

    async def __call__(self, message: Message) -> None:
        """Look at the beginning of the answer and pass it on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            places = [value.decode("latin-1") for name, value in message.get("headers", []) if name == b"location"]
            self.job_id = next((place.rsplit("/", 1)[1] for place in places if place.startswith("/api/anime/jobs/")), None)
        await self._send(message)


def _header(scope: Scope, name: bytes) -> str | None:
    """A header's value; several of one name are joined, and so fit nothing."""
    found = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return ", ".join(found) if found else None


def _refusal(error: ToolkitError, home: Path | None = None) -> JSONResponse:
    """A refusal; what the caller can mend comes with a next step, if only where to read on."""
    status = next((status for kind, status in STATUS_OF if isinstance(error, kind)), 500)
    headers: Mapping[str, str] | None = None
    if isinstance(error, Refused):
        status, headers = error.status, error.headers
    elif isinstance(error, QuotaReached):
        status, headers = 429, {"Retry-After": str(math.ceil(error.retry_after_s))}
    said = error_json(error, home=home)
    if status < 500:
        said["error"].setdefault("hint", "/api/docs lists the calls and what they take.")
    return JSONResponse(said, status, headers=headers)


def _answer_errors(service: FastAPI, home: Path) -> None:
    """One shape for every refusal."""

    async def explained(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ToolkitError)
        if isinstance(error, JobUnknown) and not error.matches:
            error = JobUnknown(error.message, hint="GET /api/anime/jobs lists them.")
        return _refusal(error, home)

    async def plain(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        return _refusal(Refused(error.status_code, code, f"{request.method} {request.url.path[:200]}: {error.detail}.", headers=error.headers))

    async def unread(request: Request, error: Exception) -> JSONResponse:
        return _refusal(Refused(422, "request_invalid", "A parameter of the address cannot be read.", hint="/api/docs lists them."))

    service.add_exception_handler(ToolkitError, explained)
    service.add_exception_handler(HTTPException, plain)
    service.add_exception_handler(RequestValidationError, unread)


def _close_the_rest(service: FastAPI) -> None:
    """Answer what is below /api and no route: a page mounted at / would get it otherwise, a wrong method included."""

    async def nothing(request: Request) -> Response:
        routes = [route for route in service.routes if getattr(route, "endpoint", None) is not nothing]
        allowed = [method for method in METHODS if any(_answers(route, {**request.scope, "method": method}) for route in routes)]
        if allowed:
            raise HTTPException(405, "this method is not allowed here", {"Allow": ", ".join(allowed)})
        raise HTTPException(404, "there is no such path")

    service.add_api_route("/api/{rest:path}", nothing, methods=METHODS, include_in_schema=False)


def _answers(route: BaseRoute, scope: Scope) -> bool:
    return route.matches(scope)[0] == Match.FULL


def _docs(openapi: Mapping[str, Any]) -> str:
    """A page that lists the routes; FastAPI's own loads its scripts from elsewhere."""
    rows = []
    for path, methods in openapi["paths"].items():
        for method, about in methods.items():
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            body = openapi["components"]["schemas"].get(body.get("$ref", "").rsplit("/", 1)[-1], body).get("properties", {})
            names = [parameter["name"] for parameter in about.get("parameters", [])] + list(body)
            cells = (f"{method.upper()} {path}", about.get("description") or "", ", ".join(names))
            rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    head = f"<!doctype html><meta charset=utf-8><title>REST</title><style>{DOCS_STYLE}</style><h1>anime-toolkit {__version__}: REST</h1>"
    note = '<p>Refusals: <code>{"error": {"code", "message", "field"?, "hint"?}}</code>. Machine-readable: <a href="/api/openapi.json">openapi.json</a>.</p>'
    return f"{head}{note}<table><tr><th>call<th>what it does<th>parameters</tr>{''.join(rows)}</table>"


DOCS_STYLE = "body{font:16px system-ui;margin:2rem auto;max-width:70rem;padding:0 1rem}td,th{text-align:left;vertical-align:top;padding:.4rem 1rem .4rem 0}"
