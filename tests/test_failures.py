"""failures: every refusal and every exception a server is known to give becomes a sentence with a place, a cause and a next step."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import RECORDINGS, end_children
from tests.faults.invariants import check
from tests.faults.layer import Layer, without
from toolkit import Studio
from toolkit.errors import JobFailed
from toolkit.failures import failure_words, nearest, refusal_words, silence_words, status_words, without_secrets
from toolkit.graph import NodeCatalog
from toolkit.protocol import Failure, parse_rejection
from toolkit.shapes import job_json

CATALOG = NodeCatalog(json.loads((RECORDINGS / "object_info-0.3.64.json").read_text()))
URL = "http://h:8188"


def recorded() -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The note, the graph and the answer of every recorded refusal."""
    found, asked = [], {}
    for line in (json.loads(text) for text in (RECORDINGS / "d_validation_errors.jsonl").read_text().splitlines()):
        if line["kind"] == "http_req":
            asked = line
        elif line["kind"] == "http_resp" and isinstance(line.get("json"), dict) and line["path"].endswith("prompt") and line["status"] == 400:
            body = asked.get("json")
            graph = body.get("prompt") if isinstance(body, dict) else None
            found.append((asked.get("note") or str(len(found)), graph if isinstance(graph, dict) else {}, line["json"]))
    return found


def fault(kind: str, details: str = "", node: str = "3", class_type: str = "KSampler", message: str = "No", **about: Any) -> Any:
    error = {"type": kind, "message": message, "details": details, "extra_info": about}
    return parse_rejection({"error": {"type": "x", "message": "m"}, "node_errors": {node: {"class_type": class_type, "errors": [error]}}})


def titled(title: str, class_type: str = "KSampler", **inputs: Any) -> dict[str, Any]:
    return {"3": {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}}


# ---- refused ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("note", "graph", "answer"), recorded(), ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("catalog", [CATALOG, None], ids=["catalog", "no catalog"])
def test_every_recorded_refusal_has_a_place_a_cause_and_a_next_step(note: str, graph: Any, answer: Any, catalog: NodeCatalog | None) -> None:
    words = refusal_words(parse_rejection(answer), graph, catalog)
    assert words
    for word in words:
        assert word.hint
        assert "Traceback" not in str(word)
        assert "\n" not in str(word)
        assert "/srv" not in str(word)
    for node_id, node in answer["node_errors"].items():
        assert any(f"node {node_id})" in word.message and node["class_type"] in word.message for word in words)


def test_the_recordings_hold_a_refusal_of_every_kind() -> None:
    kinds = {word.kind for _, graph, answer in recorded() for word in refusal_words(parse_rejection(answer), graph, CATALOG)}
    assert len(recorded()) >= 18
    assert kinds >= {"value_not_in_list", "value_bigger_than_max", "return_type_mismatch", "exception_during_validation", "custom_validation_failed"}


def test_a_value_that_is_not_in_the_list_is_shown_with_what_is_and_the_nearest() -> None:
    graph = titled("My sampler", sampler_name="Euler-Ancestral")
    rejection = fault(
        "value_not_in_list", "sampler_name: 'x' not in (list of length 42)", input_name="sampler_name", input_config=None, received_value="Euler-Ancestral"
    )
    (word,) = refusal_words(rejection, graph, CATALOG)
    assert "My sampler (KSampler, node 3)" in word.message
    assert "`sampler_name` is 'Euler-Ancestral'; it takes one of euler, " in word.message
    assert "... (" in word.message
    assert word.hint == "Did you mean euler_ancestral?"
    (blind,) = refusal_words(rejection, graph)
    assert "one of 42 values" in blind.message


def test_a_model_the_server_lacks_has_its_folder_and_one_with_other_separators_is_found() -> None:
    lacking = fault(
        "value_not_in_list", "", "4", "CheckpointLoaderSimple", input_name="ckpt_name", input_config=[["a.safetensors"], {}], received_value="zzz.ckpt"
    )
    assert "models/checkpoints" in str(refusal_words(lacking, {})[0].hint)
    config = [["sdxl/foo.safetensors", "bar.safetensors"], {}]
    apart = fault("value_not_in_list", "", "4", "CheckpointLoaderSimple", input_name="ckpt_name", input_config=config, received_value="SDXL\\Foo.safetensors")
    assert refusal_words(apart, {})[0].hint == "Did you mean sdxl/foo.safetensors?"


@pytest.mark.parametrize(("kind", "value", "bound"), [("value_smaller_than_min", 1, "16"), ("value_bigger_than_max", 99999, "16384")])
def test_a_number_out_of_range_is_told_its_range_and_the_nearest_bound(kind: str, value: int, bound: str) -> None:
    config = ["INT", {"min": 16, "max": 16384, "step": 8}]
    (word,) = refusal_words(fault(kind, input_name="width", input_config=config, received_value=value), {})
    assert f"`width` is {value}; it takes INT, 16 to 16384 in steps of 8" in word.message
    assert word.hint == f"Set `width` to {bound}."


def test_a_class_the_server_lacks_is_named_by_old_and_new_servers_and_so_is_the_nearest() -> None:
    graph = titled("Sampler", "KSamplr")
    old = {"error": {"type": "invalid_prompt", "message": "node KSamplr does not exist.", "details": "Node ID '#3'"}, "node_errors": {}}
    about = {"node_id": "3", "class_type": "KSamplr", "node_title": "Sampler"}
    new = {"error": {"type": "missing_node_type", "message": "Node 'KSamplr' not found.", "details": "", "extra_info": about}, "node_errors": {}}
    for answer in (old, new):
        (word,) = refusal_words(parse_rejection(answer), graph, CATALOG)
        assert ("Sampler (KSamplr, node 3)" in word.message, word.node, word.hint) == (True, "KSamplr", "Did you mean KSampler?")
    assert "node pack" in str(refusal_words(parse_rejection(old), graph)[0].hint)


def test_a_cycle_the_server_only_stumbles_over_is_found_here() -> None:
    invert = {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}}
    graph = {
        "1": invert,
        "2": {**invert, "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    answer = {"error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": ""}, "node_errors": {}}
    (word,) = refusal_words(parse_rejection(answer), graph, CATALOG)
    assert "cycle: " in str(word.hint)


def test_every_fault_is_kept_in_the_order_the_server_gave() -> None:
    errors = [{"type": kind, "message": kind, "details": "", "extra_info": {}} for kind in ("required_input_missing", "bad_linked_input")]
    answer = {"error": {"type": "x", "message": "m"}, "node_errors": {"3": {"class_type": "A", "errors": errors}, "4": {"class_type": "B", "errors": errors}}}
    assert [(word.node, word.kind) for word in refusal_words(parse_rejection(answer), {})] == [
        ("A", "required_input_missing"), ("A", "bad_linked_input"), ("B", "required_input_missing"), ("B", "bad_linked_input"),
    ]  # fmt: skip


@pytest.mark.parametrize("data", [None, "text", {}, {"error": "x"}, {"node_errors": {"3": {"errors": [{}]}}}])
def test_an_answer_of_any_shape_is_a_sentence(data: Any) -> None:
    assert all(word.message.endswith(".") and word.hint for word in refusal_words(parse_rejection(data), {}))


# ---- failed while it ran ----------------------------------------------------------------------------------------------------


def raised(exception: str, message: str, *trace: str, node: str = "3", class_type: str = "KSampler") -> Failure:
    return Failure(node, class_type, exception, message, trace)


def test_out_of_memory_names_what_filled_it_and_something_smaller() -> None:
    failure = raised("torch.OutOfMemoryError", "Allocation on device 0 would exceed allowed memory. Tried to allocate 2.50 GiB")
    words = failure_words(failure, titled("Sampler"), {"width": 832, "height": 1216, "batch_size": 4, "frames": 1})
    assert (words.kind, words.node) == ("oom", "KSampler")
    assert "Sampler (KSampler, node 3): OutOfMemoryError: Allocation" in words.message
    assert all(part in str(words.hint) for part in ("832x1216", "a batch of 4", "a batch of 2", "608x896"))
    clip = failure_words(failure, {}, {"width": 832, "height": 480, "batch_size": 1, "frames": 49})
    assert all(part in str(clip.hint) for part in ("49 frames", "25 frames or 608x352"))
    assert "smaller" in str(failure_words(failure, {}, {}).hint)


@pytest.mark.parametrize(
    ("exception", "message", "inputs", "parts"),
    [
        ("FileNotFoundError", "[Errno 2] No such file or directory: '/srv/models/loras/ink.safetensors'", {}, ("ink.safetensors", "models/loras")),
        ("safetensors_rust.SafetensorError", "Error while deserializing header: incomplete metadata", {"ckpt_name": "half.safetensors"},
         ("half.safetensors", "models/checkpoints")),
    ],
)  # fmt: skip
def test_a_missing_or_broken_model_has_its_file_and_its_folder(exception: str, message: str, inputs: dict[str, Any], parts: tuple[str, ...]) -> None:
    words = failure_words(raised(exception, message), titled("Load", "Loader", **inputs))
    assert words.kind == "missing_model"
    assert all(part in str(words.hint) for part in parts)


@pytest.mark.parametrize(
    ("exception", "message", "kind"),
    [
        ("OSError", "[Errno 28] No space left on device", "server_disk_full"),
        ("ValueError", "A tensor with NaNs was produced in VAE", "nan"),
        ("comfy.model_management.InterruptProcessingException", "", "interrupted"),
        ("FileNotFoundError", "No such file or directory: '/srv/input/cat.png'", "node_error"),
        ("RuntimeError", "the financial banana", "node_error"),
    ],
)
def test_an_exception_has_its_kind(exception: str, message: str, kind: str) -> None:
    words = failure_words(raised(exception, message), {})
    assert words.kind == kind
    assert words.hint or message == "the financial banana"


def test_an_exception_out_of_a_node_pack_names_the_pack() -> None:
    trace = (
        '  File "/srv/execution.py", line 3, in run\n',
        '  File "/srv/custom_nodes/ComfyUI-Magic/nodes/x.py", line 9, in go\n',
        '  File "/lib/torch/nn.py", line 1\n',
    )
    words = failure_words(raised("KeyError", "'spell'", *trace), {})
    assert (words.kind, "ComfyUI-Magic" in str(words.hint)) == ("custom_node", True)
    catalog = NodeCatalog({"Wand": {"python_module": "custom_nodes.rgthree-comfy"}})
    assert "rgthree-comfy" in str(failure_words(raised("KeyError", "x", class_type="Wand"), {}, {}, catalog).hint)
    assert failure_words(raised("torch.OutOfMemoryError", "", *trace), {}).kind == "oom"


def test_a_failure_nobody_explains_is_unknown_and_an_expanded_node_has_the_title_that_was_sent() -> None:
    assert failure_words(None, {}).kind == "unknown"
    assert "Upscale twice (KSampler, node 3.0.1)" in failure_words(raised("E", "x", node="3.0.1"), titled("Upscale twice", "Group")).message


# ---- no answer --------------------------------------------------------------------------------------------------------------


def test_each_status_and_each_silence_has_a_sentence_of_its_own() -> None:
    said = [status_words(status, URL) for status in (302, 401, 403, 404, 407, 413, 429, 500, 502, 503, 504)]
    kinds = ["ClientSSLError", "ClientConnectorDNSError", "ClientConnectorError", "ConnectionTimeoutError", "SocketTimeoutError", "ClientResponseError"]
    said += [silence_words([kind], "", URL) for kind in kinds]
    said += [silence_words(["ClientConnectorCertificateError"], text, URL) for text in ("has expired", "not yet valid", "Hostname mismatch", "self-signed")]
    assert len({message for message, _ in said}) == len(said)
    assert all(URL in message and hint for message, hint in said)
    assert silence_words(["Odd"], "", URL) == (f"{URL} does not answer (Odd).", None)


def test_a_redirect_says_where_to_without_what_is_secret_there() -> None:
    message, _ = status_words(302, URL, "https://ann:pw@login.example/x?token=abc")
    assert "https://login.example/x." in message
    assert "pw" not in message
    assert "abc" not in message


# ---- secrets ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "GET http://ann:hunter22@h/x failed",
        "Authorization: Basic hunter22",
        "authorization='Bearer hunter22'",
        "?api_key=hunter22&x=1",
        '{"token": "hunter22"}',
    ],
)
def test_what_looks_like_credentials_is_replaced(text: str) -> None:
    assert "hunter22" not in without_secrets(text)
    assert "***" in without_secrets(text)


def test_known_secrets_are_replaced_wherever_they_stand_and_nothing_else_is() -> None:
    assert without_secrets({"a": ["x hunter22 y", 3, None]}, ["hunter22"]) == {"a": ["x *** y", 3, None]}
    assert without_secrets("KSampler (node 3): the sampler a:b@c failed at 12:30", ["a"]) == "KSampler (node 3): the sampler a:b@c failed at 12:30"


PASSWORD, KEY = "correct-horse-battery", "k3y-of-the-gate"
BASIC = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}, "_meta": {"title": "Keep it"}},
}


@pytest.mark.parametrize("way", ["raised", "refused", "dropped"])
def test_what_a_server_quotes_of_our_address_and_headers_stands_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """I8: an exception, a refusal and a dropped branch that echo the request they came with; job, ledger, log and REST's account are searched."""
    quoted = f"http://ann:{PASSWORD}@gate failed, sent Authorization: Basic {BASIC} and X-Key {KEY}"
    told: list[str] = []
    monkeypatch.setenv("COMFYUI_HEADERS", json.dumps({"X-Key": KEY}))
    error = {"type": "exception_during_validation", "message": quoted, "details": quoted, "extra_info": {"traceback": [quoted]}}
    errors = {"2": {"errors": [error, error], "dependent_outputs": ["2"], "class_type": "SaveImage"}}

    async def echo(request: web.Request) -> web.StreamResponse | None:
        is_post = request.method == "POST" and request.path.endswith("/prompt")
        if is_post and way == "refused":
            told.append(way)
            return web.json_response({"error": {"type": "x", "message": quoted, "details": quoted}, "node_errors": errors}, status=400)
        if is_post and way == "dropped":
            told.append(way)
            return web.json_response({**json.loads((await layer.forward(request)).body), "node_errors": errors})  # type: ignore[arg-type]
        if way == "raised" and ("/history/" in request.path or "/jobs/" in request.path):
            prompt_id = request.path.rsplit("/", 1)[1]
            data = {"prompt_id": prompt_id, "node_id": "2", "node_type": "SaveImage", "exception_message": quoted, "exception_type": "E", "traceback": [quoted]}
            status = {"status_str": "error", "completed": False, "messages": [["execution_error", data]]}
            told.append(way)
            if "/jobs/" in request.path:
                return web.json_response({"id": prompt_id, "status": "failed", "priority": 0, "execution_status": status, "outputs": {}})
            return web.json_response({prompt_id: {"prompt": [0, prompt_id, {}, {}, ["2"]], "outputs": {}, "status": status}})
        return None

    home = tmp_path / "home"
    with Layer(tmp_path / "server") as layer, Studio(layer.url.replace("//", f"//ann:{PASSWORD}@"), home=home) as studio:
        layer.on_request, layer.on_frame = echo, without("executed")
        handle = studio.run(GRAPH)
        if way == "dropped":
            assert handle.wait(30).job.status == "done_partial"
        else:
            with pytest.raises(JobFailed, match=r"Keep it \(SaveImage, node 2\)"):
                handle.wait(30)
        job = handle.job
        said = f"{job!r} {handle!r} {studio!r}"
        assert told
        if way == "refused":  # every fault is kept, and REST tells the first with its next step
            error_shown = job_json(job, handle.progress)["error"]
            assert (error_shown["code"], error_shown["message"], bool(error_shown["hint"])) == ("exception_during_validation", job.error, True)
            assert len(job.warnings) == 1
        assert "gate failed, sent" in said  # it was quoted, and only that taken out
        assert "***" in said
        assert not [secret for secret in (PASSWORD, KEY, BASIC) if secret in said]
        check(home, layer.runs(), [job.id], secrets=(PASSWORD, KEY, BASIC))
        end_children(home)


def test_the_nearest_of_nothing_is_nothing() -> None:
    assert nearest("x", []) is None
    assert nearest("", ["a"]) is None
    assert nearest("dpm++ 2m", ["euler", "dpmpp_2m"]) == "dpmpp_2m"
