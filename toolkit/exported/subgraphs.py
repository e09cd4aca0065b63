"""Sub-graphs unfolded: every use of a definition by its path, with the values that its host node holds for the inputs inside.

Owns paths (`57:27`, as the page and the server name inner nodes) and the three ways in which pages have kept the value of a promoted
widget: inside the definition, on the host by `proxyWidgets`, on the host by its inputs. Knows no catalog. Definitions are unfolded without
recursion, and a file that never ends is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import ExportUnreadable
from toolkit.exported.canvas import Canvas, Node, Sheet, Slot
from toolkit.graph import NODE_LIMIT

CONTROL_WORDS = {"fixed", "increment", "decrement", "randomize", "increment-wrap"}  # what a page does to a seed after a run
NESTING_LIMIT = 50  # paths grow with each level; people nest three
HOST = "-1"  # in proxyWidgets: the host itself


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One use of a sheet: the workflow itself has neither host nor parent. `given` are values for its inputs, by name."""

    path: str
    sheet: Sheet
    host: Node | None = None
    parent: Instance | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[tuple[str, str], Any] = field(default_factory=dict)  # of widgets inside: (node id, widget) -> value

    def id_of(self, node_id: str) -> str:
        """The id that a node of this sheet has in the graph."""
        return f"{self.path}:{node_id}" if self.path else node_id

    def host_slot(self, number: int) -> Slot | None:
        """The host's slot for an input of the sheet; hosts may leave out unlinked ones, so that only names tell."""
        if self.host is None or not 0 <= number < len(self.sheet.inputs):
            return None
        return next((slot for slot in self.host.inputs if slot.name == self.sheet.inputs[number].name), None)


def unfold(canvas: Canvas) -> tuple[list[tuple[Instance, Node]], dict[str, Instance]]:
    """Every node that is no sub-graph, in the order of the page, and every use of a sub-graph that runs, by its path.

    Raises:
        ExportUnreadable: a sub-graph contains itself, or there are more than NODE_LIMIT nodes.
    """
    root, endless = Instance("", canvas.root), _endless(canvas.definitions)
    found, uses, seen = list[tuple[Instance, Node]](), {"": root}, 0
    todo = [(root, node) for node in [*canvas.root.nodes.values()][::-1]]
    while todo:
        place, node = todo.pop()
        seen += 1
        if node.type in endless:
            raise ExportUnreadable("A sub-graph of this workflow contains itself.", hint="Take it out of itself in ComfyUI, and save again.")
        if seen > NODE_LIMIT:
            raise ExportUnreadable(f"With its sub-graphs this workflow has more than {NODE_LIMIT} nodes.")
        if place.path.count(":") > NESTING_LIMIT:
            raise ExportUnreadable(f"The sub-graphs of this workflow are nested deeper than {NESTING_LIMIT} levels.")
        if node.type not in canvas.definitions:
            found.append((place, node))
        elif node.runs:
            inside = _instance(place, node, canvas.definitions[node.type])
            uses[inside.path] = inside
            todo += [(inside, inner) for inner in [*inside.sheet.nodes.values()][::-1]]
    return found, uses


def _endless(definitions: Mapping[str, Sheet]) -> set[str]:
    """Definitions that contain themselves, or such a one."""
    inside = {name: {node.type for node in sheet.nodes.values()} & definitions.keys() for name, sheet in definitions.items()}
    users: dict[str, list[str]] = {name: [] for name in definitions}
    for name, parts in inside.items():
        for part in parts:
            users[part].append(name)
    plain = [name for name, parts in inside.items() if not parts]
    for name in plain:
        for user in users[name]:
            inside[user].discard(name)
            if not inside[user]:
                plain.append(user)
    return definitions.keys() - set(plain)


def _instance(parent: Instance, host: Node, sheet: Sheet) -> Instance:
    proxied = list(_proxied(host))
    given, overrides = {} if proxied else dict(_held(host, sheet)), dict[tuple[str, str], Any]()
    for node_id, widget, value in proxied:
        name = widget if node_id == HOST else _input_of(sheet, node_id, widget)
        if name is not None:
            given[name] = value
        else:
            overrides[node_id, widget] = value
    given |= {widget: value for (node_id, widget), value in parent.overrides.items() if node_id == host.id}
    return Instance(parent.id_of(host.id), sheet, host, parent, given, overrides)


def _proxied(host: Node) -> Iterator[tuple[str, str, Any]]:
    """Values by `proxyWidgets`: pairs of inner node and widget, in the order of the host's own values."""
    pairs = host.properties.get("proxyWidgets")
    pairs = [pair for pair in pairs if isinstance(pair, list) and len(pair) >= 2] if isinstance(pairs, list) else []
    if isinstance(host.values, list) and len(host.values) == len(pairs):
        for pair, value in zip(pairs, host.values, strict=True):
            yield str(pair[0]), str(pair[1]), value


def _input_of(sheet: Sheet, node_id: str, widget: str) -> str | None:
    """The input of a sub-graph that feeds this widget inside it."""
    node = sheet.nodes.get(node_id)
    slot = next((slot for slot in node.inputs if slot.widget == widget and slot.link in sheet.links), None) if node else None
    link = sheet.links[slot.link] if slot and slot.link else None
    return sheet.inputs[link.slot].name if link and link.origin == sheet.entry and 0 <= link.slot < len(sheet.inputs) else None


def _held(host: Node, sheet: Sheet) -> Iterator[tuple[str, Any]]:
    """Values by the host's inputs, one for each input that shows a widget; what an update of the page could not place comes with its name."""
    names = [port.name for number, port in enumerate(sheet.inputs) if sheet.first_widget(number)]
    if host.named and list(host.named.values()) == host.values:
        yield from host.named.items()
    elif isinstance(host.values, list):
        has_controls = len(host.values) > len(names)
        values = [value for value in host.values if not (has_controls and isinstance(value, str) and value in CONTROL_WORDS)]
        yield from ((name, value) for name, value in zip(names, values, strict=False) if value is not None)
    left = host.properties.get("proxyWidgetErrorQuarantine")
    for row in reversed(left) if isinstance(left, list) else ():
        entry = row.get("originalEntry") if isinstance(row, Mapping) and row.get("hostValue") is not None else None
        if isinstance(entry, list) and len(entry) >= 2 and entry[0] == HOST:
            yield str(entry[1]), row["hostValue"]
