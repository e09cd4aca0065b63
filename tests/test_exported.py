"""exported: a user's workflow file is read, its parameters are named, changed and written again; what is none says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import ExportUnreadable, ParameterMissing, WorkflowInvalid
from toolkit.exported import Workflow, sources
from toolkit.graph import NodeCatalog

GRAPH: dict[str, Any] = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}, "_meta": {"title": "What to draw"}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blur", "clip": ["4", 1]}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 20, "cfg": 6.5, "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}},
    "13": {"class_type": "KSampler", "inputs": {"seed": 8, "steps": 10, "cfg": 6.5, "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["3", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["13", 0], "filename_prefix": "x", "lossless": True, "note": None}},
}
CATALOG = NodeCatalog(json.loads(Path(__file__).with_name("recordings").joinpath("object_info-0.3.64.json").read_text(encoding="utf-8")))
UI: dict[str, Any] = {  # a picture of one colour, as ComfyUI's page saves it
    "version": 0.4,
    "nodes": [
        {"id": 1, "type": "EmptyImage", "order": 0, "mode": 0, "outputs": [{"name": "IMAGE", "type": "IMAGE"}], "widgets_values": [96, 64, 1, 255]},
        {"id": 2, "type": "SaveImage", "order": 1, "mode": 0, "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "widgets_values": ["x"]},
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
}
CONVERTED = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 255}, "_meta": {"title": "EmptyImage"}},
    "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["1", 0]}, "_meta": {"title": "Save Image"}},
}
relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(GRAPH))
    return path


# ---- reading --------------------------------------------------------------------------------------------------------------------------


def test_a_workflow_is_the_same_from_a_path_its_name_its_bytes_or_itself(file):
    for source in (file, str(file), file.read_bytes(), GRAPH, {"prompt": GRAPH, "extra_data": {}}):
        assert Workflow.load(source).api() == GRAPH


@pytest.mark.parametrize("name", ["SaveImage.png", "SaveAnimatedPNG.png", "SaveAnimatedWEBP.webp", "SaveWEBM.webm", "SaveVideo.mp4"])
def test_a_workflow_comes_out_of_a_picture_or_clip_of_comfyui_with_its_drawing(name):
    path = Path(__file__).with_name("recordings") / "files-0.3.64" / name
    own = Workflow.load(path)
    assert own.parameters["9.filename_prefix"].value == "shapes/sample"
    assert own.ui["nodes"][0]["title"] == "雪の狐 füchsin"
    assert own.set().ui == own.ui
    assert own.set(**{"9.filename_prefix": "x"}).ui is None  # it would show the old value
    assert Workflow.load(path.read_bytes()).api() == own.api()


def test_a_picture_without_a_graph_says_what_it_has(tmp_path):
    (tmp_path / "page.png").write_text("<html>")
    (tmp_path / "empty.webm").touch()
    for name, sentence in (("page.png", "page.png is not a readable image."), ("empty.webm", "empty.webm is not a readable clip.")):
        with pytest.raises(ExportUnreadable, match=sentence):
            Workflow.load(tmp_path / name)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_any_windows_editor_is_read(encoding):
    graph = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "狐 füchsin"}}}
    assert Workflow.load(json.dumps(graph, ensure_ascii=False).encode(encoding)).api() == graph


def test_numbers_as_ids_and_missing_inputs_are_put_right():
    assert Workflow.load({1: {"class_type": "A"}, 2: {"class_type": "B", "inputs": None}}).api() == {
        "1": {"class_type": "A", "inputs": {}},
        "2": {"class_type": "B", "inputs": {}},
    }


def test_a_node_called_prompt_is_no_wrapper():
    assert list(Workflow.load({"prompt": {"class_type": "A", "inputs": {}}}).api()) == ["prompt"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The data is not JSON: Expecting value in line 1, column 1."),
        (b'{"a":\n 5,}', "The data is not JSON: Expecting property name enclosed in double quotes in line 2, column 4."),
        (b"\x89PNG\r\n\x1a\n", "The data is not a readable image: it ends too early."),
        (b"\xfc", "The data is not UTF-8 (byte 0). Export the workflow with File > Export (API)."),
        (b"[]", "The data holds no workflow."),
        (b"{}", "The data holds no workflow."),
        (b'{"prompt": {}}', "The data holds no workflow."),
        (b"5", "The data holds no workflow."),
        (b'{"nodes": [], "links": []}', "The data holds no workflow."),
        (b'{"nodes": [5, {"id": 1}], "links": []}', "The data holds no workflow."),
        (b'{"1": {"inputs": {}}, "2": 5}', "The data: node 1, 2 has no class_type."),
        (b'{"1": {"class_type": null}}', "The data: node 1 has no class_type."),
        (b'{"1": {"class_type": "A", "inputs": [1, 2]}}', "The data: the inputs of node 1 are no mapping."),
        (b"[" * 200_000, "The data is too deeply nested."),
        (b"[" * 201 + b"]" * 201, "The data is too deeply nested."),
        (b'{"1": {"class_type": "A", "inputs": {"x": ' + b"9" * 5000 + b"}}}", "The data is not JSON: Exceeds the limit"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_workflow_says_what_it_is(data, sentence):
    with pytest.raises(ExportUnreadable) as refused:
        Workflow.load(data)
    assert str(refused.value).startswith(sentence)


def test_a_mapping_that_is_no_workflow_is_refused():
    with pytest.raises(ExportUnreadable, match="The mapping holds no workflow"):
        Workflow.load({})


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, file, monkeypatch):
    with pytest.raises(ExportUnreadable, match=r"nothing.json cannot be read: No such file"):
        Workflow.load(tmp_path / "nothing.json")
    with pytest.raises(ExportUnreadable, match="cannot be read: Is a directory"):
        Workflow.load(tmp_path)
    with pytest.raises(ExportUnreadable, match="is no file name"):
        Workflow.load("a\0b")
    monkeypatch.setattr(sources, "SIZE_LIMIT", 10)
    for source in (file, file.read_bytes()):
        with pytest.raises(ExportUnreadable, match="has 0 MB; a workflow has at most 0"):
            Workflow.load(source)


keys = st.sampled_from(["nodes", "prompt", "class_type", "inputs", "1"])
leaves = st.none() | st.integers() | st.text(max_size=3)
json_values = st.recursive(leaves, lambda inner: st.dictionaries(keys, inner | st.lists(inner, max_size=2), max_size=3))


@relaxed
@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_workflow_or_refused(data):
    try:
        workflow = Workflow.load(data, CATALOG)
    except ExportUnreadable:
        return
    assert Workflow.load(workflow.api()).api() == workflow.api()
    assert repr(workflow).startswith("Workflow of ")


# ---- parameters -----------------------------------------------------------------------------------------------------------------------


def test_every_literal_has_its_place_as_name_and_every_role_its_word():
    parameters = Workflow.load(GRAPH).parameters
    literals = {f"{key}.{name}" for key, node in GRAPH.items() for name, value in node["inputs"].items() if not isinstance(value, list)}
    assert {name for name in parameters if "." in name} == literals
    assert {name for name in parameters if "." not in name} == {
        "prompt", "negative_prompt", "seed", "steps", "steps_2", "cfg", "width", "height", "batch_size", "model",
    }  # fmt: skip
    assert (parameters["prompt"].value, parameters["prompt"].node_title, parameters["prompt"].node_id) == ("a fox", "What to draw", "6")
    assert (parameters["seed"].value, parameters["13.seed"].value) == (7, 8)


def test_a_workflow_shows_its_size_and_its_roles():
    assert repr(Workflow.load(GRAPH)).startswith("Workflow of 7 nodes: prompt, negative_prompt, seed,")


def test_a_role_changes_every_input_that_plays_it_and_a_place_only_its_own():
    workflow = Workflow.load(GRAPH)
    changed = workflow.set(seed=99, **{"13.steps": 5}).api()
    assert (changed["3"]["inputs"]["seed"], changed["13"]["inputs"]["seed"]) == (99, 99)
    assert (changed["3"]["inputs"]["steps"], changed["13"]["inputs"]["steps"]) == (20, 5)
    assert workflow.api() == GRAPH, "set returns a copy"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "123", 123), ("cfg", "4", 4.0), ("9.lossless", "False", False), ("9.lossless", "1", True), ("prompt", "5", "5"), ("9.note", "hi", "hi"),
        ("seed", 5, 5), ("cfg", 3, 3),
    ],
)  # fmt: skip
def test_text_from_the_command_line_takes_the_type_of_the_old_value(name, text, value):
    changed = Workflow.load(GRAPH).set(**{name: text}).parameters[name].value
    assert changed == value
    assert type(changed) is type(value)


@pytest.mark.parametrize(("name", "text", "said"), [("seed", "2.5", "a whole number"), ("cfg", "much", "a number"), ("9.lossless", "maybe", "true or false")])
def test_text_of_another_type_is_refused(name, text, said):
    with pytest.raises(ParameterMissing, match=f"is {said}; '{text}' is not") as refused:
        Workflow.load(GRAPH).set(**{name: text})
    assert refused.value.field == name


def test_an_unknown_parameter_gets_the_nearest_names():
    with pytest.raises(ParameterMissing, match=r"no parameter 'promt'. Did you mean prompt") as refused:
        Workflow.load(GRAPH).set(promt="x")
    assert refused.value.field == "promt"
    with pytest.raises(ParameterMissing, match="It has batch_size, cfg, height, model"):
        Workflow.load(GRAPH).set(zzzzzzzz=1)


@relaxed
@given(st.dictionaries(st.sampled_from(["seed", "steps", "width"]), st.integers(0, 2**64)), st.text(st.characters(codec="utf-8")))
def test_setting_what_was_read_back_changes_nothing(numbers, prompt):
    workflow = Workflow.load(GRAPH).set(prompt=prompt, **numbers)
    again = workflow.set(**{name: parameter.value for name, parameter in workflow.parameters.items() if "." in name})
    assert again.api() == workflow.api()


# ---- writing --------------------------------------------------------------------------------------------------------------------------


def test_a_saved_workflow_comes_back_equal(tmp_path):
    workflow = Workflow.load(GRAPH).set(prompt="狐 in the snow")
    workflow.save(tmp_path / "mine.json")
    assert Workflow.load(tmp_path / "mine.json").api() == workflow.api()
    assert "狐" in (tmp_path / "mine.json").read_text(encoding="utf-8")


def test_a_copy_is_apart_from_the_workflow():
    workflow = Workflow.load(GRAPH)
    workflow.api()["3"]["inputs"]["seed"] = 0
    assert workflow.api() == GRAPH


# ---- the UI format --------------------------------------------------------------------------------------------------------------------


def test_a_file_of_the_page_waits_for_a_catalog_and_says_how_to_get_one():
    workflow = Workflow.load(UI)
    assert repr(workflow) == "Workflow in UI format, without a catalog"
    for use in (workflow.api, lambda: workflow.parameters, lambda: workflow.set(seed=1), lambda: workflow.save("x")):
        with pytest.raises(WorkflowInvalid, match=r"converted with a server's catalog. `studio.workflow\(path\)` asks the server for it"):
            use()
    assert workflow.with_catalog(CATALOG).api() == CONVERTED


def test_a_file_of_the_page_is_the_same_from_a_path_its_bytes_or_itself(tmp_path):
    path = tmp_path / "ui.json"
    path.write_text(json.dumps(UI))
    for source in (path, path.read_bytes(), UI):
        workflow = Workflow.load(source, CATALOG)
        assert workflow.api() == CONVERTED
        assert workflow.ui == UI
    assert Workflow.load(GRAPH, CATALOG).ui is None


def test_a_converted_workflow_is_saved_in_api_format(tmp_path):
    Workflow.load(UI, CATALOG).save(tmp_path / "api.json")
    assert Workflow.load(tmp_path / "api.json").api() == CONVERTED


def test_notes_say_what_was_left_out():
    muted = {**UI, "nodes": [UI["nodes"][0] | {"mode": 2, "title": "Colour"}, UI["nodes"][1], {"id": 7}]}
    assert Workflow.load(muted, CATALOG).notes == (
        "Muted, so left out: Colour (node 1).",
        "Fed by a node that is left out, so by nothing: `images` of Save Image (node 2).",
        "Nodes or links of the file that are no such thing, left out: 1.",
    )
    assert Workflow.load(UI, CATALOG).notes == Workflow.load(GRAPH).notes == ()


def test_what_was_set_stays_set_for_another_server():
    small = NodeCatalog({"SaveImage": CATALOG.object_info["SaveImage"]})  # it lacks EmptyImage, whose values then have no names
    workflow = Workflow.load(UI, CATALOG).set(**{"1.width": 128, "2.filename_prefix": "y"})
    there = workflow.with_catalog(small)
    assert there.api()["1"]["inputs"] == {}
    assert there.api()["2"]["inputs"]["filename_prefix"] == "y"
    assert there.with_catalog(CATALOG).api() == workflow.api()
    assert workflow.ui is None, "the page would show the old value"


def test_limits_of_a_parameter_come_from_the_catalog():
    parameters = Workflow.load({**GRAPH, "20": {"class_type": "Unknown", "inputs": {"x": 1}}}, CATALOG).parameters
    assert (parameters["3.steps"].minimum, parameters["3.steps"].maximum, parameters["3.steps"].choices) == (1, 10000, None)
    assert (parameters["steps"].minimum, parameters["steps"].maximum) == (1, 10000)
    assert parameters["4.ckpt_name"].choices == CATALOG.choices("CheckpointLoaderSimple", "ckpt_name")
    assert parameters["20.x"].choices is parameters["20.x"].minimum is parameters["20.x"].maximum is None
    assert Workflow.load(GRAPH).parameters["3.steps"].minimum is None
    assert Workflow.load(GRAPH).with_catalog(CATALOG).parameters["3.steps"].minimum == 1


def test_of_several_servers_the_one_is_taken_that_refuses_least():
    small = NodeCatalog({"SaveImage": CATALOG.object_info["SaveImage"]})
    assert Workflow.load(UI).with_best([small, CATALOG]).api() == CONVERTED
    assert Workflow.load(UI).with_best([CATALOG, small]).api() == CONVERTED
    assert Workflow.load(UI).with_best([]).needs_catalog


def test_a_whole_number_may_become_a_fraction_where_the_class_takes_one():
    """The page writes 8.0 as 8."""
    whole = {**GRAPH, "3": {**GRAPH["3"], "inputs": {**GRAPH["3"]["inputs"], "cfg": 8}}}
    assert Workflow.load(whole, CATALOG).set(cfg="4.5").api()["3"]["inputs"]["cfg"] == 4.5
    with pytest.raises(ParameterMissing, match=r"is a whole number; '4\.5' is not"):
        Workflow.load(whole, CATALOG).set(seed="4.5")
