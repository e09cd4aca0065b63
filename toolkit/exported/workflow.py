"""A workflow as others see it: parameters by name, changed copies, and the graph to send.

Owns the names of parameters. Knows no file formats and no server.
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
from toolkit.exported.sources import EXPORT_HINT, Source, api_of, is_ui, read
from toolkit.graph import Api, is_link, title_of
from toolkit.roles import find_roles


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
    def load(cls, source: Source) -> Self:
        """A workflow file in API format, a picture or clip that holds one, the bytes of either, or the graph itself.

        Raises:
            ExportUnreadable: with what the file is instead.
        """
        found = read(source)
        if is_ui(found.data):
            raise ExportUnreadable(f"{found.name} is in the UI format, which a server does not run.", hint=EXPORT_HINT)
        return cls(api_of(found.data, found.name), found.ui)

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
