"""The graph ComfyUI runs: built node by node, compared with a server's catalog, hashed. No server needed.

Owns `Graph` (API format: `{node id: {class_type, inputs, _meta}}`) and `validate`, which finds what the server would refuse, and the combo
values of V3 nodes, which it would only find while running. `odd_sizes` tells what it would cut without a word. Knows no model family and no file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from rapidfuzz import process as fuzzy

from toolkit.catalog import WIDGET_TYPES
from toolkit.catalog import InputSpec as InputSpec  # a graph and a catalog are asked for together, so both are found here
from toolkit.catalog import NodeCatalog as NodeCatalog

Api: TypeAlias = dict[str, dict[str, Any]]
DEPTH_LIMIT = 900  # ComfyUI's validator recurses and stops near 1,000 levels (ComfyUI issue 14911)
NODE_LIMIT = 20_000
SIZES = {"width", "height", "length"}
CANONICAL = json.JSONEncoder(sort_keys=True, default=str)  # made once: `json.dumps` makes one for each call with options
UNHASHED_INPUTS = {"seed", "noise_seed", "filename_prefix"}


class Link(NamedTuple):
    """One output slot of a node, to be used as another node's input."""

    node_id: str
    slot: int = 0

    def output(self, slot: int) -> Link:
        """Another output of the same node: `loader.output(1)` is CLIP of CheckpointLoaderSimple."""
        return Link(self.node_id, slot)


class Graph:
    """A graph under construction; ids are given in the order of `add`."""

    def __init__(self, nodes: Api | None = None) -> None:
        self.nodes: Api = nodes if nodes is not None else {}

    def add(self, class_type: str, *, title: str | None = None, **inputs: Any) -> Link:
        """Append a node and return its first output. Inputs are values or `Link`s."""
        node_id = str(next(number for number in itertools.count(len(self.nodes) + 1) if str(number) not in self.nodes))
        node: dict[str, Any] = {"class_type": class_type, "inputs": {name: _plain(value) for name, value in inputs.items()}}
        if title:
            node["_meta"] = {"title": title}
        self.nodes[node_id] = node
        return Link(node_id)

    def api(self) -> Api:
        """A copy in API format, as POSTed."""
        return {key: {**node, "inputs": dict(node["inputs"])} for key, node in self.nodes.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Link) else value


def is_link(value: Any) -> bool:
    """Whether an input value is a link `[node id, slot]` and not a literal."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def title_of(node_id: str, node: Mapping[str, Any]) -> str:
    """What a person calls this node: its title, else its class."""
    meta = node.get("_meta")
    return str((meta.get("title") if isinstance(meta, Mapping) else None) or node.get("class_type") or f"node {node_id}")


def sources(graph: Mapping[str, Any], node_id: str) -> list[str]:
    """Ids of the nodes that feed this one directly."""
    inputs = graph[node_id].get("inputs")
    return [value[0] for value in inputs.values() if is_link(value) and value[0] in graph] if isinstance(inputs, Mapping) else []


def ancestors(graph: Mapping[str, Any], targets: Iterable[str]) -> set[str]:
    """The targets and everything upstream of them: what a run of these outputs executes."""
    seen: set[str] = set()
    todo = [target for target in targets if target in graph]
    while todo:
        node_id = todo.pop()
        if node_id not in seen:
            seen.add(node_id)
            todo.extend(sources(graph, node_id))
    return seen


def digests(graph: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, str]:
    """A digest a node of everything upstream of it, its own inputs included; inputs named in `without`, titles and node ids do not count.

    Equal digests with nothing left out are what a server takes from its cache (ComfyUI comfy_execution/caching.py).
    """
    found: dict[str, str] = {}
    for node_id in reversed(topological(graph)):  # sources first; within a cycle some are not known yet
        node = graph[node_id]
        shape = {
            name: ["link", found.get(value[0], "cycle"), value[1]] if is_link(value) and value[0] in graph else value
            for name, value in node.get("inputs", {}).items()
            if name not in without
        }
        text = CANONICAL.encode([node.get("class_type"), shape])
        found[node_id] = hashlib.sha256(text.encode()).hexdigest()
    return found


def graph_hash(graph: Mapping[str, Any], without: Collection[str] = UNHASHED_INPUTS) -> str:
    """Equal for equal recipes: seeds, file prefixes, titles and node ids do not count; sha256, 16 hex digits."""
    return hashlib.sha256("".join(sorted(digests(graph, without).values())).encode()).hexdigest()[:16]


def topological(graph: Mapping[str, Any]) -> list[str]:
    """Node ids, consumers before their sources; members of a cycle come last, in the graph's order."""
    order, knotted = _in_order(graph)
    return order + knotted


def _in_order(graph: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Node ids, consumers before their sources; and those that are in a cycle or feed one, in the graph's order."""
    feeding = {node_id: sources(graph, node_id) for node_id in graph}
    waiting = dict.fromkeys(graph, 0)
    for source in itertools.chain.from_iterable(feeding.values()):
        waiting[source] += 1
    ready = [node_id for node_id, count in waiting.items() if count == 0]
    order: list[str] = []
    while ready:
        node_id = ready.pop()
        order.append(node_id)
        for source in feeding[node_id]:
            waiting[source] -= 1
            if waiting[source] == 0:
                ready.append(source)
    done = set(order)
    return order, [node_id for node_id in graph if node_id not in done]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing the server would refuse: where it is, what was found, what to do next."""

    kind: str
    message: str
    node_id: str | None = None
    title: str | None = None
    input: str | None = None
    value: Any = None
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.title} (node {self.node_id})" if self.node_id else "The graph"
        return f"{place}: {self.message}" + (f" {self.hint}" if self.hint else "")


def validate(graph: Mapping[str, Any], catalog: NodeCatalog) -> list[Fault]:
    """Everything wrong with a graph at once, in graph order; an empty list means that the server takes it."""
    if not isinstance(graph, Mapping) or not graph:
        return [Fault("no_outputs", "it has no nodes.", hint="Export the workflow with File > Export (API).")]
    if len(graph) > NODE_LIMIT:
        return [Fault("too_large", f"it has {len(graph)} nodes; the limit is {NODE_LIMIT}.")]
    faults = [fault for node_id, node in graph.items() for fault in _node_faults(str(node_id), node, graph, catalog)]
    if any(fault.kind == "not_a_node" for fault in faults):
        return faults
    faults += _shape_faults(graph)
    if not any(catalog.is_output(node["class_type"]) or node["class_type"] not in catalog for node in graph.values()):
        faults.append(Fault("no_outputs", "no node saves or shows anything.", hint="Add a SaveImage or SaveVideo node."))
    return faults


def _node_faults(node_id: str, node: Any, graph: Mapping[str, Any], catalog: NodeCatalog) -> Iterator[Fault]:
    if not isinstance(node, Mapping) or not isinstance(node.get("class_type"), str):
        yield Fault("not_a_node", "it has no class_type.", node_id, f"node {node_id}", hint="Export the workflow with File > Export (API).")
        return
    class_type, title, inputs = node["class_type"], title_of(node_id, node), node.get("inputs")
    if not isinstance(inputs, Mapping):
        yield Fault("not_a_node", "it has no inputs.", node_id, title)
        return
    if class_type not in catalog:
        near = catalog.nearest(class_type)
        hint = f"Did you mean {near}?" if near else "Install the node pack that brings it, or remove the node."
        yield Fault("unknown_node", f"the server has no node {class_type}.", node_id, title, value=class_type, hint=hint)
        return
    for spec in catalog.inputs_of(class_type, inputs):
        if spec.name not in inputs:
            if spec.required:
                yield Fault("missing_input", f"`{spec.name}` is missing.", node_id, title, spec.name, hint=f"It takes {spec.type}.")
        elif is_link(inputs[spec.name]) or isinstance(inputs[spec.name], (list, tuple)):
            yield from _link_faults(node_id, title, spec, inputs[spec.name], graph, catalog)
        else:
            yield from _value_faults(node_id, title, spec, inputs[spec.name])


def _link_faults(node_id: str, title: str, spec: InputSpec, value: Any, graph: Mapping[str, Any], catalog: NodeCatalog) -> Iterator[Fault]:
    if not is_link(value):
        yield Fault("bad_link", f"`{spec.name}` is {value!r:.60}, which is no link.", node_id, title, spec.name, value, 'A link is ["node id", slot].')
        return
    source = graph.get(value[0])
    if not isinstance(source, Mapping):
        yield Fault("bad_link", f"`{spec.name}` comes from node {value[0]}, which is not in the graph.", node_id, title, spec.name, value)
        return
    source_class = source.get("class_type")
    if not isinstance(source_class, str) or source_class not in catalog:
        return
    outputs = catalog.outputs(source_class)
    if not 0 <= value[1] < len(outputs):
        said = f"`{spec.name}` comes from output {value[1]} of {title_of(value[0], source)}, which has {len(outputs)}."
        yield Fault("bad_link", said, node_id, title, spec.name, value)
    elif not _fits(outputs[value[1]], spec.type):
        said = f"`{spec.name}` takes {spec.type}, but {title_of(value[0], source)} (node {value[0]}) gives {outputs[value[1]]}."
        yield Fault("type_mismatch", said, node_id, title, spec.name, value)


def _fits(given: str, taken: str) -> bool:
    """Whether types meet: any of comma-separated alternatives, `*` and V3's dynamic types with everything, combos with strings."""
    ours, theirs = set(given.split(",")), set(taken.split(","))
    return "*" in ours | theirs or bool(ours & theirs) or {given, taken} <= {"COMBO", "STRING"} or given.startswith("COMFY_") or taken.startswith("COMFY_")


def _value_faults(node_id: str, title: str, spec: InputSpec, value: Any) -> Iterator[Fault]:
    if isinstance(value, Mapping) and "__value__" in value:  # how a list is sent as a value (ComfyUI execution.py unwraps it)
        value = value["__value__"]
    if spec.choices is not None:
        if str(value) not in spec.choices and not isinstance(value, (Mapping, list)) and not _is_elsewhere(spec, value):
            said = f"`{spec.name}` is '{value}', which the server does not have."
            yield Fault("not_in_list", said, node_id, title, spec.name, value, offer(value, spec.choices))
        return
    if spec.type in ("INT", "FLOAT"):
        number = _converted(value, spec.type)
        if number is None:
            yield Fault("not_a_number", f"`{spec.name}` is {value!r:.60}; it takes {spec.type}.", node_id, title, spec.name, value)
        elif (spec.minimum is not None and number < spec.minimum) or (spec.maximum is not None and number > spec.maximum):
            said = f"`{spec.name}` is {value}; it takes {_bound(spec.minimum)} to {_bound(spec.maximum)}."
            yield Fault("out_of_range", said, node_id, title, spec.name, value)
    elif spec.type not in WIDGET_TYPES and spec.required and value is None:
        yield Fault("missing_input", f"`{spec.name}` is empty; it takes a link to {spec.type}.", node_id, title, spec.name)


def odd_sizes(graph: Mapping[str, Any], catalog: NodeCatalog) -> list[str]:
    """Sizes and lengths between the steps of their input, as sentences: no server refuses one, most nodes cut it, and some models fail on it.

    For a valid graph.
    """
    found = []
    for node_id, node in graph.items():
        for spec in catalog.inputs_of(node["class_type"], node["inputs"]) if node["class_type"] in catalog else ():
            value, step, start = node["inputs"].get(spec.name), spec.options.get("step"), int(spec.minimum or 0)
            if spec.name in SIZES and type(value) is int and type(step) is int and step > 1 and (value - start) % step:
                lower = value - (value - start) % step
                found.append(f"{title_of(node_id, node)} (node {node_id}): `{spec.name}` is {value}, made for {lower} or {lower + step}; it may be cut.")
    return found


def _is_elsewhere(spec: InputSpec, value: Any) -> bool:
    """Whether an upload input names a file that its list never shows: LoadImage takes `subfolder/name` and `name [temp]` by looking at the disk.

    One that leads out of the server's folders is not let through: ComfyUI would open it (folder_paths.py joins it as it is).
    """
    if not any(name.endswith("_upload") for name in spec.options) or not isinstance(value, str):
        return False
    parts = value.replace("\\", "/").split("/")
    return ("/" in value or value.endswith("]")) and parts[0] != "" and ":" not in parts[0] and ".." not in parts


def _converted(value: Any, kind: str) -> float | None:
    """The number ComfyUI would make of a literal (`"2"` is accepted for INT), None if it would refuse."""
    try:
        number = int(value) if kind == "INT" else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isinstance(number, int) or math.isfinite(number) else None


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def offer(value: Any, choices: Sequence[str]) -> str:
    """A next step for a value that is not among the choices: the nearest ones, or all when they are few."""
    if not choices:
        return "The server has none at all."
    near = [match[0] for match in fuzzy.extract(str(value), choices, limit=3, score_cutoff=60)]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"It has {', '.join(choices[:8])}" + (f" and {len(choices) - 8} more." if len(choices) > 8 else ".")


def _shape_faults(graph: Mapping[str, Any]) -> Iterator[Fault]:
    order, knotted = _in_order(graph)
    if knotted:
        cycle = _cycle(graph, knotted)
        shown = cycle if len(cycle) <= 12 else [*cycle[:6], f"{len(cycle) - 12} more", *cycle[-6:]]
        yield Fault("cycle", f"it has a cycle: {' -> '.join(shown)}.", hint="A node cannot feed itself.")
        return
    depth = dict.fromkeys(order, 1)
    for node_id in order:
        for source in sources(graph, node_id):
            depth[source] = max(depth[source], depth[node_id] + 1)
    if max(depth.values()) > DEPTH_LIMIT:
        yield Fault("too_deep", f"its longest chain has {max(depth.values())} nodes; ComfyUI stops near 1,000.")


def _cycle(graph: Mapping[str, Any], knotted: Sequence[str]) -> list[str]:
    """The ids of one cycle, each feeding the next, the first one repeated at the end; `knotted` are all that are in one or feed one."""
    consumer = {source: node_id for node_id in knotted for source in sources(graph, node_id)}  # each of them feeds another
    trail = dict.fromkeys([knotted[0]])
    while (following := consumer[next(reversed(trail))]) not in trail:
        trail[following] = None
    ids = list(trail)
    return [*ids[ids.index(following) :], following]
