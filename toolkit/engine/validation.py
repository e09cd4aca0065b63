"""Whether a prompt may run: ComfyUI's validation with its words, its order and its oddities.

Owns the checks behind POST /prompt and the shape of their errors. It must not know the queue. A pure function of the graph, the
catalog and the uploads (it only rewrites values it could convert, as the real one does) so that recorded bodies can be replayed
against it. Every error below is recorded in tests/recordings/d_validation_errors.jsonl.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.engine.catalog import Catalog, picture_inputs, unfolded

Graph = dict[str, dict[str, Any]]
Fault = dict[str, Any]

CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
LONGEST_LIST = 20  # longer choice lists are not sent back


@dataclass(frozen=True, slots=True)
class Verdict:
    """What validation found: the outputs that may run, or why none may."""

    outputs: list[str] = field(default_factory=list)
    error: Fault | None = None
    node_errors: dict[str, Fault] = field(default_factory=dict)


@dataclass(slots=True)
class _Findings:
    """Faults per node seen so far; a node that only depends on a faulty one has an empty list and stays invalid."""

    graph: Graph
    catalog: Catalog
    there: Callable[[str], bool]
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    valid: dict[str, bool] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    def entry(self, node_id: str) -> Mapping[str, Any]:
        """Give the catalog's entry of a node."""
        return self.catalog[self.graph[node_id]["class_type"]]

    def settle(self, node_id: str, faults: list[Fault], valid: bool) -> bool:
        """Note a node's result."""
        self.faults[node_id], self.valid[node_id] = faults, valid and not faults
        return self.valid[node_id]


def validate(graph: Graph, catalog: Catalog, there: Callable[[str], bool], targets: Iterable[str] | None = None) -> Verdict:
    """Check a graph; with `targets` only those of its output nodes.

    Args:
        graph: what a client sent.
        catalog: the classes there are.
        there: whether an uploaded picture of this name is there.
        targets: ids of output nodes.

    Raises:
        TypeError: the graph is no mapping of mappings; ComfyUI answers 500 to it.
    """
    fault = _unusable(graph, catalog)
    if fault:
        return Verdict(error=fault)
    outputs = [node_id for node_id in graph if catalog[graph[node_id]["class_type"]]["output_node"]]
    outputs = [node_id for node_id in outputs if targets is None or node_id in targets]
    if not outputs:
        return Verdict(error=_fault("prompt_no_outputs", "Prompt has no outputs", ""))
    return _judged(_Findings(graph, catalog, there), outputs)


def _unusable(graph: Graph, catalog: Catalog) -> Fault | None:
    for node_id in graph:
        node = graph[node_id]
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return _fault("invalid_prompt", message, f"Node ID '#{node_id}'")
        if node["class_type"] not in catalog:
            message = f"Cannot execute because node {node['class_type']} does not exist."
            return _fault("invalid_prompt", message, f"Node ID '#{node_id}'")
    return None


def _judged(findings: _Findings, outputs: list[str]) -> Verdict:
    graph, good = findings.graph, []
    node_errors: dict[str, Fault] = {}
    lines: list[str] = []
    for output in outputs:
        if _check_output(findings, output):
            good.append(output)
            continue
        lines += [f"{fault['message']}: {fault['details']}" for fault in findings.faults[output]]
        for node_id in (node_id for node_id, faults in findings.faults.items() if faults):
            entry = {"errors": findings.faults[node_id], "dependent_outputs": [], "class_type": graph[node_id]["class_type"]}
            node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
    if good:
        return Verdict(good, None, node_errors)
    details = "\n".join(lines)
    error = _fault("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
    return Verdict([], error, node_errors)


def _check_output(findings: _Findings, node_id: str) -> bool:
    try:
        return _check_node(findings, node_id)
    except Exception as error:  # as in ComfyUI anything wrong in here is a fault of this output
        extra = {"exception_type": type(error).__name__, "traceback": traceback.format_tb(error.__traceback__)}
        fault = _fault("exception_during_validation", "Exception when validating node", str(error), extra)
        return findings.settle(node_id, [fault], False)


def _check_node(findings: _Findings, node_id: str) -> bool:
    """Check a node and what it hangs on; in a cycle every node is invalid and none has a fault (recorded)."""
    if node_id in findings.valid:
        return findings.valid[node_id]
    if node_id in findings.open:
        return False
    findings.open.add(node_id)
    inputs, entry = findings.graph[node_id]["inputs"], findings.entry(node_id)
    groups = unfolded(entry, inputs)
    faults: list[Fault] = []
    valid = True
    for group in ("required", "optional"):
        for name, spec in groups.get(group, {}).items():
            if name in inputs:
                valid &= _check_input(findings, inputs, name, spec, faults)
            elif group == "required":
                faults.append(_fault("required_input_missing", "Required input is missing", name, {"input_name": name}))
    faults += _absent(findings, inputs, picture_inputs(entry))
    return findings.settle(node_id, faults, valid)


def _absent(findings: _Findings, inputs: Mapping[str, Any], names: Iterable[str]) -> list[Fault]:
    """Refuse uploaded pictures that are not there (recorded)."""
    given = {name: inputs[name] for name in names if isinstance(inputs.get(name), str)}
    missing = {name: f"Invalid image file: {value}" for name, value in given.items() if not findings.there(value)}
    message = "Custom validation failed for node"
    return [_fault("custom_validation_failed", message, f"{name} - {words}", {"input_name": name}) for name, words in missing.items()]


def _check_input(findings: _Findings, inputs: dict[str, Any], name: str, spec: list[Any], faults: list[Fault]) -> bool:
    if isinstance(inputs[name], list):
        return _check_link(findings, inputs[name], name, spec, faults)
    fault = _value_fault(inputs, name, spec)
    if fault:
        faults.append(fault)
    return True


def _check_link(findings: _Findings, link: list[Any], name: str, spec: list[Any], faults: list[Fault]) -> bool:
    about = {"input_name": name, "input_config": _config(spec)}
    if len(link) != 2:
        message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        faults.append(_fault("bad_linked_input", message, name, about | {"received_value": link}))
        return True
    source, slot = link
    outputs = tuple(findings.entry(source)["output"])
    received = outputs[slot]
    if not _fits(received, spec[0]):
        details = f"{name}, received_type({received}) mismatch input_type({spec[0]})"
        extra = about | {"received_type": received, "linked_node": link}
        faults.append(_fault("return_type_mismatch", "Return type mismatch between linked nodes", details, extra))
        return True
    return _check_source(findings, source, about | {"linked_node": link})


def _fits(received: Any, wanted: Any) -> bool:
    """Say whether an output may feed an input; `A,B` is either, `*` any, and what two inputs share is left to the client (ComfyUI validation.py)."""
    if received == wanted or "*" in (received, wanted) or "COMFY_MATCHTYPE_V3" in (received, wanted):
        return True
    return isinstance(received, str) and isinstance(wanted, str) and bool(set(received.split(",")) & set(wanted.split(",")))


def _check_source(findings: _Findings, source: str, about: dict[str, Any]) -> bool:
    try:
        return _check_node(findings, source)
    except Exception as error:  # the fault belongs to the linked node (recorded)
        extra = about | {"exception_message": str(error), "exception_type": type(error).__name__}
        extra["traceback"] = traceback.format_tb(error.__traceback__)
        fault = _fault("exception_during_inner_validation", "Exception when validating inner node", str(error), extra)
        return findings.settle(source, [fault], False)


def _value_fault(inputs: dict[str, Any], name: str, spec: list[Any]) -> Fault | None:
    """Check a value, rewriting it in place where its type asks for a conversion ("2" becomes 2)."""
    kind, config = _config(spec)
    if isinstance(inputs[name], dict) and "__value__" in inputs[name]:
        inputs[name] = inputs[name]["__value__"]
    value = inputs[name]
    about = {"input_name": name, "input_config": [kind, config], "received_value": value}
    try:
        if isinstance(kind, str) and kind in CONVERSIONS:
            value = inputs[name] = CONVERSIONS[kind](value)
    except Exception as error:  # int() and float() of anything a body may hold
        message = f"Failed to convert an input value to a {kind} value"
        details = f"{name}, {value}, {error}"
        return _fault("invalid_input_type", message, details, about | {"exception_message": str(error)})
    if config.get("image_upload"):  # judged by the folder, not by the list, which shows its top only (recorded)
        return None
    return _range_fault(about | {"received_value": value}) or _choice_fault(about)


def _range_fault(about: dict[str, Any]) -> Fault | None:
    name, config, value = about["input_name"], about["input_config"][1], about["received_value"]
    if "min" in config and value < config["min"]:
        return _fault("value_smaller_than_min", f"Value {value} smaller than min of {config['min']}", name, about)
    if "max" in config and value > config["max"]:
        return _fault("value_bigger_than_max", f"Value {value} bigger than max of {config['max']}", name, about)
    return None


def _choice_fault(about: dict[str, Any]) -> Fault | None:
    """Check a choice; ["COMBO", {"options": ...}] of newer classes is not checked in 0.3.64 (recorded)."""
    name, choices, value = about["input_name"], about["input_config"][0], about["received_value"]
    if not isinstance(choices, list) or value in choices:
        return None
    long = len(choices) > LONGEST_LIST
    details = f"{name}: '{value}' not in " + (f"(list of length {len(choices)})" if long else str(choices))
    return _fault("value_not_in_list", "Value not in list", details, about | ({"input_config": None} if long else {}))


def _config(spec: list[Any]) -> list[Any]:
    return [spec[0], spec[1] if len(spec) > 1 else {}]


def _fault(kind: str, message: str, details: str, extra: dict[str, Any] | None = None) -> Fault:
    return {"type": kind, "message": message, "details": details, "extra_info": extra or {}}
