"""What strangers and typing errors send: each is refused with its code, its place and a next step, within a second, and makes nothing.

One row a case; the ids B01 to B65 are those of the list this house was planned with. What is asked of a command line, a file or the SQL console
is held where those are tested: `ELSEWHERE` says where, and is held to be true.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.test_service import GRAPH, calling, refused
from toolkit import Studio

QUICK_S = 1.0
ELSEWHERE = {
    "B19": "test_service.py::test_a_token_is_asked_for_on_everything_below_api",
    "B19 in logs": "test_app.py::test_a_token_is_asked_for_everywhere_shown_nowhere_and_ctrl_c_ends_open_streams_while_a_job_goes_on",
    "B21": "test_exported.py::test_a_file_of_the_page_waits_for_a_catalog_and_says_how_to_get_one",
    "B30": "test_exported.py::test_a_file_of_any_windows_editor_is_read",
    "B30, B34": "test_exported.py::test_what_is_no_workflow_says_what_it_is",
    "B32, B34": "test_metadata.py::test_what_says_nothing_says_why_and_at_once",
    "B38": "test_metadata.py::test_a_huge_picture_costs_what_its_headers_cost",
    "B44": "test_cli.py::test_a_misspelt_command_or_option_is_2_with_the_nearest_one",
    "B45": "test_cli.py::test_a_server_address_is_put_right_or_refused_in_one_sentence_without_its_password",
    "B45 in every form": "test_settings.py::test_an_address_has_one_form",
    "B47": "test_cli.py::test_a_file_that_is_no_workflow_is_refused_in_one_sentence",
    "B49": "test_cli.py::test_a_second_ctrl_c_leaves_at_once_and_takes_no_job_with_it",
    "B49 in each phase": "test_cli.py::test_ctrl_c_while_it_waits_and_while_its_files_come_leaves_it_and_tells_its_id",
    "B50": "test_cli.py::test_unknown_ambiguous_and_finished_ids_have_three_messages_and_three_codes",
    "B51 to B58, B63": "test_console.py::test_what_does_not_read_the_log_is_refused",
    "B59": "test_console.py::test_what_takes_too_much_memory_is_ended_by_the_system",
    "B61": "test_console.py::test_what_takes_too_long_is_stopped",
    "B65": "test_console.py::test_rows_bytes_and_single_values_are_capped_and_said_so",
}


@pytest.fixture(scope="module")
def studio(shared_home):
    """The studio behind `rest`."""
    with Studio("engine", home=shared_home) as studio:
        studio.image("a", seed=1, width=64, height=64, steps=1).wait(60)  # the engine is up: what a first look costs is no refusal's
        yield studio


@pytest.fixture(scope="module")
def rest(studio):
    """A client of it."""
    with calling(studio) as client:
        yield client


@pytest.fixture
def nothing_made(rest):
    """That no job is there which was not before; what is not in the ledger is not sent."""

    def total():
        return rest.get("/api/anime/jobs?limit=1").json()["total"]

    before = total()
    yield
    assert total() == before


def refusal(rest, status, code, method, path, **call):
    """The sentence of a refusal that came at once, with a next step."""
    began = time.monotonic()
    answer = rest.request(method, f"/api/anime/{path}", **call)
    took = time.monotonic() - began
    error = refused(answer, status, code)
    assert took < QUICK_S
    assert error["hint"]
    return error


def post(rest, status, code, body, kind="image", content_type="application/json"):
    return refusal(rest, status, code, "POST", f"generate/{kind}", content=body, headers={"Content-Type": content_type})


# ---- REST: bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_made")
@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        pytest.param(b"", 400, "body_required", 'at least "prompt"', id="B01"),
        pytest.param(b" \n ", 400, "body_required", "empty", id="B01 spaces"),
        pytest.param(b'{prompt: "x"', 400, "bad_json", "line 1, column 2", id="B02"),
        pytest.param(b'{"prompt": "x",\n "steps": }', 400, "bad_json", "line 2, column 11", id="B02 line 2"),
        pytest.param(b'{"prompt": "\xff"}', 400, "bad_json", "byte 12", id="B02 not UTF-8"),
        pytest.param(b'{"prompt": "\\ud800"}', 400, "bad_json", "surrogate", id="B02 surrogate"),
        pytest.param(b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", 400, "bad_json", "digits", id="B02 digits"),
        pytest.param(b'["x"]', 400, "not_an_object", "list", id="B02 list"),
        pytest.param(b"null", 400, "not_an_object", "null", id="B02 null"),
        pytest.param(b'{"prompt": "' + b"x" * 2_000_000 + b'"}', 413, "body_too_large", "2000000", id="B06 body"),
        pytest.param(b'{"prompt": "x", "prompt": "y"}', 400, "duplicate_key", "`prompt`", id="B13"),
        pytest.param(b'{"prompt": "x", "labels": {"a": "1", "a": "2"}}', 400, "duplicate_key", "`a`", id="B13 inside"),
        pytest.param(b"[" * 100_000, 400, "bad_json", "deep", id="B29"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "bad_json", "deep", id="B29 objects"),
        pytest.param(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", 400, "bad_json", "more than 100 levels", id="B29 just"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused_with_its_place(rest, body, status, code, said):
    assert said in post(rest, status, code, body)["message"]


@pytest.mark.usefixtures("nothing_made")
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""], ids=lambda name: f"B14 {name}"
)
def test_a_body_of_another_type_is_refused(rest, content_type):
    post(rest, 415, "json_required", '{"prompt": "x"}', content_type=content_type)


@pytest.mark.usefixtures("nothing_made")
@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        pytest.param("{}", "prompt", "missing", id="B04"),
        pytest.param('{"prompt": null}', "prompt", "string", id="B04 null"),
        pytest.param('{"prompt": ""}', "prompt", "empty", id="B05"),
        pytest.param('{"prompt": " \\n\\t "}', "prompt", "empty", id="B05 spaces"),
        pytest.param('{"prompt": "%s"}' % ("x" * 1_000_000), "prompt", "1000000 characters: at most 10000", id="B06"),
        pytest.param('{"prompt": "x", "width": -1}', "width", "from 64 to 4096 in steps of 8", id="B08 -1"),
        pytest.param('{"prompt": "x", "width": 0}', "width", "from 64 to 4096", id="B08 0"),
        pytest.param('{"prompt": "x", "width": 513}', "width", "in steps of 8", id="B08 513"),
        pytest.param('{"prompt": "x", "height": 100000}', "height", "from 64 to 4096", id="B08 100000"),
        pytest.param('{"prompt": "x", "width": "5l2"}', "width", "whole number", id="B08 text"),
        pytest.param('{"prompt": "x", "cfg": NaN}', "cfg", "finite", id="B10 NaN"),
        pytest.param('{"prompt": "x", "cfg": Infinity}', "cfg", "finite", id="B10 Infinity"),
        pytest.param('{"prompt": "x", "cfg": 1e999}', "cfg", "finite", id="B10 1e999"),
        pytest.param('{"prompt": "x", "batch_size": 10000}', "batch_size", "from 1 to 64", id="B11 batch"),
        pytest.param('{"prompt": "x", "seed": -1}', "seed", "from 0", id="seed -1"),
        pytest.param('{"prompt": "x", "seed": 18446744073709551616}', "seed", "from 0", id="seed 2**64"),
        pytest.param('{"prompt": "x", "stpes": 3}', "stpes", "did you mean `steps`", id="unknown field"),
        pytest.param('{"prompt": "x", "self": 1, "cls": 2}', "self", "Unknown field", id="self"),
        pytest.param('{"prompt": "x", "kind": "video"}', "kind", "image", id="another kind"),
        pytest.param('{"prompt": "x", "project": "../../x"}', "project", "cannot be a project", id="project ../"),
        pytest.param('{"prompt": "x", "project": "CON"}', "project", "cannot be a project", id="project CON"),
    ],
)
def test_a_wrong_field_is_refused_by_name_with_what_it_may_be(rest, fields, field, said):
    error = post(rest, 422, "request_invalid", fields)
    assert error["field"] == field
    assert said in error["message"]


@pytest.mark.usefixtures("nothing_made")
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param('{"prompt": "x", "frames": 10000}', "1024", id="B11 frames"),
        pytest.param('{"prompt": "x", "frames": 9, "seconds": 1}', "not both", id="lengths"),
    ],
)
def test_a_clip_that_cannot_be_is_refused_with_the_limit(rest, fields, said):
    assert said in post(rest, 422, "request_invalid", fields, kind="video")["message"]


# ---- REST: addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job_id", ["3f2a9c1e-5d0b-4c7e-9a61-0f4be2d87c55", "zzz", "%00", "%f0%9f%a6%8a", "x" * 3000], ids=lambda job_id: f"B16 {job_id[:8]}")
def test_an_unknown_job_is_not_found_and_the_home_is_not_named(rest, studio, job_id):
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/files/x.png")):
        error = refusal(rest, 404, "job_not_found", method, f"jobs/{job_id}{path}")
        assert str(studio.home) not in str(error)


@pytest.mark.parametrize(
    ("query", "field", "said"),
    [
        pytest.param("limit=-1", "limit", "from 1 to 200", id="B18 limit -1"),
        pytest.param("limit=1000000000", "limit", "from 1 to 200", id="B18 limit 10**9"),
        pytest.param("limit=abc", "limit", "from 1 to 200", id="B18 limit abc"),
        pytest.param("status=foo", "status", "timed_out", id="B18 status"),
        pytest.param("cursor=..", "cursor", "next_cursor", id="B18 cursor"),
        pytest.param("cursor=" + "9" * 30, "cursor", "next_cursor", id="B18 long cursor"),
        pytest.param("kind=song", "kind", "workflow", id="B18 kind"),
        pytest.param("stauts=done", "stauts", "did you mean `status`", id="B18 unknown"),
    ],
)
def test_a_wrong_query_is_refused_with_what_is_allowed(rest, query, field, said):
    error = refusal(rest, 422, "request_invalid", "GET", f"jobs?{query}")
    assert error["field"] == field
    assert said in error["message"]


# ---- workflows -----------------------------------------------------------------------------------------------------------


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def with_nodes(**nodes):
    return {**GRAPH, **{name.removeprefix("n"): value for name, value in nodes.items()}}


RING = {"n2": node("SaveImage", images=["3", 0], filename_prefix="x"), "n3": node("ImageInvert", image=["4", 0]), "n4": node("ImageInvert", image=["3", 0])}
LOADER = {"n3": node("CheckpointLoaderSimple", ckpt_name="sdxl\\standin_xl.safetensors"), "n4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
          "n5": node("VAEDecode", samples=["4", 0], vae=["3", 2]), "n2": node("SaveImage", images=["5", 0], filename_prefix="x")}  # fmt: skip


@pytest.mark.usefixtures("nothing_made")
@pytest.mark.parametrize(
    ("workflow", "code", "said"),
    [
        pytest.param({"nodes": [{"id": 7, "type": "SaveImage"}], "links": []}, "workflow_invalid", ["node 7", "`images` is missing"], id="B21 converted"),
        pytest.param({"nodes": [], "links": []}, "export_unreadable", ["no workflow", "Export (API)"], id="B21 empty"),
        pytest.param(with_nodes(n3={"inputs": {}}), "export_unreadable", ["node 3 has no class_type"], id="B22"),
        pytest.param(with_nodes(n3=node("NopeA"), n4=node("NopeB")), "node_unknown", ["NopeA, NopeB"], id="B24"),
        pytest.param(with_nodes(n2=node("SaveImage", images=["999", 0], filename_prefix="x")), "workflow_invalid", ["node 2", "999"], id="B25"),
        pytest.param(with_nodes(**RING), "workflow_invalid", ["3 -> 4 -> 3"], id="B27"),
        pytest.param(with_nodes(**LOADER), "model_unknown", ["node 3", "Did you mean standin_xl.safetensors"], id="B35"),
    ],
)
def test_a_workflow_that_no_server_would_take_is_refused_with_its_node(rest, workflow, code, said):
    text = str(post(rest, 422, code, json.dumps({"workflow": workflow}), kind="workflow"))
    assert all(words in text for words in said), text


@pytest.mark.parametrize("prefix", ["../../x", "/abs", "C:\\x", "CON", "x" * 300, "fox 🦊", "a/../../../b", "x\0y"], ids=lambda prefix: f"B36 {prefix[:8]!r}")
def test_a_prefix_leads_to_no_file_outside_the_projects(rest, studio, prefix):
    """Accepted: the names of our files are ours, and the server is told a folder of its own."""
    changed = with_nodes(n2=node("SaveImage", images=["1", 0], filename_prefix=prefix))
    answer = rest.post("/api/anime/generate/workflow", json={"workflow": changed, "project": "prefixes"})
    result = studio.job(answer.json()["job_id"]).wait(60)
    (file,) = result.files
    assert Path(file.path).parent.parent == studio.home / "projects" / "prefixes"
    output = studio.home / "engine" / "output"
    assert all(path.resolve().is_relative_to(output.resolve()) for path in output.rglob("*"))
    assert not (studio.home / "engine" / "x").exists()
    assert not list(Path("/abs").parent.glob("abs*"))


# ---- elsewhere -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ELSEWHERE)
def test_what_is_held_elsewhere_is_held_there(case):
    file, name = ELSEWHERE[case].split("::")
    assert f"def {name}(" in (Path(__file__).parent / file).read_text()
