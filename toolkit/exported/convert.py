"""From what ComfyUI's page drew to the graph that a server runs: the page's own `graphToPrompt`, against a server's catalog.

Owns how links are followed: into and out of sub-graphs, through reroutes, bypassed nodes and get/set pairs, to a node or to a value. Knows
no file. Where the page asks its own extensions, which only it has, a note says what was guessed or left out. Nothing here recurses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from toolkit.catalog import NodeCatalog
from toolkit.errors import ExportUnreadable
from toolkit.exported.canvas import BYPASSED, MUTED, Canvas, Link, Node, read_canvas
from toolkit.exported.notes import Notes
from toolkit.exported.sources import EXPORT_HINT, is_ui
from toolkit.exported.subgraphs import Instance, unfold
from toolkit.exported.widgets import DRAWN_TYPES, Reading, read_widgets
from toolkit.graph import Api, is_link

SETTERS, GETTERS = {"SetNode", "easy setNode"}, {"GetNode", "easy getNode"}  # KJNodes, Easy-Use: a link without a line
PASSING = {"Reroute", "Reroute (rgthree)", *SETTERS}
COMMENTS = {"Note", "MarkdownNote", "Label (rgthree)", "Bookmark (rgthree)"}
SWITCHBOARDS = {f"{name} (rgthree)" for name in ("Fast Groups Muter", "Fast Groups Bypasser", "Fast Muter", "Fast Bypasser", "Fast Actions Button")}
VIRTUAL = {"PrimitiveNode", *PASSING, *GETTERS, *COMMENTS, *SWITCHBOARDS}  # the page's own: no server has them
PAGE_SYNTAX = re.compile(r"\{[^{}]*\|[^{}]*\}|//|/\*")  # {a|b} and comments: the page resolves them itself before it sends a text


@dataclass(frozen=True, slots=True)
class Converted:
    """A graph in API format; `notes` are sentences on what was left out or guessed."""

    graph: Api
    notes: tuple[str, ...]


class Wire(NamedTuple):
    """An input is fed by an output of a node that a server runs."""

    node_id: str
    slot: int


class Literal(NamedTuple):
    """An input is fed by a value: a primitive node's, or what the host of a sub-graph holds."""

    value: Any


Found: TypeAlias = Wire | Literal | None


class Step(NamedTuple):
    """Where to look next: a link of a sheet, for an input of this type."""

    place: Instance
    link: str | None
    kind: str


def to_api(ui: Any, catalog: NodeCatalog) -> Converted:
    """What ComfyUI's page would send for a workflow that it saved.

    Classes that the catalog lacks are kept, with what the file itself says of them, so that `validate` names them all at once.

    Raises:
        ExportUnreadable: it is no workflow in UI format, or one without an end.
    """
    canvas = read_canvas(ui) if is_ui(ui) else None
    if canvas is None or not canvas.root.nodes:
        raise ExportUnreadable("It holds no workflow.", hint=EXPORT_HINT)
    return _Conversion(canvas, catalog).run()


class _Conversion:
    """One file on its way: what is asked for more than once is kept."""

    def __init__(self, canvas: Canvas, catalog: NodeCatalog) -> None:
        self.catalog = catalog
        self.places, self.uses = unfold(canvas)
        self.running = {place.id_of(node.id) for place, node in self.places if node.runs and node.type not in VIRTUAL}
        self.readings: dict[tuple[str, str], Reading] = {}
        self.setters: dict[str, dict[str, Node]] = {}
        self.notes = Notes()
        self.notes.broken = canvas.broken

    def run(self) -> Converted:
        graph: Api = {}
        for place, node in self.places:
            if node.type in VIRTUAL:
                if node.type in SWITCHBOARDS:
                    self.notes.add("page", self._called(place, node))
            elif not node.runs:
                self.notes.add("muted" if node.mode == MUTED else "bypassed", self._called(place, node))
            else:
                title = node.title or self.catalog.title(node.type)
                graph[place.id_of(node.id)] = {"class_type": node.type, "inputs": self._inputs(place, node), "_meta": {"title": title}}
        return Converted(graph, self.notes.sentences())

    def _inputs(self, place: Instance, node: Node) -> dict[str, Any]:
        reading, called = self._read(place, node), self._called(place, node)
        inputs = {name: _sendable(value) for name, value in self._values(place, node).items()}
        for slot in node.inputs:
            found = self._source(Step(place, slot.link, slot.type))
            if isinstance(found, Wire) and found.node_id not in self.running:
                self.notes.add("lost", f"`{slot.name}` of {called}")
            elif found is not None:
                inputs[slot.name] = [*found] if isinstance(found, Wire) else _sendable(found.value)
        named = {"assumed": [name for name in reading.assumed if not is_link(inputs[name])], "strange": list(reading.strange)}
        for spec in self.catalog.inputs(node.type).values() if node.type in self.catalog else ():
            if spec.options.get("dynamicPrompts") and isinstance(text := inputs.get(spec.name), str) and PAGE_SYNTAX.search(text):
                named.setdefault("syntax", []).append(spec.name)
            if spec.type in DRAWN_TYPES and not is_link(inputs.get(spec.name)):
                named.setdefault("drawn", []).append(spec.name)
        for kind, names in named.items():
            for name in names:
                self.notes.add(kind, f"`{name}` of {called}")
        if reading.spare:
            self.notes.add("spare", called)
        if node.type.startswith(("workflow>", "workflow/")):
            self.notes.add("group", called)
        return inputs

    def _read(self, place: Instance, node: Node) -> Reading:
        key = (place.sheet.id, node.id)  # every use of a definition says the same
        if key not in self.readings:
            self.readings[key] = read_widgets(node, self.catalog)
        return self.readings[key]

    def _values(self, place: Instance, node: Node) -> Mapping[str, Any]:
        own = {name: value for (node_id, name), value in place.overrides.items() if node_id == node.id}
        return {**self._read(place, node).values, **own}

    def _source(self, step: Step) -> Found:
        """What feeds an input, however far away; None where nothing does, and the widget's own value counts."""
        seen = set[tuple[str, str]]()
        while step.link is not None and (step.place.path, step.link) not in seen:
            seen.add((step.place.path, step.link))
            link = step.place.sheet.links.get(step.link)
            if link is None:
                return None
            is_outside = step.place.parent is not None and link.origin == step.place.sheet.entry
            after = self._outside(step.place, link.slot) if is_outside else self._through(step, link)
            if not isinstance(after, Step):
                return after
            step = after
        return None

    def _outside(self, place: Instance, number: int) -> Step | Found:
        """Out of a sub-graph by one of its inputs: to what its host is linked to, else to the value that the host shows."""
        slot = place.host_slot(number)
        if slot is None or slot.link is None or place.parent is None:
            return self._shown(place, number)
        return Step(place.parent, slot.link, slot.type)

    def _shown(self, place: Instance, number: int) -> Found:
        """The value of an unlinked input of a sub-graph: the host's, else that of the first widget inside that it feeds."""
        while (target := place.sheet.first_widget(number)) is not None:
            name = place.sheet.inputs[number].name
            if name in place.given:
                return Literal(place.given[name])
            node, slot = target
            inner = self.uses.get(place.id_of(node.id))
            if inner is None:
                values = self._values(place, node)
                return Literal(values[slot.widget]) if slot.widget is not None and slot.widget in values else None
            place, number = inner, next((n for n, port in enumerate(inner.sheet.inputs) if port.name == slot.name), -1)
        return None

    def _through(self, step: Step, link: Link) -> Step | Found:
        """To the node at the other end of a link, or through it when it is none that a server runs."""
        place, node = step.place, step.place.sheet.nodes.get(link.origin)
        if node is None:
            return None
        if node.mode == BYPASSED:
            slot = _bypass(node, link.slot, step.kind)
            return Step(place, node.inputs[slot].link, node.inputs[slot].type) if slot is not None else None
        inner = self.uses.get(place.id_of(node.id)) if node.mode != MUTED else None
        if inner is not None:
            ports = inner.sheet.outputs[link.slot : link.slot + 1] if link.slot >= 0 else ()
            return Step(inner, ports[0].links[0], step.kind) if ports and ports[0].links else None
        if node.type == "PrimitiveNode":
            held = place.overrides.get((node.id, "value"), _first(node))
            return Literal(held) if held is not None else None
        if node.type in GETTERS:
            found = self._setter(place, node)
            return Step(found[0], found[1].inputs[0].link, step.kind) if found and found[1].inputs else None
        if node.type in PASSING:
            return Step(place, node.inputs[0].link, step.kind) if node.inputs else None
        return Wire(place.id_of(node.id), link.slot)  # a muted one too, which does not run

    def _setter(self, place: Instance | None, getter: Node) -> tuple[Instance, Node] | None:
        """The set node of the same name, in this sheet or one around it."""
        name = str(_first(getter))
        while place is not None:
            if place.sheet.id not in self.setters:
                self.setters[place.sheet.id] = {str(_first(node)): node for node in place.sheet.nodes.values() if node.type in SETTERS}
            if name in self.setters[place.sheet.id]:
                return place, self.setters[place.sheet.id][name]
            place = place.parent
        return None

    def _called(self, place: Instance, node: Node) -> str:
        return f"{node.title or self.catalog.title(node.type)} (node {place.id_of(node.id)})"


def _bypass(node: Node, output: int, kind: str) -> int | None:
    """The input that takes a bypassed output's place: the one beside it, else the first of the wanted type (ComfyUI_frontend ExecutableNodeDTO)."""
    if kind in ("*", ""):
        return output if 0 <= output < len(node.inputs) else 0 if node.inputs else None
    given = node.outputs[output] if 0 <= output < len(node.outputs) else "*"
    fitting = [number for number, slot in enumerate(node.inputs) if _meet(slot.type, given) and _meet(slot.type, kind)]
    exact = [number for number, slot in enumerate(node.inputs) if slot.type == kind]
    return output if output in fitting else next(iter([*exact, *fitting]), None)


def _meet(one: str, other: str) -> bool:
    return "*" in (one, other) or bool(set(one.lower().split(",")) & set(other.lower().split(",")))


def _first(node: Node) -> Any:
    return next(iter(node.values.values() if isinstance(node.values, Mapping) else node.values), None)


def _sendable(value: Any) -> Any:
    """A list is wrapped: bare ones are links."""
    return {"__value__": value} if isinstance(value, list) else value
