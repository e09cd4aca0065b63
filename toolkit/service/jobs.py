"""The routes about jobs: ask, find, cancel, retry, fetch.

Owns how a body and a query are read. The studio's calls read and write SQLite and may look at a server, so they run on threads: plain `def`
routes, which FastAPI puts on its pool, and the loop that serves the feed never waits. A job that was read before and has ended is answered on
the loop: that is one look-up, and what callers who wait for it ask most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from toolkit.admission import BODY_LIMIT, Refused, parse_object, too_large
from toolkit.jobs import Job
from toolkit.ledger import Key
from toolkit.progress import Range
from toolkit.requests import ImageRequest, VideoRequest, WorkflowRequest, parse_request
from toolkit.requests import Request as JobRequest
from toolkit.service.files import file_response
from toolkit.service.schemas import KEY, KEY_HEADER, Accepted, CheckBody, Checked, JobSaid, JobsPage, JobsQuery, Planned, WorkflowBody, asks, gives, read, takes
from toolkit.shapes import job_json, jobs_json, workflow_json
from toolkit.studio import Studio
from toolkit.visitors import THE_OWNER, Visitor


async def read_bytes(request: Request, limit: int) -> bytes:
    """A request's body.

    Raises:
        Refused: 413 before more than `limit` bytes are held, 400 for one that ends early.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large(int(declared), limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large(len(body), limit)
    except ClientDisconnect as error:
        raise Refused(400, "body_unfinished", "The body ended before it was complete.") from error
    return bytes(body)


def media_type_of(request: Request) -> str:
    """The plain content type of a body."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_body(request: Request) -> dict[str, Any]:
    """The JSON object of a request's body.

    Raises:
        Refused: 413 before more than `BODY_LIMIT` bytes are held, 415 for another content type, 400 for what is no JSON object.
    """
    body, media_type = await read_bytes(request, BODY_LIMIT), media_type_of(request)
    if body and media_type != "application/json":  # a form of another site can send text/plain without asking, but not this
        raise Refused(415, "json_required", f"The body is '{media_type[:80]}': send `Content-Type: application/json`.")
    return parse_object(body)


def key_of(request: Request, fields: Mapping[str, Any] | None = None) -> Key | None:
    """What the caller calls this request, with a digest of where it was sent and what it says.

    Raises:
        Refused: 422 for a key that is none.
    """
    said = request.headers.get("idempotency-key")
    if said is None:
        return None
    if not KEY.fullmatch(said):
        raise Refused(422, "bad_key", "`Idempotency-Key` must be 1 to 200 visible ASCII characters.", hint="A UUID will do.", field="Idempotency-Key")
    asked = json.dumps([request.url.path, fields], sort_keys=True)
    return Key(said, hashlib.sha256(asked.encode()).hexdigest())


def visiting(request: Request) -> Visitor:
    """Who calls, as the door found."""
    found: Visitor = request.scope.get("visitor", THE_OWNER)
    return found


Body: TypeAlias = Annotated[dict[str, Any], Depends(read_body)]
Caller: TypeAlias = Annotated[Visitor, Depends(visiting)]


class Jobs:
    """Everything about jobs and their files."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def routes(self) -> APIRouter:
        """Their paths below /api/anime."""
        routes = APIRouter()
        keyed = {"parameters": [KEY_HEADER]}
        routes.add_api_route("/jobs/{job_id}", self.job, **gives(JobSaid))  # first, since routes are looked through in this order
        for path, method, body in (("image", self.image, ImageRequest), ("video", self.video, VideoRequest), ("workflow", self.workflow, WorkflowBody)):
            routes.add_api_route(f"/generate/{path}", method, methods=["POST"], **gives(Accepted, 202), openapi_extra=takes(body, **keyed))
        routes.add_api_route("/validate", self.validate, methods=["POST"], **gives(Checked), openapi_extra=takes(CheckBody))
        routes.add_api_route("/plan", self.plan, methods=["POST"], **gives(Planned), openapi_extra=takes(ImageRequest))
        routes.add_api_route("/jobs", self.jobs, **gives(JobsPage), openapi_extra=asks(JobsQuery))
        routes.add_api_route("/jobs/{job_id}/cancel", self.cancel, methods=["POST"], **gives(JobSaid))
        routes.add_api_route("/jobs/{job_id}/retry", self.retry, methods=["POST"], **gives(JobSaid, 202), openapi_extra=keyed)
        routes.add_api_route("/jobs/{job_id}/files/{name:path}", self.file, response_class=FileResponse)
        routes.add_api_route("/jobs/{job_id}/files/{name:path}", self.file, methods=["HEAD"], include_in_schema=False)
        return routes

    def image(self, request: Request, fields: Body, visitor: Caller) -> JSONResponse:
        """Ask for a picture; `image` and `mask` are {sha256} of an upload or {job_id, number} of an output."""
        return self._accepted(key_of(request, fields), visitor, lambda: ImageRequest(**self._studio._orders.with_references(fields, visitor.only)))

    def video(self, request: Request, fields: Body, visitor: Caller) -> JSONResponse:
        """Ask for a clip; `image` (the first frame) and `last_image` are {sha256} of an upload or {job_id, number} of an output."""
        return self._accepted(key_of(request, fields), visitor, lambda: VideoRequest(**self._studio._orders.with_references(fields, visitor.only)))

    def workflow(self, request: Request, fields: Body, visitor: Caller) -> JSONResponse:
        """Run a workflow of your own, API or UI format, with `parameters` set by name."""
        return self._accepted(key_of(request, fields), visitor, lambda: self._own(read(WorkflowBody, fields)))

    def _own(self, asked: WorkflowBody) -> WorkflowRequest:
        own = self._studio.workflow(asked.workflow)
        changed = own.set(**self._studio._orders.parameters(self._studio._orders.named_pictures(own, asked.parameters)))
        about = asked.model_dump(exclude={"workflow", "parameters"}, exclude_none=True)
        return WorkflowRequest(**about, workflow=changed.api())

    def validate(self, fields: Body) -> dict[str, Any]:
        """What a workflow of yours needs before it runs, nothing sent: its graph, parameters with their limits, everything a server would refuse."""
        return workflow_json(self._studio.workflow(read(CheckBody, fields).workflow))

    def plan(self, fields: Body, visitor: Caller) -> dict[str, Any]:
        """What a request (with its `kind`) would do, nothing sent: faults, duplicates, which family and why."""
        plan = self._studio.plan(parse_request(self._studio._orders.with_references(fields, visitor.only)), person=visitor.only)
        said = {name: list(getattr(plan, name)) for name in ("faults", "warnings", "choices")}
        counts = {"jobs": plan.jobs, "duplicates": plan.duplicates, "duration_s": _range_json(plan.duration)}
        return {**counts, **said, "sentence": plan.sentence, "graph": plan.graph}

    def _accepted(self, key: Key | None, visitor: Visitor, made: Callable[[], JobRequest]) -> JSONResponse:
        """The job of this key, if it was accepted before; otherwise a new one. A request is made only then: without a seed it would draw another."""
        known = self._studio._ledger.keyed(visitor.person, key) if key else None
        handle = self._studio.job(known) if known else self._studio.submit(made(), origin="rest", person=visitor.person, key=key)
        job = handle.job
        estimated = _range_json(self._studio._progress_of(job).ends_in)
        headers = {"Location": f"/api/anime/jobs/{job.id}"}
        return JSONResponse({"job_id": job.id, "status": str(job.status), "estimated_s": estimated}, 202, headers=headers)

    def jobs(self, request: Request) -> dict[str, Any]:
        """The newest jobs first, a page at a time; `total` counts all that fit."""
        query, person = read(JobsQuery, dict(request.query_params)), visiting(request).only
        ledger = self._studio._ledger
        before = int(query.cursor) if query.cursor else None
        found = ledger.jobs(status=query.status, project=query.project, kind=query.kind, before_seq=before, person=person, limit=query.limit + 1)
        shown, more = found[: query.limit], len(found) > query.limit
        total = ledger.count(status=query.status, project=query.project, kind=query.kind, person=person)
        return {"jobs": jobs_json(self._studio, shown), "total": total, "next_cursor": str(shown[-1].seq) if more else None}

    async def job(self, job_id: str) -> JSONResponse:
        """A job by its id or an unambiguous beginning of it."""
        job = self._studio._ledger.remembered(job_id)
        if job is not None and job.is_final:  # what is asked for most often; a thread's turn would cost more than the answer
            return JSONResponse(self._shown(job))
        return JSONResponse(await run_in_threadpool(lambda: self._shown(self._studio.job(job_id).job)))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Take a job out of the line or stop it on its server; one that has ended stays as it is."""
        handle = self._studio.job(job_id)
        handle.cancel()
        return self._shown(handle.job)

    def retry(self, job_id: str, request: Request) -> JSONResponse:
        """The same request as a new job, with `retry_of` set."""
        job, key = self._studio.job(job_id).job, key_of(request)
        if not job.is_final:
            raise Refused(409, "job_open", f"Job {job.id[:8]} has not ended: it is {job.status}.", hint="Cancel it first.")
        again = self._studio._retry(job, "rest", key)
        return JSONResponse(self._shown(again.job), 202, headers={"Location": f"/api/anime/jobs/{again.id}"})

    def _shown(self, job: Job) -> dict[str, Any]:
        return job_json(job, self._studio._progress_of(job))

    def file(self, job_id: str, name: str, request: Request) -> Response:
        """The bytes of a job's file; one range of them with `Range`."""
        job = self._studio._ledger.job(job_id)
        found = [file for file in job.files if name in (file.name, Path(file.path).name)]
        if not found:
            listed = ", ".join(Path(file.path).name for file in job.files) or "none"
            raise Refused(404, "file_not_found", f"Job {job.id[:8]} has no file '{name[:100]}'.", hint=f"Its files: {listed}.")
        return file_response(found[0], self._studio._ledger.projects, request.headers.get("range"))


def _range_json(seconds: Range | None) -> dict[str, float] | None:
    return None if seconds is None else {"low": seconds.low_s, "expected": seconds.expected_s, "high": seconds.high_s}
