"""Workflow files as JSON: read from a path, bytes, a picture or clip, or a mapping; told apart, and refused in one sentence if they are none.

Owns limits, encodings and the sentences. Knows no catalog and nothing of what nodes mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from toolkit import metadata
from toolkit.errors import ExportUnreadable
from toolkit.graph import Api

SIZE_LIMIT = 20_000_000
JSON_DEPTH_LIMIT = 200  # a page nests a dozen levels; json writes with an indent at most some 300
EXPORT_HINT = "Use File > Export (API) in ComfyUI."
Source: TypeAlias = str | PathLike[str] | bytes | Mapping[str, Any]


class Found(NamedTuple):
    """What a source holds, what to call it in a sentence, and how the page draws it where that comes beside it."""

    data: Any
    name: str
    ui: Mapping[str, Any] | None = None


def read(source: Source) -> Found:
    """The JSON of a workflow file, of a picture or clip, of the bytes of either, or the mapping itself.

    Raises:
        ExportUnreadable: it cannot be read, is larger than SIZE_LIMIT or nested deeper than JSON_DEPTH_LIMIT, or is no JSON.
    """
    found = _found(source)
    if _is_deeper([found.data, found.ui], JSON_DEPTH_LIMIT + 1):
        raise ExportUnreadable(f"{found.name} is too deeply nested.")
    return found


def _found(source: Source) -> Found:
    if isinstance(source, Mapping):
        return Found(source, "The mapping")
    name = "The data" if isinstance(source, bytes) else str(source)
    if metadata.is_media(source):
        embedded = metadata.read(source)
        return Found(embedded.prompt or embedded.workflow or {}, name, embedded.workflow)
    return Found(_json(source if isinstance(source, bytes) else _bytes(Path(source)), name), name)


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= SIZE_LIMIT else b""
    except OSError as error:
        raise ExportUnreadable(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # a NUL in the name
        raise ExportUnreadable(f"{str(path)!r:.100} is no file name: {error}.") from error
    if size > SIZE_LIMIT:
        raise ExportUnreadable(f"{path} has {size / 1e6:.0f} MB; a workflow has at most {SIZE_LIMIT / 1e6:.0f}.")
    return data


def _json(data: bytes, name: str) -> Any:
    if len(data) > SIZE_LIMIT:
        raise ExportUnreadable(f"{name} has {len(data) / 1e6:.0f} MB; a workflow has at most {SIZE_LIMIT / 1e6:.0f}.")
    try:
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return json.loads(data.decode(encoding))
    except UnicodeDecodeError as error:
        raise ExportUnreadable(f"{name} is not UTF-8 (byte {error.start}).", hint="Export the workflow with File > Export (API).") from error
    except json.JSONDecodeError as error:
        raise ExportUnreadable(f"{name} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from error
    except RecursionError as error:
        raise ExportUnreadable(f"{name} is too deeply nested.") from error
    except ValueError as error:  # a number of thousands of digits
        raise ExportUnreadable(f"{name} is not JSON: {error}.") from error


def _is_deeper(value: Any, limit: int) -> bool:
    layer = [value]
    for _ in range(limit):
        layer = [part for item in layer for part in _parts(item) if isinstance(part, (Mapping, list))]
        if not layer:
            return False
    return True


def _parts(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []


def is_ui(data: Any) -> bool:
    """Whether it is what ComfyUI's page saves: nodes in a list, with places and colours."""
    return isinstance(data, Mapping) and isinstance(data.get("nodes"), list)


def api_of(data: Any, name: str) -> Api:
    """A graph in API format, ids as text, `inputs` always there.

    Raises:
        ExportUnreadable: with what it is instead.
    """
    if isinstance(data, Mapping) and isinstance(data.get("prompt"), Mapping) and "class_type" not in data["prompt"]:
        data = data["prompt"]
    if not isinstance(data, Mapping) or not data:
        raise ExportUnreadable(f"{name} holds no workflow.", hint=EXPORT_HINT)
    bad = [str(node_id) for node_id, node in data.items() if not isinstance(node, Mapping) or not isinstance(node.get("class_type"), str)]
    if bad:
        raise ExportUnreadable(f"{name}: node {', '.join(bad[:5])} has no class_type.", hint=EXPORT_HINT)
    bad = [str(node_id) for node_id, node in data.items() if not isinstance(node.get("inputs") or {}, Mapping)]
    if bad:
        raise ExportUnreadable(f"{name}: the inputs of node {', '.join(bad[:5])} are no mapping.", hint=EXPORT_HINT)
    return {str(node_id): {**node, "inputs": dict(node.get("inputs") or {})} for node_id, node in data.items()}
