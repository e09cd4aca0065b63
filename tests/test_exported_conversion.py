"""exported, rule by rule: what ComfyUI's page would send for what it saved. Every rule was compared with the page's own graphToPrompt."""

from __future__ import annotations

from typing import Any

import pytest

from tests.templates import object_info
from toolkit.errors import ExportUnreadable
from toolkit.exported import Converted, to_api
from toolkit.graph import NODE_LIMIT, NodeCatalog, validate

# Written by hand after ComfyUI's source, for what 0.3.64 does not have yet: dynamic inputs, and options that change what a page draws.
V3: dict[str, Any] = {
    "Save": {
        "input": {
            "required": {
                "images": ["IMAGE", {}],
                "format": ["COMFY_DYNAMICCOMBO_V3", {"options": [
                    {"key": "png", "inputs": {"required": {"depth": ["COMBO", {"options": ["8-bit", "16-bit"]}]}}},
                    {"key": "avif", "inputs": {"required": {
                        "crf": ["INT", {"default": 18}],
                        "mode": ["COMFY_DYNAMICCOMBO_V3", {"options": [
                            {"key": "still", "inputs": {"required": {}}},
                            {"key": "animated", "inputs": {"required": {"fps": ["FLOAT", {"default": 6.0}]}}},
                        ]}],
                    }}},
                ]}],
                "prefix": ["STRING", {"default": "x"}],
            }
        },
        "output_node": True,
    },
    "Resize": {
        "input": {
            "required": {
                "input": ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": "IMAGE,MASK"}}],
                "resize_type": ["COMFY_DYNAMICCOMBO_V3", {"options": [
                    {"key": "scale", "inputs": {"required": {"width": ["INT", {}], "height": ["INT", {}]}}},
                    {"key": "match", "inputs": {"required": {"match": ["IMAGE,MASK", {}], "crop": ["COMBO", {"options": ["no", "center"]}]}}},
                ]}],
            }
        },
        "output": ["COMFY_MATCHTYPE_V3"],
    },
    "Math": {
        "input": {"required": {
            "expression": ["STRING", {}],
            "values": ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"value": ["FLOAT,INT", {}]}}, "names": ["a", "b", "c"], "min": 1}}],
        }},
        "output": ["FLOAT", "INT"],
    },
    "Seeds": {
        "input": {
            "required": {
                "quiet_seed": ["INT", {"control_after_generate": True}], "strength": ["FLOAT", {"control_after_generate": True}],
                "file": ["COMBO", {"options": ["a", "b"], "control_after_generate": True}], "seed": ["INT", {"control_after_generate": False}],
                "noise_seed": ["INT", {}], "linked": ["INT", {"forceInput": True}], "last": ["INT", {}],
            },
            "optional": {"either": ["FLOAT,INT", {"widgetType": "FLOAT"}], "drawing": ["CURVE", {"socketless": True}]},
        },
        "output": ["INT"],
        "output_node": True,
    },
    "Wild": {"input": {"required": {"value": ["*", {}]}}, "output": ["*"], "output_node": True},
}  # fmt: skip
CATALOG = NodeCatalog({**object_info(), **V3})
KSAMPLER = [7, "randomize", 20, 8.0, "euler", "normal", 1]


def node(node_id: Any, kind: str, *values: Any, inputs: dict[str, Any] | None = None, outputs: str = "", **more: Any) -> dict[str, Any]:
    """A node of a file: inputs are `name: (type, link)`, those that stand for a widget `name: (type, link, widget)`."""
    slots = [{"name": name, "type": slot[0], "link": slot[1], **({"widget": {"name": slot[2]}} if slot[2:] else {})} for name, slot in (inputs or {}).items()]
    given = [{"name": kind, "type": kind} for kind in outputs.split()]
    return {"id": node_id, "type": kind, "mode": 0, "inputs": slots, "outputs": given, "widgets_values": list(values), **more}


def ui(nodes: list[dict[str, Any]], links: list[Any], subgraphs: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    return {"version": 0.4, "nodes": nodes, "links": links, **({"definitions": {"subgraphs": subgraphs}} if subgraphs else {}), **more}


def subgraph(name: str, nodes: list[dict[str, Any]], links: list[Any], inputs: dict[str, list[int]], outputs: dict[str, list[int]]) -> dict[str, Any]:
    """A definition: links are `(id, origin, slot, target, slot)`, -10 and -20 its own two ends; inputs and outputs list their links."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    return {
        "id": name, "name": name, "nodes": nodes, "links": [dict(zip(keys, link, strict=True)) for link in links],
        "inputNode": {"id": -10}, "outputNode": {"id": -20},
        "inputs": [{"name": key, "type": "*", "linkIds": ids} for key, ids in inputs.items()],
        "outputs": [{"name": key, "type": "*", "linkIds": ids} for key, ids in outputs.items()],
    }  # fmt: skip


def inputs(data: dict[str, Any], node_id: str) -> dict[str, Any]:
    found: dict[str, Any] = to_api(data, CATALOG).graph[node_id]["inputs"]
    return found


def alone(kind: str, *values: Any, **more: Any) -> dict[str, Any]:
    """The inputs of a node that is all by itself."""
    return inputs(ui([node(1, kind, *values, **more)], []), "1")


# ---- widget values --------------------------------------------------------------------------------------------------------------------


def test_what_becomes_of_a_seed_is_no_value():
    sampler = {"seed": 7, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
    assert alone("KSampler", *KSAMPLER) == sampler
    assert alone("KSampler", *KSAMPLER[:1], *KSAMPLER[2:]) == sampler, "pages of 2023 did not write it everywhere"


def test_each_kind_of_control_is_skipped_where_the_class_says_so():
    found = alone("Seeds", 1, "fixed", 0.5, "increment", "a", "randomize", "/b/", 2, 3, "decrement", 4, 0.25, {"points": []})
    assert found == {
        "quiet_seed": 1, "strength": 0.5, "file": "a", "seed": 2, "noise_seed": 3, "last": 4, "either": 0.25, "drawing": {"points": []},
    }  # fmt: skip


def test_upload_buttons_leave_values_that_are_none():
    assert alone("LoadImage", "a.png", "image") == {"image": "a.png"}
    assert alone("LoadImageMask", "a.png", "alpha", "image") == {"image": "a.png", "channel": "alpha"}
    assert alone("LoadAudio", "a.mp3", None, "") == {"audio": "a.mp3"}
    assert alone("Load3D", "a.glb", "upload3dmodel", "uploadExtraResources", "clear", "", 512, 256) == {
        "model_file": "a.glb", "image": "", "width": 512, "height": 256,
    }  # fmt: skip
    for kind in ("LoadImage", "LoadAudio"):
        assert to_api(ui([node(1, kind, "a", "image")], []), CATALOG).notes == ()


def test_what_only_the_page_can_draw_is_noted():
    (note,) = to_api(ui([node(1, "Load3D", "a.glb", "", 512, 256)], []), CATALOG).notes
    assert note.startswith("Made by ComfyUI's page while it sends")
    assert note.endswith("`image` of Load 3D (node 1).")


def test_values_by_name_are_taken_by_name():
    packed = node(1, "VHS_VideoCombine", widgets_values={"frame_rate": 8, "pix_fmt": "yuv420p", "videopreview": {"hidden": True}})
    assert inputs(ui([packed], []), "1") == {"frame_rate": 8, "pix_fmt": "yuv420p"}


def test_the_pages_own_list_by_name_tells_the_order_unless_somebody_edited_the_values():
    named = {"denoise": 1, "steps": 20, "seed": 7, "control_after_generate": "fixed", "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal"}
    assert alone("KSampler", *named.values(), widgets_values_named=named) == {name: value for name, value in named.items() if name[:2] != "co"}
    assert alone("UNETLoader", "new", "default", widgets_values_named={"unet_name": "old", "weight_dtype": "default"})["unet_name"] == "new"


def test_the_files_own_slots_tell_the_order_where_the_servers_class_has_changed_since():
    slots = {name: ("INT", None, name) for name in ("seed", "steps", "brand_new", "cfg", "sampler_name", "scheduler", "denoise")}
    found = to_api(ui([node(1, "KSampler", 7, "fixed", 20, 99, 8.0, "euler", "normal", 1, inputs=slots)], []), CATALOG)
    assert found.graph["1"]["inputs"] == {"seed": 7, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
    assert found.notes == ("Unknown to the server's class, so left out: `brand_new` of KSampler (node 1).",)
    older = {name: slots[name] for name in ("seed", "steps", "cfg", "scheduler", "denoise")}
    assert alone("KSampler", 7, "fixed", 20, 8.0, "normal", 1, inputs=older)["scheduler"] == "normal"


def test_a_list_that_is_too_short_is_filled_with_the_pages_defaults_and_a_note():
    found = to_api(ui([node(1, "KSampler", 7, "fixed", 20)], []), CATALOG)
    assert found.graph["1"]["inputs"] == {"seed": 7, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    (note,) = found.notes
    assert note == (
        "Not in the file, so the server's default is used: "
        "`cfg` of KSampler (node 1), `sampler_name` of KSampler (node 1), `scheduler` of KSampler (node 1), `denoise` of KSampler (node 1)."
    )
    assert alone("Save") == {"format": "png", "format.depth": "8-bit", "prefix": "x"}


def test_a_list_that_is_too_long_is_noted():
    found = to_api(ui([node(1, "KSampler", *KSAMPLER, 5, None, "")], []), CATALOG)
    assert found.graph["1"]["inputs"]["denoise"] == 1
    assert found.notes == ("More values in the file than this server's node takes, the rest left out: KSampler (node 1).",)


def test_a_list_as_a_value_is_wrapped_so_that_it_is_no_link():
    assert alone("SaveImage", ["a", 1]) == {"filename_prefix": {"__value__": ["a", 1]}}


def test_what_a_packs_own_script_draws_is_sent_when_it_is_a_mapping():
    lora = {"on": True, "lora": "a.safetensors", "strength": 1}
    slots = {"images": ("IMAGE", None), "filename_prefix": ("STRING", None, "filename_prefix"), "lora_1": ("X", None, "lora_1")}
    assert alone("SaveImage", "x", lora, inputs=slots) == {"filename_prefix": "x", "lora_1": lora}


def test_an_unknown_class_keeps_its_links_and_the_values_that_the_file_names():
    slots = {"image": ("IMAGE", 1), "seed": ("INT", None, "seed"), "amount": ("FLOAT", None, "amount")}
    data = ui([node(1, "EmptyImage", 64, 64, 1, 0, outputs="IMAGE"), node(2, "NobodyHasThis", 5, "fixed", 0.5, inputs=slots)], [[1, 1, 0, 2, 0, "IMAGE"]])
    assert inputs(data, "2") == {"image": ["1", 0], "seed": 5, "amount": 0.5}
    assert [fault.kind for fault in validate(to_api(data, CATALOG).graph, CATALOG)] == ["unknown_node"]
    assert alone("NobodyHasThis", 5, 0.5, inputs={"amount": ("FLOAT", 1, "amount")}) == {}, "only a linked one is named: which value is whose?"


def test_a_text_that_the_page_would_resolve_is_sent_as_it_is_and_noted():
    found = to_api(ui([node(1, "CLIPTextEncode", "a {red|blue} fox"), node(2, "CLIPTextEncode", "a fox // quick")], []), CATALOG)
    assert found.graph["1"]["inputs"]["text"] == "a {red|blue} fox"
    assert found.notes[0].startswith("Holds {a|b} or a comment, which ComfyUI's page would resolve")
    assert "(node 2)" in found.notes[0]
    assert to_api(ui([node(1, "SaveImage", "{a|b}")], []), CATALOG).notes == ()


# ---- dynamic inputs of V3 nodes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["png", "16-bit", "y"], {"format": "png", "format.depth": "16-bit", "prefix": "y"}),
        (["avif", 20, "still", "y"], {"format": "avif", "format.crf": 20, "format.mode": "still", "prefix": "y"}),
        (["avif", 20, "animated", 8, "y"], {"format": "avif", "format.crf": 20, "format.mode": "animated", "format.mode.fps": 8, "prefix": "y"}),
        (["avif"], {"format": "avif", "format.crf": 18, "format.mode": "still", "prefix": "x"}),
        (["gone", "y"], {"format": "gone", "prefix": "y"}),
    ],
)
def test_a_dynamic_combo_brings_the_widgets_of_its_choice_under_dotted_names(values, found):
    assert alone("Save", *values) == found


def test_dotted_names_are_fed_by_links_and_accepted():
    pictures = [node(n, "EmptyImage", 64, 64, 1, 0, outputs="IMAGE") for n in (1, 2)]
    slots = {"input": ("IMAGE,MASK", 1), "resize_type": ("X", None, "resize_type"), "resize_type.match": ("IMAGE,MASK", 2)}
    resize = node(3, "Resize", "match", "center", inputs=slots, outputs="IMAGE")
    links = [[1, 1, 0, 3, 0, "IMAGE"], [2, 2, 0, 3, 2, "IMAGE"], [3, 3, 0, 4, 0, "IMAGE"]]
    graph = to_api(ui([*pictures, resize, node(4, "SaveImage", "x", inputs={"images": ("IMAGE", 3)})], links), CATALOG).graph
    assert graph["3"]["inputs"] == {"input": ["1", 0], "resize_type": "match", "resize_type.match": ["2", 0], "resize_type.crop": "center"}
    assert validate(graph, CATALOG) == []


def test_inputs_that_grow_have_no_values_of_their_own():
    number = node(1, "PrimitiveFloat", 2.5, outputs="FLOAT")
    slots = {"expression": ("STRING", None, "expression"), "values.a": ("FLOAT,INT", 1), "values.b": ("FLOAT,INT", None)}
    graph = to_api(ui([number, node(2, "Math", "a * 2", inputs=slots)], [[1, 1, 0, 2, 1, "FLOAT"]]), CATALOG).graph
    assert graph["2"]["inputs"] == {"expression": "a * 2", "values.a": ["1", 0]}


# ---- links ----------------------------------------------------------------------------------------------------------------------------

PICTURE = node(1, "EmptyImage", 64, 64, 1, 0, outputs="IMAGE")
SAVED = {"images": ("IMAGE", 9)}


def through(*between: dict[str, Any], links: list[Any], picture: dict[str, Any] = PICTURE, saved: dict[str, Any] = SAVED) -> Any:
    """What reaches a SaveImage (node 9, link 9) from an EmptyImage (node 1) through other nodes."""
    return inputs(ui([picture, *between, node(9, "SaveImage", "x", inputs=saved)], links), "9").get("images")


def test_links_are_lists_or_objects_and_ids_numbers_or_text():
    assert through(links=[[9, 1, 0, 9, 0, "IMAGE"]]) == ["1", 0]
    assert through(links=[{"id": 9, "origin_id": 1, "origin_slot": 0, "target_id": 9, "target_slot": 0, "type": "IMAGE", "parentId": 4}]) == ["1", 0]
    assert through(links=[["9", "a", "0", "9", 0, "IMAGE"]], picture={**PICTURE, "id": "a"}) == ["a", 0]


def test_a_linked_widget_keeps_its_place_in_the_list_and_loses_its_value():
    sampler = node(2, "KSampler", *KSAMPLER, inputs={"steps": ("INT", 1, "steps")})
    found = inputs(ui([node(1, "PrimitiveInt", 30, "fixed", outputs="INT"), sampler], [[1, 1, 0, 2, 0, "INT"]]), "2")
    assert (found["steps"], found["cfg"]) == (["1", 0], 8.0)


def test_a_widget_whose_link_leads_nowhere_has_its_own_value():
    assert inputs(ui([node(2, "KSampler", *KSAMPLER, inputs={"steps": ("INT", 1, "steps")})], [[1, 77, 0, 2, 0, "INT"]]), "2")["steps"] == 20
    assert inputs(ui([node(2, "KSampler", *KSAMPLER, inputs={"steps": ("INT", 1, "steps")})], []), "2")["steps"] == 20


def test_reroutes_are_followed():
    reroutes = [node(n, "Reroute", inputs={"": ("*", link)}, outputs="*") for n, link in ((2, 1), (3, 2))]
    assert through(*reroutes, links=[[1, 1, 0, 2, 0, "*"], [2, 2, 0, 3, 0, "*"], [9, 3, 0, 9, 0, "IMAGE"]]) == ["1", 0]
    assert through(node(2, "Reroute", outputs="*"), links=[[9, 2, 0, 9, 0, "IMAGE"]]) is None


def test_reroutes_in_a_circle_end():
    reroutes = [node(n, "Reroute", inputs={"": ("*", link)}, outputs="*") for n, link in ((2, 1), (3, 2))]
    assert through(*reroutes, links=[[1, 3, 0, 2, 0, "*"], [2, 2, 0, 3, 0, "*"], [9, 3, 0, 9, 0, "IMAGE"]]) is None


def test_a_primitive_gives_its_value():
    for values, steps in (([33, "fixed"], 33), ([], 20)):
        primitive = node(1, "PrimitiveNode", *values, outputs="INT")
        found = to_api(ui([primitive, node(2, "KSampler", *KSAMPLER, inputs={"steps": ("INT", 1, "steps")})], [[1, 1, 0, 2, 0, "INT"]]), CATALOG).graph
        assert list(found) == ["2"]
        assert found["2"]["inputs"]["steps"] == steps


@pytest.mark.parametrize(("set_node", "get_node"), [("SetNode", "GetNode"), ("easy setNode", "easy getNode")])
def test_a_get_node_is_fed_by_the_set_node_of_its_name(set_node, get_node):
    setter, other = node(2, set_node, "pic", inputs={"IMAGE": ("IMAGE", 1)}, outputs="*"), node(3, set_node, "else", outputs="*")
    assert through(other, setter, node(4, get_node, "pic", outputs="IMAGE"), links=[[1, 1, 0, 2, 0, "IMAGE"], [9, 4, 0, 9, 0, "IMAGE"]]) == ["1", 0]
    assert through(other, setter, node(4, get_node, "nobody", outputs="IMAGE"), links=[[1, 1, 0, 2, 0, "IMAGE"], [9, 4, 0, 9, 0, "IMAGE"]]) is None
    assert through(setter, links=[[1, 1, 0, 2, 0, "IMAGE"], [9, 2, 0, 9, 0, "IMAGE"]]) == ["1", 0]


def test_comments_and_switches_of_the_page_are_no_nodes():
    found = to_api(ui([PICTURE, node(2, "Note", "hi"), node(3, "MarkdownNote", "# hi"), node(4, "Fast Groups Muter (rgthree)")], []), CATALOG)
    assert list(found.graph) == ["1"]
    assert found.notes == ("Works only on ComfyUI's page, so left out: Fast Groups Muter (rgthree) (node 4).",)


def test_a_muted_node_goes_and_takes_the_links_from_it():
    sampler = node(2, "KSampler", *KSAMPLER, inputs={"steps": ("INT", 1, "steps"), "model": ("MODEL", 2)})
    muted = [node(1, "PrimitiveInt", 30, "fixed", outputs="INT", mode=2), node(3, "UNETLoader", "a", "default", outputs="MODEL", mode=2)]
    found = to_api(ui([*muted, sampler], [[1, 1, 0, 2, 0, "INT"], [2, 3, 0, 2, 1, "MODEL"]]), CATALOG)
    assert list(found.graph) == ["2"]
    assert found.graph["2"]["inputs"]["steps"] == 20, "the widget's own value counts again"
    assert "model" not in found.graph["2"]["inputs"]
    assert found.notes == (
        "Muted, so left out: Int (node 1), Load Diffusion Model (node 3).",
        "Fed by a node that is left out, so by nothing: `steps` of KSampler (node 2), `model` of KSampler (node 2).",
    )


def bypassed(slots: dict[str, Any], outputs: str, output: int, kind: str = "IMAGE", **more: Any) -> Any:
    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 3, 0, 2, 1, "MASK"], [9, 2, output, 9, 0, kind]]
    between = (node(2, "Between", inputs=slots, outputs=outputs, mode=4, **more), node(3, "SolidMask", 1.0, 64, 64, outputs="MASK"))
    return through(*between, links=links, saved={"images": (kind, 9)})


@pytest.mark.parametrize(
    ("slots", "outputs", "output", "kind", "found"),
    [
        ({"a": ("IMAGE", 1)}, "IMAGE", 0, "IMAGE", ["1", 0]),
        ({"m": ("MASK", 2), "a": ("IMAGE", 1)}, "IMAGE", 0, "IMAGE", ["1", 0]),  # not beside it: by type
        ({"a": ("IMAGE", 1), "m": ("MASK", 2)}, "IMAGE MASK", 1, "MASK", ["3", 0]),  # beside it
        ({"m": ("MASK", 2), "a": ("IMAGE", None)}, "IMAGE", 0, "IMAGE", None),
        ({"m": ("MASK", 2)}, "IMAGE", 0, "IMAGE", None),
        ({"a": ("*", 1)}, "IMAGE", 0, "IMAGE", ["1", 0]),
        ({"m": ("MASK", 2), "a": ("IMAGE,LATENT", 1)}, "IMAGE", 0, "IMAGE", ["1", 0]),
        ({"m": ("MASK", 2), "a": ("IMAGE", 1)}, "IMAGE", 0, "*", ["3", 0]),  # anything goes: by place
        ({"m": ("MASK", 2)}, "LATENT IMAGE", 1, "*", ["3", 0]),
        ({}, "IMAGE", 0, "*", None),
        ({"a": ("IMAGE", 1)}, "", 5, "IMAGE", ["1", 0]),
    ],
)
def test_a_bypassed_node_passes_a_link_through_by_type(slots, outputs, output, kind, found):
    assert bypassed(slots, outputs, output, kind) == found


def test_native_reroutes_need_nothing():
    extra = {"reroutes": [{"id": 4, "linkIds": [9]}], "linkExtensions": [{"id": 9, "parentId": 4}]}
    data = ui([PICTURE, node(9, "SaveImage", "x", inputs=SAVED)], [[9, 1, 0, 9, 0, "IMAGE"]], extra=extra)
    assert inputs(data, "9")["images"] == ["1", 0]


def test_group_nodes_are_named_as_what_they_are():
    found = to_api(ui([node(1, "workflow>Upscale", 5)], [], extra={"groupNodes": {"Upscale": {}}}), CATALOG)
    assert found.notes == ("Group nodes of an older page, which must be turned into sub-graphs there: workflow>Upscale (node 1).",)
    assert [fault.kind for fault in validate(found.graph, CATALOG)] == ["unknown_node"]


def test_titles_are_kept_else_the_page_s_name_of_the_class():
    found = to_api(ui([node(1, "SaveImage", "x", title="Mine"), node(2, "SaveImage", "x"), node(3, "Nobody")], []), CATALOG).graph
    assert [data["_meta"]["title"] for data in found.values()] == ["Mine", "Save Image", "Nobody"]


def test_nodes_are_in_the_pages_order():
    assert list(to_api(ui([node(1, "SaveImage", order=2), node(2, "SaveImage", order=1), node(3, "SaveImage")], []), CATALOG).graph) == ["3", "2", "1"]


# ---- sub-graphs -----------------------------------------------------------------------------------------------------------------------

# KSampler (3) with two inputs of the sub-graph, one a widget: `seed` (link 1) and `latent` (link 2); its output is link 3.
SAMPLER = node(3, "KSampler", *KSAMPLER, inputs={"seed": ("INT", 1, "seed"), "latent_image": ("LATENT", 2)}, outputs="LATENT")
SAMPLE = subgraph("sample", [SAMPLER], [(1, -10, 0, 3, 0), (2, -10, 1, 3, 1), (3, 3, 0, -20, 0)], {"seed": [1], "latent": [2]}, {"LATENT": [3]})
LATENT = node(1, "EmptyLatentImage", 64, 64, 1, outputs="LATENT")
HOST_SLOTS = {"seed": ("INT", None, "seed"), "latent": ("LATENT", 5)}


def hosted(*values: Any, **more: Any) -> dict[str, Any]:
    """A latent (1), the sub-graph (57) and a node (9) that takes what comes out."""
    host = node(57, "sample", *values, **{"inputs": HOST_SLOTS, "outputs": "LATENT", **more})
    last = node(9, "Wild", inputs={"value": ("LATENT", 6)})
    return ui([LATENT, host, last], [[5, 1, 0, 57, 1, "LATENT"], [6, 57, 0, 9, 0, "LATENT"]], [SAMPLE])


def test_a_subgraph_is_unfolded_with_links_in_and_out():
    found = to_api(hosted(), CATALOG).graph
    assert list(found) == ["1", "57:3", "9"]
    assert found["57:3"]["inputs"]["latent_image"] == ["1", 0]
    assert found["9"]["inputs"]["value"] == ["57:3", 0]


@pytest.mark.parametrize(
    ("values", "more", "seed"),
    [
        ([], {}, 7),  # inside the definition
        ([42], {}, 42),  # on the host, by its inputs
        ([42, "randomize"], {}, 42),
        ([None], {}, 7),  # how JSON writes what was never set
        ([42], {"inputs": {"latent": ("LATENT", 5)}}, 42),  # hosts may leave out unlinked widgets
        ([42], {"widgets_values_named": {"seed": 42}}, 42),
        ([42], {"widgets_values_named": {"seed": 41}}, 42),
        ([42], {"properties": {"proxyWidgets": [["-1", "seed"]]}}, 42),  # by the name of the host's input
        ([42], {"properties": {"proxyWidgets": [["3", "seed"]]}}, 42),  # by node and widget inside
        ([], {"properties": {"proxyWidgets": [["3", "seed"]]}}, 7),
        ([41], {"properties": {"proxyWidgetErrorQuarantine": [{"originalEntry": ["-1", "seed"], "hostValue": 42}]}}, 42),
        ([42], {"properties": {"proxyWidgetErrorQuarantine": [{"originalEntry": ["3", "seed"], "hostValue": 41}, 5]}}, 42),
    ],
)
def test_a_promoted_widget_has_the_value_of_its_host_wherever_the_page_kept_it(values, more, seed):
    assert inputs(hosted(*values, **more), "57:3")["seed"] == seed


def test_a_widget_promoted_without_a_link_has_the_value_of_its_host():
    proxies = [["3", "steps"], ["3", "cfg"]]
    found = inputs(hosted(30, 5.5, properties={"proxyWidgets": proxies}), "57:3")
    assert (found["steps"], found["cfg"], found["seed"]) == (30, 5.5, 7)


def test_each_use_of_a_definition_has_its_own_values():
    data = hosted(42)
    data["nodes"].append(node(58, "sample", 43, inputs={"seed": ("INT", None, "seed")}))
    found = to_api(data, CATALOG).graph
    assert (found["57:3"]["inputs"]["seed"], found["58:3"]["inputs"]["seed"]) == (42, 43)
    assert "latent_image" not in found["58:3"]["inputs"]


def test_a_linked_promoted_widget_is_fed_from_outside():
    data = hosted(42, inputs={"seed": ("INT", 7, "seed"), "latent": ("LATENT", 5)})
    data["nodes"].append(node(2, "PrimitiveInt", 1, "fixed", outputs="INT"))
    data["links"].append([7, 2, 0, 57, 0, "INT"])
    assert inputs(data, "57:3")["seed"] == ["2", 0]


def test_an_input_that_feeds_several_widgets_gives_them_all_the_first_ones_value():
    two = [{**SAMPLER, "id": n, "widgets_values": [seed, *KSAMPLER[1:]], "inputs": [{"name": "seed", "type": "INT", "link": n, "widget": {"name": "seed"}}]}
           for n, seed in ((3, 5), (4, 6))]  # fmt: skip
    both = subgraph("both", two, [(3, -10, 0, 3, 0), (4, -10, 0, 4, 0)], {"seed": [4, 3]}, {})
    found = to_api(ui([node(57, "both")], [], [both]), CATALOG).graph
    assert [found[key]["inputs"]["seed"] for key in ("57:3", "57:4")] == [6, 6]


def test_subgraphs_nest_and_values_come_from_the_outermost_host():
    inner = node(8, "sample", 42, inputs={"seed": ("INT", 1, "seed"), "latent": ("LATENT", 2)}, outputs="LATENT")
    outer = subgraph("outer", [inner], [(1, -10, 0, 8, 0), (2, -10, 1, 8, 1), (3, 8, 0, -20, 0)], {"seed": [1], "latent": [2]}, {"LATENT": [3]})
    for values, seed in (([], 42), ([99], 99)):
        data = hosted(*values)
        data["nodes"][1]["type"] = "outer"
        data["definitions"]["subgraphs"].append(outer)
        found = to_api(data, CATALOG).graph
        assert list(found) == ["1", "57:8:3", "9"]
        assert found["57:8:3"]["inputs"]["seed"] == seed
        assert found["57:8:3"]["inputs"]["latent_image"] == ["1", 0]
        assert found["9"]["inputs"]["value"] == ["57:8:3", 0]
    data = hosted(77, properties={"proxyWidgets": [["8", "seed"]]})
    data["nodes"][1]["type"] = "outer"
    data["definitions"]["subgraphs"].append({**outer, "nodes": [{**inner, "inputs": inner["inputs"][1:]}]})
    assert inputs(data, "57:8:3")["seed"] == 77, "a widget of an inner host, promoted without a link"


def test_a_primitive_inside_has_the_value_of_its_host():
    inside = [node(2, "PrimitiveNode", 30, "fixed", outputs="INT"), node(3, "KSampler", *KSAMPLER, inputs={"steps": ("INT", 1, "steps")})]
    definition = subgraph("primitive", inside, [(1, 2, 0, 3, 0)], {}, {})
    for values, steps in (([], 30), ([12], 12)):
        host = node(57, "primitive", *values, properties={"proxyWidgets": [["2", "value"]]})
        assert inputs(ui([host], [], [definition]), "57:3")["steps"] == steps


@pytest.mark.parametrize(("mode", "value", "word"), [(2, None, "Muted"), (4, ["1", 0], "Bypassed")])
def test_a_muted_subgraph_is_gone_whole_and_a_bypassed_one_passes_through(mode, value, word):
    found = to_api(hosted(mode=mode), CATALOG)
    assert list(found.graph) == ["1", "9"]
    assert found.graph["9"]["inputs"].get("value") == value


def test_an_output_that_nothing_feeds_feeds_nothing():
    data = hosted()
    data["definitions"]["subgraphs"][0] = {**SAMPLE, "outputs": [{"name": "LATENT", "linkIds": []}]}
    assert inputs(data, "9") == {}
    data["definitions"]["subgraphs"][0] = {**SAMPLE, "outputs": []}
    assert inputs(data, "9") == {}


def test_an_input_may_go_straight_to_an_output():
    straight = subgraph("sample", [], [(1, -10, 0, -20, 0)], {"latent": [1]}, {"LATENT": [1]})
    data = hosted()
    data["definitions"]["subgraphs"] = [straight]
    assert inputs(data, "9")["value"] == ["1", 0]


def test_a_get_node_inside_finds_the_set_node_around_it():
    getting = [node(2, "GetNode", "pic", outputs="IMAGE"), node(3, "SaveImage", "x", inputs={"images": ("IMAGE", 1)})]
    inside = subgraph("inside", getting, [(1, 2, 0, 3, 0)], {}, {})
    data = ui([PICTURE, node(5, "SetNode", "pic", inputs={"IMAGE": ("IMAGE", 4)}), node(57, "inside")], [[4, 1, 0, 5, 0, "IMAGE"]], [inside])
    assert inputs(data, "57:3")["images"] == ["1", 0]


# ---- limits ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, [], 5, "x", {}, {"nodes": 5}, {"nodes": []}, {"nodes": [5, None, {}]}, {"1": {"class_type": "A"}}])
def test_what_is_no_workflow_is_refused(data):
    with pytest.raises(ExportUnreadable, match="It holds no workflow"):
        to_api(data, CATALOG)


def nest(names: list[str], last: str) -> list[dict[str, Any]]:
    """Definitions, each containing the next one, the last one `last`."""
    return [subgraph(name, [node(1, inner)], [], {}, {}) for name, inner in zip(names, [*names[1:], last], strict=True)]


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]])
def test_a_subgraph_that_contains_itself_is_refused(names):
    with pytest.raises(ExportUnreadable, match="contains itself"):
        to_api(ui([node(1, "a")], [], nest(names, "a")), CATALOG)
    assert list(to_api(ui([PICTURE], [], nest(names, "a")), CATALOG).graph) == ["1"], "it is not used"


def test_subgraphs_that_grow_without_measure_are_refused():
    doubling = [subgraph(f"d{n}", [node(1, f"d{n + 1}"), node(2, f"d{n + 1}")], [], {}, {}) for n in range(40)]
    with pytest.raises(ExportUnreadable, match=f"more than {NODE_LIMIT} nodes"):
        to_api(ui([node(1, "d0")], [], doubling), CATALOG)
    with pytest.raises(ExportUnreadable, match="nested deeper than 50 levels"):
        to_api(ui([node(1, "n0")], [], nest([f"n{n}" for n in range(5000)], "SaveImage")), CATALOG)


def test_a_long_way_of_reroutes_is_no_recursion():
    reroutes = [node(n, "Reroute", inputs={"": ("*", n)}, outputs="*") for n in range(10, 5010)]
    links = [[n, n - 1 if n > 10 else 1, 0, n, 0, "*"] for n in range(10, 5010)]
    assert through(*reroutes, links=[*links, [9, 5009, 0, 9, 0, "IMAGE"]]) == ["1", 0]


def test_the_result_is_a_value():
    found = to_api(ui([PICTURE], []), CATALOG)
    assert isinstance(found, Converted)
    with pytest.raises(AttributeError):
        found.graph = {}  # type: ignore[misc]
