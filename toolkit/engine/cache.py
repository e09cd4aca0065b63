"""What is known from the prompt before, and what is still to do: ComfyUI's classic cache and its choice of the next node.

Owns signatures, cached results and the order of nodes. It must not know time, sockets, files or what nodes do. Apart from
execution.py since both are pure bookkeeping over a graph. The cache holds the nodes of one prompt only, so A, B, A runs A twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.engine.catalog import Catalog, lazy
from toolkit.engine.validation import Graph
from toolkit.engine.values import Made


@dataclass(frozen=True, slots=True)
class Result:
    """What a node made, and which node of its prompt made it."""

    made: Made
    meta: dict[str, Any]


class NodeCache:
    """Results by signature: what a node is and all it hangs on, whatever the ids."""

    def __init__(self) -> None:
        self._results: dict[str, Result] = {}
        self._signatures: dict[str, str] = {}
        self._seen: Mapping[str, str] = {}

    def enter(self, graph: Graph, seen: Mapping[str, str]) -> list[str]:
        """Turn to a prompt, dropping what it does not share with the one before, and list its cached nodes.

        Args:
            graph: the prompt.
            seen: by node what it would find on the disk now, so that a changed file makes a changed node.
        """
        self._signatures, self._seen = {}, seen
        for node_id in graph:
            self._sign(graph, node_id)
        kept = set(self._signatures.values())
        self._results = {signature: result for signature, result in self._results.items() if signature in kept}
        return [node_id for node_id in graph if self.get(node_id)]

    def _sign(self, graph: Graph, node_id: str) -> str:
        if node_id not in self._signatures:
            parts: list[Any] = [graph[node_id]["class_type"], self._seen.get(node_id)]
            for name, value in sorted(graph[node_id]["inputs"].items()):
                source = link(value)
                parts.append([name, "link", self._sign(graph, source), value[1]] if source else [name, "value", value])
            self._signatures[node_id] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self._signatures[node_id]

    def get(self, node_id: str) -> Result | None:
        """Find a node's result."""
        return self._results.get(self._signatures[node_id])

    def put(self, node_id: str, result: Result) -> None:
        """Keep a node's result."""
        self._results[self._signatures[node_id]] = result

    def clear(self) -> None:
        """Forget everything."""
        self._results.clear()

    def history(self) -> dict[str, Any]:
        """Give `outputs` and `meta` for history: of every node of the prompt with a known output, run or not (recorded)."""
        found = {node_id: result for node_id in self._signatures if (result := self.get(node_id)) and result.made.told is not None}
        outputs = {node_id: result.made.told for node_id, result in found.items()}
        return {"outputs": outputs, "meta": {node_id: result.meta for node_id, result in found.items()}}


def link(value: Any) -> str | None:
    """Give the node a link points to; None for a value."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
        return value[0]
    return None


class Agenda:
    """The nodes still to run. What is cached when they are added is left out with all before it, and so is what a node may not need."""

    def __init__(self, graph: Graph, catalog: Catalog, outputs: list[str], cached: Callable[[str], bool]) -> None:
        self._graph, self._catalog, self._cached = graph, catalog, cached
        self._waits_for: dict[str, int] = {}
        self._feeds: dict[str, list[str]] = {}
        for output in outputs:
            self._add(output)

    def _add(self, output: str) -> None:
        stack, links = [output], []
        while stack:
            node_id = stack.pop()
            if node_id in self._waits_for:
                continue
            self._waits_for[node_id], self._feeds[node_id] = 0, []
            fresh = [source for source in self._sources(node_id) if not self._cached(source)]
            stack += fresh
            links += [(source, node_id) for source in fresh]
        for source, node_id in links:
            self._tie(source, node_id)

    def _sources(self, node_id: str) -> list[str]:
        node = self._graph[node_id]
        later = lazy(self._catalog[node["class_type"]])
        return [source for name, value in node["inputs"].items() if name not in later and (source := link(value))]

    def _tie(self, source: str, node_id: str) -> None:
        if node_id not in self._feeds[source]:
            self._feeds[source].append(node_id)
            self._waits_for[node_id] += 1

    def need(self, node_id: str, source: str) -> None:
        """Let a node wait for one more, which it found it needs."""
        self._add(source)
        self._tie(source, node_id)

    def next(self) -> str | None:
        """Choose as ComfyUI does: an output node, else what feeds one, else what feeds that, else the first that can run."""
        ready = [node_id for node_id, count in self._waits_for.items() if count == 0]
        if not ready:
            return None
        for distance in range(3):
            for node_id in ready:
                if self._near_output(node_id, distance):
                    return node_id
        return ready[0]

    def _near_output(self, node_id: str, distance: int) -> bool:
        if distance == 0:
            return bool(self._catalog[self._graph[node_id]["class_type"]]["output_node"])
        return any(self._near_output(fed, distance - 1) for fed in self._feeds[node_id])

    def done(self, node_id: str) -> None:
        """Tick a node off."""
        del self._waits_for[node_id]
        for fed in self._feeds.pop(node_id):
            self._waits_for[fed] -= 1
