"""requests: what is accepted has one JSON shape and comes back equal; what is not is refused in one sentence that names the field."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from toolkit.errors import ExportUnreadable, RequestInvalid
from toolkit.exported import Workflow
from toolkit.metadata import in_png
from toolkit.requests import EXACT_IN_JAVASCRIPT, ImageRequest, Request, VideoRequest, WorkflowRequest, parse_request, request_of

# ---- strategies -----------------------------------------------------------------------------------------------------------------------

text = st.text(st.characters(codec="utf-8"), max_size=30)
prompts = text.filter(str.strip)
seeds = st.integers(0, 2**64 - 1)
sides = st.integers(8, 512).map(lambda eighth: eighth * 8)
seconds = st.floats(0.1, 60)


def some(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


shared = {
    "project": st.just("default") | st.from_regex(r"[a-z0-9][\w\-]{0,20}", fullmatch=True).filter(lambda name: len(name) > 4),
    "labels": st.dictionaries(text, text, max_size=3),
    "timeout_s": some(st.floats(0.001, 7 * 86400)),
}
drawn = {
    "prompt": prompts, "negative_prompt": some(text), "model": some(text), "preset": st.sampled_from(["draft", "standard", "high"]), "width": some(sides),
    "height": some(sides), "steps": some(st.integers(1, 200)), "cfg": some(st.floats(0, 100)), "sampler": some(text), "scheduler": some(text),
    "seed": seeds,
}  # fmt: skip
images = st.fixed_dictionaries({}, optional={**shared, "quality_tags": st.booleans(), "aspect": some(text), "batch_size": st.integers(1, 64)}).flatmap(
    lambda more: st.fixed_dictionaries(drawn).map(lambda fields: ImageRequest(**fields, **more))
)
lengths = st.one_of(st.just({}), st.fixed_dictionaries({"seconds": seconds}), st.fixed_dictionaries({"frames": st.integers(1, 1024)}))
videos = st.builds(lambda fields, more, length: VideoRequest(**fields, **more, **length), st.fixed_dictionaries(drawn), st.fixed_dictionaries(shared), lengths)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
workflows = st.builds(
    lambda nodes, more: WorkflowRequest(workflow=nodes, **more),
    st.dictionaries(text, st.fixed_dictionaries({"class_type": text, "inputs": st.dictionaries(text, json_values, max_size=3)}), max_size=4),
    st.fixed_dictionaries(shared),
)

relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault


# ---- one JSON shape -------------------------------------------------------------------------------------------------------------------


@relaxed
@given(st.one_of(images, videos, workflows))
@example(ImageRequest(prompt="a", seed=2**64 - 1))
@example(ImageRequest(prompt="a", seed=EXACT_IN_JAVASCRIPT + 1))
@example(WorkflowRequest(workflow={"1": {"class_type": "X", "inputs": {"a": None, "b": [None, {"c": None}]}}}))
def test_a_request_comes_back_equal_from_its_json(request):
    stored = json.dumps(request.as_json(), allow_nan=False)
    again = parse_request(json.loads(stored))
    assert again == request
    assert type(again) is type(request)
    assert again.as_json() == request.as_json()


@relaxed
@given(seeds)
def test_every_seed_is_exact_in_javascript(seed):
    stored = ImageRequest(prompt="a", seed=seed).as_json()["seed"]
    assert int(stored) == seed
    assert isinstance(stored, str) or float(stored) == seed


def test_fields_that_say_nothing_are_left_out_of_the_json():
    assert ImageRequest(prompt="a", seed=1).as_json() == {
        "project": "default", "labels": {}, "kind": "image", "prompt": "a", "preset": "standard", "quality_tags": True, "seed": 1, "batch_size": 1,
    }  # fmt: skip


def test_a_seed_is_drawn_when_the_request_is_made_and_stays():
    requests = [ImageRequest(prompt="a") for _ in range(50)]
    assert len({request.seed for request in requests}) > 45
    assert all(0 <= request.seed < 2**32 for request in requests)
    assert all(parse_request(request.as_json()).seed == request.seed for request in requests)
    assert VideoRequest(prompt="a").seed != VideoRequest(prompt="a").seed


def test_a_workflow_object_is_taken_as_it_is():
    graph = {"1": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}}}
    assert WorkflowRequest(workflow=Workflow.load(graph)) == WorkflowRequest(workflow=graph)
    drawn = {"nodes": [{"id": 1, "flags": None}], "links": []}
    request = WorkflowRequest(workflow=Workflow(graph, drawn))
    assert (request.workflow, request.ui, request) == (graph, drawn, parse_request(request.as_json()))
    assert WorkflowRequest(workflow=Workflow(graph, drawn), ui=None).ui is None


# ---- changing -------------------------------------------------------------------------------------------------------------------------


def test_but_changes_what_it_names_and_nothing_else():
    request = ImageRequest(prompt="a", seed=7, labels={"probe": "before"}, width=512)
    changed = request.but(cfg=4, prompt="b")
    assert (changed.cfg, changed.prompt) == (4, "b")
    assert changed.but(cfg=None, prompt="a") == request


def test_but_validates():
    request = ImageRequest(prompt="a")
    with pytest.raises(RequestInvalid, match=r"`steps` is 0"):
        request.but(steps=0)
    with pytest.raises(RequestInvalid, match=r"Unknown field `sample`: did you mean `sampler`\?"):
        request.but(sample="euler")


def test_but_without_a_seed_draws_another():
    request = ImageRequest(prompt="a", seed=2**40)
    assert request.but(seed=None).seed < 2**32


def test_a_request_cannot_be_changed_in_place():
    request = ImageRequest(prompt="a")
    with pytest.raises(ValidationError, match="frozen"):
        request.prompt = "b"


# ---- refusing -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "field", "sentence"),
    [
        (ImageRequest, {}, "prompt", "`prompt` is missing."),
        (ImageRequest, {"prompt": " \n"}, "prompt", "The prompt is empty."),
        (ImageRequest, {"prompt": 5}, "prompt", "`prompt` is 5: input should be a valid string."),
        (ImageRequest, {"prompt": "a", "promt": "b"}, "promt", "Unknown field `promt`: did you mean `prompt`?"),
        (ImageRequest, {"prompt": "a", "steps": 0}, "steps", "`steps` is 0: it must be a whole number from 1 to 200."),
        (ImageRequest, {"prompt": "a", "steps": 2.5}, "steps", "`steps` is 2.5: it must be a whole number from 1 to 200."),
        (ImageRequest, {"prompt": "a", "width": 100}, "width", "`width` is 100: it must be a whole number from 64 to 4096 in steps of 8."),
        (ImageRequest, {"prompt": "a", "cfg": math.nan}, "cfg", "`cfg` is nan: it must be a finite number from 0 to 100."),
        (ImageRequest, {"prompt": "a", "cfg": math.inf}, "cfg", "`cfg` is inf: it must be a finite number from 0 to 100."),
        (ImageRequest, {"prompt": "a", "seed": -1}, "seed", "`seed` is -1: it must be a whole number from 0 to 18446744073709551615."),
        (ImageRequest, {"prompt": "a", "seed": 2**64}, "seed", f"`seed` is {2**64}: it must be a whole number from 0 to 18446744073709551615."),
        (ImageRequest, {"prompt": "a", "batch_size": 65}, "batch_size", "`batch_size` is 65: it must be a whole number from 1 to 64."),
        (ImageRequest, {"prompt": "a", "timeout_s": 0}, "timeout_s", "`timeout_s` is 0: it must be a finite number above 0, at most 604800."),
        (ImageRequest, {"prompt": "a", "preset": "best"}, "preset", "`preset` is 'best': input should be 'draft', 'standard' or 'high'."),
        (ImageRequest, {"prompt": "a", "labels": {"x": 1}}, "labels.x", "`labels.x` is 1: input should be a valid string."),
        (ImageRequest, {"prompt": "a", "kind": "video"}, "kind", "`kind` is 'video': input should be 'image'."),
        (VideoRequest, {"prompt": "a", "seconds": 2, "frames": 9}, None, "Give seconds or frames, not both."),
        (VideoRequest, {"prompt": "a", "seconds": 61}, "seconds", "`seconds` is 61: it must be a finite number above 0, at most 60."),
        (WorkflowRequest, {"workflow": 5}, "workflow", "`workflow` is 5: input should be a valid dictionary."),
    ],
    ids=lambda value: str(value)[:30] if not isinstance(value, type) else value.__name__,
)
def test_a_refusal_names_the_field_and_what_it_may_be(kind, fields, field, sentence):
    with pytest.raises(RequestInvalid) as refused:
        kind(**fields)
    assert str(refused.value) == sentence
    assert refused.value.field == field


def test_a_typo_is_named_before_what_it_hides():
    with pytest.raises(RequestInvalid, match="did you mean `steps`"):
        ImageRequest(prompt="a", stps=30, width=100)


def test_a_field_like_no_other_gets_the_list():
    with pytest.raises(RequestInvalid, match=r"Unknown field `zzzzzz`; known are aspect, batch_size, cfg"):
        ImageRequest(prompt="a", zzzzzz=1)


def test_a_long_value_is_shown_shortened():
    with pytest.raises(RequestInvalid) as refused:
        ImageRequest(prompt="x" * 10_001)
    assert str(refused.value) == "`prompt` has 10001 characters: at most 10000 are allowed."
    with pytest.raises(RequestInvalid, match=r"^`workflow` is 'x{50,60}\.\.\.: input should be a valid dictionary\.$"):
        WorkflowRequest(workflow="x" * 10_001)


@pytest.mark.parametrize("fields", [{}, {"kind": "poem"}, {"kind": []}, {"kind": None}])
def test_json_of_no_known_kind_is_refused(fields):
    with pytest.raises(RequestInvalid, match="`kind` must be image, video or workflow") as refused:
        parse_request(fields)
    assert refused.value.field == "kind"


# ---- projects -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("..", "../../etc", "a/b", "a\\b", "/abs", "C:", "", " a", ".hidden", "a.", "a ", "a\n", "a\x00b", "-rf"),
        *("nul", "NUL.txt", "com1", "Lpt9.x", "x" * 65, "𠀀" * 64),
    ],
)
def test_a_project_that_is_no_folder_name_is_refused(name):
    with pytest.raises(RequestInvalid, match="cannot be a project") as refused:
        ImageRequest(prompt="a", project=name)
    assert refused.value.field == "project"


@pytest.mark.parametrize("name", ["fox", "Füchse im Schnee", "2026-11 v1.2", "狐", "a" * 64, "console"])
def test_a_project_in_words_is_taken(name):
    assert ImageRequest(prompt="a", project=name).project == name


@relaxed
@given(st.text(st.sampled_from("a.B/\\ -_:\x00\n狐𠀀~*?" + "conul1"), max_size=70) | st.text(max_size=70))
def test_an_accepted_project_is_one_part_of_a_path_everywhere(name):
    try:
        project = Request(project=name).project
    except RequestInvalid:
        return
    for path in (PurePosixPath("root") / project, PureWindowsPath("root") / project):
        assert path.parent.name == "root"
        assert path.name == project
    assert len(project.encode()) <= 255


# ---- out of a file --------------------------------------------------------------------------------------------------------------------


async def noted(request: Any) -> bytes:
    async def png() -> AsyncIterator[bytes]:
        yield (Path(__file__).with_name("recordings") / "files-0.3.64" / "SaveImage.png").read_bytes()

    notes = {"toolkit": json.dumps({"request": request})}
    return b"".join([piece async for piece in in_png(png(), notes)])


async def test_a_request_comes_out_of_a_file_as_it_went_in(tmp_path):
    request = ImageRequest(prompt="狐\0", seed=2**64 - 1, labels={"a": "b"})
    (tmp_path / "a.png").write_bytes(await noted(request.as_json()))
    assert request_of(tmp_path / "a.png") == request_of(str(tmp_path / "a.png")) == request_of(await noted(request.as_json())) == request


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        (5, "The data holds no request of this toolkit. Workflow.load reads its graph."),
        ({"kind": "song"}, "The data holds a request that cannot be read: `kind` must be image, video or workflow."),
        ({"kind": "image", "prompt": "a", "mood": 1}, "The data holds a request that cannot be read: Unknown field `mood`"),
        ({"kind": "image", "prompt": "a", "project": "../x"}, "The data holds a request that cannot be read: '../x' cannot be a project"),
    ],
)
async def test_a_file_without_a_request_of_ours_says_so(held, sentence):
    with pytest.raises(ExportUnreadable) as refused:
        request_of(await noted(held))
    assert str(refused.value).startswith(sentence)
