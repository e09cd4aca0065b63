"""The feeder against an engine behind a scripted layer: any one source must be able to finish a job alone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import children_of, end_children, is_alive
from tests.faults.layer import Layer, without
from toolkit import ImageRequest, JobHandle, Studio
from toolkit.engine.execution import Options
from toolkit.errors import JobCancelled, JobFailed, JobTimeout, ModelUnknown, ServerUnreachable
from toolkit.feeder.clerk import UNHURRIED_S, Clerk
from toolkit.feeder.feeder import Feeder
from toolkit.feeder.run import Run
from toolkit.jobs import Job
from toolkit.ledger import Claim, Ledger, NewJob
from toolkit.pace import SLOW_S
from toolkit.progress import Progress
from toolkit.settings import ServerAddress

SIZE = {"width": 256, "height": 384, "steps": 4}
TERMINAL = ("execution_success", "execution_error", "execution_interrupted", "executed")


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[Layer]:
    with Layer(tmp_path / "server") as layer:
        yield layer


@pytest.fixture
def behind(layer: Layer, tmp_path: Path) -> Iterator[Studio]:
    """A studio whose server is the layer."""
    with Studio(layer.url, home=tmp_path / "home") as studio:
        yield studio
    end_children(tmp_path / "home")


def check_files(job: Job) -> None:
    assert job.files
    for file in job.files:
        data = Path(file.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size_bytes, file.sha256)
        sidecar = json.loads(Path(file.path).with_suffix(".json").read_text())
        assert (sidecar["sha256"], sidecar["job_id"]) == (file.sha256, job.id)
    assert not list(Path(job.files[0].path).parent.glob(f".*{job.id[:8]}*part"))


def is_terminal(frame: str | bytes) -> bool:
    if isinstance(frame, bytes):
        return False
    message = json.loads(frame)
    return message["type"] in TERMINAL or (message["type"] == "executing" and message["data"].get("node") is None)


def test_polling_alone_finishes_picture_and_clip_when_the_socket_is_refused(layer: Layer, behind: Studio) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=400) if request.path.endswith("/ws") else None

    layer.on_request = refuse
    picture = behind.image("a girl at the sea", seed=1, **SIZE)
    clip = behind.video("a girl at the sea", seed=1, frames=5, fps=16, width=256, height=256, steps=2)
    for handle in (picture, clip):
        assert handle.wait(60).job.status == "done"
        check_files(handle.job)
    assert clip.job.files[0].frames == 5
    assert picture.job.timings is not None
    assert picture.job.timings.timed_by == "history"


def test_jobs_end_when_every_terminal_frame_is_dropped(layer: Layer, behind: Studio) -> None:
    layer.on_frame = lambda frame: None if is_terminal(frame) else frame
    picture = behind.image("a girl at the sea", seed=2, **SIZE)
    clip = behind.video("a girl at the sea", seed=2, frames=5, fps=16, width=256, height=256, steps=2)
    for handle in (picture, clip):
        assert handle.wait(60).job.status == "done"
        check_files(handle.job)


def test_the_socket_alone_brings_progress_in_order(tmp_path: Path) -> None:
    with Layer(tmp_path / "server", Options(0.05, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        seen: list[Progress] = []
        handle = studio.image("a girl", seed=3, width=256, height=384, steps=20)
        handle.subscribe(lambda news: seen.append(news) if isinstance(news, Progress) else None)
        handle.wait(60)
        fractions = [progress.fraction for progress in seen]
        assert fractions == sorted(fractions)
        assert len(set(fractions)) >= 15
        assert max(fractions) < 1.0
        assert handle.progress.fraction == 1.0
        assert any(progress.ends_in is not None and progress.step is not None for progress in seen)
        assert layer.requests.count(("GET", "/api/queue")) <= 2  # with events flowing nobody polls
    end_children(tmp_path / "home")


def test_a_job_is_posted_once_when_the_reply_is_lost(layer: Layer, behind: Studio) -> None:
    """F12: the server accepted, we never heard; the id is looked up before anything is sent again."""
    lost = threading.Event()

    async def lose(request: web.Request) -> web.StreamResponse | None:
        if request.method == "POST" and request.path.endswith("/prompt") and not lost.is_set():
            lost.set()
            async with layer._session.post(layer._engine_url + request.path, data=await request.read(), headers={"Content-Type": "application/json"}):
                pass
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return None

    layer.on_request = lose
    handle = behind.image("a girl", seed=4, **SIZE)
    assert handle.wait(60).job.status == "done"
    assert layer.runs() == [handle.id]
    assert handle.job.attempt == 1


def test_a_forgetful_server_makes_a_second_attempt_of_a_picture(tmp_path: Path) -> None:
    """F18: an instance that has neither queue nor history of an acknowledged job has lost it."""
    with Layer(tmp_path / "server", Options(0.3, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        handle = studio.image("a girl", seed=5, width=256, height=384, steps=8)
        wait_for(lambda: handle.progress.step == 2)
        layer.forget()
        result = handle.wait(60)
        assert result.job.status == "done"
        assert result.job.attempt == 2
        check_files(result.job)
    end_children(tmp_path / "home")


def wait_for(condition: object, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_a_cut_socket_in_the_middle_does_not_send_again(tmp_path: Path) -> None:
    """F04."""
    with Layer(tmp_path / "server", Options(0.1, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        handle = studio.image("a girl", seed=6, width=256, height=384, steps=8)
        wait_for(lambda: handle.progress.step == 3)
        layer.cut()
        assert handle.wait(60).job.status == "done"
        assert layer.runs() == [handle.id]
    end_children(tmp_path / "home")


def test_cancel_takes_a_waiting_job_out_and_stops_a_running_one_by_id(tmp_path: Path) -> None:
    with Layer(tmp_path / "server", Options(0.2, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        jobs = [studio.image("a girl", seed=seed, width=256, height=384, steps=10) for seed in range(4)]
        wait_for(lambda: jobs[0].progress.step is not None)
        assert jobs[3].cancel().status == "cancelled"  # in our line: at once
        jobs[1].cancel()  # pending on the server
        with pytest.raises(JobCancelled):
            jobs[1].wait(20)
        assert ("POST", "/api/interrupt") not in layer.requests  # an older server would stop the one that runs
        jobs[0].cancel()  # running
        with pytest.raises(JobCancelled):
            jobs[0].wait(20)
        assert jobs[2].wait(30).job.status == "done"
        assert layer.runs() == [jobs[0].id, jobs[2].id]
        assert jobs[2].cancel().status == "done"  # too late: it stays what it is
    end_children(tmp_path / "home")


def test_at_most_two_prompts_are_on_the_server_at_once(tmp_path: Path) -> None:
    with Layer(tmp_path / "server", Options(0.02, 0.0, 0.0, False, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        remaining: list[int] = []

        def count(frame: str | bytes) -> str | bytes | None:
            if isinstance(frame, str) and '"queue_remaining"' in frame:
                remaining.append(json.loads(frame)["data"]["status"]["exec_info"]["queue_remaining"])
            return frame

        layer.on_frame = count
        jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=2) for seed in range(8)]
        for job in jobs:
            job.wait(60)
        assert max(remaining) == 2
    end_children(tmp_path / "home")


def test_what_the_server_refuses_is_rejected_with_node_and_reason(layer: Layer, behind: Studio) -> None:
    graph = {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 1}},
             "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}  # fmt: skip

    async def refuse(request: web.Request) -> web.StreamResponse | None:
        if request.method == "POST" and request.path.endswith("/prompt"):
            error = {"type": "value_not_in_list", "message": "Value not in list", "details": "color: 1 not in []", "extra_info": {"input_name": "color"}}
            body = {"error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": "", "extra_info": {}},
                    "node_errors": {"1": {"errors": [error], "dependent_outputs": ["2"], "class_type": "EmptyImage"}}}  # fmt: skip
            return web.json_response(body, status=400)
        return None

    layer.on_request = refuse
    handle = behind.run(graph)
    with pytest.raises(JobFailed, match="EmptyImage"):
        handle.wait(30)
    job = handle.job
    assert (job.status, job.failure_kind, job.failure_node) == ("rejected", "value_not_in_list", "EmptyImage")
    assert layer.requests.count(("POST", "/api/prompt")) == 1


def test_a_running_error_names_node_and_cause(layer: Layer, behind: Studio) -> None:
    async def fail(request: web.Request) -> web.StreamResponse | None:
        if "/history/" in request.path:
            prompt_id = request.path.rsplit("/", 1)[1]
            error = {"prompt_id": prompt_id, "node_id": "5", "node_type": "KSampler", "executed": [], "exception_message": "Allocation on device",
                     "exception_type": "torch.OutOfMemoryError", "traceback": ["..."], "timestamp": 2}  # fmt: skip
            status = {"status_str": "error", "completed": False, "messages": [["execution_start", {"timestamp": 1}], ["execution_error", error]]}
            entry = {"prompt": [0, prompt_id, {}, {}, ["7"]], "outputs": {}, "meta": {}, "status": status}
            return web.json_response({prompt_id: entry})
        return None

    layer.on_request, layer.on_frame = fail, without("executed")
    handle = behind.image("a girl", seed=7, **SIZE)
    with pytest.raises(JobFailed, match="KSampler") as caught:
        handle.wait(30)
    assert caught.value.cause == "oom"
    assert "smaller" in str(caught.value)


def test_a_file_that_is_gone_from_the_server_is_said_to_be_gone(layer: Layer, behind: Studio) -> None:
    async def gone(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=404) if request.path.endswith("/view") else None

    layer.on_request = gone
    handle = behind.image("a girl", seed=8, **SIZE)
    with pytest.raises(JobFailed, match="gone"):
        handle.wait(30)
    assert handle.job.failure_kind == "outputs_gone"


def test_a_cut_download_is_fetched_again(layer: Layer, behind: Studio) -> None:
    cuts = 0

    async def cut(request: web.Request) -> web.StreamResponse | None:
        nonlocal cuts
        if request.path.endswith("/view") and cuts == 0:
            cuts += 1
            response = web.StreamResponse(headers={"Content-Length": "100000"})
            await response.prepare(request)
            await response.write(b"x" * 1000)
            assert request.transport is not None
            request.transport.abort()
            return response
        return None

    layer.on_request = cut
    handle = behind.image("a girl", seed=9, **SIZE)
    assert handle.wait(30).job.status == "done"
    assert cuts == 1
    check_files(handle.job)


def test_a_request_out_of_time_is_stopped_and_says_so(tmp_path: Path) -> None:
    with Layer(tmp_path / "server", Options(0.3, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        handle = studio.image("a girl", seed=10, width=256, height=256, steps=100, timeout_s=1.0)
        with pytest.raises(JobTimeout, match="longer than the 1 s"):
            handle.wait(30)
        assert handle.job.status == "timed_out"
    end_children(tmp_path / "home")


def test_a_named_server_that_is_down_is_one_sentence_and_accepts_nothing(tmp_path: Path) -> None:
    with Studio("http://127.0.0.1:1", home=tmp_path / "home") as studio:
        with pytest.raises(ServerUnreachable, match="No ComfyUI answers at"):
            studio.image("a girl")
        assert studio.jobs() == []
        assert "does not answer" in repr(studio)


def test_an_unknown_model_is_refused_before_anything_is_sent(layer: Layer, behind: Studio) -> None:
    with pytest.raises(ModelUnknown, match="no model 'nope'"):
        behind.image("a girl", model="nope")
    assert behind.jobs() == []
    assert ("POST", "/api/prompt") not in layer.requests


def test_a_killed_feeder_is_replaced_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    with Layer(tmp_path / "server", Options(0.05, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        jobs: list[JobHandle] = [studio.image("a girl", seed=seed, width=64, height=64, steps=2) for seed in range(12)]
        wait_for(lambda: sum(job.job.is_final for job in jobs) >= 4)
        feeder = children_of(tmp_path / "home")[f"feeder {layer.url}"]
        os.kill(feeder, signal.SIGKILL)
        for job in jobs:
            job.wait(60)
            check_files(job.job)
        assert sorted(layer.runs()) == sorted(job.id for job in jobs)
        assert all(job.job.attempt == 1 for job in jobs)
        assert not is_alive(feeder)
    end_children(tmp_path / "home")


def test_a_feeder_leaves_when_nothing_has_been_open_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_FEEDER_IDLE_S", "0.2")
    with Layer(tmp_path / "server") as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        studio.image("a girl", seed=1, width=64, height=64, steps=1).wait(30)
        wait_for(lambda: not [pid for pid in children_of(tmp_path / "home").values() if is_alive(pid)])
        assert studio.image("a girl", seed=2, width=64, height=64, steps=1).wait(30).job.status == "done"
    end_children(tmp_path / "home")


def test_a_feeder_stays_while_long_jobs_leave_the_ledger_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_FEEDER_IDLE_S", "0.3")
    with Layer(tmp_path / "server", Options(0.4, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=5) for seed in range(2)]
        for job in jobs:
            job.wait(30)
        (log,) = (tmp_path / "home" / "logs").glob("feeder-*.log")
        assert log.read_text().count(" feeding ") == 1
    end_children(tmp_path / "home")


def test_a_gate_before_the_server_rejects_no_job(layer: Layer, behind: Studio) -> None:
    """F35: a proxy that wants a login, or has lost its server, says nothing of the graph."""
    says = [401, 302, 502]

    async def refuse(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=says.pop()) if request.method == "POST" and request.path.endswith("/prompt") and says else None

    layer.on_request = refuse
    handle = behind.image("a girl", seed=11, **SIZE)
    assert handle.wait(60).job.status == "done"
    assert len(layer.runs()) == 1
    assert not says


def test_what_one_socket_told_from_start_to_end_is_not_asked_for(tmp_path: Path) -> None:
    def asked() -> bool:
        return any("/history/" in path for _, path in layer.requests)

    with Layer(tmp_path / "server", Options(0.1, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        first = studio.image("a girl", seed=1, **SIZE)
        first.wait(30)
        check_files(first.job)
        assert not asked()
        layer.on_frame = without("executed")
        studio.image("a girl", seed=2, **SIZE).wait(30)
        assert asked()
        layer.on_frame = lambda frame: frame
        layer.requests.clear()
        several = {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7}}}
        several |= {node: {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": node}} for node in ("2", "3")}
        assert len(studio.run(several).wait(30).job.files) == 2
        assert asked()  # the history's order numbers them
        layer.requests.clear()
        cut = studio.image("a girl", seed=3, **(SIZE | {"steps": 12}))
        wait_for(lambda: cut.progress.step == 2)
        layer.cut()  # what came between this socket and the next one is lost
        cut.wait(30)
        check_files(cut.job)
        assert asked()
    end_children(tmp_path / "home")


def test_a_history_that_was_cleared_after_success_costs_nothing(layer: Layer, behind: Studio) -> None:
    """F33: the socket named the files before."""

    async def forget(request: web.Request) -> web.StreamResponse | None:
        return web.json_response({}) if "/history/" in request.path else None

    layer.on_request, layer.on_frame = forget, without("execution_start")
    handle = behind.image("a girl", seed=12, **SIZE)
    assert handle.wait(60).job.status == "done"
    check_files(handle.job)


def test_an_equal_unfinished_request_is_the_same_job(tmp_path: Path) -> None:
    with Layer(tmp_path / "server", Options(0.1, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        request = ImageRequest(prompt="a girl", seed=1, width=256, height=256, steps=10)
        first, second = studio.submit(request), studio.submit(request)
        assert first.id == second.id
        assert studio.submit(request, reuse=False).id != first.id
        first.wait(30)
        assert studio.submit(request, reuse=True).id in {job.id for job in studio.jobs()}
    end_children(tmp_path / "home")


def test_a_file_the_server_will_not_hand_out_costs_its_job_and_not_the_line(layer: Layer, behind: Studio) -> None:
    async def nonsense(request: web.Request) -> web.StreamResponse | None:
        if "/history/" in request.path and "toolkit" not in request.path and broken:
            entry = {"prompt": [0, broken[0], {}, {}, ["7"]], "outputs": {"7": {"images": [{"filename": "x.png", "subfolder": "\x00", "type": "output"}]}},
                     "status": {"status_str": "success", "completed": True, "messages": [["execution_success", {}]]}, "meta": {}}  # fmt: skip
            return web.json_response({broken[0]: entry}) if request.path.endswith(broken[0]) else None
        return web.Response(status=400) if request.path.endswith("/view") and "%00" in request.query_string else None

    broken: list[str] = []
    layer.on_request, layer.on_frame = nonsense, without("executed")
    first = behind.image("a girl", seed=61, **SIZE)
    broken.append(first.id)
    second = behind.image("a girl", seed=62, **SIZE)
    assert second.wait(60).job.status == "done"
    with pytest.raises(JobFailed):
        first.wait(60)


def test_an_equal_request_of_somebody_else_is_a_job_of_their_own(tmp_path: Path) -> None:
    with Layer(tmp_path / "server", Options(0.2, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        request = ImageRequest(prompt="a girl", seed=1, width=64, height=64, steps=3)
        mine, theirs = studio.submit(request), studio.submit(request, person="ann")
        assert mine.id != theirs.id
        assert theirs.wait(60).job.person == "ann"
    end_children(tmp_path / "home")


async def test_a_fault_of_ours_costs_its_job_and_not_the_feeder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    async def stumble(run: Run) -> None:
        nonlocal tried
        tried += 1
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(Run, "way", stumble)
    feeder = Feeder(tmp_path, ServerAddress("engine"), {}, 1.0)
    feeder.epoch = feeder.ledger.take_server("engine")
    feeder.desk = feeder._new_desk()
    (job,) = feeder.ledger.accept(NewJob(ImageRequest(prompt="a girl", seed=1), ["engine"]))
    attempt = feeder.ledger.sending(Claim(job.id, "engine", feeder.epoch, {}))
    assert attempt is not None
    feeder._run(Run(feeder.desk, job, attempt, {}, {}, fresh=True))
    await asyncio.gather(*feeder.tasks)
    ended = feeder.ledger.job(job.id)
    assert (ended.status, ended.failure_kind, tried) == ("failed", "toolkit_error", 2)
    assert "nobody thought of this" in (ended.error or "")
    assert feeder._failure is None
    feeder._clerk.close()
    feeder.ledger.close()
    feeder.board.close()


@pytest.mark.parametrize(("kind", "wanted", "status", "attempts"), [("image", False, "lost", 1), ("video", None, "lost", 1), ("video", True, "done", 2)])
def test_what_a_server_forgot_is_sent_again_only_where_it_was_asked_for(tmp_path: Path, kind: str, wanted: bool | None, status: str, attempts: int) -> None:
    fields = {"seed": 5, "width": 64, "height": 64, "steps": 12, "retry_on_lost": wanted}
    with Layer(tmp_path / "server", Options(0.1, 0.0, 0.0, True, 0.0)) as layer, Studio(layer.url, home=tmp_path / "home") as studio:
        handle = studio.image("a girl", **fields) if kind == "image" else studio.video("a girl", frames=5, **fields)
        wait_for(lambda: handle.progress.step == 2)
        layer.forget()
        wait_for(lambda: handle.job.is_final)
        assert (handle.job.status, handle.job.attempt) == (status, attempts)
    end_children(tmp_path / "home")


def test_prompts_go_to_the_server_one_after_the_other_so_that_they_arrive_in_the_order_of_the_line(layer: Layer, behind: Studio) -> None:
    behind.image("first of all", seed=1, **SIZE).wait(60)
    here, most = set[int](), list[int]()

    async def slow(request: web.Request) -> web.StreamResponse | None:
        if request.method == "POST" and request.path.endswith("/prompt"):
            here.add(id(request))
            await asyncio.sleep(0.05)  # long enough for the second one to get here, if it is on its way
            most.append(len(here))
            here.clear()
        return None

    layer.on_request = slow
    batch = behind.submit_many([ImageRequest(prompt="a fox", seed=seed, **SIZE) for seed in range(4)]).wait(60)
    assert most == [1, 1, 1, 1]
    starts = [handle.job.started.mono for handle in batch if handle.job.started is not None]
    assert starts == sorted(starts)


# ---- the clerk -----------------------------------------------------------------------------------------------------------------------


class Batches:
    """Stands for the ledger: remembers what was in a block, and what of it was undone."""

    def __init__(self) -> None:
        self.kept, self.undone = list[list[str]](), list[list[str]]()
        self._now: list[str] | None = None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        self._now = []
        try:
            yield
            self.kept.append(self._now)
        except BaseException:
            self.undone.append(self._now)
            raise
        finally:
            self._now = None

    def write(self, word: str) -> str:
        if word == "broken":
            raise ValueError(word)
        self.kept.append([word]) if self._now is None else self._now.append(word)
        return word


async def busy_clerk(batches: Batches) -> tuple[Clerk, threading.Event, asyncio.Task[bool]]:
    """A clerk that is at work until the event is set."""
    clerk, go_on = Clerk(batches.together), threading.Event()
    first = asyncio.create_task(clerk.ask(lambda: go_on.wait(10)))
    await asyncio.sleep(0)
    return clerk, go_on, first


async def test_what_waits_for_a_commit_goes_into_the_next_one_together() -> None:
    batches = Batches()
    clerk, go_on, first = await busy_clerk(batches)
    asked = [asyncio.create_task(clerk.ask(lambda word=word: batches.write(word))) for word in "abc"]
    await asyncio.sleep(0)
    asked[1].cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert (await first, await asked[0], await asked[2], asked[1].cancelled()) == (True, "a", "c", True)
    assert batches.kept == [["a", "c"]]
    clerk.close()


async def test_a_short_write_is_done_at_once_unless_others_wait_or_the_disk_was_slow(monkeypatch) -> None:
    batches = Batches()
    clerk, here = Clerk(batches.together), threading.get_ident()
    assert await clerk.write(threading.get_ident) == here
    waiting, go_on, first = await busy_clerk(batches)
    second = asyncio.create_task(waiting.write(threading.get_ident))  # in the order asked
    await asyncio.sleep(0)
    go_on.set()
    assert (await first, await second != here) == (True, True)
    await clerk.write(lambda: time.sleep(2 * SLOW_S))
    assert await clerk.write(threading.get_ident) != here
    monkeypatch.setattr("toolkit.pace.WARY_S", 0.0)
    later = Clerk(batches.together)
    await later.write(lambda: time.sleep(2 * SLOW_S))
    assert await later.write(threading.get_ident) == here
    for one in (clerk, waiting, later):
        one.close()


async def test_what_is_in_no_hurry_goes_with_the_next_short_write_or_soon_by_itself() -> None:
    batches = Batches()
    clerk, began = Clerk(batches.together), time.monotonic()
    unhurried = [asyncio.create_task(clerk.write_with_next(lambda word=word: batches.write(word))) for word in ("a", "broken", "b")]
    await asyncio.sleep(0)
    assert batches.kept == []
    assert await clerk.write(lambda: batches.write("c")) == "c"
    assert (await unhurried[0], await unhurried[2], batches.kept) == ("a", "b", [["a"], ["b"], ["c"]])  # alone, since one of them failed
    with pytest.raises(ValueError, match="broken"):
        await unhurried[1]
    assert time.monotonic() - began < UNHURRIED_S
    first = asyncio.create_task(clerk.write_with_next(lambda: batches.write("d")))
    await asyncio.sleep(0)
    assert await asyncio.gather(clerk.write(lambda: batches.write("e")), first) == ["e", "d"]
    assert batches.kept[-1] == ["d", "e"]
    assert await clerk.write_with_next(lambda: batches.write("f")) == "f"  # nobody comes
    assert batches.kept[-1] == ["f"]
    clerk.close()


async def test_a_short_write_never_waits_on_the_loop_for_a_lock(tmp_path) -> None:
    ledger = Ledger(tmp_path)
    clerk, beats = Clerk(ledger.together), list[float]()

    async def beat() -> None:
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.005)

    heart, locked, go_on = asyncio.create_task(beat()), threading.Event(), threading.Event()

    def hold() -> None:
        with ledger._database.transaction():
            locked.set()
            go_on.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(10)
    asyncio.get_running_loop().call_later(0.3, go_on.set)
    assert await clerk.write(lambda: ledger.take_server("http://gpu:8188")) == 1
    heart.cancel()
    holder.join()
    assert len(beats) > 20
    assert max(b - a for a, b in itertools.pairwise(beats)) < 0.2
    clerk.close()
    ledger.close()


async def test_who_fails_in_a_batch_fails_alone() -> None:
    batches = Batches()
    clerk, go_on, first = await busy_clerk(batches)
    asked = [asyncio.create_task(clerk.ask(lambda word=word: batches.write(word))) for word in ("a", "broken", "c")]
    await asyncio.sleep(0)
    go_on.set()
    assert await first
    assert (await asked[0], await asked[2]) == ("a", "c")
    with pytest.raises(ValueError, match="broken"):
        await asked[1]
    assert (batches.undone, batches.kept) == ([["a"]], [["a"], ["c"]])
    clerk.close()
