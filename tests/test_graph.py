"""graph: what a real ComfyUI refused we refuse too, for the same node and input; equal recipes have equal hashes."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.graph import (
    DEPTH_LIMIT,
    NODE_LIMIT,
    Fault,
    Graph,
    Link,
    NodeCatalog,
    ancestors,
    graph_hash,
    is_link,
    odd_sizes,
    offer,
    title_of,
    topological,
    validate,
)

RECORDINGS = Path(__file__).with_name("recordings")
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.jsonl"))
CATALOG = NodeCatalog(json.loads((RECORDINGS / "object_info-0.3.64.json").read_text(encoding="utf-8")))
relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault


@cache
def submitted(name: str) -> tuple[tuple[str, dict[str, Any], int, dict[str, Any]], ...]:
    """What was POSTed to /prompt in a recording and what came back: note, graph, status, answer; each call waited for its answer."""
    found, asked = [], {}
    for line in (json.loads(text) for text in (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()):
        if line.get("path") == "/prompt" and line.get("method") == "POST":
            if line["kind"] == "http_req":
                asked = line
            elif isinstance(asked.get("json"), dict) and "prompt" in asked["json"]:
                found.append((asked.get("note", ""), asked["json"], line["status"], line.get("json") or {}))
    return tuple(found)


def txt2img() -> dict[str, Any]:
    """The recorded graph of a picture."""
    ((_, body, _, _),) = submitted("a_txt2img_8steps")
    return json.loads(json.dumps(body["prompt"]))


def kinds(graph: Any, catalog: NodeCatalog = CATALOG) -> list[tuple[str, str | None, str | None]]:
    return [(fault.kind, fault.node_id, fault.input) for fault in validate(graph, catalog)]


# ---- the server's word ----------------------------------------------------------------------------------------------------------------

REFUSALS = {
    "required_input_missing": "missing_input",
    "invalid_input_type": "not_a_number",
    "value_not_in_list": "not_in_list",
    "value_smaller_than_min": "out_of_range",
    "value_bigger_than_max": "out_of_range",
    "return_type_mismatch": "type_mismatch",
    "bad_linked_input": "bad_link",
    "custom_validation_failed": "not_in_list",
}
# Where the server stumbled instead of checking, it names less than we do, or another place.
ELSEWHERE = {
    "missing_inputs_key": ("not_a_node", "3", None),  # a KeyError, told as `samples`, the input of the consumer that it came from
    "bad_link_unknown_node": ("bad_link", "9", "images"),  # a KeyError of the node's whole validation: it names no input
    "bad_link_slot": ("bad_link", "9", "images"),  # an IndexError: likewise
    "int_node_id_in_link": ("bad_link", "9", "images"),  # a KeyError: likewise
}
# Refused as a whole: no node_errors.
WHOLE = {
    "unknown_node_class": ("unknown_node", "3", None),
    "missing_class_type": ("not_a_node", "3", None),
    "no_outputs": ("no_outputs", None, None),
    "empty_prompt": ("no_outputs", None, None),
    "cycle": ("cycle", None, None),
    "node_not_dict": ("not_a_node", "1", None),  # the server answered 500
}


def test_what_the_server_refused_is_found_for_the_same_node_and_input():
    compared = set()
    for note, body, _, answer in submitted("d_validation_errors"):
        found = kinds(body["prompt"]) if answer.get("node_errors") else []
        for node_id, node in answer.get("node_errors", {}).items():
            for error in node["errors"]:
                expected = ELSEWHERE.get(note) or (REFUSALS[error["type"]], node_id, error["extra_info"]["input_name"])
                assert expected in found, note
                assert expected[1] == node_id
                compared.add(note)
    assert len(compared) == 14
    assert compared >= set(ELSEWHERE)


@pytest.mark.parametrize("note", sorted(WHOLE))
def test_what_the_server_refused_as_a_whole_is_found(note):
    ((body, status),) = [(body, status) for found, body, status, _ in submitted("d_validation_errors") if found == note]
    assert status in (400, 500)
    assert WHOLE[note] in kinds(body["prompt"])


def test_a_prompt_that_is_no_graph_is_refused():
    bodies = {note: body for note, body, status, _ in submitted("d_validation_errors") if status == 500}
    assert kinds(bodies["prompt_list"]["prompt"]) == [("no_outputs", None, None)]
    assert kinds(bodies["prompt null"]["prompt"]) == [("no_outputs", None, None)]


# A list that the server never consults: LoadImage looks at the disk, which had this text file.
NOT_IN_THE_LIST = {("not_in_list", "5", "image")}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_server_took_whole_is_taken(name):
    for note, body, status, answer in submitted(name):
        if status == 200 and not answer["node_errors"]:
            found = set(kinds(body["prompt"]))
            assert found == (NOT_IN_THE_LIST if name == "j_upload_img2img" else set()), note


def test_the_choices_of_v3_nodes_are_checked_though_the_server_does_not():
    graph = Graph()
    pictures = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0)
    graph.add("SaveWEBM", images=pictures, filename_prefix="clip", codec="nope", fps=24.0, crf=32.0)
    assert kinds(graph.nodes) == [("not_in_list", "2", "codec")]


@pytest.mark.parametrize("name", ["sub/inner.png", "in.png [temp]", "example.png"])
def test_an_upload_may_lie_where_the_list_does_not_look(name):
    graph = Graph()
    graph.add("SaveImage", images=graph.add("LoadImage", image=name), filename_prefix="x")
    assert kinds(graph.nodes) == []
    graph.nodes["1"]["inputs"]["image"] = "nope.png"
    assert kinds(graph.nodes) == [("not_in_list", "1", "image")]


# ---- faults ---------------------------------------------------------------------------------------------------------------------------

SMALL = NodeCatalog(
    {
        "Source": {
            "input": {
                "required": {
                    "count": ["INT", {"min": 1, "max": 9}], "scale": ["FLOAT", {"min": 0.5}], "mode": [["a", "b"]], "many": ["COMBO", {"options": ["x"]}],
                },
                "optional": {"note": ["STRING", {}], "free": ["FLOAT", {"max": 1.0}], "remote": ["COMBO", {}], "deep": ["COMFY_DYNAMICCOMBO_V3", {}]},
                "hidden": {"prompt": "PROMPT"},
            },
            "output": ["IMAGE", ["a", "b"], "MASK,LATENT", "*"],
        },
        "Show": {
            "input": {"required": {"value": ["IMAGE"]}, "optional": {"mode": [["a", "b"]], "text": ["STRING", {}], "odd": [], "mask": ["MASK,SIGMAS"]}},
            "output_node": True,
        },
    }
)  # fmt: skip


def shown(link: Any = ("1", 0), **inputs: Any) -> dict[str, Any]:
    source = {"count": 5, "scale": 1.0, "mode": "a", "many": "x", **inputs.pop("source", {})}
    value = list(link) if isinstance(link, tuple) else link
    return {"1": {"class_type": "Source", "inputs": source}, "2": {"class_type": "Show", "inputs": {"value": value, **inputs}}}


def test_a_graph_in_order_has_no_fault():
    assert validate(shown(), SMALL) == []


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"count": 0}, "out_of_range"), ({"count": 10}, "out_of_range"), ({"count": 10**400}, "out_of_range"), ({"scale": 0.4}, "out_of_range"),
        ({"free": 1.5}, "out_of_range"), ({"count": "many"}, "not_a_number"), ({"count": None}, "not_a_number"), ({"count": {}}, "not_a_number"),
        ({"scale": float("nan")}, "not_a_number"), ({"scale": 10**400}, "not_a_number"), ({"count": float("inf")}, "not_a_number"),
        ({"mode": "c"}, "not_in_list"), ({"many": "y"}, "not_in_list"), ({"many": None}, "not_in_list"), ({"count": [1]}, "bad_link"),
        ({"count": "7"}, None), ({"count": {"__value__": 5}}, None), ({"many": {"__value__": ["x"]}}, None), ({"many": {"key": "x"}}, None),
        ({"remote": "anything"}, None), ({"note": 5}, None), ({"unknown": object}, None), ({"deep": "z"}, None), ({"scale": True}, None),
    ],
    ids=str,
)  # fmt: skip
def test_a_literal_is_checked_as_the_server_would(source, kind):
    found = kinds(shown(source=source), SMALL)
    assert found == ([] if kind is None else [(kind, "1", next(iter(source)))])


@pytest.mark.parametrize(
    ("link", "inputs", "found"),
    [
        (("1", 1), {}, ("type_mismatch", "2", "value")),
        (("1", 2), {}, ("type_mismatch", "2", "value")),
        (("1", 3), {}, None),
        (("1", 4), {}, ("bad_link", "2", "value")),
        (("1", -1), {}, ("bad_link", "2", "value")),
        (("9", 0), {}, ("bad_link", "2", "value")),
        (("1", 0, 0), {}, ("bad_link", "2", "value")),
        (("1", True), {}, ("bad_link", "2", "value")),
        (None, {}, ("missing_input", "2", "value")),
        (("1", 0), {"mode": ["1", 1]}, None),
        (("1", 0), {"text": ["1", 1]}, None),
        (("1", 0), {"mask": ["1", 2]}, None),
        (("1", 0), {"mask": ["1", 0]}, ("type_mismatch", "2", "mask")),
        (("1", 0), {"odd": ["1", 0]}, None),
    ],
)
def test_a_link_is_checked_for_its_source_slot_and_type(link, inputs, found):
    assert kinds(shown(link, **inputs), SMALL) == ([] if found is None else [found])


# Written by hand after ComfyUI's source (comfy_api/latest/_io.py): dynamic inputs, which 0.3.64 does not have yet.
DYNAMIC = NodeCatalog(
    {
        "Source": {"input": {}, "output": ["IMAGE"]},
        "Switch": {"input": {"optional": {"on": ["COMFY_MATCHTYPE_V3", {}]}}, "output": ["COMFY_MATCHTYPE_V3"]},
        "Save": {
            "input": {
                "required": {
                    "images": ["COMFY_AUTOGROW_V3", {"template": {"input": {"required": {"image": ["IMAGE", {}]}}, "prefix": "image", "min": 1, "max": 9}}],
                    "format": ["COMFY_DYNAMICCOMBO_V3", {"options": [
                        {"key": "png", "inputs": {"required": {}}},
                        {"key": "avif", "inputs": {"required": {"crf": ["INT", {"min": 1, "max": 63}]}}},
                    ]}],
                }
            },
            "output_node": True,
        },
    }
)  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ({"images.image0": ["1", 0], "format": "png"}, None),
        ({"images.image0": ["2", 0], "images.image5": ["1", 0], "format": "avif", "format.crf": 18}, None),
        ({"format": "png"}, ("missing_input", "3", "images.image0")),
        ({"images.image0": ["9", 0], "format": "png"}, ("bad_link", "3", "images.image0")),
        ({"images.image0": ["1", 0], "format": "avif"}, ("missing_input", "3", "format.crf")),
        ({"images.image0": ["1", 0], "format": "avif", "format.crf": 99}, ("out_of_range", "3", "format.crf")),
        ({"images.image0": ["1", 0], "format": "png", "format.crf": 99}, None),  # of another choice: the server does not look
        ({"images.image0": ["1", 0], "format": "tiff"}, ("not_in_list", "3", "format")),  # the server would only stumble over it
        ({"images.image0": ["1", 0]}, ("missing_input", "3", "format")),
    ],
)
def test_dynamic_inputs_are_checked_by_their_dotted_names(inputs, found):
    graph = {
        "1": {"class_type": "Source", "inputs": {}},
        "2": {"class_type": "Switch", "inputs": {"on": ["1", 0]}},
        "3": {"class_type": "Save", "inputs": inputs},
    }
    assert kinds(graph, DYNAMIC) == ([] if found is None else [found])


def test_a_missing_input_says_what_it_takes():
    graph = shown()
    del graph["2"]["inputs"]["value"]
    (fault,) = validate(graph, SMALL)
    assert str(fault) == "Show (node 2): `value` is missing. It takes IMAGE."


def test_everything_is_found_at_once_and_in_graph_order():
    found = kinds(shown(("9", 0), mode="z", source={"count": 0, "mode": "z"}), SMALL)
    assert found == [("out_of_range", "1", "count"), ("not_in_list", "1", "mode"), ("bad_link", "2", "value"), ("not_in_list", "2", "mode")]


def test_a_fault_is_a_sentence_with_the_users_title_and_a_next_step():
    graph = txt2img()
    graph["3"] |= {"_meta": {"title": "Paint"}}
    graph["3"]["inputs"] |= {"sampler_name": "eulr", "steps": 0}
    sampler, steps = sorted(validate(graph, CATALOG), key=lambda fault: fault.kind)
    assert str(steps) == "Paint (node 3): `steps` is 0; it takes 1 to 10000."
    assert str(sampler).startswith("Paint (node 3): `sampler_name` is 'eulr', which the server does not have. Did you mean euler")
    assert str(Fault("no_outputs", "it is empty.")) == "The graph: it is empty."


def test_an_unknown_class_gets_the_nearest_name_and_its_consumers_no_second_fault():
    graph = txt2img()
    graph["3"]["class_type"] = "KSamplr"
    (fault,) = validate(graph, CATALOG)
    assert fault.hint == "Did you mean KSampler?"
    graph["3"]["class_type"] = "Zzzzzzzzzzzz"
    assert validate(graph, CATALOG)[0].hint == "Install the node pack that brings it, or remove the node."


@pytest.mark.parametrize("graph", [None, [], {}, "x"])
def test_nothing_is_no_graph(graph):
    assert kinds(graph) == [("no_outputs", None, None)]


@pytest.mark.parametrize("node", [None, [], {}, {"class_type": None, "inputs": {}}, {"class_type": "SaveImage"}, {"class_type": "SaveImage", "inputs": []}])
def test_what_is_no_node_is_named(node):
    found = validate({"7": node}, CATALOG)
    assert [(fault.kind, fault.node_id) for fault in found] == [("not_a_node", "7")]
    assert str(found[0]).startswith(("node 7 (node 7): it has no class_type", "SaveImage (node 7): it has no inputs"))


def test_a_graph_that_shows_nothing_is_refused():
    graph = txt2img()
    del graph["9"]
    assert kinds(graph) == [("no_outputs", None, None)]


def chain(length: int) -> dict[str, Any]:
    nodes: dict[str, Any] = {str(n): {"class_type": "Show", "inputs": {"value": [str(n + 1), 3]}} for n in range(length)}
    nodes[str(length)] = {"class_type": "Source", "inputs": {"count": 5, "scale": 1.0, "mode": "a", "many": "x"}}
    return nodes


LOOSE = NodeCatalog({**SMALL.object_info, "Show": {**SMALL.object_info["Show"], "output": ["*", "*", "*", "*"]}})


def test_a_chain_is_refused_before_the_server_would_recurse_too_deep():
    assert kinds(chain(DEPTH_LIMIT - 1), LOOSE) == []
    assert kinds(chain(DEPTH_LIMIT), LOOSE) == [("too_deep", None, None)]


def test_a_graph_of_too_many_nodes_is_refused_at_once():
    assert [fault.kind for fault in validate(dict.fromkeys(map(str, range(NODE_LIMIT + 1))), LOOSE)] == ["too_large"]


def circle(length: int) -> dict[str, Any]:
    """A ring of nodes, fed by a chain that is no part of it."""
    return chain(3) | {f"c{n}": {"class_type": "Show", "inputs": {"value": [f"c{(n + 1) % length}", 0], "mask": ["0", 2]}} for n in range(length)}


@pytest.mark.parametrize("length", [1, 2, 11])
def test_a_cycle_is_shown_from_end_to_end_each_node_feeding_the_next(length):
    graph = circle(length)
    (fault,) = validate(graph, LOOSE)
    assert fault.kind == "cycle"
    trail = fault.message.removeprefix("it has a cycle: ").removesuffix(".").split(" -> ")
    assert trail[0] == trail[-1]
    assert len(set(trail)) == len(trail) - 1 == length
    assert all([feeding, 0] == graph[fed]["inputs"]["value"] for feeding, fed in pairwise(trail))


def test_a_long_cycle_is_still_a_sentence():
    (fault,) = validate(circle(5000), LOOSE)
    assert " -> 4989 more -> " in fault.message
    assert len(fault.message) < 150


# ---- walking and hashing --------------------------------------------------------------------------------------------------------------


@st.composite
def dags(draw) -> dict[str, Any]:
    """Graphs without cycles: each node takes some of the earlier ones."""
    graph: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 8))):
        links = {f"in{slot}": [source, 0] for slot, source in enumerate(draw(st.lists(st.sampled_from(sorted(graph)), max_size=3)) if graph else [])}
        literals = {"steps": draw(st.integers(1, 3)), "seed": draw(st.integers(0, 3)), "filename_prefix": draw(st.sampled_from("ab"))}
        graph[f"n{number}"] = {"class_type": draw(st.sampled_from("ABC")), "inputs": {**links, **literals}}
    return graph


@relaxed
@given(dags())
def test_consumers_come_before_their_sources(graph):
    order = topological(graph)
    assert sorted(order) == sorted(graph)
    for node_id, node in graph.items():
        for value in node["inputs"].values():
            if is_link(value):
                assert order.index(node_id) < order.index(value[0])


@relaxed
@given(dags(), st.data())
def test_the_ancestors_are_closed_and_contain_their_targets(graph, data):
    targets = set(data.draw(st.lists(st.sampled_from(sorted(graph)))))
    found = ancestors(graph, targets | {"nobody"})
    assert targets <= found <= set(graph)
    assert {value[0] for node_id in found for value in graph[node_id]["inputs"].values() if is_link(value)} <= found


@relaxed
@given(dags(), st.randoms(), st.integers(0, 2**64))
def test_the_same_recipe_has_the_same_hash_whatever_its_ids_order_seed_and_titles(graph, random, seed):
    names = {node_id: str(place) for place, node_id in enumerate(random.sample(sorted(graph), len(graph)))}
    renamed = {
        names[node_id]: {
            "class_type": node["class_type"],
            "_meta": {"title": "mine"},
            "inputs": {
                key: [names[value[0]], value[1]] if is_link(value) else seed if key == "seed" else "elsewhere" if key == "filename_prefix" else value
                for key, value in random.sample(list(node["inputs"].items()), len(node["inputs"]))
            },
        }
        for node_id, node in random.sample(list(graph.items()), len(graph))
    }
    assert graph_hash(renamed) == graph_hash(graph)


@relaxed
@given(dags(), st.data())
def test_another_recipe_has_another_hash(graph, data):
    node_id = data.draw(st.sampled_from(sorted(graph)))
    changed = json.loads(json.dumps(graph))
    changed[node_id]["inputs"]["steps"] += 1
    assert graph_hash(changed) != graph_hash(graph)
    changed = json.loads(json.dumps(graph))
    changed[node_id]["class_type"] = "D"
    assert graph_hash(changed) != graph_hash(graph)


def test_the_hash_of_a_recorded_graph_does_not_change_between_versions_of_this_file():
    """The log compares recipes over years: a hash that changes parts what belongs together."""
    assert graph_hash(txt2img()) == "3a145a18c0ead134"


def test_deep_and_circular_graphs_have_hashes_too():
    assert len(graph_hash(chain(5000))) == 16
    assert len(graph_hash({str(n): {"class_type": "A", "inputs": {"x": [str((n + 1) % 5000), 0]}} for n in range(5000)})) == 16


# ---- building and reading -------------------------------------------------------------------------------------------------------------


def test_a_graph_is_built_node_by_node():
    graph = Graph()
    loader = graph.add("CheckpointLoaderSimple", ckpt_name="a")
    graph.add("CLIPTextEncode", title="Prompt", clip=loader.output(1), text="fox")
    assert graph.api() == {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "fox"}, "_meta": {"title": "Prompt"}},
    }
    assert loader == Link("1", 0)


def test_a_node_never_replaces_another():
    graph = Graph({"2": {"class_type": "A", "inputs": {}}})
    assert graph.add("B").node_id == "3"
    assert graph.nodes["2"]["class_type"] == "A"


def test_a_copy_of_a_graph_is_apart_from_it():
    graph = Graph()
    graph.add("A", x=1)
    graph.api()["1"]["inputs"]["x"] = 2
    assert graph.nodes["1"]["inputs"]["x"] == 1


@pytest.mark.parametrize("value", [["1"], ["1", 0, 0], [1, 0], ["1", "0"], ["1", True], ["1", 0.0], "10", None, {"1": 0}])
def test_a_literal_is_no_link(value):
    assert not is_link(value)


def test_a_node_is_called_by_its_title_else_by_its_class():
    assert title_of("3", {"class_type": "KSampler", "_meta": {"title": "Paint"}}) == "Paint"
    assert title_of("3", {"class_type": "KSampler", "_meta": {"title": ""}}) == "KSampler"
    assert title_of("3", {"class_type": "KSampler", "_meta": None}) == "KSampler"
    assert title_of("3", {}) == "node 3"


@pytest.mark.parametrize(
    ("value", "choices", "hint"),
    [
        ("eulr", ["euler", "dpmpp_2m"], "Did you mean euler?"),
        ("zzz", ["euler", "heun"], "It has euler, heun."),
        ("qqqq", list("abcdefghijk"), "It has a, b, c, d, e, f, g, h and 3 more."),
        ("x", [], "The server has none at all."),
    ],
)
def test_a_wrong_choice_is_answered_with_an_offer(value, choices, hint):
    assert offer(value, choices) == hint


INSIDE = ["toolkit/a.png", "a.png [temp]"]
OUTSIDE = ["/etc/a.png", "../a.png", "x/../../a.png", "C:/a.png", "C:\\a.png [input]", "..\\a.png [input]"]


@pytest.mark.parametrize(("name", "passes"), [*((name, True) for name in INSIDE), *((name, False) for name in OUTSIDE)])
def test_an_input_picture_may_lie_in_a_folder_of_the_server_and_not_outside(name: str, passes: bool) -> None:
    catalog = NodeCatalog({"LoadImage": {"input": {"required": {"image": [["b.png"], {"image_upload": True}]}}, "output": ["IMAGE"], "output_node": True}})
    faults = validate({"1": {"class_type": "LoadImage", "inputs": {"image": name}}}, catalog)
    assert [fault.kind for fault in faults] == ([] if passes else ["not_in_list"])


def test_sizes_between_the_steps_of_an_input_are_told_and_not_refused():
    graph = Graph()
    graph.add("EmptyLatentImage", title="my size", width=641, height=640, batch_size=1)
    graph.add("EmptyHunyuanLatentVideo", width=656, height=400, length=32, batch_size=1)
    graph.add("EmptyImage", width=641, height=33, batch_size=1, color=0)
    assert odd_sizes(graph.api(), CATALOG) == [
        "my size (node 1): `width` is 641, made for 640 or 648; it may be cut.",
        "EmptyHunyuanLatentVideo (node 2): `length` is 32, made for 29 or 33; it may be cut.",
    ]
    assert not [fault for fault in kinds(graph.api()) if fault[0] == "out_of_range"]
