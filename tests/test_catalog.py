"""catalog: what /object_info says of a class, in the order of the class, and what dynamic inputs stand for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.templates import object_info
from toolkit.catalog import InputSpec, NodeCatalog, added_inputs

CATALOG = NodeCatalog(object_info())
SMALL = NodeCatalog(
    {
        "Source": {
            "input": {
                "required": {
                    "count": ["INT", {"min": 1, "max": 9}], "scale": ["FLOAT", {"min": 0.5}], "mode": [["a", "b"]], "many": ["COMBO", {"options": ["x", 8]}],
                },
                "optional": {"note": ["STRING", {}], "deep": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "k", "inputs": {}}]}], "odd": []},
                "hidden": {"prompt": "PROMPT"},
            },
            "input_order": {"required": ["scale", "count", "gone"]},
            "output": ["IMAGE", ["a", "b"]],
        },
        "Bare": {"display_name": "Plain"},
    }
)  # fmt: skip


def test_every_recorded_class_can_be_read():
    assert len(CATALOG.classes()) == 383
    for name in CATALOG.classes():
        assert name in CATALOG
        assert all(spec.name == key for key, spec in CATALOG.inputs(name).items())
        assert all(isinstance(kind, str) for kind in CATALOG.outputs(name))
        for spec in CATALOG.inputs(name).values():
            assert spec.minimum is None or spec.maximum is None or spec.minimum <= spec.maximum
    assert {"SaveImage", "PreviewImage", "SaveVideo", "SaveWEBM"} <= {name for name in CATALOG.classes() if CATALOG.is_output(name)}
    assert not CATALOG.is_output("KSampler")
    assert not CATALOG.is_output("NoSuchNode")


def test_both_spellings_of_a_choice_list_are_read():
    assert "euler" in CATALOG.choices("KSampler", "sampler_name")
    assert CATALOG.choices("SaveWEBM", "codec") == ("vp9", "av1")
    assert CATALOG.choices("KSampler", "steps") == ()
    assert CATALOG.choices("KSampler", "nothing") == ()
    assert CATALOG.choices("NoSuchNode", "x") == ()


def test_required_inputs_come_first_and_hidden_ones_not_at_all():
    inputs = SMALL.inputs("Source")
    assert list(inputs) == ["scale", "count", "mode", "many", "note", "deep", "odd"]
    assert "prompt" not in inputs
    assert (inputs["count"].required, inputs["note"].required) == (True, False)
    assert (inputs["scale"].minimum, inputs["scale"].maximum) == (0.5, None)
    assert (inputs["many"].choices, inputs["deep"].choices, inputs["odd"].type) == (("x", "8"), ("k",), "*")


def test_the_order_is_that_of_the_class_however_the_json_was_sorted():
    for name in CATALOG.classes():
        order = object_info()[name]["input_order"]
        assert list(CATALOG.inputs(name)) == [*order.get("required", []), *order.get("optional", [])]
    assert list(CATALOG.inputs("KSampler"))[:3] == ["model", "seed", "steps"]


def test_a_class_may_say_nothing_and_still_has_a_name():
    assert (SMALL.inputs("Bare"), SMALL.outputs("Bare"), SMALL.is_output("Bare")) == ({}, [], False)
    assert [SMALL.title(name) for name in ("Bare", "Source", "NoSuchNode")] == ["Plain", "Source", "NoSuchNode"]


# ---- dynamic inputs, written by hand after ComfyUI's source (comfy_api/latest/_io.py) --------------------------------------------------

IMAGE = {"required": {"image": ["IMAGE", {}]}}
ROW = {"required": {"text": ["STRING", {}]}, "optional": {"strength": ["FLOAT", {}]}}
NESTED = [{"key": "on", "inputs": {"required": {"speed": ["INT", {}]}}}]


def names(kind: str, options: dict[str, Any], **values: Any) -> dict[str, bool]:
    """What an input called `x` adds to a node with these values: name -> whether it is required."""
    spec = NodeCatalog({"A": {"input": {"required": {"x": [kind, options]}}}}).inputs("A")["x"]
    return {added.name: added.required for added in added_inputs(spec, values)}


def test_a_dynamic_combo_adds_the_inputs_of_its_choice():
    options = {"options": [{"key": "a", "inputs": {"required": {"n": ["INT", {}]}, "optional": {"o": ["INT", {}]}}}, {"key": "b", "inputs": None}]}
    assert names("COMFY_DYNAMICCOMBO_V3", options, x="a") == {"x.n": True, "x.o": False}
    for value in ("b", "c", None, ["1", 0]):
        assert names("COMFY_DYNAMICCOMBO_V3", options, x=value) == {}
    assert names("COMFY_DYNAMICCOMBO_V3", {}, x="a") == {}


def test_a_growing_input_adds_what_it_must_have_and_what_the_node_has():
    by_prefix = {"template": {"input": IMAGE, "prefix": "im", "min": 2, "max": 4}}
    assert names("COMFY_AUTOGROW_V3", by_prefix) == {"x.im0": True, "x.im1": True}
    assert names("COMFY_AUTOGROW_V3", by_prefix, **{"x.im3": 1, "x.im4": 1}) == {"x.im0": True, "x.im1": True, "x.im3": False}
    by_name = {"template": {"input": {"optional": IMAGE["required"]}, "names": ["a", "b"], "min": 1}}
    assert names("COMFY_AUTOGROW_V3", by_name, **{"x.b": 1}) == {"x.b": False}, "what is optional need not be there"


def test_a_slot_and_a_group_add_inputs_as_they_are_used():
    assert names("COMFY_DYNAMICSLOT_V3", {"inputs": IMAGE}) == {}
    assert names("COMFY_DYNAMICSLOT_V3", {"inputs": IMAGE}, x=["1", 0]) == {"x.image": True}
    assert names("COMFY_DYNAMICGROUP_V3", {"template": ROW}) == {}
    assert names("COMFY_DYNAMICGROUP_V3", {"template": ROW}, **{"x.1.text": "a", "x.0.text": "b"}) == {
        "x.0.text": True, "x.0.strength": False, "x.1.text": True, "x.1.strength": False,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["INT", "COMBO", "COMFY_MATCHTYPE_V3", "*", "COMFY_OF_A_LATER_DAY_V9"])
def test_other_inputs_add_nothing(kind):
    assert added_inputs(InputSpec("x", kind, True, None, {"template": {"template_id": "t", "allowed_types": "*"}}), {"x": 1}) == []


def test_the_inputs_of_a_node_are_those_of_its_class_and_all_that_they_add():
    options = {"options": [{"key": "a", "inputs": {"required": {"inner": ["COMFY_DYNAMICCOMBO_V3", {"options": NESTED}], "after": ["INT", {}]}}}]}
    catalog = NodeCatalog({"A": {"input": {"required": {"x": ["COMFY_DYNAMICCOMBO_V3", options], "grow": ["COMFY_AUTOGROW_V3", {
        "template": {"input": IMAGE, "prefix": "im", "min": 1, "max": 3}}], "last": ["INT", {}]}}}})  # fmt: skip
    found = [spec.name for spec in catalog.inputs_of("A", {"x": "a", "x.inner": "on"})]
    assert found == ["x", "x.inner", "x.inner.speed", "x.after", "grow.im0", "last"]
