"""The values of a node's widgets by name: the page saves them as a bare list, in the order in which it drew them.

Owns that order: inputs of the class that make a widget, what the page puts between and behind them (what becomes of a seed, upload
buttons), and the widgets that a dynamic combo adds. Three witnesses tell it: the page's own list by name, the slots in the file, the
server's class; where they differ the one that explains the list best is believed, since server and page may be years apart. Knows no
links: a linked widget keeps its place in the list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.catalog import WIDGET_TYPES, InputSpec, NodeCatalog, added_inputs
from toolkit.exported.canvas import Node
from toolkit.exported.subgraphs import CONTROL_WORDS

SEEDS = {"seed", "noise_seed"}
PAGE_ONLY = {"control_after_generate", "control_filter_list", "upload", "audioUI", "videopreview"}  # widgets that the page never sends
BUTTONS = {"upload3dmodel", "uploadExtraResources", "clear"}  # of Load3D, amid its values
DRAWN_TYPES = {"LOAD_3D", "LOAD_3D_ANIMATION", "WEBCAM", "AUDIO_RECORD"}  # widgets of the page's own; later classes say `socketless`
EMPTY = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}


@dataclass(frozen=True, slots=True)
class Reading:
    """Values by widget; `assumed` have the class's default, `strange` names are none of the class, `spare` values have no name."""

    values: dict[str, Any]
    assumed: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    spare: int = 0


def read_widgets(node: Node, catalog: NodeCatalog) -> Reading:
    """Every widget of a node that a server would be sent, linked ones too."""
    if isinstance(node.values, Mapping):
        told = Reading({str(name): value for name, value in node.values.items()})
    elif node.named and list(node.named.values()) == list(node.values):  # else somebody edited the list, which is what the page reads
        told = Reading(dict(node.named))
    elif node.type in catalog:
        told = min((_by_slots(node), _by_class(node, catalog)), key=lambda told: (_unexplained(told, node, catalog), not told.values))
    else:
        told = _by_slots(node)
    values = {name: value for name, value in told.values.items() if name not in PAGE_ONLY}
    if node.type not in catalog:
        return Reading(values)
    assumed = tuple(_assume(node, catalog, values))
    known = {spec.name: spec for spec in catalog.inputs_of(node.type, values)}
    strange = {} if isinstance(node.values, Mapping) else {name: value for name, value in values.items() if name not in known}
    for name, value in strange.items():
        if not isinstance(value, Mapping):  # what a pack's own script draws is saved by name, or is a mapping, and is sent as well
            del values[name]
    left_out = tuple(name for name, value in strange.items() if name not in values and value not in (None, ""))
    return Reading(values, assumed, left_out, 0 if any(map(_has_button, known.values())) else told.spare)


def _by_slots(node: Node) -> Reading:
    """As the file's slots say: pages since 2025 write one for each widget, unlinked ones too, unless the file was made for an export."""
    names = [slot.widget for slot in node.inputs if slot.widget is not None]
    left, told = deque(node.values), dict[str, Any]()
    for number, name in enumerate(names):
        if left:
            told[name] = left.popleft()
        while len(left) > len(names) - number - 1 and _next_is(CONTROL_WORDS | BUTTONS, left):
            left.popleft()
    if _spare(left) or (left and all(slot.link is not None for slot in node.inputs if slot.widget is not None)):
        return Reading({}, spare=_spare(node.values))  # not all were written, and nobody knows which
    return Reading(told)


def _by_class(node: Node, catalog: NodeCatalog) -> Reading:
    """As the server's class says."""
    left, told = deque(node.values), dict[str, Any]()
    for spec in _widgets(node, catalog, told):
        if not left:
            break
        told[spec.name] = left.popleft()
        while _has_button(spec) and _next_is(BUTTONS, left):
            left.popleft()
        if spec.options.get("control_after_generate", spec.name in SEEDS and spec.type == "INT") and _next_is(CONTROL_WORDS, left):
            left.popleft()
            if spec.type == "COMBO" and left and isinstance(left[0], str):
                left.popleft()  # a filter of its choices
    return Reading(told, spare=_spare(left))


def _widgets(node: Node, catalog: NodeCatalog, values: Mapping[str, Any]) -> Iterator[InputSpec]:
    """The inputs of the class that make a widget; those of a dynamic combo when its value is in `values`, which may grow meanwhile."""
    slots = {slot.name for slot in node.inputs if slot.widget is not None}
    todo = [*catalog.inputs(node.type).values()][::-1]
    while todo:
        spec = todo.pop()
        is_drawn = _kind(spec) in WIDGET_TYPES | DRAWN_TYPES or spec.options.get("socketless") or spec.name in slots
        if is_drawn and not spec.options.get("forceInput"):
            yield spec
        todo += reversed(added_inputs(spec, values))


def _kind(spec: InputSpec) -> str:
    return str(spec.options.get("widgetType") or spec.type)


def _assume(node: Node, catalog: NodeCatalog, values: dict[str, Any]) -> Iterator[str]:
    """Fill in what the file does not hold with what the page starts with, and say for which names."""
    for spec in _widgets(node, catalog, values) if node.type in catalog else ():
        if spec.name not in values:
            start = spec.options.get("default", spec.choices[0] if spec.choices else EMPTY.get(_kind(spec)))
            if start is not None:
                values[spec.name] = start
                yield spec.name


def _unexplained(told: Reading, node: Node, catalog: NodeCatalog) -> int:
    """How much of the list and of the class a telling leaves open."""
    missing = misfits = 0
    for spec in _widgets(node, catalog, told.values):
        if spec.name not in told.values:
            missing += 1
        elif not _fits(spec, told.values[spec.name]):
            misfits += 1
    return told.spare + missing + misfits


def _fits(spec: InputSpec, value: Any) -> bool:
    match _kind(spec):
        case "INT" | "FLOAT":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "BOOLEAN":
            return isinstance(value, bool)
        case "STRING":
            return isinstance(value, str)
        case "COMBO" | "COMFY_DYNAMICCOMBO_V3":
            return str(value) in (spec.choices or ()) or (isinstance(value, str) and value not in CONTROL_WORDS)
    return True


def _next_is(words: set[str], left: deque[Any]) -> bool:
    return bool(left) and isinstance(left[0], str) and left[0] in words


def _has_button(spec: InputSpec) -> bool:
    return any(name.endswith("_upload") for name in spec.options)


def _spare(values: Any) -> int:
    """How many values say something; buttons and previews leave nulls and empty texts behind."""
    return sum(value is not None and value != "" for value in values)
