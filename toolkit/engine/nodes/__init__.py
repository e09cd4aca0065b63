"""What each class does with its values: one function a class, one module a noun.

Owns the tables from class name to function. Whether a class is there at all, catalog.py says. A node must not know queues,
sockets or prompt ids: it asks its `Stage` for time, folders and models, so that the same functions run under any pace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from toolkit.engine.nodes import clips, latents, loaders, logic, ltx, masks, pictures, sampling, texts
from toolkit.engine.values import Node

_NOUNS = (loaders, texts, logic, latents, sampling, pictures, masks, clips, ltx)

FUNCTIONS: Mapping[str, Node] = MappingProxyType({name: node for noun in _NOUNS for name, node in noun.NODES.items()})
ASKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = logic.ASKS
"""Of nodes with inputs that are worked out only when needed: which one, given the others."""
