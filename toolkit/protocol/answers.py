"""What ComfyUI answers over HTTP: its queue, a history entry, a refusal.

Raises ValueError for what is no answer of ComfyUI at all; odd parts of a refusal are kept as text, since somebody has to read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.protocol.frames import ENDS, Failure, ServerOutput, failure_of, parse_outputs, timestamp_of


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
    """GET /history/{id}: how a prompt ended, what it put out, and the server's own timestamps in milliseconds."""

    prompt_id: str
    how: Literal["success", "error", "interrupted"]
    outputs: tuple[ServerOutput, ...]
    started_ms: float | None = None
    ended_ms: float | None = None
    cached: tuple[str, ...] = ()
    failure: Failure | None = None
    number: float | None = None
    asked: tuple[str, ...] = ()


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
    )


@dataclass(frozen=True, slots=True)
class NodeError:
    """One reason for which the server refused a node."""

    node_id: str
    class_type: str
    kind: str
    message: str
    details: str
    input: str | None = None
    received: Any = None

    def __str__(self) -> str:
        said = f"{self.message} {self.details}"
        place = str(self.input) if self.input and str(self.input) not in said else ""  # some of ComfyUI's kinds leave it out
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
    details = str(error.get("details") or "")
    message = str(error.get("message") or "") + (f": {details}" if details else "")
    return Rejection(str(error.get("type") or "unknown"), message, tuple(errors))


def _node_errors(node_id: str, value: Any) -> Iterator[NodeError]:
    if not isinstance(value, Mapping):
        return
    errors = value.get("errors")
    for error in errors if isinstance(errors, list) else ():
        if not isinstance(error, Mapping):
            continue
        about = error.get("extra_info")
        about = about if isinstance(about, Mapping) else {}
        yield NodeError(
            node_id,
            str(value.get("class_type") or "?"),
            str(error.get("type") or "unknown"),
            str(error.get("message") or ""),
            str(error.get("details") or "").split("\n")[0],
            about.get("input_name"),
            about.get("received_value"),
        )
