"""ComfyUI's websocket frames: text and bytes in, frozen events out; and the values that frames and answers share.

Never raises on a strange frame: the server may send anything, and custom nodes do. What it cannot read becomes `Unknown`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

FEATURE_FLAGS = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
PREVIEW_IMAGE, TEXT, PREVIEW_WITH_METADATA = 1, 3, 4
ENDS = ("execution_success", "execution_error", "execution_interrupted")
MEDIA_TYPES = {1: "image/jpeg", 2: "image/png"}
MODELS_3D = (".obj", ".fbx", ".gltf", ".glb", ".usdz")


@dataclass(frozen=True, slots=True)
class Status:
    """How many prompts are pending or running; to every socket, three times a job."""

    queue_remaining: int
    sid: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionStart:
    """The worker took the prompt."""

    prompt_id: str
    timestamp_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ExecutionCached:
    """These nodes are reused, not run."""

    prompt_id: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Executing:
    """A node began; `node` None is the end of the prompt; without prompt_id it is the greeting of a new socket."""

    node: str | None
    prompt_id: str | None


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """A node reached step `value` of `maximum`."""

    prompt_id: str | None
    node: str | None
    value: float
    maximum: float


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node in a `progress_state` frame; `display_node` maps an expanded node back to the sent graph."""

    node: str
    display_node: str
    value: float
    maximum: float
    state: str


@dataclass(frozen=True, slots=True)
class ProgressState:
    """All nodes that are not pending, each time anew."""

    prompt_id: str
    nodes: tuple[NodeState, ...]


@dataclass(frozen=True, slots=True)
class Executed:
    """An output node has something to show."""

    prompt_id: str
    node: str
    outputs: tuple[ServerOutput, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """The last word on a prompt: success, error or interrupted."""

    prompt_id: str
    how: Literal["success", "error", "interrupted"]
    timestamp_ms: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture of a sampler's work; prompt_id and node only when feature flags were agreed."""

    data: bytes = field(repr=False)
    media_type: str = "image/jpeg"
    prompt_id: str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Anything else: other nodes' messages, newer event numbers, broken frames."""

    what: str


Event: TypeAlias = Status | ExecutionStart | ExecutionCached | Executing | NodeProgress | ProgressState | Executed | Ended | Preview | Unknown


@dataclass(frozen=True, slots=True)
class Failure:
    """Where and why a prompt failed while running."""

    node_id: str | None
    class_type: str | None
    exception: str
    message: str
    traceback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerOutput:
    """One thing a node put out: a file on the server, or a text; `index` is its place among the node's outputs."""

    node_id: str
    key: str
    index: int
    filename: str | None = None
    subfolder: str = ""
    folder: str = "output"
    text: str | None = None

    @property
    def is_temporary(self) -> bool:
        """From a preview node: wiped when the server starts."""
        return self.folder == "temp"


def parse_message(frame: str | bytes) -> Event:
    """The event of one websocket frame; never raises."""
    try:
        if isinstance(frame, bytes):
            return _parse_binary(frame)
        message = json.loads(frame)
        return _parse_json(str(message["type"]), message["data"])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, struct.error, RecursionError) as error:
        return Unknown(f"malformed: {type(error).__name__}")


def _parse_json(kind: str, data: Any) -> Event:
    match kind:
        case "status":
            return Status(int(data["status"]["exec_info"]["queue_remaining"]), _maybe_id(data.get("sid")))
        case "execution_start":
            return ExecutionStart(_id(data["prompt_id"]), timestamp_of(data))
        case "execution_cached":
            return ExecutionCached(_id(data["prompt_id"]), tuple(_id(node) for node in data.get("nodes") or ()))
        case "executing":
            node = data.get("display_node") or data.get("node")
            return Executing(None if data.get("node") is None else _id(node), _maybe_id(data.get("prompt_id")))
        case "progress":
            return NodeProgress(_maybe_id(data.get("prompt_id")), _maybe_id(data.get("node")), _finite(data["value"]), _finite(data["max"]))
        case "progress_state":
            nodes = data["nodes"]
            return ProgressState(_id(data["prompt_id"]), tuple(_node_state(node_id, state) for node_id, state in nodes.items()))
        case "executed":
            node = _id(data.get("display_node") or data["node"])
            return Executed(_id(data["prompt_id"]), node, tuple(parse_outputs(node, data.get("output"))))
        case "execution_error" if data.get("exception_type") == "ExecutionBlocked":
            return Unknown("execution_blocked")  # one branch stops, the prompt goes on (ComfyUI execution.py)
        case "execution_success" | "execution_error" | "execution_interrupted":
            how: Any = kind.removeprefix("execution_")
            failure = failure_of(data) if how == "error" else None
            return Ended(_id(data["prompt_id"]), how, timestamp_of(data), failure)
        case _:
            return Unknown(kind)


def _id(value: Any) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no id")
    return str(value)


def _maybe_id(value: Any) -> str | None:
    return None if value is None else _id(value)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no progress")
    return number


def timestamp_of(data: Mapping[str, Any], name: str = "timestamp") -> float | None:
    """The server's clock in milliseconds, if the message has it."""
    value = data.get(name)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _node_state(node_id: str, state: Mapping[str, Any]) -> NodeState:
    shown = state.get("display_node_id") or state.get("real_node_id") or node_id
    return NodeState(node_id, _id(shown), _finite(state["value"]), _finite(state["max"]), str(state.get("state", "running")))


def failure_of(data: Mapping[str, Any]) -> Failure:
    """Where and why, from an execution_error message."""
    trace = data.get("traceback")
    return Failure(
        None if data.get("node_id") is None else str(data["node_id"]),
        data.get("node_type"),
        str(data.get("exception_type") or "Error"),
        str(data.get("exception_message") or "").strip(),
        tuple(str(line) for line in trace) if isinstance(trace, list) else (),
    )


def _parse_binary(frame: bytes) -> Event:
    (number,) = struct.unpack_from(">I", frame)
    if number == PREVIEW_IMAGE:
        (form,) = struct.unpack_from(">I", frame, 4)
        return Preview(frame[8:], MEDIA_TYPES.get(form, "application/octet-stream"))
    if number == PREVIEW_WITH_METADATA:
        (length,) = struct.unpack_from(">I", frame, 4)
        about = json.loads(frame[8 : 8 + length])
        node = about.get("display_node_id") or about.get("node_id")
        return Preview(frame[8 + length :], str(about.get("image_type", "image/jpeg")), _maybe_id(about.get("prompt_id")), _maybe_id(node))
    return Unknown(f"binary {number}")


def parse_outputs(node_id: str, output: Any) -> Iterator[ServerOutput]:
    """Every file and text of one node's `output`: any list under any key; a dict with `filename` is a file (a clip hides under `images`)."""
    index = 0
    for key, items in output.items() if isinstance(output, Mapping) else ():
        for item in items if isinstance(items, list) else [items]:
            if isinstance(item, Mapping) and isinstance(item.get("filename"), str) and item["filename"]:
                yield ServerOutput(node_id, key, index, item["filename"], str(item.get("subfolder") or ""), str(item.get("type") or "output"))
            elif isinstance(item, str) and key in ("text", "string"):
                yield ServerOutput(node_id, key, index, text=item)
            elif isinstance(item, str) and item.lower().endswith(MODELS_3D):  # some 3D nodes name their file and nothing else
                subfolder, _, filename = item.replace("\\", "/").rpartition("/")
                yield ServerOutput(node_id, key, index, filename, subfolder)
            else:
                continue
            index += 1
