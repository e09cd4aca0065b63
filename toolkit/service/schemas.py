"""What REST takes and answers, as schemas: for `openapi.json`, for whoever reads it, and for the tests that hold the answers against it.

Owns the models of bodies and queries, which refuse what is wrong in them, and those of answers, which nothing is checked against while serving:
shapes.py makes the answers, and a check of each would cost more than making it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from toolkit import __version__
from toolkit.jobs import JobStatus
from toolkit.requests import ImageRequest, VideoRequest, explain

Model = TypeVar("Model", bound=BaseModel)
REF = "#/components/schemas/{model}"
KEY = re.compile(r"[\x21-\x7e]{1,200}")
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def read(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """A body or query as its model.

    Raises:
        RequestInvalid: naming the field and what it may be.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        raise explain(error, model) from error


# ---- what is taken ------------------------------------------------------------------------------------------------------


class Taken(BaseModel):
    """A body or a query: nothing that is not known, no NaN."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class WorkflowBody(Taken):
    """What POST /api/anime/generate/workflow takes."""

    workflow: dict[str, Any]
    parameters: dict[str, Any] = Field(default_factory=dict, description="values by the workflow's own names: seed, prompt, 3.cfg")
    project: str = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    strict: bool = False
    timeout_s: float | None = None
    retry_on_lost: bool | None = None


class CheckBody(Taken):
    """What POST /api/anime/validate takes."""

    workflow: dict[str, Any]


class QueryBody(Taken):
    """What POST /api/anime/sql takes."""

    query: str = Field(max_length=100_000, description="one statement that reads: SELECT, FROM, WITH, EXPLAIN")


class JobsQuery(Taken):
    """What GET /api/anime/jobs may be asked."""

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


# ---- what is answered ---------------------------------------------------------------------------------------------------


class Answered(BaseModel):
    """An answer has these words and no others."""

    model_config = ConfigDict(extra="forbid")


def _answer(name: str, /, **words: Any) -> Any:
    return create_model(name, __base__=Answered, **words)


def _many(model: Any) -> Any:
    return list[model]


Text, Number, Whole = str | None, float | None, int | None
ProblemSaid = _answer("ProblemSaid", code=str, message=str, field=(Text, None), hint=(Text, None))
Problem = _answer("Problem", error=ProblemSaid)
RangeSaid = _answer("RangeSaid", low=float, expected=float, high=float)
Accepted = _answer("Accepted", job_id=str, status=JobStatus, estimated_s=RangeSaid | None)
ErrorOfJob = _answer("ErrorOfJob", code=str, message=str, node=Text, hint=Text)
FileSaid = _answer(
    "FileSaid", name=str, url=str, media_type=str, size_bytes=int, sha256=str, width=Whole, height=Whole, frames=Whole, fps=Number, temporary=bool, cached=bool
)


class ProgressSaid(Answered):
    """How far a job is; `fraction` never falls and is 1.0 only when it has ended well."""

    fraction: float = Field(ge=0, le=1)
    node: str | None
    step: int | None
    steps: int | None
    elapsed_s: float
    eta_s: float | None
    eta_low_s: float | None
    eta_high_s: float | None
    ahead: int | None = Field(description="how many run before it, while it waits")
    stalled: str | None = Field(description="why it cannot go on by itself")


class JobSaid(Answered):
    """A job as it is now; instants in UTC, durations in seconds, unknown is null."""

    job_id: str
    kind: Literal["image", "video", "workflow"]
    status: JobStatus
    project: str
    progress: ProgressSaid
    files: Sequence[FileSaid]  # type: ignore[valid-type]
    error: ErrorOfJob | None  # type: ignore[valid-type]
    warnings: Sequence[str]
    request: dict[str, Any]
    prompt: str | None
    seed: int | str = Field(description="a string above 2**53, where JavaScript's numbers are no longer exact")
    attempt: int
    server: str | None
    simulated: bool
    origin: str
    person: str | None
    retry_of: str | None
    cancel_asked: bool
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    timings: dict[str, Any] | None


JobsPage = _answer("JobsPage", jobs=list[JobSaid], total=int, next_cursor=Text)
Counts = _answer("Counts", counts=dict[JobStatus, int], open=int, total=int)
Waiting = _answer("Waiting", job_id=Text, person=str, position=int, expected_start_s=Number)
SERVER: dict[str, Any] = dict.fromkeys(("url", "state", "found_by"), str) | dict.fromkeys(("version", "sentence"), Text) | {"simulated": bool}
SERVER |= dict.fromkeys(("running", "pending"), Whole)
ServerSaid = _answer("ServerSaid", **SERVER)
Queue = _answer("Queue", servers=_many(ServerSaid), waiting=_many(Waiting), counts=dict[JobStatus, int])
ServerModels = _answer("ServerModels", **SERVER, can_make=list[str], models=dict[str, list[str]])
Models = _answer("Models", servers=_many(ServerModels))
MissingFile = _answer("MissingFile", name=str, folder=str, size_bytes=Whole, source=Text)
Missing = _answer("Missing", missing=_many(MissingFile))
FeederSaid = _answer("FeederSaid", server=str, state=str, alive=bool)
Health = _answer("Health", status=Literal["ok"], version=str, revision=int, feeders=_many(FeederSaid))
Alive = _answer("Alive", status=Literal["alive"], version=str)
Said = dict.fromkeys(("faults", "warnings", "choices"), list[str])
Planned = _answer("Planned", jobs=int, duplicates=int, duration_s=RangeSaid | None, **Said, sentence=str, graph=dict[str, Any])
Checked = _answer("Checked", graph=dict[str, Any], parameters=dict[str, dict[str, Any]], faults=list[dict[str, Any]], notes=list[str])
Table: dict[str, Any] = {"columns": list[str], "rows": list[list[Any]]}
AnswerSaid = _answer("AnswerSaid", question=str, sql=str, **Table)
SqlAnswer = _answer("SqlAnswer", **Table, types=list[str], truncated=bool, elapsed_s=float)


# ---- openapi.json -------------------------------------------------------------------------------------------------------

EXAMPLES: Mapping[type[BaseModel], dict[str, Any]] = {
    ImageRequest: {"prompt": "a fox girl under cherry trees", "seed": 7, "preset": "draft"},
    VideoRequest: {"prompt": "she turns and smiles", "frames": 33, "fps": 16},
    WorkflowBody: {"workflow": GRAPH, "parameters": {"width": 768}},
    CheckBody: {"workflow": GRAPH},
    QueryBody: {"query": "from jobs select kind, status, count(*) group by all"},
}
KEY_HEADER = {
    "name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,200}$"},
    "description": "the same key with the same body is the same job, however often it is sent; with another body it is refused",
}  # fmt: skip
REFUSALS: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem, "description": "Refused: nothing was made"}, "5XX": {"model": Problem}}


def takes(body: type[BaseModel], **more: Any) -> dict[str, Any]:
    """What OpenAPI says of a route's JSON body."""
    content = {"schema": {"$ref": REF.format(model=body.__name__)}, "example": EXAMPLES[body]}
    return {"requestBody": {"required": True, "content": {"application/json": content}}, **more}


def asks(query: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a route's query."""
    properties: Mapping[str, Any] = query.model_json_schema()["properties"]
    return {"parameters": [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in properties.items()]}


def gives(answer: type[BaseModel], status: int = 200) -> dict[str, Any]:
    """How a route is added whose answer has this shape."""
    return {"response_model": None, "status_code": status, "responses": {status: {"model": answer}}}


def openapi_of(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The whole description, with the bodies that FastAPI does not see because they are read by hand."""
    made = get_openapi(title="anime-toolkit", version=__version__, routes=routes)
    _, bodies = models_json_schema([(model, "validation") for model in EXAMPLES], ref_template=REF)
    made["components"]["schemas"].update(bodies["$defs"])
    return made
