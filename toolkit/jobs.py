"""A job and its attempts as frozen values, their statuses, and the table of legal moves.

Owns the vocabulary that Python, REST, feed, SQL, sidecar and command line share. Knows neither where jobs are stored (ledger.py) nor who
runs them (feeder.py): those two agree here on what may follow what.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import JobCancelled, JobError, JobFailed, JobLost, JobTimeout
from toolkit.requests import Request

Priority = Literal["now", "normal", "background"]
Origin = Literal["notebook", "page", "rest", "cli", "observed", "imported"]
Moment = Literal["accepted", "started", "p10", "p25", "p50", "p75"]
PRIORITIES: Sequence[Priority] = ("now", "normal", "background")


class JobStatus(StrEnum):
    """Where a job or an attempt is. `queued` is our line; `submitted` is in doubt or pending on the server."""

    CREATED = "created"
    QUEUED = "queued"
    SUBMITTED = "submitted"
    RUNNING = "running"
    COLLECTING = "collecting"
    DONE = "done"
    DONE_PARTIAL = "done_partial"
    DONE_NO_FILES = "done_no_files"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REMOVED = "removed"
    LOST = "lost"
    TIMED_OUT = "timed_out"


OPEN = frozenset({JobStatus.CREATED, JobStatus.QUEUED, JobStatus.SUBMITTED, JobStatus.RUNNING, JobStatus.COLLECTING})
IN_FLIGHT = frozenset({JobStatus.SUBMITTED, JobStatus.RUNNING, JobStatus.COLLECTING})
FINAL = frozenset(JobStatus) - OPEN
DONE = frozenset({JobStatus.DONE, JobStatus.DONE_PARTIAL, JobStatus.DONE_NO_FILES})

_ENDED_ON_SERVER = FINAL - {JobStatus.REJECTED}
MOVES: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.CREATED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    # back to queued: the attempt ended `lost` and another is due, or it never reached the server
    JobStatus.QUEUED: frozenset({JobStatus.SUBMITTED, JobStatus.CANCELLED, JobStatus.REJECTED, JobStatus.FAILED, JobStatus.TIMED_OUT}),
    JobStatus.SUBMITTED: frozenset({JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.COLLECTING}) | FINAL,
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED, JobStatus.COLLECTING}) | _ENDED_ON_SERVER,
    JobStatus.COLLECTING: frozenset({JobStatus.QUEUED}) | _ENDED_ON_SERVER,
    **{status: frozenset[JobStatus]() for status in FINAL},
}


def may_move(old: str, new: str) -> bool:
    """Whether a job of status `old` may become `new`; staying is allowed while open."""
    before = JobStatus(old)
    return JobStatus(new) in MOVES[before] or (old == new and before in OPEN)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Names the time base of `time.monotonic`: equal only within one boot of one machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:  # not Linux: the instant of boot to ten seconds is as good
        return str(round((time.time() - time.monotonic()) / 10))


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment by two clocks: `wall` in unix seconds for people, `mono` for durations within one boot."""

    wall: float
    mono: float | None = None
    boot: str | None = None

    @classmethod
    def now(cls) -> Instant:
        """Read both clocks of this machine."""
        return cls(time.time(), time.monotonic(), boot_id())

    def until(self, later: Instant | None) -> float | None:
        """Seconds to a later instant: monotonic in the same boot, else by the wall clock; None if unknown or negative."""
        if later is None:
            return None
        if self.boot is not None and self.boot == later.boot and self.mono is not None and later.mono is not None:
            seconds = later.mono - self.mono
        else:
            seconds = later.wall - self.wall
        return seconds if seconds >= 0 else None

    @property
    def utc(self) -> datetime:
        """The wall clock as an aware datetime."""
        return datetime.fromtimestamp(self.wall, UTC)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One stored file of a job; `path` is absolute, `name` the part below the projects folder."""

    number: int
    path: str
    name: str
    kind: str
    media_type: str
    size_bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    cached: bool = False
    temporary: bool = False
    blank: bool | None = None
    disk: str = "present"
    attempt: int = 1
    node_id: str = ""
    stored_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the seconds of the latest attempt went; None is unknown."""

    wait_home_s: float | None = None
    wait_server_s: float | None = None
    run_s: float | None = None
    load_s: float | None = None
    encode_s: float | None = None
    sample_s: float | None = None
    decode_s: float | None = None
    save_s: float | None = None
    other_s: float | None = None
    fetch_s: float | None = None
    total_s: float | None = None
    first_step_s: float | None = None
    step_s: float | None = None
    warmth: str | None = None
    nodes_run: int | None = None
    nodes_cached: int | None = None
    timed_by: str | None = None


@dataclass(frozen=True, slots=True)
class NodeTiming:
    """One node of an attempt: `elapsed_s` is 0 if the server reused it; steps where it reported progress."""

    node_id: str
    class_type: str
    title: str
    stage: str
    model: str | None = None
    cached: bool = False
    started_at: float | None = None
    elapsed_s: float | None = None
    steps: int | None = None
    first_step_s: float | None = None
    step_s: float | None = None


@dataclass(frozen=True, slots=True)
class Eta:
    """A prediction made at one of the fixed moments of an attempt, in seconds from `made`; `actual_s` is None where it never got there."""

    moment: Moment
    target: Literal["start", "end"]
    basis: Literal["history", "family", "this_run"]
    made: Instant
    expected_s: float
    low_s: float
    high_s: float
    actual_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rating:
    """What a person said of one output; the latest one of each person counts. `rated_at` is unix seconds."""

    job_id: str
    output: int
    person: str
    verdict: str | None
    stars: int | None
    reasons: Sequence[str]
    comment: str | None
    rated_at: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a job on one server, under its own prompt_id."""

    job_id: str
    number: int
    prompt_id: str
    reason: str
    server_url: str
    status: str
    environment_id: str | None = None
    acknowledged: bool = False
    queue_number: float | None = None
    instance: str | None = None
    failure_kind: str | None = None
    failure_node: str | None = None
    message: str | None = None
    sent: Instant | None = None
    submitted: Instant | None = None
    started: Instant | None = None
    ended: Instant | None = None
    run_s: float | None = None
    dropped: Sequence[str] = ()  # output branches that the server refused when it accepted the rest


@dataclass(frozen=True, slots=True)
class Job:
    """A snapshot of a job: everything the card, REST, the feed and a row show."""

    id: str
    seq: int
    revision: int
    request: Request
    status: str
    created: Instant
    priority: Priority = "normal"
    origin: str = "notebook"
    person: str = "owner"
    servers: Sequence[str] = ()
    group_id: str | None = None
    group_name: str | None = None
    retry_of: str | None = None
    cancel_asked: bool = False
    prompt: str = ""
    server_url: str | None = None
    simulated: bool = False
    attempt: int = 0
    submitted: Instant | None = None
    started: Instant | None = None
    ended: Instant | None = None
    timings: Timings | None = None
    files: Sequence[OutputFile] = ()
    warnings: Sequence[str] = ()
    error: str | None = None
    hint: str | None = None
    failure_kind: str | None = None
    failure_node: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The request's kind: image, video or workflow."""
        return str(getattr(self.request, "kind", "workflow"))

    @property
    def project(self) -> str:
        """The folder its files go to."""
        return self.request.project

    @property
    def seed(self) -> int:
        """The seed that was sent, 0 where the graph has none."""
        return int(self.recipe.get("seed") or getattr(self.request, "seed", None) or 0)

    @property
    def is_final(self) -> bool:
        """Whether its status can no longer change."""
        return self.status in FINAL

    @property
    def is_done(self) -> bool:
        """Whether it ended well, perhaps with something left out."""
        return self.status in DONE


def error_of(job: Job) -> JobError | None:
    """The exception that `await job` raises for a final job that did not end well."""
    short = job.id[:8]
    match job.status:
        case JobStatus.CANCELLED:
            return JobCancelled(f"Job {short} was cancelled.", job_id=job.id, status=job.status)
        case JobStatus.REMOVED:
            return JobCancelled(job.error or f"Job {short} was removed from the server's queue.", job_id=job.id, status=job.status, hint=job.hint)
        case JobStatus.LOST:
            return JobLost(job.error or f"Job {short}: the server forgot it.", job_id=job.id, status=job.status, hint=job.hint)
        case JobStatus.TIMED_OUT:
            return JobTimeout(job.error or f"Job {short} ran out of time.", job_id=job.id, status=job.status, hint=job.hint)
        case JobStatus.FAILED | JobStatus.REJECTED:
            said = job.error or f"Job {short} {job.status}."
            return JobFailed(said, job_id=job.id, status=job.status, node_title=job.failure_node, cause=job.failure_kind, hint=job.hint)
        case _:
            return None


@dataclass(frozen=True, slots=True)
class OpenJob:
    """What ordering and watching need of a job that is not final; a thousand of them are read at once."""

    seq: int
    id: str
    status: str
    kind: str
    priority: int
    person: str
    servers: tuple[str, ...]
    created_at: float
    cancel_asked: bool
    attempt: int
    server_url: str | None
    recipe_key: str = ""  # equal for jobs that take the same time
    loads: tuple[str, ...] = ()  # what its models leave in a server's memory
