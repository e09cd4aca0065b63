"""What is sent, sent again, held back or taken back: newer servers, strict graphs, deaf sockets, paused servers, files that moved away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import end_children
from tests.faults.invariants import check
from tests.faults.layer import Layer, without
from tests.test_feeder import check_files, wait_for
from toolkit import Studio, Workflow
from toolkit.engine.execution import Options
from toolkit.errors import JobCancelled, JobFailed, RequestInvalid
from toolkit.ledger import Ledger

SIZE = {"width": 128, "height": 128, "steps": 2}
NEWER = Options(0.05, 0.0, 0.0, True, 0.0, jobs_api=True)
OWN = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "mine"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "broken"}},
}


@pytest.fixture(params=["older", "newer"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Layer]:
    """A server without /api/jobs, and one with it."""
    options = NEWER if request.param == "newer" else Options(0.05, 0.0, 0.0, True, 0.0)
    with Layer(tmp_path / "server", options) as layer:
        yield layer


@pytest.fixture
def studio(layer: Layer, home: Path) -> Iterator[Studio]:
    with Studio(layer.url, home=home) as studio:
        yield studio
    end_children(home)


def attempts_of(home: Path, job_id: str) -> list[tuple[str, str]]:
    ledger = Ledger(home)
    try:
        return [(attempt.reason, attempt.status) for job, tries in ledger.history_since(0) if job.id == job_id for attempt, _, _ in tries]
    finally:
        ledger.close()


def test_a_waiting_and_a_running_job_are_cancelled_and_the_third_is_left_alone(either: Layer, home: Path) -> None:
    with Studio(either.url, home=home) as studio:
        running, waiting, third = (studio.image("a girl", seed=seed, width=128, height=128, steps=40) for seed in range(3))
        wait_for(lambda: running.job.status == "running" and waiting.job.status == "submitted")
        for handle in (waiting, running):  # the other way round the waiting one would run for a moment
            handle.cancel()
            with pytest.raises(JobCancelled):
                handle.wait(20)
        assert third.wait(30).job.status == "done"
    newer = any(path.startswith("/api/jobs/") and path.endswith("/cancel") for _, path in either.requests)
    assert newer == any(path == f"/api/jobs/{running.id}" for _, path in either.requests)
    assert set(either.runs()) == {running.id, third.id}
    check(home, either.runs(), [running.id, waiting.id, third.id], finished=either.finished())


def test_a_newer_server_is_asked_one_question_and_every_end_is_read_from_its_answer(tmp_path: Path, home: Path) -> None:
    async def deaf(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=400) if request.path.endswith("/ws") else None

    with Layer(tmp_path / "server", NEWER) as layer, Studio(layer.url, home=home) as studio:
        layer.on_request = deaf
        handles = [studio.image("a girl", seed=1, **SIZE), studio.video("a girl", seed=1, frames=5, fps=16, width=256, height=256, steps=2)]
        for handle in handles:
            assert handle.wait(60).job.status == "done"
            check_files(handle.job)
        assert [path for _, path in layer.requests if "/history" in path or path == "/api/queue"] == []
        check(home, layer.runs(), [handle.id for handle in handles], finished=layer.finished())


def test_a_branch_that_would_be_dropped_stops_a_strict_graph(tmp_path: Path, home: Path) -> None:
    with Layer(tmp_path / "server", Options(0.2, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=home) as studio:
        busy = studio.image("a girl", seed=1, width=128, height=128, steps=10)
        wait_for(lambda: busy.job.status == "running")

        async def partly(request: web.Request) -> web.StreamResponse | None:
            if request.path != "/api/prompt" or (await request.json())["prompt_id"] == busy.id:
                return None
            reply = await layer.forward(request)
            errors = {"3": {"class_type": "SaveImage", "errors": [{"type": "bad_linked_input", "message": "Bad linked input", "details": "images"}]}}
            return web.json_response({**json.loads(reply.body), "node_errors": errors})  # type: ignore[arg-type]

        layer.on_request = partly
        own = Workflow.load({node: spec for node, spec in OWN.items() if node != "3"})
        strict = studio.run(own, strict=True)
        with pytest.raises(JobFailed, match="would leave out a part") as refused:
            strict.wait(30)
        assert (strict.job.status, strict.job.failure_kind) == ("rejected", "dropped_branch")
        assert "SaveImage" in str(refused.value)
        assert busy.wait(30).job.status == "done"
        assert strict.id not in layer.runs()


def test_a_socket_that_brings_nothing_is_replaced_under_a_new_client_id(layer: Layer, studio: Studio) -> None:
    ids: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse | None:
        ids.extend([request.query["clientId"]] if request.path.endswith("/ws") else [])
        return None

    layer.on_request, layer.on_frame = note, lambda frame: None
    assert studio.image("a girl", seed=1, **SIZE).wait(30).job.status == "done"
    wait_for(lambda: len(set(ids)) > 1)
    layer.on_frame = lambda frame: frame
    wait_for(lambda: len(layer.sockets) == 1)
    heard = studio.image("a girl", seed=2, **SIZE)
    assert heard.wait(30).job.timings.timed_by == "events"  # type: ignore[union-attr]


def test_a_paused_server_gets_nothing_and_says_so_until_it_is_resumed(layer: Layer, studio: Studio, home: Path) -> None:
    assert studio.image("a girl", seed=1, **SIZE).wait(30).job.status == "done"
    studio.pause(free_memory=True, note="I paint tonight")
    held = studio.image("a girl", seed=2, **SIZE)
    wait_for(lambda: ("POST", "/api/free") in layer.requests)
    wait_for(lambda: studio.servers()[0].state == "paused")
    assert held.progress.stalled == "Paused by the owner: I paint tonight"
    assert held.job.status == "queued"
    assert [path for path in layer.requests if path == ("POST", "/api/free")] == [("POST", "/api/free")]
    with pytest.raises(RequestInvalid, match="not a server of this studio"):
        studio.pause("http://127.0.0.1:1")
    assert studio.resume() == (1, 0)
    assert held.wait(30).job.status == "done"
    check(home, layer.runs(), [held.id], finished=layer.finished())


def test_files_that_moved_away_are_made_once_more_under_another_name(layer: Layer, studio: Studio, home: Path, tmp_path: Path) -> None:
    """F23: the server answers from its cache with a file that is no longer there."""
    own = Workflow.load({node: spec for node, spec in OWN.items() if node != "3"})
    gone = []

    async def moved(request: web.Request) -> web.StreamResponse | None:
        if request.path != "/api/view" or gone:
            return None
        gone.append(request.query["filename"])
        return web.Response(status=404)

    layer.on_request, layer.on_frame = moved, without("executed")
    cached = frames_that_say_cached(layer)
    job = studio.run(own)
    assert job.wait(30).job.status == "done"
    assert cached
    assert attempts_of(home, job.id) == [("first", "failed"), ("output_missing", "done")]
    assert gone
    check(home, layer.runs(), [job.id])


def frames_that_say_cached(layer: Layer) -> list[str]:
    """Let history say that the saving node was reused."""
    said: list[str] = []
    before = layer.on_request

    async def rule(request: web.Request) -> web.StreamResponse | None:
        if "/history/" not in request.path:
            return await before(request)
        reply = await layer.forward(request)
        data = json.loads(reply.body)  # type: ignore[arg-type]
        for entry in data.values():
            for kind, message in entry["status"]["messages"]:
                if kind == "execution_cached":
                    message["nodes"] = ["1", "2"]
                    said.append(kind)
        return web.json_response(data)

    layer.on_request = rule
    return said


def test_a_prompt_that_nobody_remembers_is_found_by_the_names_of_its_files(layer: Layer, studio: Studio, home: Path) -> None:
    """F33: history cleared before anybody read it, and no event heard."""
    hidden = True

    async def forgets(request: web.Request) -> web.StreamResponse | None:
        if request.path.endswith("/ws"):
            return web.Response(status=400)
        return web.json_response({}) if hidden and "/history" in request.path else None

    layer.on_request = forgets
    job = studio.image("a girl", seed=1, batch_size=2, **SIZE)
    assert job.wait(30).job.status == "done"
    assert len(job.job.files) == 2
    assert layer.runs() == [job.id]
    check(home, layer.runs(), [job.id], finished=layer.finished())
