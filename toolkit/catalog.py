"""What a server can run, as GET /object_info says it: classes, their inputs and outputs.

Owns `NodeCatalog` and `InputSpec`, and what the dynamic inputs of V3 nodes stand for, by the dotted names that a server takes. Knows no
graph: what is wrong with one is for graph.py. Read lazily, class by class: a server with many packs has thousands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rapidfuzz import process as fuzzy

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
REPEATED_TYPES = {"COMFY_AUTOGROW_V3", "COMFY_DYNAMICGROUP_V3"}  # only what they add has values


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a node class as /object_info gives it: type, choices of a combo or dynamic combo, range of a number."""

    name: str
    type: str
    required: bool
    choices: tuple[str, ...] | None
    options: Mapping[str, Any]

    @property
    def minimum(self) -> float | None:
        """The smallest value allowed, if the class says one."""
        return _number(self.options.get("min"))

    @property
    def maximum(self) -> float | None:
        """The largest value allowed, if the class says one."""
        return _number(self.options.get("max"))


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


class NodeCatalog:
    """What a server can run: the answer of GET /object_info, read lazily class by class, and the names of its embeddings, None if unknown."""

    def __init__(self, object_info: Mapping[str, Any], embeddings: Sequence[str] | None = None) -> None:
        self.object_info = object_info
        self.embeddings = embeddings
        self._inputs: dict[str, dict[str, InputSpec]] = {}

    def __contains__(self, class_type: object) -> bool:
        return class_type in self.object_info

    def classes(self) -> list[str]:
        """All class names."""
        return list(self.object_info)

    def inputs(self, class_type: str) -> Mapping[str, InputSpec]:
        """The inputs of a class by name, required ones first, hidden ones left out; a dynamic V3 input is one of them."""
        if class_type not in self._inputs:
            known = self.object_info[class_type]
            self._inputs[class_type] = {spec.name: spec for spec in _specs(known.get("input") or {}, known.get("input_order") or {})}
        return self._inputs[class_type]

    def inputs_of(self, class_type: str, values: Mapping[str, Any]) -> Iterator[InputSpec]:
        """The inputs of one node: those of its class, and those that its values add to dynamic V3 inputs, by dotted names."""
        todo = [*self.inputs(class_type).values()][::-1]
        while todo:
            spec = todo.pop()
            if spec.type not in REPEATED_TYPES:
                yield spec
            todo += reversed(added_inputs(spec, values))

    def title(self, class_type: str) -> str:
        """What ComfyUI's page calls a node of this class."""
        return str((self.object_info[class_type].get("display_name") if class_type in self else None) or class_type)

    def outputs(self, class_type: str) -> Sequence[str]:
        """Types of the output slots."""
        return [kind if isinstance(kind, str) else "COMBO" for kind in self.object_info[class_type].get("output", [])]

    def is_output(self, class_type: str) -> bool:
        """Whether the class saves or shows something, so that a run can end in it."""
        return bool(self.object_info.get(class_type, {}).get("output_node"))

    def choices(self, class_type: str, name: str) -> Sequence[str]:
        """What a combo offers, e.g. the checkpoints of CheckpointLoaderSimple; empty when the class or input is not there."""
        spec = self.inputs(class_type).get(name) if class_type in self else None
        return (spec.choices or ()) if spec else ()

    def nearest(self, class_type: str) -> str | None:
        """The known class most like an unknown one."""
        found = fuzzy.extractOne(class_type, self.classes(), score_cutoff=75)
        return found[0] if found else None


def _specs(declared: Mapping[str, Any], order: Mapping[str, Any]) -> list[InputSpec]:
    """The inputs in the order of the class, which `input_order` tells: the JSON may have been sorted on its way."""
    found = []
    for part in ("required", "optional"):
        given = declared.get(part) or {}
        names = [name for name in order.get(part) or () if name in given]
        found += [_spec(name, given[name], part == "required") for name in dict.fromkeys([*names, *given])]
    return found


def _spec(name: str, spec: Any, required: bool) -> InputSpec:
    kind, options = (spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}) if isinstance(spec, (list, tuple)) and spec else ("*", {})
    if isinstance(kind, (list, tuple)):
        return InputSpec(name, "COMBO", required, tuple(str(choice) for choice in kind), options)
    choices = options.get("options") if kind in ("COMBO", "COMFY_DYNAMICCOMBO_V3") else None
    if not isinstance(choices, (list, tuple)):
        return InputSpec(name, str(kind), required, None, options)
    return InputSpec(name, str(kind), required, tuple(str(_key(choice)) for choice in choices), options)


def _key(choice: Any) -> Any:
    return choice.get("key", "") if isinstance(choice, Mapping) else choice


def added_inputs(spec: InputSpec, values: Mapping[str, Any]) -> list[InputSpec]:
    """What a dynamic V3 input adds to a node that has these values (ComfyUI comfy_api/latest/_io.py, `_expand_schema_for_dynamic`)."""
    options = spec.options
    if spec.type == "COMFY_DYNAMICCOMBO_V3" and spec.choices:
        chosen = next((option for option in options["options"] if _key(option) == values.get(spec.name)), None)
        return _below(spec.name, chosen.get("inputs") or {}) if isinstance(chosen, Mapping) else []
    if spec.type == "COMFY_DYNAMICSLOT_V3":
        return _below(spec.name, options.get("inputs") or {}) if spec.name in values else []
    template = options.get("template") or {}
    if spec.type == "COMFY_DYNAMICGROUP_V3":
        rows = {name.split(".")[1] for name in values if name.startswith(f"{spec.name}.")}
        return [added for row in sorted(rows) for added in _below(f"{spec.name}.{row}", template)]
    if spec.type == "COMFY_AUTOGROW_V3":
        first = next(iter(_specs(template.get("input") or {}, {})), _spec("", None, False))
        least = template.get("min", 1) if first.required else 0
        names = template.get("names") or [f"{template.get('prefix', '')}{number}" for number in range(template.get("max", 100))]
        places = [(f"{spec.name}.{name}", number < least) for number, name in enumerate(names)]
        return [replace(first, name=name, required=required) for name, required in places if required or name in values]
    return []


def _below(prefix: str, declared: Mapping[str, Any]) -> list[InputSpec]:
    return [replace(spec, name=f"{prefix}.{spec.name}") for spec in _specs(declared, {})]
