"""What the ledger knows of a job, as the rows of its tables.

Owns which fact goes into which column, and that no value of somebody's workflow can stop the publishing: what does not fit its column is
NULL. Knows neither DuckDB nor files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from toolkit.jobs import Attempt, Eta, Instant, Job, JobStatus, OutputFile, Rating
from toolkit.ledger.entries import Try
from toolkit.stats.tables import TABLES

Tries = Sequence[Try]
Rows = dict[str, list[list[Any]]]

RECIPE = (
    "family", "model", "models", "loras", "preset", "negative_prompt", "sampler", "scheduler", "steps", "cfg", "denoise", "batch_size", "parameters",
    "graph_hash",
)  # fmt: skip
TIMES = (
    "wait_home_s", "wait_server_s", "run_s", "load_s", "encode_s", "sample_s", "decode_s", "save_s", "other_s", "fetch_s", "total_s", "first_step_s",
    "step_s", "warmth", "nodes_run", "nodes_cached", "timed_by",
)  # fmt: skip


def history_rows(history: Iterable[tuple[Job, Tries]], ratings: Sequence[Rating] = ()) -> Rows:
    """The rows of every table but servers, each in the order of its table's columns; judgements are given oldest first."""
    rows: Rows = {"jobs": [], "attempts": [], "nodes": [], "outputs": [], "etas": []}
    rows["ratings"] = [_shaped("ratings", asdict(rating)) for rating in ratings]
    verdicts = {(rating.job_id, rating.output): rating.verdict for rating in ratings}
    for job, tries in history:
        rows["jobs"].append(_shaped("jobs", _job(job, tries)))
        rows["attempts"] += [_shaped("attempts", _attempt(attempt)) for attempt, _, _ in tries]
        rows["nodes"] += [_shaped("nodes", _node(attempt, node)) for attempt, nodes, _ in tries for node in nodes]
        rows["etas"] += [_shaped("etas", _eta(attempt, eta)) for attempt, _, etas in tries for eta in etas]
        rows["outputs"] += [_shaped("outputs", {**_output(job, file), "verdict": verdicts.get((job.id, file.number))}) for file in job.files]
    return rows


def server_rows(environments: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    """The rows of servers."""
    return [_shaped("servers", {**environment["facts"], **environment}) for environment in environments]


def _job(job: Job, tries: Tries) -> dict[str, Any]:
    attempt = tries[-1].attempt if tries else None
    return {
        "job_id": job.id,
        "group_id": job.group_id,
        "group_name": job.group_name,
        "project": job.project,
        "labels": job.request.labels,
        "kind": job.kind,
        "origin": job.origin,
        "person": job.person or None,
        "simulated": job.simulated,
        "status": job.status,
        "failure_kind": job.failure_kind,
        "failure_node": job.failure_node,
        "attempts": job.attempt,
        "server_url": job.server_url,
        "environment_id": attempt.environment_id if attempt else None,
        **{name: job.recipe.get(name) for name in RECIPE},
        "prompt": job.prompt or None,
        "seed": job.recipe.get("seed", getattr(job.request, "seed", None)),
        **_picture(job),
        "created_at": job.created,
        "submitted_at": job.submitted,
        "started_at": job.started,
        "ended_at": job.ended,
        **_times(job, tries),
        "files": len(job.files),
        "size_bytes": sum(file.size_bytes for file in job.files),
    }


def _picture(job: Job) -> dict[str, Any]:
    """Size and length: of the final file where it says them, else as the graph asked."""
    file = _final_file(job.files)
    width, height, frames, fps = (getattr(file, name, None) or _real(job.recipe.get(name)) for name in ("width", "height", "frames", "fps"))
    if job.kind == "image" or (frames is None and file is not None and file.kind == "image"):
        frames = frames or 1
    if frames == 1:
        fps = None
    # a recipe that does not say its batch makes one; one that does not say its frames is unknown unless it is a picture
    batch = _real(job.recipe.get("batch_size")) or 1
    return {
        "width": width,
        "height": height,
        "frames": frames,
        "fps": fps,
        "clip_s": frames / fps if frames and fps else None,
        "megapixels": width * height * batch * frames / 1e6 if width and height and frames else None,
    }


def _final_file(files: Sequence[OutputFile]) -> OutputFile | None:
    """The first stored file that has a size, previews last."""
    sized = [file for file in files if file.width]
    return next((file for file in sized if not file.temporary), sized[0] if sized else None)


def _times(job: Job, tries: Tries) -> dict[str, Any]:
    """The attempt's timings; what they leave open is taken from the instants, as far as these can tell."""
    times = {name: getattr(job.timings, name, None) for name in TIMES}
    if len(tries) > 1:  # from its acceptance to its latest attempt it was not waiting all the time
        times["wait_home_s"] = _in_line_s(job, tries)
    known = {
        "total_s": job.created.until(job.ended) if job.origin != "imported" else None,  # a file tells when it was written, and no more
        "wait_server_s": job.submitted.until(job.started) if job.submitted else None,
        "wait_home_s": job.created.until(job.submitted),
    }
    return {**times, **{name: seconds for name, seconds in known.items() if times[name] is None}}


def _in_line_s(job: Job, tries: Tries) -> float | None:
    """Seconds in our own line: before the first attempt, and between the end of each and the next one."""
    since = [job.created, *(attempt.ended for attempt, _, _ in tries[:-1])]
    waits = [before.until(attempt.sent) if before else None for before, (attempt, _, _) in zip(since, tries, strict=True)]
    return None if None in waits else sum(wait for wait in waits if wait is not None)


def _attempt(attempt: Attempt) -> dict[str, Any]:
    run_s = attempt.run_s
    if run_s is None and attempt.started is not None and attempt.status != JobStatus.LOST:  # nobody knows when a server died that came back empty
        run_s = attempt.started.until(attempt.ended)
    return {
        "job_id": attempt.job_id,
        "attempt": attempt.number,
        "prompt_id": attempt.prompt_id,
        "reason": attempt.reason,
        "server_url": attempt.server_url,
        "environment_id": attempt.environment_id,
        "status": attempt.status,
        "failure_kind": attempt.failure_kind,
        "failure_node": attempt.failure_node,
        "message": attempt.message,
        "submitted_at": attempt.submitted or attempt.sent,
        "started_at": attempt.started,
        "ended_at": attempt.ended,
        "run_s": run_s,
    }


def _node(attempt: Attempt, node: Mapping[str, Any]) -> dict[str, Any]:
    return {**node, "job_id": attempt.job_id, "attempt": attempt.number, "class": node.get("class_type")}


def _eta(attempt: Attempt, eta: Eta) -> dict[str, Any]:
    actual = eta.actual_s
    return {
        "job_id": attempt.job_id,
        "attempt": attempt.number,
        **{name: getattr(eta, name) for name in ("moment", "target", "basis", "expected_s", "low_s", "high_s", "actual_s")},
        "made_at": eta.made,
        "error": eta.expected_s / actual - 1 if actual else None,
        "inside": None if actual is None else eta.low_s <= actual <= eta.high_s,
    }


def _output(job: Job, file: OutputFile) -> dict[str, Any]:
    names = (
        "attempt",
        "node_id",
        "name",
        "media_type",
        "kind",
        "size_bytes",
        "sha256",
        "width",
        "height",
        "frames",
        "fps",
        "cached",
        "temporary",
        "blank",
        "disk",
    )
    return {**{name: getattr(file, name) for name in names}, "job_id": job.id, "output": file.number, "stored_at": file.stored_at or None}


def _shaped(table: str, values: Mapping[str, Any]) -> list[Any]:
    """The values in the order of the columns, each as its column takes it."""
    return [None if (value := values.get(name)) is None else fit(value) for name, fit in FITTED[table]]


# ---- what fits a column: a value of another kind is NULL, never an error ----------------------------------------------------------------


def _text(value: Any) -> str:
    text = value if type(value) is str else str(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can say and UTF-8 cannot
        return text.encode("utf-8", "replace").decode()
    return text


def _real(value: Any) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -1e300 < value < 1e300 else None


def _whole(low: int, high: int, value: Any) -> int | None:
    number = _real(value)
    return int(number) if number is not None and number == math.floor(number) and low <= number <= high else None


def _flag(value: Any) -> bool:
    return bool(value)


def _moment(value: Any) -> datetime | None:
    wall = value.wall if isinstance(value, Instant) else _real(value)
    try:
        return None if wall is None else datetime.fromtimestamp(wall, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _texts(value: Any) -> list[str] | None:
    return [_text(part) for part in value] if isinstance(value, list | tuple) else None


def _labels(value: Any) -> dict[str, str] | None:
    return {_text(name): _text(word) for name, word in value.items()} if isinstance(value, Mapping) else None


def _loras(value: Any) -> list[dict[str, Any]] | None:
    if not isinstance(value, list | tuple):
        return None
    return [{"name": _text(lora.get("name", "")), "strength": _real(lora.get("strength"))} for lora in value if isinstance(lora, Mapping)]


def _json(value: Any) -> str:
    try:
        return _text(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))
    except ValueError:  # JSON knows no NaN
        return _json(json.loads(json.dumps(value, default=str), parse_constant=lambda _: None))


FITS: Mapping[str, Callable[[Any], Any]] = {
    "VARCHAR": _text,
    "VARCHAR[]": _texts,
    "BOOLEAN": _flag,
    "TINYINT": partial(_whole, -(2**7), 2**7 - 1),
    "INTEGER": partial(_whole, -(2**31), 2**31 - 1),
    "BIGINT": partial(_whole, -(2**63), 2**63 - 1),
    "UBIGINT": partial(_whole, 0, 2**64 - 1),
    "DOUBLE": _real,
    "TIMESTAMPTZ": _moment,
    "JSON": _json,
    "MAP(VARCHAR, VARCHAR)": _labels,
    "STRUCT(name VARCHAR, strength DOUBLE)[]": _loras,
}
FITTED = {table.name: [(column.name, FITS[column.type]) for column in table.columns] for table in TABLES}
