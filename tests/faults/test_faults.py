"""Cases of the fault rig: each breaks one thing on a real socket, then holds the home against the invariants.

README.md beside this file lists the cases, those that live elsewhere included.
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image, ImageChops

from tests.conftest import RECORDINGS, end_children
from tests.faults.invariants import check
from tests.faults.layer import Frames, Layer, without
from toolkit import JobHandle, Studio
from toolkit.engine.execution import Options
from toolkit.errors import JobFailed, WorkflowInvalid
from toolkit.ledger import Ledger
from toolkit.progress import Progress
from toolkit.requests import WorkflowRequest

SIZE = {"width": 256, "height": 384, "steps": 4}
MISSING = {
    "type": "required_input_missing", "message": "Required input is missing", "details": "filename_prefix", "extra_info": {"input_name": "filename_prefix"},
}  # fmt: skip
FINAL_FRAMES = ("execution_success", "executed")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Layer, Studio]]:
    """One layer and home for all refusals: each costs one request."""
    folder = tmp_path_factory.mktemp("refusing")
    with Layer(folder / "server") as layer, Studio(layer.url, home=folder / "home") as studio:
        yield layer, studio
    end_children(folder / "home")


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def ends_done(layer: Layer, home: Path, *jobs: JobHandle, secrets: tuple[str, ...] = ()) -> None:
    """Every job ends done, and the home holds against the engine's own log."""
    for job in jobs:
        assert job.wait(60).job.status == "done"
    check(home, layer.runs(), [job.id for job in jobs], finished=layer.finished(), secrets=secrets)


def is_post(request: web.Request) -> bool:
    return request.method == "POST" and request.path.endswith("/prompt")


def posts(layer: Layer) -> int:
    return layer.requests.count(("POST", "/api/prompt"))


def kind_of(frame: str | bytes) -> tuple[str, dict[str, Any]]:
    message = {"type": "binary", "data": {}} if isinstance(frame, bytes) else json.loads(frame)
    return message["type"], message["data"]


def said(kind: str, **data: Any) -> str:
    return json.dumps({"type": kind, "data": data})


def plain(color: int, node: str = "SaveImage") -> dict[str, Any]:
    """The smallest workflow that leaves a file: one colour."""
    saving = {"images": ["1", 0], **({"filename_prefix": "x"} if node == "SaveImage" else {})}
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": color}},
        "2": {"class_type": node, "inputs": saving},
    }


# ---- what the server says late, or not at all -----------------------------------------------------------------------------


@pytest.mark.parametrize("late_s", [0.0, 0.2, 2.0, 5.0])
def test_a_history_that_comes_after_success_is_waited_for(layer: Layer, home: Path, late_s: float) -> None:
    """F01: success is sent before the history is written."""
    succeeded: list[float] = []

    def note(frame: str | bytes) -> Frames:
        if kind_of(frame)[0] == "execution_success":
            succeeded.append(time.monotonic())
        return without("executed")(frame)

    async def hold_back(request: web.Request) -> web.StreamResponse | None:
        early = "/history/" in request.path and (not succeeded or time.monotonic() < succeeded[0] + late_s)
        return web.json_response({}) if early else None

    layer.on_frame, layer.on_request = note, hold_back
    with Studio(layer.url, home=home) as studio:
        job = studio.image("a girl", seed=1, **SIZE)
        ends_done(layer, home, job)
        assert job.job.attempt == 1
        assert succeeded


def test_polling_finishes_what_no_final_frame_told_of(layer: Layer, home: Path) -> None:
    """F02: success, the closing `executing` and `executed` are lost; the picture is that of a run without faults."""

    def drop(frame: str | bytes) -> Frames:
        kind, data = kind_of(frame)
        return None if kind in FINAL_FRAMES or (kind == "executing" and data.get("node") is None) else frame

    with Studio(layer.url, home=home) as studio:
        layer.on_frame = drop
        began = time.monotonic()
        deaf = studio.image("a girl", seed=2, **SIZE)
        deaf.wait(30)
        assert time.monotonic() - began < 10.0
        layer.on_frame = lambda frame: frame
        heard = studio.image("a girl", seed=2, reuse=False, **SIZE)
        ends_done(layer, home, deaf, heard)
        first, second = (Image.open(job.job.files[0].path).convert("RGB") for job in (deaf, heard))
        assert ImageChops.difference(first, second).getbbox() is None


def test_a_server_whose_loop_stands_still_is_busy_and_gets_nothing_twice(layer: Layer, home: Path) -> None:
    """F06: 3 s without a pong or an answer, as when a model is loaded."""
    stood: list[float] = []

    async def stand_still(request: web.Request) -> web.StreamResponse | None:
        if is_post(request) and not stood:
            stood.append(time.monotonic())
            threading.Event().wait(3.0)  # the loop itself is blocked, which is the fault
        return None

    layer.on_request = stand_still
    with Studio(layer.url, home=home) as studio:
        jobs = [studio.image("a girl", seed=seed, **SIZE) for seed in (3, 4)]
        ends_done(layer, home, *jobs)
        assert stood
        assert posts(layer) == len(jobs)
        assert [job.job.attempt for job in jobs] == [1, 1]


# ---- what the server says too much of ---------------------------------------------------------------------------------------


def test_frames_of_eight_and_three_megabytes_do_not_close_the_socket(slow_layer: Layer, home: Path) -> None:
    """F08: a preview of 8 MB and an `executed` of 3 MB."""
    sent: list[int] = []

    def swell(frame: str | bytes) -> Frames:
        kind, data = kind_of(frame)
        if kind != "progress" or sent:
            return frame
        label = json.dumps({"prompt_id": data["prompt_id"], "node_id": data["node"], "image_type": "image/jpeg"}).encode()
        preview = struct.pack(">II", 4, len(label)) + label + b"\xff" * (8 * 2**20)
        executed = said("executed", prompt_id=data["prompt_id"], node="99", display_node="99", output={"text": ["x" * (3 * 2**20)]})
        sent.extend((len(preview), len(executed)))
        return [frame, preview, executed]

    slow_layer.on_frame = swell
    with Studio(slow_layer.url, home=home) as studio:
        job = studio.image("a girl", seed=5, **SIZE)
        ends_done(slow_layer, home, job)
        assert sent
        assert len(job.job.files) == 1
        assert slow_layer.requests.count(("GET", "/api/ws")) == 1


def test_events_of_other_prompts_change_nothing_here(slow_layer: Layer, home: Path) -> None:
    """F10: another client's prompt, and progress that names no prompt, between the events of two of ours."""
    foreign = "11111111-2222-3333-4444-555555555555"
    file = {"filename": "foreign.png", "subfolder": "", "type": "output"}
    noise: list[str | bytes] = [
        said("execution_start", prompt_id=foreign, timestamp=1),
        said("progress", value=77, max=99, node="3"),
        said("executing", node=None),
        said("executed", prompt_id=foreign, node="9", display_node="9", output={"images": [file]}),
        said("execution_error", prompt_id=foreign, node_id="3", node_type="KSampler", exception_type="Error", exception_message="not yours"),
        said("execution_interrupted", prompt_id=foreign, node_id="3", node_type="KSampler", executed=[]),
        said("execution_success", prompt_id=foreign, timestamp=2),
    ]
    slow_layer.on_frame = lambda frame: [*noise, frame, *noise]
    seen: list[Progress] = []
    with Studio(slow_layer.url, home=home) as studio:
        jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=8) for seed in (6, 7)]
        for job in jobs:
            job.subscribe(lambda news: seen.append(news) if isinstance(news, Progress) else None)
        ends_done(slow_layer, home, *jobs)
        assert {progress.steps for progress in seen if progress.step is not None} == {8}
        assert [len(job.job.files) for job in jobs] == [1, 1]


# ---- sending ----------------------------------------------------------------------------------------------------------------


def test_a_connection_reset_in_the_middle_of_the_request_costs_no_job_and_doubles_none(layer: Layer, home: Path) -> None:
    """F13: it may have arrived, so the server is asked first; a picture then gets a second attempt under the same job id."""
    resets: list[str] = []

    async def reset(request: web.Request) -> web.StreamResponse | None:
        if is_post(request) and not resets:
            resets.append(request.path)
            await request.content.read(10)
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return None

    layer.on_request = reset
    with Studio(layer.url, home=home) as studio:
        job = studio.image("a girl", seed=8, **SIZE)
        ends_done(layer, home, job)
        assert resets
        assert len(layer.runs()) == 1
        assert len(studio.jobs()) == 1


def test_a_branch_the_server_dropped_is_named_and_the_job_is_only_partly_done(layer: Layer, home: Path) -> None:
    """F15: 200 with `node_errors`, as recorded: the rest of the graph runs."""

    async def drop(request: web.Request) -> web.StreamResponse | None:
        if not is_post(request):
            return None
        answer = json.loads((await layer.forward(request)).body)  # type: ignore[arg-type]
        answer["node_errors"] = {"10": {"errors": [MISSING], "dependent_outputs": ["10"], "class_type": "SaveImage"}}
        return web.json_response(answer)

    layer.on_request = drop
    with Studio(layer.url, home=home) as studio:
        job = studio.image("a girl", seed=9, **SIZE)
        assert job.wait(30).job.status == "done_partial"
        (warning,) = [text for text in job.job.warnings if "refused a part" in text]
        assert all(word in warning for word in ("SaveImage", "node 10", "filename_prefix"))
        check(home, layer.runs(), [job.id], finished=layer.finished())


@pytest.mark.parametrize("alone", [False, True], ids=["waits", "ended-at-once"])
def test_a_strict_request_is_not_kept_where_a_branch_would_be_dropped(slow_layer: Layer, home: Path, alone: bool) -> None:
    """F15, strict: the prompt that was accepted is taken out again by its id; the job is rejected with the reason and has no file."""
    strict: list[str] = []

    async def drop(request: web.Request) -> web.StreamResponse | None:
        if not is_post(request):
            return None
        answer = json.loads((await slow_layer.forward(request)).body)  # type: ignore[arg-type]
        if strict:
            answer["node_errors"] = {"10": {"errors": [MISSING], "dependent_outputs": ["10"], "class_type": "SaveImage"}}
            while alone and answer["prompt_id"] not in slow_layer.finished():  # noqa: ASYNC110 - the engine tells in a file
                await asyncio.sleep(0.01)
        return web.json_response(answer)

    slow_layer.on_request = drop
    with Studio(slow_layer.url, home=home) as studio:
        first = studio.image("a girl", seed=9, width=64, height=64, steps=1 if alone else 30)
        wait_for(lambda: first.job.is_final if alone else first.progress.step is not None)
        strict.append("from here on")
        job = studio.submit(WorkflowRequest(workflow=plain(9), strict=True))
        with pytest.raises(JobFailed, match="SaveImage"):
            job.wait(30)
        assert (job.job.status, job.job.files) == ("rejected", ())
        assert first.wait(30).job.status == "done"  # it was not the one to be stopped
        assert (job.id in slow_layer.runs()) is alone
        check(home, slow_layer.runs(), [first.id, job.id], finished=slow_layer.finished())


def recorded_refusals() -> dict[str, dict[str, Any]]:
    """Every kind of refusal that a real server was heard to give, the first of each."""
    found: dict[str, dict[str, Any]] = {}
    for line in (RECORDINGS / "d_validation_errors.jsonl").read_text().splitlines():
        answer = json.loads(line)
        if answer["kind"] == "http_resp" and answer["status"] == 400 and isinstance(answer["json"], dict):
            errors = [error for node in (answer["json"]["node_errors"] or {}).values() for error in node["errors"]]
            found.setdefault(errors[0]["type"] if errors else answer["json"]["error"]["type"], answer["json"])
    return found


REFUSALS = recorded_refusals()


def test_every_kind_of_refusal_we_know_of_was_recorded() -> None:
    """F16: the list below is not shorter than it looks."""
    assert {
        "invalid_prompt", "prompt_no_outputs", "required_input_missing", "bad_linked_input", "return_type_mismatch", "value_not_in_list",
        "value_bigger_than_max", "value_smaller_than_min", "invalid_input_type", "custom_validation_failed", "exception_during_validation",
    } <= set(REFUSALS)  # fmt: skip


@pytest.mark.parametrize("kind", sorted(REFUSALS))
def test_a_refusal_names_node_class_and_input_and_is_not_sent_again(refusing: tuple[Layer, Studio], kind: str) -> None:
    """F16: each recorded kind ends the job as rejected, with the server's reason in the words of the graph."""
    layer, studio = refusing
    body = REFUSALS[kind]

    async def refuse(request: web.Request) -> web.StreamResponse | None:
        return web.json_response(body, status=400) if is_post(request) else None

    layer.on_request = refuse
    before = posts(layer)
    job = studio.run(plain(1), reuse=False)
    with pytest.raises(JobFailed):
        job.wait(30)
    assert (job.job.status, job.job.failure_kind) == ("rejected", kind)
    assert posts(layer) == before + 1
    for node_id, node in (body["node_errors"] or {}).items():
        name = node["errors"][0]["extra_info"].get("input_name") or ""
        assert all(word in (job.job.error or "") for word in (f"node {node_id}", node["class_type"], name, node["errors"][0]["message"]))
        break
    else:
        assert body["error"]["message"] in (job.job.error or "")
    assert kept_reply(studio.home, job.id) == body
    check(studio.home, layer.runs(), [job.id])


def kept_reply(home: Path, job_id: str) -> Any:
    ledger = Ledger(home)
    try:
        return ledger.reply(job_id)
    finally:
        ledger.close()


def test_what_no_server_can_run_is_refused_at_the_door_and_sent_nowhere(layer: Layer, home: Path) -> None:
    """F16 at accept: REST answers 422 for the same error, in test_service.py."""
    with Studio(layer.url, home=home) as studio:
        with pytest.raises(WorkflowInvalid, match="NoSuchNode"):
            studio.run({"1": {"class_type": "NoSuchNode", "inputs": {}}})
        assert studio.jobs() == []
        assert posts(layer) == 0


# ---- running ----------------------------------------------------------------------------------------------------------------


def test_a_restart_with_a_line_of_twelve_loses_none_doubles_none_and_keeps_its_order(slow_layer: Layer, home: Path) -> None:
    """F19: the one that ran when the server died comes again before those behind it."""
    with Studio(slow_layer.url, home=home) as studio:
        jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=4) for seed in range(12)]
        wait_for(lambda: sum(job.job.is_final for job in jobs) >= 3)
        slow_layer.forget()
        ends_done(slow_layer, home, *jobs)
        assert 1 <= sum(job.job.attempt - 1 for job in jobs) <= 2
        assert finished_in_order(slow_layer, home) == [job.id for job in jobs]


@pytest.mark.parametrize("away_s", [0.0, 3.0])
def test_one_whose_post_never_arrived_lets_those_pass_that_the_restart_lost(slow_layer: Layer, home: Path, away_s: float) -> None:
    """F19, in the instant between: a proxy refuses the third while the server behind it restarts, and the second was lost."""
    posts, back_at = 0, 0.0

    async def restart(request: web.Request) -> web.StreamResponse | None:
        nonlocal posts, back_at
        posts += (request.method, request.path) == ("POST", "/api/prompt")
        if posts == 3 and not back_at:
            back_at = time.monotonic() + away_s
            await slow_layer._restart()
            return web.Response(status=429)
        return web.Response(status=429) if time.monotonic() < back_at else None

    slow_layer.on_request = restart
    with Studio(slow_layer.url, home=home) as studio:
        jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=4) for seed in range(5)]
        ends_done(slow_layer, home, *jobs)
        assert [job.job.attempt for job in jobs] == [1, 2, 1, 1, 1]
        assert finished_in_order(slow_layer, home) == [job.id for job in jobs]


def finished_in_order(layer: Layer, home: Path) -> list[str]:
    """The job ids in the order in which the engine finished a prompt of theirs."""
    ledger = Ledger(home)
    job_of = {attempt.prompt_id: attempt.job_id for _, tries in ledger.history_since(0) for attempt, _, _ in tries}
    ledger.close()
    return [job_of[line["prompt_id"]] for line in layer.journal() if line["event"] == "end" and line["status"] == "success"]


def test_a_job_out_of_memory_says_what_to_try_and_the_next_one_runs(layer: Layer, home: Path) -> None:
    """F21."""
    broken: list[str] = []

    async def fail(request: web.Request) -> web.StreamResponse | None:
        if "/history/" not in request.path or not request.path.endswith(broken[0]):
            return None
        error = {"prompt_id": broken[0], "node_id": "5", "node_type": "KSampler", "executed": [], "exception_message": "Allocation on device 0 would exceed",
                 "exception_type": "torch.OutOfMemoryError", "traceback": ["..."], "timestamp": 2}  # fmt: skip
        status = {"status_str": "error", "completed": False, "messages": [["execution_start", {"timestamp": 1}], ["execution_error", error]]}
        return web.json_response({broken[0]: {"prompt": [0, broken[0], {}, {}, ["7"]], "outputs": {}, "meta": {}, "status": status}})

    with Studio(layer.url, home=home) as studio:
        first = studio.image("a girl", seed=10, **SIZE)
        broken.append(first.id)
        layer.on_request, layer.on_frame = fail, without("executed")
        second = studio.image("a girl", seed=11, **SIZE)
        with pytest.raises(JobFailed, match="smaller"):
            first.wait(30)
        assert (first.job.failure_kind, first.job.failure_node) == ("oom", "KSampler")
        assert "node 5" in (first.job.error or "")
        assert second.wait(30).job.status == "done"
        check(home, layer.runs(), [first.id, second.id])


@pytest.mark.parametrize("asks_jobs", [True, False], ids=["jobs-api", "interrupt-by-id"])
def test_a_cancel_that_comes_too_late_hits_nobody_elses_job(tmp_path: Path, home: Path, asks_jobs: bool) -> None:
    """F28: ours ends between the check and the stop, and another client's prompt runs when it arrives."""
    foreign = "11111111-2222-3333-4444-555555555555"
    held: list[str] = []
    mine: list[str] = []

    async def hold(request: web.Request) -> web.StreamResponse | None:
        if request.method == "POST" and request.path.endswith(("/interrupt", "/cancel")) and not held:
            await request.read()
            held.append(request.path)
            deadline = time.monotonic() + 20.0
            while not (mine[0] in layer.finished() and foreign in layer.runs()) and time.monotonic() < deadline:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            held.append("let go")
        return None

    options = Options(0.05, 0.0, 0.0, True, 0.0, jobs_api=asks_jobs)
    with Layer(tmp_path / "server", options) as layer, Studio(layer.url, home=home) as studio:
        layer.on_request = hold
        job = studio.image("a girl", seed=20, width=64, height=64, steps=40)
        mine.append(job.id)
        wait_for(lambda: job.progress.step is not None)
        graph = studio._ledger.graph(job.id)
        sampler = next(node for node in graph.values() if "seed" in node["inputs"])
        sampler["inputs"]["seed"] = 21
        layer.call(post_as_another(layer, graph, foreign))
        job.cancel()
        wait_for(lambda: foreign in layer.finished())
        assert held == [f"/api/jobs/{job.id}/cancel" if asks_jobs else "/api/interrupt", "let go"]
        wait_for(lambda: job.job.is_final)
        assert job.job.status == "done"  # what really happened
        check(home, [run for run in layer.runs() if run != foreign], [job.id], finished=layer.finished())


async def post_as_another(layer: Layer, graph: dict[str, Any], prompt_id: str) -> None:
    body = {"prompt": graph, "prompt_id": prompt_id, "client_id": "somebody else"}
    async with layer._session.post(f"{layer._engine_url}/api/prompt", json=body) as reply:
        assert reply.status == 200


# ---- files ------------------------------------------------------------------------------------------------------------------


def test_a_job_that_the_server_took_from_its_cache_has_a_copy_of_its_own(layer: Layer, home: Path) -> None:
    """F23: the same graph twice; a third time with the file gone from the server."""
    graph = plain(0x336699, "PreviewImage")
    with Studio(layer.url, home=home) as studio:
        first = studio.run(graph)
        first.wait(30)
        second = studio.run(graph, reuse=False)
        ends_done(layer, home, first, second)
        (made,), (copied,) = first.job.files, second.job.files
        assert (made.cached, copied.cached) == (False, True)
        assert made.path != copied.path
        assert made.sha256 == copied.sha256

        async def gone(request: web.Request) -> web.StreamResponse | None:
            return web.Response(status=404) if request.path.endswith("/view") else None

        layer.on_request = gone
        third = studio.run(graph, reuse=False)
        with pytest.raises(JobFailed, match="gone"):
            third.wait(30)
        assert third.job.failure_kind == "outputs_gone"
        check(home, layer.runs(), [first.id, second.id, third.id], finished=layer.finished())


def test_a_preview_is_fetched_and_marked_temporary(layer: Layer, home: Path) -> None:
    """F25: what a preview node leaves is wiped when the server starts; ours stays."""
    with Studio(layer.url, home=home) as studio:
        job = studio.run(plain(0x123456, "PreviewImage"))
        job.wait(30)
        layer.forget()
        ends_done(layer, home, job)
        assert [file.temporary for file in job.job.files] == [True]


def test_two_servers_that_give_one_name_to_different_pictures_fill_two_files(tmp_path: Path, home: Path) -> None:
    """F26: both call it ComfyUI_00001_.png."""
    with (
        Layer(tmp_path / "one") as one, Layer(tmp_path / "two") as two,
        Studio(one.url, home=home) as first_studio, Studio(two.url, home=home) as second_studio,
    ):  # fmt: skip
        one.on_request, two.on_request = one_name(one), one_name(two)
        one.on_frame = two.on_frame = without("executed")
        first = first_studio.image("a girl at the sea", seed=12, **SIZE)
        second = second_studio.image("a robot in the rain", seed=13, **SIZE)
        for job in (first, second):
            assert job.wait(30).job.status == "done"
        check(home, one.runs() + two.runs(), [first.id, second.id], finished=one.finished() | two.finished())
        (picture,), (other,) = first.job.files, second.job.files
        assert picture.sha256 != other.sha256
        assert ("GET", "/api/view") in one.requests
        assert ("GET", "/api/view") in two.requests


def one_name(layer: Layer) -> Callable[[web.Request], Any]:
    """A rule that calls whatever a history names ComfyUI_00001_.png."""
    real: dict[str, str] = {}

    async def rename(request: web.Request) -> web.StreamResponse | None:
        if "/history/" in request.path:
            history = json.loads((await layer.forward(request)).body)  # type: ignore[arg-type]
            for entry in history.values():
                for file in (file for node in entry["outputs"].values() for file in node.get("images", [])):
                    real["query"] = f"filename={file['filename']}&subfolder={file['subfolder']}&type={file['type']}"
                    file |= {"filename": "ComfyUI_00001_.png", "subfolder": ""}
            return web.json_response(history)
        if request.path.endswith("/view"):
            assert request.query["filename"] == "ComfyUI_00001_.png"
            return await layer.forward(request, f"/api/view?{real['query']}")
        return None

    return rename


def test_a_picture_of_one_colour_is_kept_with_a_warning(layer: Layer, home: Path) -> None:
    """F32: black, and another colour."""
    with Studio(layer.url, home=home) as studio:
        jobs = [studio.run(plain(color)) for color in (0, 0x8899AA)]
        ends_done(layer, home, *jobs)
        for job in jobs:
            assert any("blank_output" in warning for warning in job.job.warnings)
            assert job.job.files[0].blank is True


# ---- a gate before the server -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "sentence"), [(401, "wants a user and password"), (403, "refuses us"), (302, "sends us elsewhere")])
def test_a_gate_that_closes_holds_the_jobs_says_why_and_keeps_the_password(layer: Layer, home: Path, status: int, sentence: str) -> None:
    """F35: jobs stay open while it is shut and end well once it is lifted; the password in the address stands nowhere."""
    shut = threading.Event()

    async def gate(request: web.Request) -> web.StreamResponse | None:
        if "Authorization" not in request.headers:
            return web.Response(status=401)
        return web.Response(status=status, headers={"Location": "/login"} if status == 302 else {}) if shut.is_set() else None

    layer.on_request = gate
    secret = "correct-horse-battery"
    with Studio(layer.url.replace("//", f"//ann:{secret}@"), home=home) as studio:
        before = studio.image("a girl", seed=14, **SIZE)
        before.wait(30)
        shut.set()
        held = [studio.image("a girl", seed=seed, **SIZE) for seed in (15, 16)]
        wait_for(lambda: sentence in (held[0].progress.stalled or ""))
        assert not any(job.job.is_final for job in held)
        assert secret not in repr(studio)
        shut.clear()
        ends_done(layer, home, before, *held, secrets=(secret, f"ann:{secret}"))
        assert sentence in "".join(log.read_text() for log in (home / "logs").glob("feeder-*.log"))


def test_a_proxy_that_blocks_the_websocket_is_named_in_the_log_and_jobs_end_by_asking(layer: Layer, home: Path) -> None:
    """F35: the upgrade is answered with 400."""

    async def block(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=400) if request.path.endswith("/ws") else None

    layer.on_request = block
    with Studio(layer.url, home=home) as studio:
        ends_done(layer, home, *[studio.image("a girl", seed=seed, **SIZE) for seed in (17, 18)])
        assert not layer.sockets
        assert "refuses a websocket" in "".join(log.read_text() for log in (home / "logs").glob("feeder-*.log"))


@pytest.mark.parametrize("look", ["<html>a page for everything</html>", '{"jobs": []}'], ids=["a page for everything", "gone after the look"])
def test_a_server_that_does_not_know_its_jobs_route_is_asked_by_queue_and_history(slow_layer: Layer, home: Path, look: str) -> None:
    """F35: a proxy that answers 200 to any address, and a route that is gone: neither says that a job was removed."""

    async def no_jobs(request: web.Request) -> web.StreamResponse | None:
        if request.path == "/api/ws":
            return web.Response(status=400)
        if request.path.startswith("/api/jobs"):
            return web.Response(text=look) if request.path == "/api/jobs" else web.Response(status=404)
        return None

    slow_layer.on_request = no_jobs
    with Studio(slow_layer.url, home=home) as studio:
        job = studio.image("a girl", seed=1, **{**SIZE, "steps": 60})
        ends_done(slow_layer, home, job)
        assert job.job.attempt == 1
    assert ("GET", "/api/jobs") in slow_layer.requests
    assert ("GET", "/api/queue") in slow_layer.requests
