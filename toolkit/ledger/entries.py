"""What goes into the ledger and what comes out beside jobs: frozen values, no SQL."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from toolkit.errors import ToolkitError
from toolkit.jobs import Attempt, Eta, Instant, JobStatus, NodeTiming, OutputFile, Priority, Timings
from toolkit.requests import Request


class StaleEpoch(ToolkitError):
    """Another feeder has taken this server; this one must stop."""

    code = "stale_epoch"


class Key(NamedTuple):
    """What a caller calls its request, so that asking once more is the same job; `digest` tells another request under the same word."""

    word: str
    digest: str


@dataclass(frozen=True, slots=True)
class NewJob:
    """A request on its way into the ledger."""

    request: Request
    servers: Sequence[str]
    priority: Priority = "normal"
    origin: str = "notebook"
    person: str = "owner"
    group_id: str | None = None
    group_name: str | None = None
    retry_of: str | None = None
    reuse: bool | None = None
    warnings: Sequence[str] = ()
    recipe_key: str = ""
    loads: Sequence[str] = ()
    key: Key | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class NewBatch:
    """Jobs under one name: `base` is the same for what was made of the same, `seed` the one that was drawn for all of it."""

    group_id: str
    name: str
    base: str = ""
    seed: str | None = None
    axes: Sequence[str] = ()


class BatchFacts(NamedTuple):
    """What the ledger knows of a batch as a whole."""

    group_id: str
    name: str
    base: str
    seed: int | None
    axes: tuple[str, ...]


class Cell(NamedTuple):
    """One place of a batch: its job, and what it is called on each axis."""

    job_id: str
    axes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a feeder writes down before it sends: the graph, what it says of itself, and where it goes."""

    job_id: str
    server_url: str
    epoch: int
    graph: Mapping[str, Any]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    reason: str = "first"
    environment_id: str | None = None
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended."""

    status: JobStatus
    files: Sequence[OutputFile] = ()
    timings: Timings | None = None
    nodes: Sequence[NodeTiming] = ()
    error: str | None = None
    hint: str | None = None
    failure_kind: str | None = None
    failure_node: str | None = None
    warnings: Sequence[str] = ()
    ended: Instant = field(default_factory=Instant.now)
    again: bool = False  # another attempt is due: the job goes back into the line
    reply: Mapping[str, Any] | None = None  # what the server said when it refused, whole
    etas: Sequence[Eta] = ()  # what was predicted on the way and what became of it: kept in memory till now, since a write each would cost as much as a step


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A job that ended without us: seen on a server, or told of by a file. Where no server is known, nothing is known of the attempt."""

    id: str
    request: Request
    origin: str
    created: Instant
    outcome: Outcome
    recipe: Mapping[str, Any]
    server_url: str | None = None
    environment_id: str | None = None
    prompt_id: str = ""
    graph: Mapping[str, Any] = field(default_factory=dict)
    submitted: Instant | None = None
    started: Instant | None = None


class PastRun(NamedTuple):
    """A run that ended well, as learning needs it; `fetch_s` is what its files took."""

    seq: int
    priority: int
    kind: str
    graph: Mapping[str, Any]
    nodes: Sequence[NodeTiming]
    run_s: float | None
    fetch_s: float | None


class Try(NamedTuple):
    """An attempt with all that the log tells of it; nodes are as they were written."""

    attempt: Attempt
    nodes: Sequence[Mapping[str, Any]]
    etas: Sequence[Eta]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What is known of a server without asking it: its configuration and who feeds it."""

    url: str
    epoch: int
    instance: str | None
    environment_id: str | None
    facts: Mapping[str, Any]
    seen_at: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """A server that its owner keeps for something else; `free` while its memory is still to be given back."""

    note: str | None
    free: bool

    @property
    def sentence(self) -> str:
        """What those who wait are told."""
        return "Paused by the owner" + (f": {self.note}" if self.note else ".")
