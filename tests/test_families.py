"""families: each graph is the official template's, converted from the pinned package and compared node by node."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

import pytest

from tests.templates import object_info, templates
from tests.test_pipelines import server_of
from toolkit.engine.catalog import catalog
from toolkit.exported import to_api
from toolkit.graph import NodeCatalog, ancestors, is_link
from toolkit.pipelines import build
from toolkit.pipelines.families import FAMILIES, GRAPHS
from toolkit.requests import ImageRef, ImageRequest, VideoRequest
from toolkit.roles import named_roles

KNOWN = NodeCatalog({**catalog(newer=True), **object_info()})
OURS = ("seed", "noise_seed", "filename_prefix", "image")  # what a request decides, whatever the template has


def official(name: str, *, fast: bool = False) -> dict[str, Any]:
    """The graph of a template with its switches, sums and primitives worked out: what its page would run with prompt enhancers off."""
    graph = to_api(templates()[name], KNOWN).graph
    for node in graph.values():
        if node["class_type"] == "PrimitiveBoolean" and fast:
            node["inputs"]["value"] = True
    folded = {key: {**node, "inputs": {name: worked_out(graph, value) for name, value in node["inputs"].items()}} for key, node in graph.items()}
    ends = [key for key, node in folded.items() if node["class_type"] in ("SaveImage", "SaveVideo")]
    live = ancestors(folded, ends)
    return {key: node for key, node in folded.items() if key in live}


def worked_out(graph: dict[str, Any], value: Any) -> Any:
    """What reaches an input through nodes that only choose, add or hold a value."""
    while is_link(value):
        node = graph[value[0]]
        kind, inputs = node["class_type"], node["inputs"]
        if kind.startswith("Primitive"):
            value = inputs["value"]
        elif kind == "ComfySwitchNode":
            on = bool(worked_out(graph, inputs["switch"])) and not enhances(graph, inputs["on_true"])
            value = inputs["on_true" if on else "on_false"]
        elif kind == "ComfyMathExpression":
            names = {key.split(".")[1]: worked_out(graph, given) for key, given in inputs.items() if key.startswith("values.")}
            result = calculated(inputs["expression"], names)
            return int(result) if value[1] == 1 else result
        elif kind == "ResolutionSelector":
            assert (inputs["aspect_ratio"], inputs["megapixels"]) == ("1:1 (Square)", 1)
            return 1024
        elif kind == "StringConcatenate":
            return inputs["delimiter"].join(str(worked_out(graph, inputs[part])) for part in ("string_a", "string_b"))
        else:
            return value
    return value


def enhances(graph: dict[str, Any], value: Any) -> bool:
    """Whether a branch lets a language model write the prompt."""
    return is_link(value) and any(graph[node_id]["class_type"].startswith("TextGenerate") for node_id in ancestors(graph, [value[0]]))


def calculated(expression: str, names: dict[str, float]) -> float:
    """A sum of the templates: numbers, names, + - * / and floor."""
    allowed = (ast.Expression, ast.BinOp, ast.Call, ast.Name, ast.Load, ast.Constant, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv)
    tree = ast.parse(expression, mode="eval")
    assert all(isinstance(node, allowed) for node in ast.walk(tree)), expression
    return float(eval(compile(tree, "template", "eval"), {"__builtins__": {}, "floor": math.floor, **names}))


def canonical(graph: dict[str, Any], node_id: str) -> Any:
    """A node with everything above it, free of ids, of what a request decides and of the way a number is written."""
    node = graph[node_id]
    return [node["class_type"], {name: side(graph, value) for name, value in sorted(node["inputs"].items()) if name not in OURS or is_link(value)}]


def side(graph: dict[str, Any], value: Any) -> Any:
    if is_link(value):
        return [canonical(graph, value[0]), value[1]]
    return round(float(value), 6) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def end_of(graph: dict[str, Any]) -> str:
    (end,) = [key for key, node in graph.items() if node["class_type"] in ("SaveImage", "SaveVideo")]
    return end


def without_prompt(graph: dict[str, Any]) -> dict[str, Any]:
    """Our graphs have no prompt of their own: the template's is emptied."""
    prompts = {role.node_id for role in named_roles(graph).get("prompt", [])}
    return {key: {**node, "inputs": {**node["inputs"], "text": ""}} if key in prompts else node for key, node in graph.items()}


def graph_file(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAPHS / f"{name}.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", sorted({family.graph for family in FAMILIES}))
def test_a_graph_is_the_official_template_in_nodes_links_and_settings(name):
    found = graph_file(name)
    template, _, rest = found["source"].partition(" of ")
    assert rest.startswith("comfyui-workflow-templates-json 0.1.123 (MIT)")
    ours, theirs = without_prompt(found["graph"]), without_prompt(official(template))
    assert sorted(node["class_type"] for node in ours.values()) == sorted(node["class_type"] for node in theirs.values())
    assert canonical(ours, end_of(ours)) == canonical(theirs, end_of(theirs))


SWITCHED = [family for family in FAMILIES if family.fast and family.name != "wan22_14b_flf2v"]  # its template has no switch: it takes the other's LoRAs


@pytest.mark.parametrize("family", SWITCHED, ids=lambda family: family.name)
def test_a_draft_is_the_official_template_with_its_switch_for_few_steps_on(family):
    theirs = without_prompt(official(graph_file(family.graph)["source"].partition(" of ")[0], fast=True))
    own = {name: group[0].value for name, group in named_roles(theirs).items() if name in ("width", "height", "frames")}
    fields = {"prompt": "a fox", "quality_tags": False, "preset": "draft", "seed": 5, "width": own["width"], "height": own["height"]}
    if family.kind == "image":
        request: Any = ImageRequest(**fields, negative_prompt=named_roles(theirs)["negative_prompt"][0].value)
    else:
        request = VideoRequest(**fields, frames=own["frames"], image=ImageRef(sha256="a" * 64) if family.pictures else None)
    ours = without_prompt(build(request, server_of(family, fast=True)).graph)
    assert canonical(ours, end_of(ours)) == canonical(theirs, end_of(theirs))
