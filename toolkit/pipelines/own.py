"""The user's own workflow: sent as it is, but into a folder of its own on the server; and how a graph looks without that folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from toolkit.graph import NodeCatalog, odd_sizes
from toolkit.pipelines.built import Built
from toolkit.requests import Request, WorkflowRequest
from toolkit.roles import recipe_of


def build_workflow(request: WorkflowRequest, catalog: NodeCatalog, folder: str) -> Built:
    """A valid workflow with every `filename_prefix` moved below `folder`, so that no two jobs meet in one name."""
    graph: dict[str, dict[str, Any]] = {}
    for node_id, node in request.workflow.items():
        inputs = dict(node["inputs"])
        if isinstance(inputs.get("filename_prefix"), str):
            inputs["filename_prefix"] = f"{folder}/{_last_part(inputs['filename_prefix'])}"
        graph[node_id] = {**node, "inputs": inputs}
    return Built(graph, lambda: recipe_of(graph), tuple(odd_sizes(graph, catalog)))


def as_asked(graph: Mapping[str, Any], request: Request, folder: str) -> dict[str, Any]:
    """A graph as it was sent, with the file names that the workflow or the pipeline has instead of the folder of one job."""
    own = request.workflow if isinstance(request, WorkflowRequest) else {}
    found: dict[str, Any] = {}
    for node_id, node in graph.items():
        sent = node["inputs"].get("filename_prefix")
        if isinstance(sent, str) and sent.startswith(f"{folder}/"):
            asked = own[node_id]["inputs"]["filename_prefix"] if node_id in own else sent.removeprefix(f"{folder}/")
            node = {**node, "inputs": {**node["inputs"], "filename_prefix": asked}}
        found[node_id] = node
    return found


def _last_part(prefix: str) -> str:
    """A file name that is safe on every system, from whatever the workflow says."""
    name = re.split(r"[\\/]", prefix)[-1]
    return re.sub(r"[^\w\-.]+", "_", name).strip("._")[:60] or "output"
