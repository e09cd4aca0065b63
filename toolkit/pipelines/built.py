"""A graph ready to be sent, and the refusal of one that the server would refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from toolkit.errors import ModelUnknown, NodeUnknown, WorkflowInvalid
from toolkit.graph import Api, NodeCatalog, validate


@dataclass(frozen=True)
class Built:
    """A graph ready to be sent, and what was rounded or left out."""

    graph: Api
    read: Callable[[], Mapping[str, Any]] = field(compare=False, repr=False)
    warnings: Sequence[str] = ()

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """What it is made of; read when first asked for, which nobody does where a thousand are accepted."""
        return self.read()


def refuse(graph: Mapping[str, Any], catalog: NodeCatalog) -> None:
    """Raise with all faults of a graph at once, so that nothing is sent that the server would refuse.

    Raises:
        NodeUnknown, ModelUnknown: where these are all that is wrong. WorkflowInvalid: otherwise.
    """
    faults = validate(graph, catalog)
    if not faults:
        return
    lines = [str(fault) for fault in faults]
    kinds = {fault.kind for fault in faults}
    if kinds == {"unknown_node"}:
        names = sorted({str(fault.value) for fault in faults})
        raise NodeUnknown(f"The server lacks {', '.join(names)}.", faults=lines, hint=faults[0].hint)
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    raise (ModelUnknown if kinds == {"not_in_list"} else WorkflowInvalid)(f"{lines[0]}{more}", faults=lines)
