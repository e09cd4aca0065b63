"""A workflow as others see it: parameters by name, changed copies, and the graph to send.

Owns the names of parameters. A file in UI format waits for a catalog: its widget values have no names without one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

from rapidfuzz import process as fuzzy

from toolkit.catalog import InputSpec, NodeCatalog
from toolkit.errors import ExportUnreadable, ParameterMissing, WorkflowInvalid
from toolkit.exported.convert import to_api
from toolkit.exported.sources import EXPORT_HINT, Source, api_of, is_ui, read
from toolkit.graph import Api, Fault, is_link, odd_sizes, title_of, validate
from toolkit.roles import named_roles


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value of a workflow that can be set: by its role (`seed`) or by its place (`3.seed`), where it is; limits are known with a catalog."""

    name: str
    value: Any
    node_title: str
    node_id: str
    input: str
    choices: Sequence[str] | None = None
    minimum: float | None = None
    maximum: float | None = None


class Workflow:
    """A graph with named parameters; `set` returns a changed copy.

    While `needs_catalog`, whatever asks for the graph raises WorkflowInvalid.
    """

    def __init__(self, graph: Api | None, ui: Mapping[str, Any] | None = None) -> None:
        self._graph = graph
        self._ui = ui
        self._page = ui if graph is None else None  # what a catalog is needed for
        self._catalog: NodeCatalog | None = None
        self._notes: tuple[str, ...] = ()
        self._changes: dict[tuple[str, str], Any] = {}

    def _but(self, **fields: Any) -> Self:
        made = copy(self)
        made.__dict__.update(fields)
        return made

    @classmethod
    def load(cls, source: Source, catalog: NodeCatalog | None = None) -> Self:
        """A workflow file in API or UI format, a picture or clip that holds one, the bytes of any of them, or the graph itself.

        Args:
            source: where it is, or what it is.
            catalog: what the server that shall run it has; a file in UI format can be converted only with one.

        Raises:
            ExportUnreadable: with what the file is instead.
        """
        found = read(source)
        if not is_ui(found.data):
            own = cls(api_of(found.data, found.name), found.ui)
        elif any(isinstance(node, Mapping) and isinstance(node.get("type"), str) for node in found.data["nodes"]):
            own = cls(None, found.data)
        else:
            raise ExportUnreadable(f"{found.name} holds no workflow.", hint=EXPORT_HINT)
        return own if catalog is None else own.with_catalog(catalog)

    def with_catalog(self, catalog: NodeCatalog) -> Self:
        """The workflow for a server that has these classes; what was set stays set where the server has such an input.

        Raises:
            ExportUnreadable: a file in UI format that never ends.
        """
        if self._page is None:
            return self._but(_catalog=catalog)
        converted = to_api(self._page, catalog)
        for (node_id, name), value in self._changes.items():
            if node_id in converted.graph and name in converted.graph[node_id]["inputs"]:
                converted.graph[node_id]["inputs"][name] = value
        return self._but(_graph=converted.graph, _catalog=catalog, _notes=converted.notes)

    def with_best(self, catalogs: Iterable[NodeCatalog]) -> Self:
        """The workflow for the server that refuses the least of it; as it is when there is none."""
        return min((self.with_catalog(catalog) for catalog in catalogs), key=lambda own: len(own.faults), default=self)

    @property
    def needs_catalog(self) -> bool:
        """Whether it is in UI format, and no catalog is known yet."""
        return self._graph is None

    @property
    def ui(self) -> Mapping[str, Any] | None:
        """As ComfyUI's page draws it; None if it did not come with that, or something was set since: the page would show the old value."""
        return self._ui

    @property
    def notes(self) -> Sequence[str]:
        """What the conversion of a file in UI format left out or guessed, and the sizes that its nodes may cut, as sentences."""
        odd = odd_sizes(self._graph, self._catalog) if self._graph is not None and self._catalog is not None else ()
        return *self._notes, *odd

    def _known(self) -> Api:
        if self._graph is None:
            hint = "`studio.workflow(path)` asks the server for it; or use File > Export (API) in ComfyUI."
            raise WorkflowInvalid("This workflow is in the UI format, which is converted with a server's catalog.", hint=hint)
        return self._graph

    def api(self) -> Api:
        """A copy of the graph in API format."""
        return {key: {**node, "inputs": dict(node["inputs"])} for key, node in self._known().items()}

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The roles by their names (`steps`, and `steps_2` of a second pass that differs), then every literal by its place."""
        graph, found = self._known(), dict[str, Parameter]()
        specs = {node_id: self._specs(node) for node_id, node in graph.items()}
        for name, roles in named_roles(graph).items():
            found[name] = _parameter(name, graph, specs, roles[0].node_id, roles[0].input)
        for node_id, node in graph.items():
            for name, value in node["inputs"].items():
                if not is_link(value):
                    found[f"{node_id}.{name}"] = _parameter(f"{node_id}.{name}", graph, specs, node_id, name)
        return found

    @property
    def faults(self) -> Sequence[Fault]:
        """What the server of its catalog would refuse, all at once.

        Raises:
            WorkflowInvalid: no catalog is known.
        """
        if self._catalog is None:
            raise WorkflowInvalid("No server's catalog is known to check this workflow against.", hint="`studio.workflow(path)` asks the server for it.")
        return validate(self._known(), self._catalog)

    def _specs(self, node: Mapping[str, Any]) -> dict[str, InputSpec]:
        if self._catalog is None or node["class_type"] not in self._catalog:
            return {}
        return {spec.name: spec for spec in self._catalog.inputs_of(node["class_type"], node["inputs"])}

    def set(self, /, **parameters: Any) -> Self:  # `self` may be the name of a parameter
        """The workflow with some parameters changed; a role changes every input that plays it.

        Raises:
            ParameterMissing: with the nearest names.
        """
        graph, changes = self.api(), dict(self._changes)
        known, roles = (self.parameters, named_roles(graph)) if parameters else ({}, {})
        for name, value in parameters.items():
            if name not in known:
                near = [match[0] for match in fuzzy.extract(name, list(known), limit=3, score_cutoff=60)]
                hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(sorted(key for key in known if '.' not in key))}."
                raise ParameterMissing(f"The workflow has no parameter '{name}'.", hint=hint, field=name)
            places = [(role.node_id, role.input) for role in roles.get(name, ())] or [(known[name].node_id, known[name].input)]
            for node_id, input_name in places:
                spec, inputs = self._specs(graph[node_id]).get(input_name), graph[node_id]["inputs"]
                inputs[input_name] = changes[node_id, input_name] = _as(inputs[input_name], value, name, spec.type if spec else None)
        return self._but(_graph=graph, _changes=changes, _ui=None if parameters else self._ui)

    def save(self, path: str | PathLike[str]) -> None:
        """Write API-format JSON that ComfyUI's own page opens."""
        Path(path).write_text(json.dumps(self._known(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        if self._graph is None:
            return "Workflow in UI format, without a catalog"
        return f"Workflow of {len(self._graph)} nodes: {', '.join(name for name in self.parameters if '.' not in name)}"


def _parameter(name: str, graph: Api, specs: Mapping[str, Mapping[str, InputSpec]], node_id: str, input_name: str) -> Parameter:
    value, title, spec = graph[node_id]["inputs"][input_name], title_of(node_id, graph[node_id]), specs[node_id].get(input_name)
    limits = (spec.choices, spec.minimum, spec.maximum) if spec else ()
    return Parameter(name, value, title, node_id, input_name, *limits)


def _as(old: Any, new: Any, name: str, kind: str | None) -> Any:
    """A new value in the type of the old one: the command line only has text. `kind` is the input's, since JavaScript writes 8.0 as 8."""
    if not isinstance(new, str) or isinstance(old, str):
        return new
    try:
        if isinstance(old, bool):
            return {"true": True, "1": True, "false": False, "0": False}[new.lower()]
        if isinstance(old, float) or (isinstance(old, int) and kind == "FLOAT"):
            return float(new)
        return int(new) if isinstance(old, int) else new
    except (ValueError, KeyError) as error:
        expected = "true or false" if isinstance(old, bool) else "a number" if isinstance(old, float) or kind == "FLOAT" else "a whole number"
        raise ParameterMissing(f"'{name}' is {expected}; '{new[:60]}' is not.", field=name) from error
