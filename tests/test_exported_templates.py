"""exported, on ComfyUI's official templates: all are converted, and whatever becomes of them, no error but the one that is promised."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.templates import FILES, PAGE_ONLY, RECORDINGS, classes, complete, object_info, templates
from toolkit.engine.catalog import catalog
from toolkit.errors import ExportUnreadable, ParameterMissing
from toolkit.exported import Parameter, Workflow, to_api
from toolkit.graph import NodeCatalog, is_link, validate
from toolkit.roles import named_roles

CATALOG = NodeCatalog(object_info())
NEWER_CATALOG = NodeCatalog({**catalog(newer=True), **object_info()})
relaxed = settings(deadline=None, max_examples=150)  # a busy machine is no fault

# Options that came after the recorded 0.3.64, which refuses them itself (tried on one).
NEWER = {
    "image-qwen_image_edit_2511_lora_inflation": {"index_timestep_zero"},
    "image_kandinsky5_t2i": {"kandinsky5_image"},
    "image_newbieimage_exp0_1-t2i": {"newbie"},
    "image_ovis_text_to_image": {"ovis"},
}


def test_every_template_is_converted_to_a_graph_that_hangs_together():
    assert len(templates()) == 644
    for name, ui in templates().items():
        found = to_api(ui, CATALOG)
        assert json.loads(json.dumps(found.graph)) == found.graph, name
        used = {node["class_type"] for node in found.graph.values()}
        assert used <= classes(ui), f"{name}: no node of the page's own, no sub-graph"
        for node_id, node in found.graph.items():
            lost = [value for value in node["inputs"].values() if is_link(value) and value[0] not in found.graph]
            assert not lost, f"{name}: {node_id}"


def test_what_a_server_has_every_class_of_lacks_nothing_but_files():
    """83: of one the only unknown class is bypassed."""
    names = [name for name, ui in templates().items() if {node["class_type"] for node in to_api(ui, CATALOG).graph.values()} <= CATALOG.object_info.keys()]
    assert len(names) == 83
    assert set(complete(object_info())) < set(names)
    for name in names:
        faults = validate(to_api(templates()[name], CATALOG).graph, CATALOG)
        assert {fault.kind for fault in faults} <= {"not_in_list"}, name
        assert {fault.value for fault in faults if not str(fault.value).lower().endswith(FILES)} == NEWER.get(name, set()), name


def test_unknown_classes_are_all_named_at_once():
    for name, ui in templates().items():
        graph = to_api(ui, CATALOG).graph
        unknown = {node_id for node_id, node in graph.items() if node["class_type"] not in CATALOG}
        assert {fault.node_id for fault in validate(graph, CATALOG) if fault.kind == "unknown_node"} == unknown, name


def test_what_the_page_wrote_by_name_is_what_we_read_from_its_list():
    """Newer pages save the values of widgets twice: without the names we must find the same ones."""
    compared = 0
    for name, ui in templates().items():
        blind = json.loads(json.dumps(ui).replace('"widgets_values_named"', '"forgotten"'))
        told, found = to_api(ui, CATALOG).graph, to_api(blind, CATALOG).graph
        for node_id, node in told.items():
            if node["class_type"] in CATALOG and node["class_type"] != "SaveVideo":  # its `format` has become a dynamic combo since
                compared += 1
                assert node["inputs"] == found[node_id]["inputs"], (name, node_id)
    assert compared > 5000


# ---- properties -----------------------------------------------------------------------------------------------------------------------

LEAVES = [None, True, 0, -1, 5, -10, 2**40, 1.5, "", "x", "-10", [], {}, [1], [[]], {"id": 1}, {"name": 1}, "EmptyImage", "Reroute", "GetNode"]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with one of its keys."""
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        here = todo.pop()
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        found += [(here, key) for key in keys]
        todo += [here[key] for key in keys if isinstance(here[key], (dict, list))]
    return found


def mangled(name: str, seed: int, wounds: int) -> Any:
    """A template in which keys are dropped, types changed, lists cut and parts exchanged."""
    chance, data = random.Random(seed), json.loads(json.dumps(templates()[name]))
    for _ in range(wounds):
        spots = places(data)
        if not spots:
            break
        here, key = chance.choice(spots)
        match chance.randrange(4):
            case 0:
                del here[key]
            case 1 if isinstance(here[key], list):
                here[key] = here[key][: chance.randrange(len(here[key]) + 1)]
            case 2:
                other, name = chance.choice(spots)
                part = json.dumps(other[name])
                here[key] = json.loads(part) if len(part) < 5000 else None  # a whole put into itself again and again never ends
            case _:
                here[key] = json.loads(json.dumps(chance.choice(LEAVES)))
    return data


SMALL = sorted(name for name, ui in templates().items() if len(json.dumps(ui)) < 60_000)


@relaxed
@given(st.sampled_from(SMALL), st.integers(0, 2**32), st.integers(1, 40))
def test_a_mangled_file_is_converted_or_refused_and_nothing_else(name, seed, wounds):
    data = mangled(name, seed, wounds)
    try:
        workflow = Workflow.load(data, CATALOG)
    except ExportUnreadable:
        return
    validate(workflow.api(), CATALOG)
    assert all(note.endswith(".") for note in workflow.notes)
    assert repr(workflow).startswith("Workflow of ")
    if workflow.ui is not None:
        assert not {node["class_type"] for node in workflow.api().values()} & PAGE_ONLY
        with pytest.raises(ParameterMissing):
            workflow.set(**{"no such parameter at all": 1})


@relaxed
@given(st.sampled_from(sorted(templates())), st.data())
def test_setting_a_parameter_changes_its_inputs_and_no_other(name, data):
    workflow = Workflow.load(templates()[name], CATALOG)
    if not workflow.parameters:
        return
    parameter = workflow.parameters[data.draw(st.sampled_from(sorted(workflow.parameters)))]
    playing = {f"{role.node_id}.{role.input}" for role in named_roles(workflow.api()).get(parameter.name, ())}
    assert changed_by(workflow, parameter) == (playing or {parameter.name})


def changed_by(workflow: Workflow, parameter: Parameter) -> set[str]:
    """The inputs that another value changes; anything else about the graph stays."""
    before = workflow.api()
    after = workflow.set(**{parameter.name: "✿" if isinstance(parameter.value, str) else -77}).api()
    assert {key: {**node, "inputs": list(node["inputs"])} for key, node in after.items()} == {
        key: {**node, "inputs": list(node["inputs"])} for key, node in before.items()
    }
    assert workflow.api() == before
    return {f"{node_id}.{name}" for node_id, node in after.items() for name, value in node["inputs"].items() if value != before[node_id]["inputs"][name]}


def test_every_role_of_these_graphs_is_where_a_reader_finds_it():
    """Read by eye, node by node: SDXL with refiner and turbo, SD3.5, Flux, HiDream, OmniGen, Chroma, Anima, Lumina, Qwen, LTX, Hunyuan, Wan."""
    places = json.loads((RECORDINGS / "roles_of_templates.json").read_text(encoding="utf-8"))
    assert len(places) >= 20
    for name, roles in places.items():
        workflow = Workflow.load(templates()[name], NEWER_CATALOG)
        parameters = {role: parameter for role, parameter in workflow.parameters.items() if "." not in role}
        assert parameters.keys() == roles.keys(), name
        for role, parameter in parameters.items():
            assert changed_by(workflow, parameter) == set(roles[role]), f"{role} of {name}"
