"""What ComfyUI answers over HTTP: its queue, a history entry, a refusal.

Raises ValueError for what is no answer of ComfyUI at all; odd parts of a refusal are kept as text, since somebody has to read them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.protocol.frames import ENDS, Failure, ServerOutput, failure_of, parse_outputs, timestamp_of


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP, whole; `location` is where it sends us."""

    status: int
    body: bytes = b""
    location: str | None = None

    def json(self) -> Any:
        """What it says; ValueError if that is no JSON."""
        return json.loads(self.body)

    def json_or_text(self) -> Any:
        """What it says, or how that begins if it is no JSON."""
        try:
            return self.json()
        except ValueError:
            return self.body.decode("utf-8", "replace")[:300]

    def has(self, name: str) -> bool:
        """Whether it is a JSON object with this member, and so of the route that was asked."""
        said = self.json_or_text()
        return isinstance(said, Mapping) and name in said


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One prompt in the server's queue."""

    number: float
    prompt_id: str
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class ServerQueue:
    """GET /queue: what runs and what waits, in the order it will run."""

    running: tuple[QueueEntry, ...] = ()
    pending: tuple[QueueEntry, ...] = ()

    def place(self, prompt_id: str) -> int | None:
        """0 for the next to run; None if it does not wait there."""
        return next((place for place, entry in enumerate(self.pending) if entry.prompt_id == prompt_id), None)

    def runs(self, prompt_id: str) -> bool:
        """Whether the server works on it now."""
        return any(entry.prompt_id == prompt_id for entry in self.running)


def parse_queue(data: Any) -> ServerQueue:
    """The queue of GET /queue; pending comes in heap order and is sorted here.

    Raises:
        ValueError: when it is not a queue.
    """
    try:
        running, pending = ([_queue_entry(item) for item in data[key]] for key in ("queue_running", "queue_pending"))
    except (KeyError, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"not a queue: {error!r}") from error
    return ServerQueue(tuple(running), tuple(sorted(pending, key=lambda entry: (entry.number, entry.prompt_id))))


def _queue_entry(item: Any) -> QueueEntry:
    extra = item[3] if len(item) > 3 and isinstance(item[3], Mapping) else {}
    return QueueEntry(float(item[0]), str(item[1]), extra.get("client_id"))


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """GET /history/{id}: how a prompt ended, what it put out, the server's own timestamps in milliseconds, and the graph that was sent.

    `created_ms`: when it came in, which only newer servers say (ComfyUI server.py: `create_time`).
    """

    prompt_id: str
    how: Literal["success", "error", "interrupted"]
    outputs: tuple[ServerOutput, ...]
    started_ms: float | None = None
    ended_ms: float | None = None
    cached: tuple[str, ...] = ()
    failure: Failure | None = None
    number: float | None = None
    asked: tuple[str, ...] = ()
    graph: Mapping[str, Any] = field(default_factory=dict, repr=False)
    created_ms: float | None = None


def parse_history(data: Any, prompt_id: str) -> HistoryEntry | None:
    """The entry of one prompt; None while it is pending, running or unknown.

    The last message decides, not `status_str` alone (ComfyUI execution.py: `success` is updated by executed nodes only).

    Raises:
        ValueError: when it is not a history.
    """
    if not isinstance(data, Mapping):
        raise ValueError("not a history")
    entry = data.get(prompt_id)
    if entry is None:
        return None
    try:
        return _history_entry(prompt_id, entry)
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a history entry: {error!r}") from error


def _history_entry(prompt_id: str, entry: Mapping[str, Any]) -> HistoryEntry:
    status = entry.get("status") or {}
    messages = {kind: data for kind, data in status.get("messages") or []}
    said = "success" if status.get("status_str") == "success" else "error"
    how: Any = next((kind.removeprefix("execution_") for kind in reversed(messages) if kind in ENDS), said)
    last = messages.get(f"execution_{how}", {})
    outputs = [output for node, value in (entry.get("outputs") or {}).items() for output in parse_outputs(str(node), value)]
    sent = entry.get("prompt") or []
    return HistoryEntry(
        prompt_id,
        how,
        tuple(outputs),
        timestamp_of(messages.get("execution_start", {})),
        timestamp_of(last),
        tuple(str(node) for node in messages.get("execution_cached", {}).get("nodes") or ()),
        failure_of(messages.get("execution_error", {})) if how == "error" else None,
        float(sent[0]) if sent else None,
        tuple(str(node) for node in sent[4]) if len(sent) > 4 else (),
        sent[2] if len(sent) > 2 and isinstance(sent[2], Mapping) else {},
        timestamp_of(sent[3], "create_time") if len(sent) > 3 and isinstance(sent[3], Mapping) else None,
    )


def parse_histories(data: Any) -> list[HistoryEntry]:
    """Every entry of GET /history that can be read, in the order in which they ended.

    Raises:
        ValueError: when it is not a history.
    """
    if not isinstance(data, Mapping):
        raise ValueError("not a history")
    found = []
    for prompt_id in data:
        with suppress(ValueError):
            found.append(parse_history(data, prompt_id))
    return [entry for entry in found if entry is not None]


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a prompt is on its server; nowhere at all is an answer too."""

    runs: bool = False
    waits: bool = False
    history: HistoryEntry | None = None

    @property
    def is_absent(self) -> bool:
        """Neither in the queue nor in the history."""
        return not (self.runs or self.waits or self.history)


def parse_job(data: Any) -> Whereabouts:
    """The answer of GET /api/jobs/{id} (ComfyUI comfy_execution/jobs.py: pending, in_progress, completed, failed, cancelled).

    Raises:
        ValueError: when it is not a job.
    """
    try:
        status, prompt_id = data["status"], str(data["id"])
        if status in ("pending", "in_progress"):
            return Whereabouts(runs=status == "in_progress", waits=status == "pending")
        entry = {"status": data.get("execution_status"), "outputs": data.get("outputs"), "prompt": [data["priority"]]}
        return Whereabouts(history=_history_entry(prompt_id, entry))
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a job: {error!r}") from error


@dataclass(frozen=True, slots=True)
class NodeError:
    """One reason for which the server refused a node; `about` is its extra_info: input_name, input_config, received_value and others."""

    node_id: str
    class_type: str
    kind: str
    message: str
    details: str
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def input(self) -> str | None:
        """The input it is about, if the server says so."""
        name = self.about.get("input_name")
        return None if name is None else str(name)

    def __str__(self) -> str:
        said = f"{self.message} {self.details}"
        place = self.input if self.input and self.input not in said else ""  # some of ComfyUI's kinds leave it out
        details = ": ".join(part for part in (place, self.details) if part)
        return f"{self.class_type} (node {self.node_id}): {self.message}" + (f" - {details}" if details else "")


@dataclass(frozen=True, slots=True)
class Rejection:
    """The answer 400 of POST /prompt, or the `node_errors` of a partial 200."""

    kind: str
    message: str
    errors: tuple[NodeError, ...]

    @property
    def sentence(self) -> str:
        """The first error in one line, and how many more there are."""
        if not self.errors:
            return self.message
        more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        return f"{self.errors[0]}{more}"


def parse_rejection(data: Any) -> Rejection:
    """A refusal in full; anything unreadable becomes a rejection that quotes it."""
    if not isinstance(data, Mapping):
        return Rejection("unknown", str(data)[:300], ())
    error = data.get("error")
    if not isinstance(error, Mapping):
        error = {"type": "unknown", "message": str(error or "the server refused the prompt")}
    nodes = data.get("node_errors")
    errors = [found for node_id, value in nodes.items() for found in _node_errors(str(node_id), value)] if isinstance(nodes, Mapping) else []
    kind, details = str(error.get("type") or "unknown"), str(error.get("details") or "")
    message = str(error.get("message") or "")
    about = _about(error)
    named = about.get("node_id") or next(iter(re.findall("Node ID '#(.+?)'", details)), None)  # ComfyUI execution.py: a class it does not have
    if named is not None and not errors:
        errors = [NodeError(str(named), str(about.get("class_type") or "?"), kind, message, details.split("\n")[0], about)]
    return Rejection(kind, message + (f": {details}" if details else ""), tuple(errors))


def _about(error: Mapping[str, Any]) -> Mapping[str, Any]:
    about = error.get("extra_info")
    return about if isinstance(about, Mapping) else {}


def _node_errors(node_id: str, value: Any) -> Iterator[NodeError]:
    if not isinstance(value, Mapping):
        return
    errors = value.get("errors")
    for error in errors if isinstance(errors, list) else ():
        if not isinstance(error, Mapping):
            continue
        yield NodeError(
            node_id,
            str(value.get("class_type") or "?"),
            str(error.get("type") or "unknown"),
            str(error.get("message") or ""),
            str(error.get("details") or "").split("\n")[0],
            _about(error),
        )
