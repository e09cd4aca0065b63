"""Signing in and out, and the page for it: plain HTML of one file, so that it is there before anything else is allowed to load.

Owns the cookie's coming and going, and that page. Who somebody is and how often one may try is visitors.py's.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from toolkit.admission import Refused
from toolkit.service.jobs import Caller, read_body
from toolkit.studio import Studio
from toolkit.visitors import NOBODY, Visitors

PAGE = (Path(__file__).parent / "sign_in.html").read_text(encoding="utf-8")


def _source(tag: str) -> str:
    """What a content security policy calls the one script or style of the page."""
    found = re.search(rf"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; script-src {_source('script')}; style-src {_source('style')}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def sign_in_page(status: int = 200) -> HTMLResponse:
    """The page that takes the code of a link, or asks for one."""
    return HTMLResponse(PAGE, status, headers=HEADERS)


class Session:
    """Who one is."""

    def __init__(self, studio: Studio, visitors: Visitors) -> None:
        self._people, self._visitors = studio._ledger.people, visitors

    def routes(self) -> APIRouter:
        """Its path below /api/anime."""
        routes = APIRouter()
        routes.add_api_route("/session", self.session)
        routes.add_api_route("/session", self.sign_in, methods=["POST"])
        routes.add_api_route("/session", self.sign_out, methods=["DELETE"])
        return routes

    def session(self, visitor: Caller) -> dict[str, Any]:
        """Who you are here, what you may have, and how much of it is used; `person` is null before you signed in."""
        if visitor is NOBODY:
            return {"person": None, "is_owner": False}
        said: dict[str, Any] = {"person": visitor.person, "is_owner": visitor.is_owner}
        guest = self._people.guest(visitor.person)
        if guest is None:
            return said
        asked, open_jobs = self._people.used(guest.name)
        return {**said, "quota": guest.quota.model_dump(), "jobs_within_hour": asked, "in_line": open_jobs}

    async def sign_in(self, request: Request) -> JSONResponse:
        """Trade the one-time `code` of a link for a cookie."""
        code = (await read_body(request)).get("code")
        if not isinstance(code, str):
            raise Refused(422, "request_invalid", "`code` must be the code of your link, as a string.", field="code")
        address = request.client.host if request.client else ""
        cookie = await run_in_threadpool(self._visitors.sign_in, code.strip()[:200], address)
        return JSONResponse({"signed_in": True}, headers={"Set-Cookie": cookie, "Cache-Control": "no-store"})

    def sign_out(self, visitor: Caller) -> JSONResponse:
        """End this session."""
        return JSONResponse({"signed_in": False}, headers={"Set-Cookie": self._visitors.sign_out(visitor)})
