"""protocol: every frame, queue and history a real ComfyUI 0.3.64 sent is understood, and nothing it could send can break us."""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolkit.protocol import (
    FEATURE_FLAGS,
    Ended,
    Executed,
    Executing,
    ExecutionCached,
    ExecutionStart,
    NodeError,
    NodeProgress,
    NodeState,
    Preview,
    ProgressState,
    Rejection,
    ServerOutput,
    Status,
    Unknown,
    parse_history,
    parse_job,
    parse_message,
    parse_outputs,
    parse_queue,
    parse_rejection,
)

RECORDINGS = Path(__file__).with_name("recordings")
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.jsonl"))
relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault


@cache
def recorded(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())


def binary(line: dict[str, Any]) -> bytes:
    """The beginning of a binary frame; metadata is put back behind its recorded length."""
    start = base64.b64decode(line["b64"])
    if "meta" not in line:
        return start
    about = json.dumps(line["meta"]).encode()
    (length,) = struct.unpack_from(">I", start, 4)
    assert length == len(about)
    return start[:8] + about + b"\xff\xd8\xff\xe0"


def answers(name: str, path: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Requests and their answers for one path, where the recording kept the body."""
    asked: list[dict[str, Any]] = []
    for line in recorded(name):
        if line["kind"] == "http_req":
            asked.append(line)
        elif line["kind"] == "http_resp":
            question = next(found for found in asked if (found["method"], found["path"]) == (line["method"], line["path"]))
            asked.remove(question)
            if line["path"].startswith(path) and isinstance(line.get("json"), dict):
                yield question, line


def message(kind: str, **data: Any) -> str:
    return json.dumps({"type": kind, "data": data})


# ---- the recordings -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_frame_is_understood(name):
    for line in recorded(name):
        if line["kind"] == "ws":
            event = parse_message(json.dumps(line["json"]))
            assert not isinstance(event, Unknown) or line["json"]["type"] == "feature_flags", (line, event)
        elif line["kind"] == "ws_bin":
            event = parse_message(binary(line))
            assert isinstance(event, Preview), line
            assert (event.media_type, event.data[:2]) == ("image/jpeg", b"\xff\xd8")


def test_the_recordings_hold_every_kind_of_event():
    frames = [line["json"] for name in NAMES for line in recorded(name) if line["kind"] == "ws"]
    kinds = Counter(type(parse_message(json.dumps(frame))).__name__ for frame in frames)
    assert set(kinds) == {
        "Status", "ExecutionStart", "ExecutionCached", "Executing", "NodeProgress", "ProgressState", "Executed", "Ended", "Unknown",
    }  # fmt: skip
    assert sum(kinds.values()) > 2500


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_end_is_the_last_word_of_history_too(name):
    ends = {}
    for line in recorded(name):
        if line["kind"] == "ws" and isinstance(event := parse_message(json.dumps(line["json"])), Ended):
            ends[event.prompt_id] = event
    for _, answer in answers(name, "/history"):
        for prompt_id in answer["json"]:
            entry = parse_history(answer["json"], prompt_id)
            if prompt_id in ends:
                assert (entry.how, entry.ended_ms) == (ends[prompt_id].how, ends[prompt_id].timestamp_ms)
                assert entry.failure == ends[prompt_id].failure


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_history_has_the_files_that_were_announced(name):
    shown: dict[str, set[ServerOutput]] = {}
    for line in recorded(name):
        event = parse_message(json.dumps(line["json"])) if line["kind"] == "ws" else None
        if isinstance(event, ExecutionStart):
            shown[event.prompt_id] = set()  # an id that is used again overwrites its history
        elif isinstance(event, Executed):
            shown.setdefault(event.prompt_id, set()).update(event.outputs)
    for _, answer in answers(name, "/history"):
        for prompt_id, raw in answer["json"].items():
            entry = parse_history(answer["json"], prompt_id)
            assert entry.number == raw["prompt"][0]
            assert list(entry.asked) == raw["prompt"][4]
            assert entry.started_ms <= entry.ended_ms
            assert shown.get(prompt_id, set()) <= set(entry.outputs)


def test_a_prompt_without_history_is_none():
    (answer,) = [answer for _, answer in answers("k_endpoints", "/history/does-not-exist")]
    assert parse_history(answer["json"], "does-not-exist") is None


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_queue_is_read_in_the_order_it_runs(name):
    for _, answer in answers(name, "/queue"):
        queue = parse_queue(answer["json"])
        assert [entry.number for entry in queue.pending] == sorted(item[0] for item in answer["json"]["queue_pending"])
        assert {entry.prompt_id for entry in queue.running} == {item[1] for item in answer["json"]["queue_running"]}
        for place, entry in enumerate(queue.pending):
            assert queue.place(entry.prompt_id) == place
            assert not queue.runs(entry.prompt_id)
        for entry in queue.running:
            assert queue.runs(entry.prompt_id)
            assert queue.place(entry.prompt_id) is None


def test_the_recorded_queue_was_not_empty_and_knows_its_clients():
    queues = [parse_queue(answer["json"]) for name in NAMES for _, answer in answers(name, "/queue")]
    assert max(len(queue.pending) for queue in queues) >= 3
    assert {entry.client_id for queue in queues for entry in (*queue.running, *queue.pending)} >= {"clientA"}


@pytest.mark.parametrize("name", ["d_validation_errors", "m_prompt_options"])
def test_every_recorded_refusal_names_what_the_server_named(name):
    refused = [answer for _, answer in answers(name, "/prompt") if answer["status"] == 400]
    assert refused
    for answer in refused:
        rejection = parse_rejection(answer["json"])
        assert rejection.kind == answer["json"]["error"]["type"]
        assert rejection.sentence
        named = {(node_id, error["type"]) for node_id, node in answer["json"]["node_errors"].items() for error in node["errors"]}
        details = answer["json"]["error"]["details"]
        named |= {("3", rejection.kind)} if "Node ID '#3'" in details else set()  # a class it lacks: node_errors is empty then
        assert {(error.node_id, error.kind) for error in rejection.errors} == named


def test_a_partial_refusal_inside_an_acceptance_is_read():
    (answer,) = [answer for asked, answer in answers("d_validation_errors", "/prompt") if asked["note"] == "two_outputs_one_bad"]
    assert answer["status"] == 200
    assert [str(error) for error in parse_rejection(answer["json"]).errors] == ["SaveImage (node 10): Required input is missing - filename_prefix"]


def test_a_refusal_shows_no_traceback():
    for _, answer in answers("d_validation_errors", "/prompt"):
        if answer["status"] == 400:
            assert "\n" not in parse_rejection(answer["json"]).sentence
            assert "Traceback" not in parse_rejection(answer["json"]).sentence


# ---- single frames --------------------------------------------------------------------------------------------------------------------


def test_a_new_socket_is_greeted_with_its_id_and_the_current_node():
    greetings = [line["json"] for line in recorded("l4_ws_connects_after_submit") if line["kind"] == "ws"][:2]
    assert parse_message(json.dumps(greetings[0])) == Status(1, "LATE")
    assert parse_message(json.dumps(greetings[1])) == Executing("3", None)


def test_the_end_of_a_prompt_is_executing_nothing():
    assert parse_message(message("executing", node=None, prompt_id="p")) == Executing(None, "p")


def test_an_expanded_node_counts_as_the_one_that_was_sent():
    assert parse_message(message("executing", node="5.0.0.3", display_node="5", prompt_id="p")) == Executing("5", "p")
    states = {"5.0.0.3": {"value": 1, "max": 2, "state": "running", "display_node_id": "5"}, "6.0": {"value": 0, "max": 1, "real_node_id": "6"}}
    assert parse_message(message("progress_state", prompt_id="p", nodes=states)) == ProgressState(
        "p", (NodeState("5.0.0.3", "5", 1.0, 2.0, "running"), NodeState("6.0", "6", 0.0, 1.0, "running"))
    )
    shown = parse_message(message("executed", node="5.0", display_node="5", prompt_id="p", output={"text": ["hi"]}))
    assert shown == Executed("p", "5", (ServerOutput("5", "text", 0, text="hi"),))


def test_numbers_as_ids_become_words():
    assert parse_message(message("executing", node=5, prompt_id=12345)) == Executing("5", "12345")
    assert parse_message(message("progress", node=3, prompt_id=1, value=1, max=8)) == NodeProgress("1", "3", 1.0, 8.0)
    assert parse_message(message("execution_cached", nodes=[4, "5"], prompt_id="p", timestamp=1)) == ExecutionCached("p", ("4", "5"))


def test_progress_of_a_job_without_client_may_name_nobody():
    assert parse_message(message("progress", value=1, max=8)) == NodeProgress(None, None, 1.0, 8.0)


def test_a_blocked_branch_does_not_end_the_prompt():
    blocked = message("execution_error", prompt_id="p", node_id="3", node_type="Gate", exception_type="ExecutionBlocked", exception_message="no", traceback=[])
    assert parse_message(blocked) == Unknown("execution_blocked")


def test_an_error_without_details_is_still_an_end():
    ended = parse_message(message("execution_error", prompt_id="p"))
    assert (ended.how, ended.failure.exception, ended.failure.message, ended.failure.node_id, ended.failure.traceback) == ("error", "Error", "", None, ())


def test_a_recorded_failure_says_where_and_why():
    (entry,) = [parse_history(answer["json"], next(iter(answer["json"]))) for _, answer in answers("e_runtime_error", "/history")][:1]
    assert (entry.failure.node_id, entry.failure.class_type) == ("2", "SaveImage")
    assert entry.failure.traceback
    assert "outside the output folder" in entry.failure.message


def test_a_strange_timestamp_is_unknown_and_no_error():
    assert parse_message(message("execution_start", prompt_id="p", timestamp="soon")) == ExecutionStart("p", None)
    assert parse_message(message("execution_success", prompt_id="p", timestamp=True)) == Ended("p", "success", None)


@pytest.mark.parametrize(
    "frame",
    [
        "", "null", "[]", "5", '"x"', "{}", '{"type": "status"}', '{"type": "status", "data": null}', '{"type": "executing", "data": []}', "\ud800",
        '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": Infinity}}}}',
        '{"type": "progress", "data": {"value": NaN, "max": 2}}', '{"type": "progress", "data": {"value": 1, "max": Infinity}}',
        '{"type": "progress", "data": {"value": ' + "9" * 400 + ', "max": 2}}', '{"type": "progress", "data": {"value": ' + "9" * 5000 + ', "max": 2}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"1": {"value": NaN, "max": 1}}}}',
        '{"type": "progress", "data": {"node": ["3"], "value": 1, "max": 2}}', '{"type": "executing", "data": {"node": "3", "prompt_id": {}}}',
        '{"type": "execution_start", "data": {"prompt_id": null}}', '{"type": "execution_start", "data": {"prompt_id": true}}', "[" * 100_000,
        b"", b"\0", b"\0\0\0\1", b"\0\0\0\4\0\0\0\xff{", b"\0\0\0\4\0\0\0\2[]", b"\0\0\0\4\0\0\0\1\xff", b'\0\0\0\4\0\0\0\x10{"prompt_id":[]}x',
    ],
    ids=lambda frame: repr(frame)[:40],
)  # fmt: skip
def test_a_broken_frame_is_malformed_and_raises_nothing(frame):
    event = parse_message(frame)
    assert isinstance(event, Unknown)
    assert event.what.startswith("malformed")


def test_what_other_nodes_say_is_unknown_by_its_name():
    assert parse_message(message("crystools.monitor", cpu=3)) == Unknown("crystools.monitor")
    assert parse_message(struct.pack(">II", 3, 1) + b"5hello") == Unknown("binary 3")
    assert parse_message(struct.pack(">I", 99)) == Unknown("binary 99")


def test_previews_carry_their_prompt_only_when_flags_were_agreed():
    assert json.loads(FEATURE_FLAGS)["data"] == {"supports_preview_metadata": True}
    assert parse_message(struct.pack(">II", 1, 2) + b"png") == Preview(b"png", "image/png")
    assert parse_message(struct.pack(">II", 1, 7) + b"?") == Preview(b"?", "application/octet-stream")
    about = json.dumps({"node_id": "5.0", "display_node_id": "5", "prompt_id": "p", "image_type": "image/png"}).encode()
    assert parse_message(struct.pack(">II", 4, len(about)) + about + b"png") == Preview(b"png", "image/png", "p", "5")


FIELDS = ["prompt_id", "node", "nodes", "value", "max", "status", "exec_info", "queue_remaining", "output", "images", "filename", "display_node", "timestamp"]
KINDS = ["status", "execution_start", "execution_cached", "executing", "progress", "progress_state", "executed", "execution_error", "execution_success"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@settings(relaxed, max_examples=150)
@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), json_values) | json_values)
def test_no_json_frame_raises(kind, data):
    event = parse_message(json.dumps({"type": kind, "data": data}))
    hash(event)  # ids, nodes and outputs are plain: whoever routes by them cannot stumble


@relaxed
@given(st.binary() | st.builds(lambda event, length, rest: struct.pack(">II", event, length) + rest, st.integers(0, 5), st.integers(0, 60), st.binary()))
def test_no_binary_frame_raises(frame):
    hash(parse_message(frame))


@relaxed
@given(st.text())
def test_no_text_raises(frame):
    assert parse_message(frame) is not None


# ---- outputs --------------------------------------------------------------------------------------------------------------------------


def test_the_recorded_clips_hide_among_the_images():
    ((_, answer),) = answers("i_video_outputs", "/history")
    entry = parse_history(answer["json"], next(iter(answer["json"])))
    names = {output.filename.rsplit(".", 1)[1]: output.key for output in entry.outputs if output.filename}
    assert names == {"webm": "images", "mp4": "images", "webp": "images", "png": "images", "latent": "latents"}
    assert [output.text for output in entry.outputs if output.text] != []
    assert {output.folder for output in entry.outputs if output.is_temporary} == {"temp"}


def test_files_are_found_under_any_key_and_numbered_within_their_node():
    output = {
        "images": [{"filename": "a.png", "subfolder": "x", "type": "temp"}, {"filename": ""}, 7, {"subfolder": "y"}],
        "animated": [True], "gifs": [{"filename": "b.mp4"}], "audio": {"filename": "c.flac"}, "string": "said", "text": ["one"], "note": ["kept to itself"],
    }  # fmt: skip
    assert list(parse_outputs("9", output)) == [
        ServerOutput("9", "images", 0, "a.png", "x", "temp"),
        ServerOutput("9", "gifs", 1, "b.mp4"),
        ServerOutput("9", "audio", 2, "c.flac"),
        ServerOutput("9", "string", 3, text="said"),
        ServerOutput("9", "text", 4, text="one"),
    ]


@pytest.mark.parametrize("output", [None, [], "x", 5, {}])
def test_a_node_may_show_nothing(output):
    assert list(parse_outputs("9", output)) == []


# ---- history, queue, refusal ----------------------------------------------------------------------------------------------------------


def entry_of(*messages: tuple[str, dict[str, Any]], status_str: str = "success") -> Any:
    return parse_history({"p": {"status": {"status_str": status_str, "messages": list(messages)}}}, "p")


def test_the_last_message_decides_and_not_the_status_word():
    start, error = ("execution_start", {"timestamp": 1}), ("execution_error", {"timestamp": 2, "node_id": "3", "exception_message": "no"})
    assert entry_of(start, error, ("execution_success", {"timestamp": 3}), status_str="error").how == "success"
    assert entry_of(start, ("execution_success", {"timestamp": 2}), error).how == "error"
    assert entry_of(start, ("execution_interrupted", {"timestamp": 5}), status_str="error").how == "interrupted"
    assert (entry_of(start, error).started_ms, entry_of(start, error).ended_ms, entry_of(start, error).failure.message) == (1, 2, "no")


def test_without_messages_the_status_word_decides():
    assert entry_of(status_str="success").how == "success"
    assert entry_of(status_str="error").how == "error"
    assert entry_of(status_str="error").failure.message == ""
    bare = parse_history({"p": {}}, "p")
    assert (bare.how, bare.outputs, bare.number, bare.asked, bare.ended_ms) == ("error", (), None, (), None)


def test_the_cached_nodes_of_a_history_are_kept():
    assert entry_of(("execution_cached", {"nodes": [4, "5"]}), ("execution_success", {})).cached == ("4", "5")


@pytest.mark.parametrize(
    "data", [None, [], "x", {"p": 5}, {"p": {"status": {"messages": [1]}}}, {"p": {"prompt": ["x"]}}, {"p": {"outputs": 5}}, {"p": {"prompt": [10**400]}}]
)
def test_what_is_no_history_is_a_value_error(data):
    with pytest.raises(ValueError):
        parse_history(data, "p")


@pytest.mark.parametrize("data", [None, [], {}, {"queue_running": []}, *({"queue_running": [], "queue_pending": [item]} for item in ([1], ["x", "p"], 5))])
def test_what_is_no_queue_is_a_value_error(data):
    with pytest.raises(ValueError):
        parse_queue(data)


def test_a_short_queue_entry_is_enough():
    queue = parse_queue({"queue_running": [[3, "run", {}, None]], "queue_pending": [[2.0, "b"], [2, "a"], [-1, "first"]]})
    assert [entry.prompt_id for entry in queue.pending] == ["first", "a", "b"]
    assert queue.running[0].client_id is None


@relaxed
@given(json_values)
@example({"node_errors": {"3": {"errors": ["x"]}}})
@example({"node_errors": {"3": {"errors": 5}, "4": 6}})
@example({"error": {"type": None, "message": None, "details": None}})
def test_any_refusal_is_a_sentence(data):
    assert isinstance(parse_rejection(data).sentence, str)
    assert isinstance(parse_rejection({"error": data, "node_errors": data}).sentence, str)


def test_a_refusal_in_words_is_quoted():
    assert parse_rejection("500 Internal Server Error") == Rejection("unknown", "500 Internal Server Error", ())
    assert parse_rejection({"error": "invalid"}).sentence == "invalid"
    assert parse_rejection({}).sentence == "the server refused the prompt"
    assert parse_rejection({"error": {"type": "t", "message": "m", "details": "d"}}).sentence == "m: d"


def test_of_several_errors_the_first_is_said_and_the_others_counted():
    about = {"input_name": "steps", "received_value": 0}
    errors = [{"type": "a", "message": "first", "details": "x\ntraceback"}, {"type": "b", "message": "second", "extra_info": about}]
    rejection = parse_rejection({"error": {"type": "t", "message": "m"}, "node_errors": {3: {"class_type": "KSampler", "errors": errors}}})
    assert rejection.sentence == "KSampler (node 3): first - x (and 1 more)"
    assert rejection.errors[1] == NodeError("3", "KSampler", "b", "second", "", about)
    assert str(rejection.errors[1]) == "KSampler (node 3): second - steps"


def test_a_model_named_by_nothing_but_its_file_is_an_output() -> None:
    (found,) = parse_outputs("9", {"result": ["mesh\\fox_00001_.GLB", "a word", None]})
    assert (found.filename, found.subfolder, found.text) == ("fox_00001_.GLB", "mesh", None)


@pytest.mark.parametrize("status", ["pending", "in_progress"])
def test_a_job_of_a_newer_server_waits_or_runs(status: str) -> None:
    where = parse_job({"id": "a", "status": status, "priority": 3})
    assert (where.waits, where.runs, where.history) == (status == "pending", status == "in_progress", None)
    assert not where.is_absent


def test_an_ended_job_of_a_newer_server_is_read_like_its_history() -> None:
    status = {"status_str": "success", "completed": True, "messages": [["execution_start", {"timestamp": 1}], ["execution_success", {"timestamp": 5}]]}
    outputs = {"9": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}
    found = parse_job({"id": "a", "status": "completed", "priority": 3, "outputs": outputs, "execution_status": status})
    assert found.history == parse_history({"a": {"prompt": [3], "outputs": outputs, "status": status}}, "a")


@pytest.mark.parametrize("answer", [None, [], {}, {"id": "a"}, {"id": "a", "status": "completed"}, {"id": "a", "status": "failed", "priority": "x"}])
def test_what_is_no_job_is_refused(answer: Any) -> None:
    with pytest.raises(ValueError, match=r"not a job|could not convert"):
        parse_job(answer)
