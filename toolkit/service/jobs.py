"""The routes about jobs: ask, find, cancel, retry, fetch.

Owns how a body and a query are read. The studio's calls read and write SQLite and may look at a server, so they run on threads: plain `def`
routes, which FastAPI puts on its pool, and the loop that serves the feed never waits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from starlette.requests import ClientDisconnect

from toolkit.admission import BODY_LIMIT, Refused, parse_object, too_large
from toolkit.jobs import JobStatus
from toolkit.progress import Range
from toolkit.requests import ImageRequest, VideoRequest, WorkflowRequest, explain, parse_request
from toolkit.requests import Request as JobRequest
from toolkit.service.files import file_response
from toolkit.shapes import job_json, jobs_json, workflow_json
from toolkit.studio import JobHandle, Studio
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


def visiting(request: Request) -> Visitor:
    """Who calls, as the door found."""
    found: Visitor = request.scope.get("visitor", THE_OWNER)
    return found


Caller = Annotated[Visitor, Depends(visiting)]
Model = TypeVar("Model", bound=BaseModel)


def _read(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """A body or query as its model.

    Raises:
        RequestInvalid: naming the field and what it may be.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        raise explain(error, model) from error


class WorkflowBody(BaseModel):
    """What POST /api/anime/generate/workflow takes."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    workflow: dict[str, Any]
    parameters: dict[str, Any] = Field(default_factory=dict, description="values by the workflow's own names: seed, prompt, 3.cfg")
    project: str = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    strict: bool = False
    timeout_s: float | None = None
    retry_on_lost: bool | None = None


class CheckBody(BaseModel):
    """What POST /api/anime/validate takes."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    workflow: dict[str, Any]


class JobsQuery(BaseModel):
    """What GET /api/anime/jobs may be asked."""

    model_config = ConfigDict(extra="forbid")

    status: str | None = Field(None, description="open, final, or one status")
    kind: Literal["image", "video", "workflow"] | None = None
    project: str | None = None
    limit: int = Field(20, ge=1, le=200)
    cursor: str | None = Field(None, description="`next_cursor` of the answer before")

    @field_validator("status")
    @classmethod
    def _status_is_known(cls, status: str) -> str:
        allowed = ("open", "final", *JobStatus)
        if status not in allowed:
            raise ValueError(f"`status` is '{status[:40]}': it must be one of {', '.join(allowed)}")
        return status

    @field_validator("cursor")
    @classmethod
    def _cursor_is_ours(cls, cursor: str) -> str:
        if not re.fullmatch(r"[0-9]{1,18}", cursor):
            raise ValueError("`cursor` must be the next_cursor of an earlier answer")
        return cursor

    @classmethod
    def read(cls, request: Request) -> JobsQuery:
        """The query of a request.

        Raises:
            RequestInvalid: naming the parameter and what it may be.
        """
        return _read(cls, dict(request.query_params))


class Jobs:
    """Everything about jobs and their files."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def routes(self) -> APIRouter:
        """Their paths below /api/anime."""
        routes = APIRouter()
        for path, method, request in (("image", self.image, ImageRequest), ("video", self.video, VideoRequest)):
            routes.add_api_route(f"/generate/{path}", method, methods=["POST"], status_code=202, openapi_extra=_body_of(request))
        routes.add_api_route("/generate/workflow", self.workflow, methods=["POST"], status_code=202, openapi_extra=_body_of(WorkflowBody))
        routes.add_api_route("/validate", self.validate, methods=["POST"], openapi_extra=_body_of(CheckBody))
        routes.add_api_route("/plan", self.plan, methods=["POST"], openapi_extra=_body_of(ImageRequest))
        routes.add_api_route("/jobs", self.jobs, openapi_extra={"parameters": _parameters_of(JobsQuery)})
        routes.add_api_route("/jobs/{job_id}", self.job)
        routes.add_api_route("/jobs/{job_id}/cancel", self.cancel, methods=["POST"])
        routes.add_api_route("/jobs/{job_id}/retry", self.retry, methods=["POST"], status_code=202)
        routes.add_api_route("/jobs/{job_id}/files/{name:path}", self.file)
        routes.add_api_route("/jobs/{job_id}/files/{name:path}", self.file, methods=["HEAD"], include_in_schema=False)
        return routes

    def image(self, fields: Annotated[dict[str, Any], Depends(read_body)], visitor: Caller) -> JSONResponse:
        """Ask for a picture; `image` and `mask` are {sha256} of an upload or {job_id, number} of an output."""
        return self._accepted(ImageRequest(**self._studio._orders.with_references(fields, visitor.only)), visitor)

    def video(self, fields: Annotated[dict[str, Any], Depends(read_body)], visitor: Caller) -> JSONResponse:
        """Ask for a clip; `image` (the first frame) and `last_image` are {sha256} of an upload or {job_id, number} of an output."""
        return self._accepted(VideoRequest(**self._studio._orders.with_references(fields, visitor.only)), visitor)

    def workflow(self, fields: Annotated[dict[str, Any], Depends(read_body)], visitor: Caller) -> JSONResponse:
        """Run a workflow of your own, API or UI format, with `parameters` set by name."""
        asked = _read(WorkflowBody, fields)
        own = self._studio.workflow(asked.workflow)
        changed = own.set(**self._studio._orders.parameters(self._studio._orders.named_pictures(own, asked.parameters)))
        about = asked.model_dump(exclude={"workflow", "parameters"}, exclude_none=True)
        return self._accepted(WorkflowRequest(**about, workflow=changed.api()), visitor)

    def validate(self, fields: Annotated[dict[str, Any], Depends(read_body)]) -> dict[str, Any]:
        """What a workflow of yours needs before it runs, nothing sent: its graph, parameters with their limits, everything a server would refuse."""
        return workflow_json(self._studio.workflow(_read(CheckBody, fields).workflow))

    def plan(self, fields: Annotated[dict[str, Any], Depends(read_body)], visitor: Caller) -> dict[str, Any]:
        """What a request (with its `kind`) would do, nothing sent: faults, duplicates, which family and why."""
        plan = self._studio.plan(parse_request(self._studio._orders.with_references(fields, visitor.only)), person=visitor.only)
        said = {name: list(getattr(plan, name)) for name in ("faults", "warnings", "choices")}
        counts = {"jobs": plan.jobs, "duplicates": plan.duplicates, "duration_s": _range_json(plan.duration)}
        return {**counts, **said, "sentence": plan.sentence, "graph": plan.graph}

    def _accepted(self, request: JobRequest, visitor: Visitor) -> JSONResponse:
        handle = self._studio.submit(request, origin="rest", person=visitor.person)
        job = handle.job
        estimated = _range_json(self._studio._progress_of(job).ends_in)
        headers = {"Location": f"/api/anime/jobs/{job.id}"}
        return JSONResponse({"job_id": job.id, "status": str(job.status), "estimated_s": estimated}, 202, headers=headers)

    def jobs(self, request: Request) -> dict[str, Any]:
        """The newest jobs first, a page at a time; `total` counts all that fit."""
        query, person = JobsQuery.read(request), visiting(request).only
        ledger = self._studio._ledger
        before = int(query.cursor) if query.cursor else None
        found = ledger.jobs(status=query.status, project=query.project, kind=query.kind, before_seq=before, person=person, limit=query.limit + 1)
        shown, more = found[: query.limit], len(found) > query.limit
        total = ledger.count(status=query.status, project=query.project, kind=query.kind, person=person)
        return {"jobs": jobs_json(self._studio, shown), "total": total, "next_cursor": str(shown[-1].seq) if more else None}

    def job(self, job_id: str) -> dict[str, Any]:
        """A job by its id or an unambiguous beginning of it."""
        return self._shown(self._studio.job(job_id))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Take a job out of the line or stop it on its server; one that has ended stays as it is."""
        handle = self._studio.job(job_id)
        handle.cancel()
        return self._shown(handle)

    def retry(self, job_id: str) -> JSONResponse:
        """The same request as a new job, with `retry_of` set."""
        job = self._studio.job(job_id).job
        if not job.is_final:
            raise Refused(409, "job_open", f"Job {job.id[:8]} has not ended: it is {job.status}.", hint="Cancel it first.")
        again = self._studio._retry(job, "rest")
        return JSONResponse(self._shown(again), 202, headers={"Location": f"/api/anime/jobs/{again.id}"})

    def _shown(self, handle: JobHandle) -> dict[str, Any]:
        job = handle.job
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


def _body_of(request: type[BaseModel]) -> dict[str, Any]:
    schema = request.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _parameters_of(query: type[BaseModel]) -> list[dict[str, Any]]:
    properties: Mapping[str, Any] = query.model_json_schema()["properties"]
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in properties.items()]
