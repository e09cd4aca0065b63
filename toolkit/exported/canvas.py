"""What ComfyUI's page drew, as frozen values: nodes with their slots, links, and the sheets of sub-graphs.

Owns the shapes of the UI format: 0.4 (links as lists) and 1.0 (links as objects), as saved by the page since 2023. Whatever is not as it
should be is left out and counted, never an error: packs and other tools write these files too. Knows no catalog and no meaning. Native
reroutes need nothing here: a link through them still names both its ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MUTED, BYPASSED = 2, 4  # `mode` of a node, ComfyUI_frontend LGraphEventMode


@dataclass(frozen=True, slots=True)
class Slot:
    """An input of a node; `widget` names the widget that it stands for, `link` the link that feeds it."""

    name: str
    type: str
    link: str | None
    widget: str | None


@dataclass(frozen=True, slots=True)
class Node:
    """A node as drawn: `values` of its widgets in their order, or by name; `named` the same by name where a newer page wrote both."""

    id: str
    type: str
    mode: int
    title: str | None
    inputs: tuple[Slot, ...]
    outputs: tuple[str, ...]
    values: Sequence[Any] | Mapping[str, Any]
    named: Mapping[str, Any]
    properties: Mapping[str, Any]

    @property
    def runs(self) -> bool:
        """Whether it is neither muted nor bypassed."""
        return self.mode not in (MUTED, BYPASSED)


@dataclass(frozen=True, slots=True)
class Link:
    """From an output slot of a node to another node of the same sheet, whose input slot names the link."""

    id: str
    origin: str
    slot: int
    target: str


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a sub-graph, and the links inside that it has, the first one first."""

    name: str
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """The workflow itself, or the definition of a sub-graph; links inside it from its own inputs have `entry` as their origin."""

    id: str
    nodes: Mapping[str, Node]
    links: Mapping[str, Link]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    entry: str = "-10"

    def first_widget(self, number: int) -> tuple[Node, Slot] | None:
        """Node and slot of the first widget that an input of the sub-graph feeds: the one that its host shows."""
        for link in self.inputs[number].links if 0 <= number < len(self.inputs) else ():
            if (node := self.nodes.get(self.links[link].target) if link in self.links else None) is not None:
                for slot in node.inputs:
                    if slot.link == link and slot.widget is not None:
                        return node, slot
        return None


@dataclass(frozen=True, slots=True)
class Canvas:
    """A whole file; `broken` counts nodes and links that are no such thing."""

    root: Sheet
    definitions: Mapping[str, Sheet]
    broken: int


def read_canvas(ui: Mapping[str, Any]) -> Canvas:
    """The values of a file in UI format."""
    parts = [part for part in _rows(_mapping(ui.get("definitions")).get("subgraphs")) if isinstance(part.get("id"), str)]
    sheets = [_sheet(ui, ""), *(_sheet(part, part["id"]) for part in parts)]
    return Canvas(sheets[0][0], {sheet.id: sheet for sheet, _ in sheets[1:]}, sum(count for _, count in sheets))


def _sheet(data: Mapping[str, Any], sheet_id: str) -> tuple[Sheet, int]:
    drawn, wired = _list(data.get("nodes")), _list(data.get("links"))
    rows = sorted(_rows(drawn), key=lambda row: _number(row.get("order")) or 0)  # the page runs and writes them in this order
    nodes = [node for node in map(_node, rows) if node is not None]
    links = [link for link in map(_link, wired) if link is not None]
    sheet = Sheet(
        sheet_id,
        {node.id: node for node in nodes},
        {link.id: link for link in links},
        tuple(_port(row) for row in _rows(data.get("inputs"))),
        tuple(_port(row) for row in _rows(data.get("outputs"))),
        _text(_mapping(data.get("inputNode")).get("id")) or "-10",
    )
    return sheet, len(drawn) - len(nodes) + sum(link is not None for link in wired) - len(links)


def _node(data: Mapping[str, Any]) -> Node | None:
    node_id, kind = _text(data.get("id")), data.get("type")
    if node_id is None or not isinstance(kind, str) or not kind:
        return None
    values = data.get("widgets_values")
    return Node(
        node_id,
        kind,
        _number(data.get("mode")) or 0,
        title if isinstance(title := data.get("title"), str) and title else None,
        tuple(_slot(row) for row in _rows(data.get("inputs"))),
        tuple(str(row.get("type")) for row in _rows(data.get("outputs"))),
        values if isinstance(values, (list, Mapping)) else (),
        _mapping(data.get("widgets_values_named")),
        _mapping(data.get("properties")),
    )


def _slot(data: Mapping[str, Any]) -> Slot:
    return Slot(str(data.get("name")), str(data.get("type")), _text(data.get("link")), _text(_mapping(data.get("widget")).get("name")))


def _port(data: Mapping[str, Any]) -> Port:
    links = (_text(link) for link in _list(data.get("linkIds")))
    return Port(str(data.get("name")), tuple(link for link in links if link is not None))


def _link(data: Any) -> Link | None:
    if isinstance(data, Mapping):
        data = [data.get(name) for name in ("id", "origin_id", "origin_slot", "target_id")]
    if not isinstance(data, list) or len(data) < 4:
        return None
    link_id, origin, slot, target = _text(data[0]), _text(data[1]), _number(data[2]), _text(data[3])
    return None if link_id is None or origin is None or slot is None or target is None else Link(link_id, origin, slot, target)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _rows(value: Any) -> Iterable[Mapping[str, Any]]:
    return [row for row in _list(value) if isinstance(row, Mapping)]


def _text(value: Any) -> str | None:
    """Ids are numbers or text, and the same id may be either."""
    return value if isinstance(value, str) else str(value) if type(value) is int and value.bit_length() <= 64 else None


def _number(value: Any) -> int | None:
    try:
        return int(value) if isinstance(value, (int, str)) else None
    except ValueError:
        return None
