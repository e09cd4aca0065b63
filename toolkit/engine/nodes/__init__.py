"""What each class does with its values: one function a class, one module a noun.

Owns the table from class name to function. Whether a class is there at all, catalog.py says. A node must not know queues,
sockets or prompt ids: it asks its `Stage` for time, folders and models, so that the same functions run under any pace.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from toolkit.engine.nodes import clips, latents, loaders, pictures, sampling, texts
from toolkit.engine.values import Node

FUNCTIONS: Mapping[str, Node] = MappingProxyType({**loaders.NODES, **texts.NODES, **latents.NODES, **sampling.NODES, **pictures.NODES, **clips.NODES})
