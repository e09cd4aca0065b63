"""The user's own workflow: sent as it is, but into a folder of its own on the server."""

from __future__ import annotations

import re
from typing import Any

from toolkit.pipelines.built import Built
from toolkit.requests import WorkflowRequest
from toolkit.roles import recipe_of


def build_workflow(request: WorkflowRequest, folder: str) -> Built:
    """A valid workflow with every `filename_prefix` moved below `folder`, so that no two jobs meet in one name."""
    graph: dict[str, dict[str, Any]] = {}
    for node_id, node in request.workflow.items():
        inputs = dict(node["inputs"])
        if isinstance(inputs.get("filename_prefix"), str):
            inputs["filename_prefix"] = f"{folder}/{_last_part(inputs['filename_prefix'])}"
        graph[node_id] = {**node, "inputs": inputs}
    return Built(graph, recipe_of(graph))


def _last_part(prefix: str) -> str:
    """A file name that is safe on every system, from whatever the workflow says."""
    name = re.split(r"[\\/]", prefix)[-1]
    return re.sub(r"[^\w\-.]+", "_", name).strip("._")[:60] or "output"
