"""The route that takes input pictures.

Owns how a picture comes in: as the raw body, or as the one file of a form. What is a picture is the home's to say (inputs.py).
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from toolkit.admission import Refused, too_large
from toolkit.inputs import SIZE_LIMIT
from toolkit.requests import ImageRef
from toolkit.service.jobs import media_type_of, read_bytes
from toolkit.service.schemas import gives
from toolkit.studio import Studio

FORM_ROOM = 100_000  # bytes of a form around its picture


class Uploads:
    """Input pictures."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def routes(self) -> APIRouter:
        """Its path below /api/anime."""
        routes = APIRouter()
        body = {"requestBody": {"required": True, "content": {"image/png": {}, "multipart/form-data": {}}}}
        routes.add_api_route("/uploads", self.upload, methods=["POST"], **gives(ImageRef, 201), openapi_extra=body)
        return routes

    async def upload(self, request: Request) -> JSONResponse:
        """Keep a picture, raw or as the one file of a form; `image` and `mask` of requests refer to it by its `sha256`."""
        media_type = media_type_of(request)
        data = await _form_file(request) if media_type == "multipart/form-data" else await read_bytes(request, SIZE_LIMIT)
        if media_type != "multipart/form-data" and not media_type.startswith("image/") and media_type != "application/octet-stream":
            raise Refused(415, "picture_required", f"The body is '{media_type[:80]}': send `Content-Type: image/png`, or a form with one file.")
        kept = await run_in_threadpool(self._studio.upload, data)
        return JSONResponse(kept.model_dump(), 201)


async def _form_file(request: Request) -> bytes:
    """The bytes of a form's one file."""
    declared = request.headers.get("content-length", "")
    if not declared.isdecimal():
        raise Refused(411, "length_required", "A form must say how long it is.", hint="Send a Content-Length, or the picture as the raw body.")
    if int(declared) > SIZE_LIMIT + FORM_ROOM:
        raise too_large(int(declared), SIZE_LIMIT)
    try:
        async with request.form(max_files=1, max_fields=4) as form:
            files: list[Any] = [value for value in form.values() if isinstance(value, UploadFile)]
            if not files:
                raise Refused(400, "file_required", "The form holds no file.", hint="Send one file, e.g. `curl -F image=@fox.png`.")
            return bytes(await files[0].read())
    except MultiPartException as error:
        raise Refused(400, "bad_form", f"The form cannot be read: {error.message}") from error
