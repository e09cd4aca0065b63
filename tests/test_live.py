"""Against a real ComfyUI: `COMFYUI_URL=http://127.0.0.1:8188 pytest -m live -n0`. Needs no models, and uses them where it finds some.

Use a server of your own: one case kills it. TOOLKIT_LIVE_RESTART is the command for that: it ends the server hard and starts it again on the
same port, e.g. `kill -9 $(cat comfy.pid); ./start.sh`; without it that case is skipped.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import children_of, end_children, is_alive
from tests.faults.invariants import check
from tests.faults.proxy import Proxy
from tests.templates import complete, templates
from tests.test_graph import REFUSALS
from tests.test_pipelines import FOX, UPSCALERS, WOLF, catalog, files_of
from toolkit import JobHandle, Progress, Studio, Workflow, WorkflowRequest, request_of
from toolkit.errors import JobFailed, ModelUnknown
from toolkit.exported import to_api
from toolkit.graph import NodeCatalog, ancestors, validate
from toolkit.pipelines import build
from toolkit.pipelines.choosing import lacking_nodes
from toolkit.pipelines.families import FAMILIES, Family
from toolkit.requests import ImageRequest, VideoRequest
from toolkit.roles import MODEL_INPUTS
from toolkit.studio.observing import observe

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "live"}},
}
CLIP = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 12, "color": 255}},
    "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8.0}},
    "3": {"class_type": "SaveVideo", "inputs": {"video": ["2", 0], "filename_prefix": "live", "format": "mp4", "codec": "h264"}},
}

RESTART = "TOOLKIT_LIVE_RESTART"
END_S = 120.0  # a lasting job takes 5 s here, some times that on a busy machine
CANCELS = 30
FAST = 200


@pytest.fixture
def url() -> str:
    url = os.environ["LIVE_COMFYUI_URL"]
    if not url or url == "engine":
        pytest.fail("set COMFYUI_URL to a real ComfyUI")
    return url


@pytest.fixture
def live(url: str, home: Path) -> Iterator[Studio]:
    with Studio(url, home=home) as studio:
        yield studio


@pytest.fixture
def restart() -> Callable[[], None]:
    """Kill the server and start it again; returns when it answers."""
    command = os.environ.get(RESTART)
    if not command:
        pytest.skip(f"{RESTART} is not set: a command that kills the server hard and starts it again on the same port")
    return lambda: subprocess.run(command, shell=True, check=True, timeout=240, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) and None


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The server's own word, by another way than ours."""
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(url + path, data, {"Content-Type": "application/json"}), timeout=30.0) as reply:
        return json.load(reply)


def wait_for(condition: Callable[[], object], timeout_s: float = END_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def painted(color: int | None = None, blurs: int = 0, node: str = "SaveImage") -> dict[str, Any]:
    """A workflow without models: one colour, blurred often, at 0.1 to 0.4 s each; another colour is nothing the server could reuse."""
    size, color = 256 if blurs else 64, random.randrange(2**24) if color is None else color
    graph: dict[str, Any] = {"1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": color}}}
    for number in range(blurs):
        graph[str(number + 2)] = {"class_type": "ImageBlur", "inputs": {"image": [str(number + 1), 0], "blur_radius": 25, "sigma": 3.0}}
    saving = {"images": [str(blurs + 1), 0], **({"filename_prefix": "live"} if node == "SaveImage" else {})}
    return {**graph, "save": {"class_type": node, "inputs": saving}}


def lasting(studio: Studio) -> JobHandle:
    """A job of some seconds with a middle, sent once more if it is lost: sampling where there is a model, else a chain of blurs."""
    if "sdxl" in studio.servers()[0].can_make:
        return studio.image("a girl", width=256, height=256, steps=10, seed=random.randrange(2**32), reuse=False)
    return studio.submit(WorkflowRequest(workflow=painted(blurs=20), retry_on_lost=True))


def reach_the_middle(job: JobHandle) -> None:
    wait_for(lambda: job.progress.fraction > 0.15 and job.job.status == "running")  # a status is in the ledger up to 50 ms later


def ours(url: str) -> dict[str, Any]:
    """What the server's history has of this toolkit's jobs."""
    return {prompt_id: entry for prompt_id, entry in ask(url, "/history").items() if "toolkit" in entry["prompt"][3]}


def holds(home: Path, url: str, jobs: Sequence[JobHandle], before: Sequence[str] = ()) -> None:
    """Nothing lost and nothing doubled, by the server's history; `before` is what it had before a restart."""
    with Studio(url, home=home) as studio:
        sent = {prompt_id for (prompt_id,) in studio.sql("select prompt_id from attempts").fetchall()}
    found = {prompt_id: entry for prompt_id, entry in ours(url).items() if prompt_id in sent}
    finished = [prompt_id for prompt_id, entry in found.items() if entry["status"]["status_str"] == "success"]
    check(home, [*found, *before], [job.id for job in jobs], finished=finished)


def toolkit(home: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TOOLKIT_HOME": str(home), "COMFYUI_URL": url, "TOOLKIT_FEEDER_IDLE_S": "5"}
    return subprocess.run([sys.executable, "-m", "toolkit.cli", *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False)


def run_file(tmp_path: Path, url: str, graph: dict[str, Any], *options: str) -> dict[str, Any]:
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    done = toolkit(tmp_path / "home", url, "run", str(tmp_path / "graph.json"), "--json", *options)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_workflow_runs_to_a_right_picture_with_rows(url: str, tmp_path: Path) -> None:
    job = run_file(tmp_path, url, PICTURE, "--set", "1.color=65280")
    (file,) = job["files"]
    assert (job["status"], file["width"], file["height"], file["media_type"]) == ("done", 96, 64, "image/png")
    with Studio(url, home=tmp_path / "home") as studio:
        pixel = studio.job(job["id"] if "id" in job else job["job_id"]).wait(5).files[0].image().getpixel((5, 5))
        assert pixel == (255, 0, 255)  # the inverse of green
        rows = studio.sql("select status, simulated, timed_by, nodes_run from jobs").fetchall()
        assert rows == [("done", False, "events", 3)]
    end_children(tmp_path / "home")


def test_a_workflow_runs_to_a_right_clip(url: str, tmp_path: Path) -> None:
    job = run_file(tmp_path, url, CLIP)
    (file,) = job["files"]
    assert (job["status"], file["frames"], file["fps"], file["media_type"]) == ("done", 12, 8.0, "video/mp4")
    end_children(tmp_path / "home")


def test_progress_rises_and_ends_at_one(live: Studio) -> None:
    seen: list[float] = []
    graph = {**PICTURE, "1": {"class_type": "EmptyImage", "inputs": {"width": 2048, "height": 2048, "batch_size": 4, "color": 7}}}
    handle = live.run(graph)
    handle.subscribe(lambda news: seen.append(news.fraction) if isinstance(news, Progress) else None)
    result = handle.wait(60)
    assert len(result.files) == 4
    assert seen == sorted(seen)
    assert max(seen) < 1.0
    assert handle.progress.fraction == 1.0


def test_the_same_workflow_twice_gives_two_whole_files(live: Studio) -> None:
    first, second = live.run(PICTURE, reuse=False), live.run(PICTURE, reuse=False)
    paths = [handle.wait(60).files[0].path for handle in (first, second)]
    assert paths[0] != paths[1]
    assert all(Path(path).stat().st_size > 0 for path in paths)


def test_pictures_without_models_are_refused_before_anything_is_sent(live: Studio) -> None:
    if live.servers()[0].can_make:
        pytest.skip("this server has models: run this against one without")
    with pytest.raises(ModelUnknown, match="models/checkpoints"):
        live.image("a girl")
    with pytest.raises(ModelUnknown, match=r"(?s)models/diffusion_models.*models/text_encoders.*models/vae"):
        live.video("a girl")
    assert live.jobs() == []


def test_a_socket_that_drops_mid_run_costs_nothing(url: str, home: Path) -> None:
    with Proxy(url) as proxy, Studio(proxy.url, home=home) as studio:
        job = lasting(studio)
        reach_the_middle(job)
        before = proxy.connections
        proxy.cut()
        assert job.wait(END_S).job.attempt == 1
        assert proxy.connections > before
        assert job.job.status == "done"
        holds(home, proxy.url, [job])


def test_a_job_that_ends_while_nothing_gets_through_is_found_done(url: str, home: Path) -> None:
    with Proxy(url) as proxy, Studio(proxy.url, home=home) as studio:
        job = lasting(studio)
        reach_the_middle(job)
        proxy.refuse()
        wait_for(lambda: ask(url, f"/history/{job.id}"))
        assert not job.job.is_final
        proxy.accept()
        assert job.wait(END_S).job.attempt == 1
        holds(home, proxy.url, [job])


def test_a_restarted_server_gets_what_it_forgot_once_more(live: Studio, url: str, home: Path, restart: Callable[[], None]) -> None:
    shown = live.run(painted(node="PreviewImage"))
    shown.wait(END_S)
    before = list(ours(url))
    running, waiting = lasting(live), lasting(live)
    only_once = live.run(painted(blurs=2))  # a workflow of the user's own, of which nobody said that it may run twice
    reach_the_middle(running)
    wait_for(lambda: waiting.job.status == "submitted")
    restart()
    jobs = [job.wait(END_S).job for job in (running, waiting)]
    assert [(job.status, job.attempt) for job in jobs] == [("done", 2)] * 2
    assert only_once.wait(END_S).job.attempt == 1  # two at a time are on the server: this one was not
    tries = "from attempts select reason, status where job_id = $job order by attempt"
    assert live.sql(tries, job=running.id).fetchall() == [("first", "lost"), ("lost", "done")]
    assert set(ours(url)) & set(before) == set()  # it did forget
    holds(home, url, [shown, running, waiting, only_once], [shown.id])  # its temporary files are gone, ours is not


ASKING = """
import sys, time
from tests.test_live import lasting
from toolkit import Studio
print(lasting(Studio(sys.argv[1], home=sys.argv[2])).id, flush=True)
time.sleep(600)"""


def test_a_job_outlives_the_kernel_that_asked_and_the_feeder_that_sent_it(url: str, home: Path) -> None:
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", ASKING, url, str(home)], cwd=root, stdout=subprocess.PIPE, text=True) as kernel:
        assert kernel.stdout is not None
        job_id = kernel.stdout.readline().strip()
        with Studio(url, home=home) as studio:
            job, second = studio.job(job_id), lasting(studio)
            reach_the_middle(job)
            (feeder,) = children_of(home).values()
            os.kill(feeder, signal.SIGKILL)
            kernel.kill()
            assert [one.wait(END_S).job.attempt for one in (job, second)] == [1, 1]
            assert not is_alive(feeder)
            assert list(children_of(home).values()) != [feeder]
            holds(home, url, [job, second])


def test_cancels_at_any_instant_never_hit_another_client(live: Studio, url: str, home: Path, record_property: Callable[[str, object], None]) -> None:
    seed = random.randrange(2**32)
    chance, client = random.Random(seed), uuid.uuid4().hex
    theirs, mine = [], []

    def another() -> None:
        theirs.append(str(uuid.uuid4()))
        ask(url, "/prompt", {"prompt": painted(chance.randrange(2**24), 2), "prompt_id": theirs[-1], "client_id": client})

    took = live.run(painted(blurs=2)).wait(END_S).job.timings.run_s or 0.3  # type: ignore[union-attr]
    for _ in range(CANCELS):
        another()
        mine.append(live.run(painted(chance.randrange(2**24), 2), reuse=False))
        another()
        wait_for(lambda: mine[-1].job.status not in ("queued", "submitted"))
        instant = time.monotonic() + chance.uniform(0.0, 1.5 * took)
        wait_for(lambda: time.monotonic() >= instant)  # noqa: B023 - called here and now
        mine[-1].cancel()
        wait_for(lambda: mine[-1].job.is_final)
    wait_for(lambda: not any(ask(url, "/queue").values()))
    ends = [ask(url, f"/history/{prompt_id}")[prompt_id]["status"]["status_str"] for prompt_id in theirs]
    assert ends == ["success"] * len(theirs), seed
    statuses = [job.job.status for job in mine]
    assert set(statuses) == {"done", "cancelled"}, (seed, "the instants were not around the end")
    record_property("cancelled", f"{statuses.count('cancelled')} of {CANCELS}, seed {seed}")
    print(f"{statuses.count('cancelled')} of {CANCELS} cancelled, {len(theirs)} of another client all done, seed {seed}")
    holds(home, url, mine)


UI = {"nodes": [{"id": 1, "type": "EmptyImage", "title": "狐"}], "links": [], "version": 0.4}
SAVED = {
    "SaveImage": {}, "SaveAnimatedPNG": {"fps": 8.0, "compress_level": 4}, "SaveWEBM": {"codec": "vp9", "fps": 8.0, "crf": 32.0},
    "SaveAnimatedWEBP": {"fps": 8.0, "lossless": False, "quality": 80, "method": "default"}, "SaveVideo": {"format": "mp4", "codec": "h264"},
}  # fmt: skip


@pytest.mark.parametrize("node", SAVED)
def test_a_file_of_a_real_server_says_how_it_was_made_and_is_made_again(live: Studio, node: str) -> None:
    colours = {str(n): {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 3, "color": 255 << 8 * n}} for n in (1, 2)}
    graph: dict[str, Any] = {**colours, "3": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["2", 0]}}}
    if node == "SaveVideo":
        graph["4"] = {"class_type": "CreateVideo", "inputs": {"images": ["3", 0], "fps": 8.0}}
    source = {"video": ["4", 0]} if node == "SaveVideo" else {"images": ["3", 0]}
    graph["9"] = {"class_type": node, "inputs": {**source, "filename_prefix": "my/live", **SAVED[node]}, "_meta": {"title": "狐"}}
    asked = WorkflowRequest(workflow=graph, ui=UI)
    first = live.submit(asked, reuse=False).wait(60).job.files[0]
    own = Workflow.load(first.path)
    assert own.ui == UI
    if node == "SaveAnimatedWEBP":  # left as the server wrote it, so it names the folder of its job
        assert own.api()["3"] == graph["3"]
        return
    assert own.api() == graph
    assert request_of(first.path) == asked
    second = live.submit(request_of(first.path), reuse=False).wait(60).job.files[0]
    assert (second.sha256, second.size_bytes) == (first.sha256, first.size_bytes)
    assert second.path != first.path
    assert (first.frames, first.fps) == (1 if node == "SaveImage" else 6 if first.kind == "video" else 2, 8.0 if first.kind == "video" else None)


def test_a_cached_run_gets_a_copy_of_its_own_and_says_so(live: Studio, url: str, home: Path) -> None:
    graph = painted(node="PreviewImage")
    first, second = (live.run(graph, reuse=False).wait(END_S) for _ in range(2))
    assert [result.files[0].file.cached for result in (first, second)] == [False, True]
    assert first.files[0].file.sha256 == second.files[0].file.sha256
    assert first.files[0].path != second.files[0].path
    holds(home, url, [live.job(result.job.id) for result in (first, second)])


def test_a_preview_is_fetched_and_marked_temporary(live: Studio, url: str, home: Path) -> None:
    job = live.run(painted(65280, node="PreviewImage"), reuse=False)
    (file,) = job.wait(END_S).files
    assert file.file.temporary
    assert file.image().getpixel((5, 5)) == (0, 255, 0)
    holds(home, url, [job])


def broken(blurs: int) -> dict[str, Any]:
    """One branch that runs and one that the server refuses; nobody can see that in its catalog, since the file might be in its temp folder."""
    absent = {"class_type": "LoadImage", "inputs": {"image": "absent.png [temp]"}, "_meta": {"title": "the other picture"}}
    return {**painted(blurs=blurs), "7000": absent, "7001": {"class_type": "PreviewImage", "inputs": {"images": ["7000", 0]}}}


def test_a_partial_accept_is_done_partial_and_names_what_was_dropped(live: Studio, url: str, home: Path) -> None:
    job = live.run(broken(0))
    result = job.wait(END_S)
    assert (result.job.status, len(result.files)) == ("done_partial", 1)
    (warning,) = [text for text in result.job.warnings if "refused a part" in text]
    assert all(word in warning for word in ("the other picture", "LoadImage", "7000", "absent.png"))
    holds(home, url, [job])


@pytest.mark.parametrize("blurs", [0, 20], ids=["fast", "lasting"])
def test_a_strict_workflow_is_rejected_where_a_branch_would_be_dropped(live: Studio, url: str, home: Path, blurs: int) -> None:
    job = live.run(broken(blurs), strict=True)
    with pytest.raises(JobFailed, match="the other picture"):
        job.wait(END_S)
    assert (job.job.status, job.job.files) == ("rejected", ())
    assert not any(ask(url, "/queue").values())
    assert not blurs or ours(url).get(job.id, {"status": {"completed": False}})["status"]["completed"] is False  # stopped in the middle
    holds(home, url, [job])


def test_two_hundred_fast_jobs_end_done_once_each(live: Studio, url: str, home: Path, record_property: Callable[[str, object], None]) -> None:
    live.run(painted()).wait(END_S)  # the feeder is there
    began = time.monotonic()
    handles = [live.run(painted(color), reuse=False) for color in range(FAST)]
    accepted = time.monotonic() - began
    jobs = [handle.wait(END_S).job for handle in handles]
    took = time.monotonic() - began
    assert [(job.status, job.attempt, len(job.files)) for job in jobs] == [("done", 1, 1)] * FAST
    known = ours(url)
    numbers = sorted(known[job.id]["prompt"][0] for job in jobs)
    assert numbers == list(range(numbers[0], numbers[0] + FAST))  # it counts each POST that it takes: there were no others
    record_property("took_s", round(took, 2))
    print(f"{FAST} jobs accepted in {accepted:.2f} s, done in {took:.2f} s: {FAST / took:.0f} a second")
    holds(home, url, handles)


# ---- workflow files -------------------------------------------------------------------------------------------------------------------


def refused(url: str, graph: dict[str, Any]) -> dict[tuple[str, str], str]:
    """What the server refuses of a graph: (node, input) -> its word. What it accepts is taken off its queue again."""
    body = json.dumps({"prompt": graph, "prompt_id": (prompt_id := str(uuid.uuid4()))}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/prompt", body, {"Content-Type": "application/json"}), timeout=60.0) as reply:
            answer = json.load(reply)
        for path, what in (("/queue", {"delete": [prompt_id]}), ("/interrupt", {"prompt_id": prompt_id})):
            urllib.request.urlopen(urllib.request.Request(url + path, json.dumps(what).encode(), {"Content-Type": "application/json"}), timeout=60.0).close()
    except urllib.error.HTTPError as error:
        answer = json.load(error)
        assert answer["node_errors"], answer
    errors = [(node_id, error) for node_id, node in answer["node_errors"].items() for error in node["errors"]]
    return {(node_id, error["extra_info"]["input_name"]): error["type"] for node_id, error in errors}


def test_of_every_official_template_the_server_refuses_what_we_say_and_nothing_else(url: str) -> None:
    """All templates of which it has every class: converted against its own catalog, sent as they are, without their models."""
    info = ask(url, "/object_info")
    catalog, names = NodeCatalog(info), complete(info)
    assert len(names) >= 80
    for name in names:
        graph = to_api(templates()[name], catalog).graph
        ours = {(fault.node_id, fault.input): fault.kind for fault in validate(graph, catalog)}
        theirs = refused(url, graph)
        assert set(theirs.values()) <= {"value_not_in_list", "custom_validation_failed"}, name
        assert {place: REFUSALS[word] for place, word in theirs.items()}.items() <= ours.items(), name
        run = ancestors(graph, [node_id for node_id, node in graph.items() if catalog.is_output(node["class_type"])])
        for node_id, field in ours.keys() - theirs.keys():  # what it only finds while running, or never runs
            assert node_id is not None
            declared = info[graph[node_id]["class_type"]]["input"]
            is_v3 = any(declared.get(part, {}).get(field, [None])[0] == "COMBO" for part in ("required", "optional"))
            assert is_v3 or node_id not in run, (name, node_id, field)


def test_every_family_whose_nodes_it_has_is_refused_for_missing_files_alone(url: str) -> None:
    """Words, pictures, masks, second passes and LoRAs of each, in every preset: what a server without the models says to them."""
    info = ask(url, "/object_info")
    families = [family for family in FAMILIES if not lacking_nodes(family, NodeCatalog(info))]
    assert len(families) >= 14
    for family in families:
        server = catalog({**files_of(family, fast=True), "upscale_models": UPSCALERS}, known=info)
        for request in everything_asked_of(family):
            kinds = refused(url, build(request, server).graph)
            assert set(kinds.values()) <= {"value_not_in_list", "custom_validation_failed"}, (family.name, request)
            assert {name for _, name in kinds} <= {*MODEL_INPUTS, "image", "mask"}, (family.name, request)


def everything_asked_of(family: Family) -> Iterator[ImageRequest | VideoRequest]:
    if family.kind == "video":
        pictures = dict(list({"image": FOX, "last_image": WOLF}.items())[: max(family.pictures, int(family.takes_picture))])
        yield from (VideoRequest(prompt="a fox", seed=5, preset=preset, **pictures) for preset in family.presets)
        return
    yield from (ImageRequest(prompt="a fox", seed=5, preset=preset) for preset in family.presets)
    for more in ({"image": FOX}, {"image": FOX, "mask": WOLF}, {"upscale": 1.5}, {"image": FOX, "batch_size": 2}):
        yield ImageRequest(prompt="a fox", seed=5, **more)


# ---- what others run, and the probe ---------------------------------------------------------------------------------------------------


def test_what_another_client_runs_is_observed_once_and_ours_never(live: Studio, url: str) -> None:
    ours = live.run(Workflow.load(painted())).wait(END_S).job.id
    theirs = ask(url, "/prompt", {"prompt": painted(color := random.randrange(2**24)), "client_id": uuid.uuid4().hex})["prompt_id"]
    wait_for(lambda: theirs in ask(url, f"/history/{theirs}"))

    async def seen() -> list[Any]:
        return [news async for news in observe(live._ledger, live._servers.addresses, {}, pause_s=0.0, looks=2)]

    found = asyncio.run(seen())
    assert theirs in [job.id for job in found]
    assert ours not in [job.id for job in found]
    assert asyncio.run(seen()) == []
    job = live.job(theirs).job
    assert (job.origin, job.status, job.timings.timed_by) == ("observed", "done", "history")  # type: ignore[union-attr]
    assert live._ledger.graph(theirs)["1"]["inputs"]["color"] == color


def test_a_probe_runs_cold_then_warm_and_its_question_has_a_row(live: Studio) -> None:
    if not live.servers()[0].can_make:
        pytest.skip("this server has no models")
    told: list[str] = []
    rows = live.probe("before", tell=told.append).records()
    assert [row["server_url"] for row in rows] == [live.servers()[0].url] * len(rows)
    assert all(row["before"] > 0 for row in rows)
    assert live.sql("from jobs where labels['probe'] = 'before' and warmth = 'cold'").shape[0] >= len(rows)
