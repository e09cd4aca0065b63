"""Words, and what is made of them before they are drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from toolkit.engine.values import Made, Node, Stage, Weights, Words


def encode_text(stage: Stage, *, text: str, clip: Weights) -> Made:
    """Keep the words."""
    return Made((Words(text),))


def forget_words(stage: Stage, *, conditioning: Words) -> Made:
    """Make a conditioning that says nothing."""
    return Made((Words(""),))


def join(stage: Stage, *, string_a: str, string_b: str, delimiter: str) -> Made:
    """Put two texts together."""
    return Made((f"{string_a}{delimiter}{string_b}",))


def write_prompt(stage: Stage, *, prompt: str, **_: Any) -> Made:
    """Give the prompt back as it is: a stand-in has no ideas of its own, and the real one may do the same."""
    return Made((prompt,))


def show(stage: Stage, *, source: Any) -> Made:
    """Show any value as a text."""
    return Made(told={"text": [_shown(source)]})


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return str(value) if isinstance(value, (int, float)) else json.dumps(value)
    except TypeError:
        return str(value)


NODES: Mapping[str, Node] = MappingProxyType(
    {
        "CLIPTextEncode": encode_text,
        "ConditioningZeroOut": forget_words,
        "StringConcatenate": join,
        "TextGenerateLTX2Prompt": write_prompt,
        "PreviewAny": show,
    }
)
