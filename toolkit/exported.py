"""The user's own workflow files: read, their parameters named, changed and written again.

Owns what a file may hold (API format for now) and the names of parameters. Knows no server: what a graph needs is checked by graph.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

from rapidfuzz import process as fuzzy

from toolkit.errors import ExportUnreadable, ParameterMissing
from toolkit.graph import Api, is_link, title_of
from toolkit.metadata import is_media, read
from toolkit.roles import find_roles

SIZE_LIMIT = 20_000_000


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value of a workflow that can be set: by its role (`seed`) or by its place (`3.seed`)."""

    name: str
    value: Any
    node_title: str
    node_id: str
    input: str


class Workflow:
    """A graph in API format with named parameters; `set` returns a changed copy."""

    def __init__(self, graph: Api, ui: Mapping[str, Any] | None = None) -> None:
        self._graph = graph
        self.ui = ui  # as ComfyUI's page draws it, if it came with that

    @classmethod
    def load(cls, source: str | PathLike[str] | bytes | Mapping[str, Any]) -> Self:
        """A workflow file in API format, a picture or clip that holds one, the bytes of either, or the graph itself.

        Raises:
            ExportUnreadable: with what the file is instead.
        """
        if isinstance(source, Mapping):
            return cls(_checked(source, "The mapping"))
        name = "The data" if isinstance(source, bytes) else str(source)
        if is_media(source):
            found = read(source)
            return cls(_checked(found.prompt or found.workflow or {}, name), found.workflow)
        return cls(_checked(_json(source if isinstance(source, bytes) else _read(Path(source)), name), name))

    def api(self) -> Api:
        """A copy of the graph in API format."""
        return {key: {**node, "inputs": dict(node["inputs"])} for key, node in self._graph.items()}

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """Every literal by its place, and the roles that are unambiguous by their name."""
        found: dict[str, Parameter] = {}
        for role in find_roles(self._graph):
            found.setdefault(role.name, self._parameter(role.name, role.node_id, role.input))
        for node_id, node in self._graph.items():
            for name, value in node["inputs"].items():
                if not is_link(value):
                    found[f"{node_id}.{name}"] = self._parameter(f"{node_id}.{name}", node_id, name)
        return found

    def _parameter(self, name: str, node_id: str, input_name: str) -> Parameter:
        node = self._graph[node_id]
        return Parameter(name, node["inputs"][input_name], title_of(node_id, node), node_id, input_name)

    def set(self, /, **parameters: Any) -> Self:  # `self` may be the name of a parameter
        """The workflow with some parameters changed; a role changes every input that plays it. What the page draws stays behind: it has the old values.

        Raises:
            ParameterMissing: with the nearest names.
        """
        graph, known, roles = self.api(), self.parameters, find_roles(self._graph)
        for name, value in parameters.items():
            if name not in known:
                near = [match[0] for match in fuzzy.extract(name, list(known), limit=3, score_cutoff=60)]
                hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(sorted(key for key in known if '.' not in key))}."
                raise ParameterMissing(f"The workflow has no parameter '{name}'.", hint=hint, field=name)
            places = [(role.node_id, role.input) for role in roles if role.name == name] or [(known[name].node_id, known[name].input)]
            for node_id, input_name in places:
                graph[node_id]["inputs"][input_name] = _as(graph[node_id]["inputs"][input_name], value, name)
        return type(self)(graph, None if parameters else self.ui)

    def save(self, path: str | PathLike[str]) -> None:
        """Write API-format JSON that ComfyUI's own page opens."""
        Path(path).write_text(json.dumps(self._graph, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        return f"Workflow of {len(self._graph)} nodes: {', '.join(name for name in self.parameters if '.' not in name)}"


def _as(old: Any, new: Any, name: str) -> Any:
    """A new value in the type of the old one: the command line only has text."""
    if not isinstance(new, str) or isinstance(old, str):
        return new
    try:
        if isinstance(old, bool):
            return {"true": True, "1": True, "false": False, "0": False}[new.lower()]
        return int(new) if isinstance(old, int) else float(new) if isinstance(old, float) else new
    except (ValueError, KeyError) as error:
        raise ParameterMissing(f"'{name}' is a {type(old).__name__}; '{new}' is none.", field=name) from error


def _read(path: Path) -> bytes:
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


def _checked(graph: Any, name: str) -> Api:
    if isinstance(graph, Mapping) and isinstance(graph.get("nodes"), list):
        raise ExportUnreadable(f"{name} is in the UI format, which a server does not run.", hint="Use File > Export (API) in ComfyUI.")
    if isinstance(graph, Mapping) and isinstance(graph.get("prompt"), Mapping) and "class_type" not in graph["prompt"]:
        graph = graph["prompt"]
    if not isinstance(graph, Mapping) or not graph:
        raise ExportUnreadable(f"{name} holds no workflow.", hint="Use File > Export (API) in ComfyUI.")
    bad = [str(node_id) for node_id, node in graph.items() if not isinstance(node, Mapping) or not isinstance(node.get("class_type"), str)]
    if bad:
        raise ExportUnreadable(f"{name}: node {', '.join(bad[:5])} has no class_type.", hint="Use File > Export (API) in ComfyUI.")
    bad = [str(node_id) for node_id, node in graph.items() if not isinstance(node.get("inputs") or {}, Mapping)]
    if bad:
        raise ExportUnreadable(f"{name}: the inputs of node {', '.join(bad[:5])} are no mapping.", hint="Use File > Export (API) in ComfyUI.")
    return {str(node_id): {**node, "inputs": dict(node.get("inputs") or {})} for node_id, node in graph.items()}
