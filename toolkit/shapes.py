"""The JSON that REST and the feed share: a job, its progress, its files, the counts, an answer of the log, an error.

Owns these shapes, so that a word means the same on both. Knows a studio to read from, and no face: no FastAPI, no websockets. Lies between
studio and faces because faces may not import each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from toolkit.errors import ToolkitError
from toolkit.exported import Parameter, Workflow
from toolkit.jobs import OPEN, Instant, Job, JobStatus, OutputFile
from toolkit.progress import Progress
from toolkit.requests import EXACT_IN_JAVASCRIPT

if TYPE_CHECKING:
    from toolkit.analysis import Answer
    from toolkit.studio import Studio


def job_json(job: Job, progress: Progress) -> dict[str, Any]:
    """Everything a face shows of a job; instants are ISO 8601 in UTC, durations seconds, unknown is null."""
    return {
        "job_id": job.id,
        "kind": job.kind,
        "status": str(job.status),
        "project": job.project,
        "progress": progress.as_json(),
        "files": [file_json(job.id, file) for file in job.files],
        "error": _job_error(job),
        "warnings": list(job.warnings),
        "request": job.request.as_json(),
        "prompt": job.prompt,
        "seed": str(job.seed) if job.seed > EXACT_IN_JAVASCRIPT else job.seed,
        "attempt": job.attempt,
        "server": job.server_url,
        "simulated": job.simulated,
        "origin": job.origin,
        "person": job.person,
        "retry_of": job.retry_of,
        "cancel_asked": job.cancel_asked,
        "created_at": _iso(job.created),
        "started_at": _iso(job.started),
        "ended_at": _iso(job.ended),
        "timings": asdict(job.timings) if job.timings else None,
    }


def workflow_json(workflow: Workflow) -> dict[str, Any]:
    """A workflow as its catalog's server sees it: the graph to send, what can be set and within which limits, what would be refused."""
    return {
        "graph": workflow.api(),
        "parameters": {name: _parameter_json(parameter) for name, parameter in workflow.parameters.items()},
        "faults": [{**asdict(fault), "sentence": str(fault)} for fault in workflow.faults],
        "notes": list(workflow.notes),
    }


def _parameter_json(parameter: Parameter) -> dict[str, Any]:
    fields = asdict(parameter)
    del fields["name"]
    return fields | {"choices": list(parameter.choices) if parameter.choices is not None else None}


def file_json(job_id: str, file: OutputFile) -> dict[str, Any]:
    """A file of a job; `url` is a path on the server that answers."""
    return {
        "name": file.name,
        "url": f"/api/anime/jobs/{job_id}/files/{quote(Path(file.path).name)}",
        "media_type": file.media_type,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "width": file.width,
        "height": file.height,
        "frames": file.frames,
        "fps": file.fps,
        "temporary": file.temporary,
        "cached": file.cached,
    }


def jobs_json(studio: Studio, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Many jobs with their progress now; the common line is read once for all of them."""
    waiting = studio._standing.waiting() if any(job.status == JobStatus.QUEUED for job in jobs) else {}
    return [job_json(job, _progress_now(studio, job, waiting)) for job in jobs]


def _progress_now(studio: Studio, job: Job, waiting: Mapping[str, Progress]) -> Progress:
    if job.status == JobStatus.QUEUED:
        return replace(waiting.get(job.id, Progress()), stalled=studio._trouble_of(job))
    return studio._progress_of(job)


def counts_json(counts: Mapping[str, int]) -> dict[str, Any]:
    """How many jobs are in each status, the empty ones too."""
    by_status = {str(status): counts.get(status, 0) for status in JobStatus}
    return {"counts": by_status, "open": sum(by_status[status] for status in OPEN), "total": sum(by_status.values())}


def answer_json(answer: Answer) -> dict[str, Any]:
    """A question's answer; times are ISO 8601 in UTC, what is unknown or no finite number is null."""
    rows = [[_plain(value) for value in row] for row in answer.rows]
    return {"question": answer.question, "sql": answer.sql, "columns": list(answer.columns), "rows": rows}


def _plain(value: Any) -> Any:
    match value:
        case date():
            return value.isoformat()
        case float():
            return value if math.isfinite(value) else None
        case int() if abs(value) > EXACT_IN_JAVASCRIPT:
            return str(value)
    return value


def error_json(error: ToolkitError, *, home: Path | None = None) -> dict[str, Any]:
    """`{"error": {"code", "message", "field"?, "hint"?}}`, without the path of the home."""
    said = {"code": error.code, "message": error.message, "field": error.field, "hint": error.hint}
    return {"error": {name: _without(text, home) for name, text in said.items() if text is not None}}


def _without(text: str, home: Path | None) -> str:
    return text.replace(str(home), "the home") if home is not None else text


def _job_error(job: Job) -> dict[str, Any] | None:
    if job.error is None:
        return None
    return {"code": job.failure_kind or str(job.status), "message": job.error, "node": job.failure_node, "hint": job.hint}


def _iso(instant: Instant | None) -> str | None:
    return instant.utc.isoformat() if instant is not None else None
