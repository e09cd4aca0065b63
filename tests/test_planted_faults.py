"""Before sending: three hundred faults planted in graphs that were in order, every one found with its place, and nothing sent."""

from __future__ import annotations

import copy
import json
import random
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_pipelines import request_for, server_of
from toolkit import Studio
from toolkit.errors import ModelUnknown, NodeUnknown, WorkflowInvalid
from toolkit.graph import NodeCatalog, is_link, validate
from toolkit.pipelines import build
from toolkit.pipelines.families import FAMILIES
from toolkit.processes import engine_url

FAULTS = 300
Plant = Callable[[random.Random, dict[str, Any], str, NodeCatalog], tuple[str, str | None] | None]


def values(graph: dict[str, Any], node_id: str, catalog: NodeCatalog, *kinds: str) -> list[Any]:
    """The literal inputs of a node that are of these types."""
    inputs = graph[node_id]["inputs"]
    specs = catalog.inputs_of(graph[node_id]["class_type"], inputs)
    return [spec for spec in specs if spec.type in kinds and spec.name in inputs and not is_link(inputs[spec.name])]


def links(graph: dict[str, Any], node_id: str) -> list[str]:
    return [name for name, value in graph[node_id]["inputs"].items() if is_link(value)]


def unknown_class(rng: random.Random, graph: dict[str, Any], node_id: str, catalog: NodeCatalog) -> tuple[str, None]:
    graph[node_id]["class_type"] += "X"
    return "unknown_node", None


def lost_input(rng: random.Random, graph: dict[str, Any], node_id: str, catalog: NodeCatalog) -> tuple[str, str]:
    node = graph[node_id]
    name = rng.choice([spec.name for spec in catalog.inputs_of(node["class_type"], node["inputs"]) if spec.required and spec.name in node["inputs"]])
    del node["inputs"][name]
    return "missing_input", name


def lost_source(rng: random.Random, graph: dict[str, Any], node_id: str, catalog: NodeCatalog) -> tuple[str, str] | None:
    found = links(graph, node_id)
    if not found:
        return None
    name = rng.choice(found)
    graph[node_id]["inputs"][name] = ["nowhere", 0]
    return "bad_link", name


def wrong_slot(rng: random.Random, graph: dict[str, Any], node_id: str, catalog: NodeCatalog) -> tuple[str, str] | None:
    found = links(graph, node_id)
    if not found:
        return None
    name = rng.choice(found)
    graph[node_id]["inputs"][name] = [graph[node_id]["inputs"][name][0], 9]
    return "bad_link", name


def wrong_type(rng: random.Random, graph: dict[str, Any], node_id: str, catalog: NodeCatalog) -> tuple[str, str] | None:
    taken = {spec.name: spec.type for spec in catalog.inputs_of(graph[node_id]["class_type"], graph[node_id]["inputs"])}
    found = [name for name in links(graph, node_id) if taken.get(name) in ("MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT")]
    strangers = [key for key, node in graph.items() if node["class_type"] in ("LoadImage", "EmptyImage", "VAEDecode", "VAEDecodeTiled") and key != node_id]
    if not found or not strangers:
        return None
    name = rng.choice(found)
    graph[node_id]["inputs"][name] = [rng.choice(strangers), 0]
    return "type_mismatch", name


def too_much(rng: random.Random, graph: dict[str, Any], node_id: str, catalog: NodeCatalog) -> tuple[str, str] | None:
    found = [spec for spec in values(graph, node_id, catalog, "INT", "FLOAT") if spec.maximum is not None or spec.minimum is not None]
    if not found:
        return None
    spec = rng.choice(found)
    above = [spec.maximum * 2 + 1] if spec.maximum is not None else []
    beyond = above + ([spec.minimum - 1] if spec.minimum is not None else [])
    graph[node_id]["inputs"][spec.name] = rng.choice(beyond)
    return "out_of_range", spec.name


def no_number(rng: random.Random, graph: dict[str, Any], node_id: str, catalog: NodeCatalog) -> tuple[str, str] | None:
    found = values(graph, node_id, catalog, "INT", "FLOAT")
    if not found:
        return None
    spec = rng.choice(found)
    graph[node_id]["inputs"][spec.name] = rng.choice(["many", "", "1,5", "NaN"] if spec.type == "FLOAT" else ["many", "", "2.5"])
    return "not_a_number", spec.name


def no_choice(rng: random.Random, graph: dict[str, Any], node_id: str, catalog: NodeCatalog) -> tuple[str, str] | None:
    found = [spec for spec in values(graph, node_id, catalog, "COMBO") if spec.choices]
    if not found:
        return None
    spec = rng.choice(found)
    graph[node_id]["inputs"][spec.name] = f"{rng.choice(spec.choices)}x"
    return "not_in_list", spec.name


PLANTS: tuple[Plant, ...] = (unknown_class, lost_input, lost_source, wrong_slot, wrong_type, too_much, no_number, no_choice)


def planted() -> Iterator[tuple[dict[str, Any], set[tuple[str, str, str | None]]]]:
    """Graphs of every family with one to four faults each, in nodes of their own, until there are enough."""
    catalog, rng, count = server_of(*FAMILIES), random.Random(4), 0
    sound = [dict(build(request_for(family), server_of(family)).graph) for family in FAMILIES]
    assert all(validate(graph, catalog) == [] for graph in sound)
    while count < FAULTS:
        graph, faults = copy.deepcopy(rng.choice(sound)), set[tuple[str, str, str | None]]()
        for node_id in rng.sample(list(graph), rng.randint(1, 4)):
            made = rng.choice(PLANTS)(rng, graph, node_id, catalog)
            if made is not None:
                faults.add((made[0], node_id, made[1]))
        strange = {node_id for kind, node_id, _ in faults if kind == "unknown_node"}
        hidden = {key for _, key, _ in faults for value in graph[key]["inputs"].values() if is_link(value) and value[0] in strange}
        if faults and not hidden:  # what an unknown class gives, nobody can check
            count += len(faults)
            yield graph, faults


def test_every_planted_fault_is_found_with_its_place_kind_and_a_sentence():
    catalog, kinds = server_of(*FAMILIES), set[str]()
    for graph, faults in planted():
        found = validate(graph, catalog)
        unknown = {node_id for kind, node_id, _ in faults if kind == "unknown_node"}
        blamed = {(fault.kind, fault.node_id, fault.input) for fault in found}
        assert faults <= blamed, (faults - blamed, graph)
        strangers = {fault for fault in blamed - faults if fault[1] not in unknown and fault[0] != "cycle"}
        assert strangers <= {("no_outputs", None, None)}, "nothing else is blamed"
        assert all(str(fault).endswith((".", "?", "]")) for fault in found)
        kinds |= {kind for kind, _, _ in faults}
    assert len(kinds) == 7


def test_none_of_them_is_sent(home: Path) -> None:
    with Studio("engine", home=home) as studio:
        studio.servers()
        for graph, faults in planted():
            with pytest.raises((WorkflowInvalid, ModelUnknown, NodeUnknown)) as refused:
                studio.run(graph)
            assert len(refused.value.faults) >= len(faults)
        assert studio.jobs() == []
        with urllib.request.urlopen(f"{engine_url(home)}/history") as answer:
            assert json.load(answer) == {}
        with urllib.request.urlopen(f"{engine_url(home)}/prompt") as answer:
            assert json.load(answer) == {"exec_info": {"queue_remaining": 0}}
