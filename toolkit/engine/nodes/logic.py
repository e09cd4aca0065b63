"""Values that a graph hands around: numbers, switches and sums.

Owns the primitives and what is worked out from them. It must not know pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from toolkit.engine.arithmetic import worked_out
from toolkit.engine.values import Made, Node, Stage


def give(stage: Stage, *, value: Any) -> Made:
    """Hand a value on."""
    return Made((value,))


def switch(stage: Stage, *, switch: bool, on_true: Any = None, on_false: Any = None) -> Made:
    """Hand on one of two; the other one was never worked out."""
    return Made((on_true if switch else on_false,))


def branch(inputs: Mapping[str, Any]) -> str:
    """Name the input that a switch needs."""
    return "on_true" if inputs["switch"] else "on_false"


def reckon(stage: Stage, *, expression: str, values: Mapping[str, Any]) -> Made:
    """Work out a sum, as a float, a whole number and a truth."""
    result = worked_out(expression, values)
    return Made((float(result), int(result), bool(result)))


def choose_resolution(stage: Stage, *, aspect_ratio: str, megapixels: float, multiple: int) -> Made:
    """Give width and height of an aspect ratio such as `3:2 (Photo)`, both a multiple."""
    across, down = (int(part) for part in aspect_ratio.partition(" ")[0].split(":"))
    side = math.sqrt(megapixels * 1024 * 1024 / (across * down))
    return Made((round(across * side / multiple) * multiple, round(down * side / multiple) * multiple))


NODES: Mapping[str, Node] = MappingProxyType(
    {
        "PrimitiveString": give,
        "PrimitiveStringMultiline": give,
        "PrimitiveInt": give,
        "PrimitiveFloat": give,
        "PrimitiveBoolean": give,
        "ComfySwitchNode": switch,
        "ComfyMathExpression": reckon,
        "ResolutionSelector": choose_resolution,
    }
)
ASKS: Mapping[str, Callable[[Mapping[str, Any]], str]] = MappingProxyType({"ComfySwitchNode": branch})
