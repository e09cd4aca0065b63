"""observing: what others run becomes jobs of the log, each once, whatever is restarted; nothing is ever sent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.engines import Client, running
from toolkit import Studio
from toolkit.client import ComfyClient
from toolkit.errors import ServerUnreachable
from toolkit.jobs import Job
from toolkit.ledger import Ledger
from toolkit.protocol import parse_histories
from toolkit.settings import ServerAddress
from toolkit.stats import Stats
from toolkit.studio import observing
from toolkit.studio.observing import Observer, observe

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.drop")  # DuckDB's own .df() uses it (2.0.0 with pandas 3.1)
ID = "11111111-2222-4333-8444-{:012d}"


def graph(**sampler: Any) -> dict[str, Any]:
    """A picture as ComfyUI's page would ask for it."""
    inputs = {"seed": 5, "steps": 3, "cfg": 4.5, "sampler_name": "euler", "scheduler": "karras", "denoise": 1, **sampler}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    return {
        "3": {"class_type": "KSampler", "inputs": {**inputs, **links}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin_animagine.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 96, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blur", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    }


def body(number: int, **sampler: Any) -> dict[str, Any]:
    return {"prompt": graph(seed=number, **sampler), "prompt_id": ID.format(number)}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Client]:
    async with running(tmp_path / "engine") as client:
        yield client


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "home")) as made:
        yield made


def address(server: Client) -> ServerAddress:
    return ServerAddress.parse(str(server.session._base_url))


@pytest.fixture
async def observer(server: Client, ledger: Ledger) -> AsyncIterator[Observer]:
    async with ComfyClient(address(server)) as client:
        yield Observer(ledger, client)


async def test_a_foreign_job_is_a_final_row_with_its_recipe_and_the_servers_times(server: Client, observer: Observer, ledger: Ledger) -> None:
    entry = await server.run(body(7))
    (job,) = await observer.look()
    with closing(Stats(ledger)) as stats:
        found = stats.sql("from jobs").df().iloc[0]
        (attempt,) = stats.sql("from attempts select prompt_id, status, environment_id").fetchall()
        assert stats.sql("from jobs join servers using (environment_id, server_url)").shape[0] == 1
    assert (found.origin, found.kind, found.status, found.timed_by) == ("observed", "workflow", "done", "history")
    assert found.person is None
    assert (found.model, found.sampler, found.scheduler, found.steps, found.cfg, found.seed) == ("standin_animagine", "euler", "karras", 3, 4.5, 7)
    assert (found.prompt, found.negative_prompt, found.width, found.height, bool(found.simulated)) == ("a fox", "blur", 64, 96, True)
    times = {kind: data["timestamp"] for kind, data in entry["status"]["messages"]}
    assert found.run_s == pytest.approx((times["execution_success"] - times["execution_start"]) / 1000)
    assert found.started_at.timestamp() == pytest.approx(times["execution_start"] / 1000)
    assert found.created_at == found.started_at
    assert attempt == (ID.format(7), "done", found.environment_id)
    assert job.id == ID.format(7)
    assert ledger.graph(job.id)["3"]["inputs"]["seed"] == 7


async def test_nobody_is_written_down_twice_whatever_restarts(server: Client, observer: Observer, ledger: Ledger) -> None:
    for number in range(20):
        await server.run(body(number))
    assert len(await observer.look()) == 20
    assert await observer.look() == []
    async with ComfyClient(address(server)) as client:
        again = Observer(ledger, client)
        assert await again.look() == []
        for number in range(20, 52):  # more than are asked for at first
            await server.run(body(number))
        again._quiet = observing.QUIET_LOOKS
        assert len(await again.look()) == 32
    ledger.forget([ID.format(3)])
    async with ComfyClient(address(server)) as client:
        assert await Observer(ledger, client).look() == []
    assert ledger.count() == 51


async def test_what_waits_is_noticed_so_that_its_wait_is_known(tmp_path: Path, ledger: Ledger) -> None:
    async with running(tmp_path / "slow", step_s=0.05) as server, ComfyClient(address(server)) as client:
        observer = Observer(ledger, client)
        for number in (1, 2):
            await server.submit(body(number))
        assert await observer.look() == []
        await server.done(ID.format(2))
        jobs = {job.id: job for job in await observer.look()}
        with closing(Stats(ledger)) as stats:
            waits = dict(stats.sql("from jobs select job_id, wait_server_s").fetchall())
    assert len(jobs) == 2
    assert waits[ID.format(2)] > 0.05
    assert waits[ID.format(1)] is None or waits[ID.format(1)] < waits[ID.format(2)]


async def test_failures_and_cancels_are_told_as_they_were(server: Client, observer: Observer, ledger: Ledger) -> None:
    await server.submit({**body(1), "prompt": {**graph(), "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "../../x"}}}})
    await server.done(ID.format(1))
    (failed,) = await observer.look()
    assert (failed.status, failed.failure_node) == ("failed", "SaveImage")
    assert failed.error
    with closing(Stats(ledger)) as stats:
        assert stats.sql("from attempts select status, failure_node, message is not null").fetchall() == [("failed", "SaveImage", True)]
    cut = {"status": {"status_str": "error", "messages": [["execution_interrupted", {"timestamp": 2000}]]}, "prompt": [1, "p", graph(), {}, ["9"]]}
    (entry,) = parse_histories({"any text/../": cut})
    cancelled = observer._job(entry, None)
    assert cancelled is not None
    assert (cancelled.outcome.status, cancelled.created.wall, cancelled.started) == ("cancelled", 2.0, None)
    assert len(cancelled.id) == 36


async def test_our_own_prompts_are_not_others(server: Client, home: Path) -> None:
    def own() -> Job:
        with Studio(address(server).url, home=home) as studio:
            studio.image("a fox", model="animagine", width=64, height=64, steps=2).wait(30)
            return studio.job().job

    job = await asyncio.to_thread(own)
    await server.run(body(1))
    with closing(Ledger(home)) as ledger:
        async with ComfyClient(address(server)) as client:
            assert [found.id for found in await Observer(ledger, client).look()] == [ID.format(1)]
        assert ledger.latest().id == job.id, "the latest job is the latest that was asked for here"


async def test_strange_entries_and_graphs_are_passed_over(observer: Observer) -> None:
    entry = {"status": {"status_str": "success", "messages": []}, "outputs": {}}
    found = parse_histories({"a": {**entry, "prompt": [0, "a", "no graph"]}, "b": {**entry, "prompt": [0, "b", {"1": 5}]}, "c": 7})
    assert [one.prompt_id for one in found] == ["a", "b"]
    assert [observer._job(one, None) for one in found] == [None, None]
    with pytest.raises(ValueError, match="not a history"):
        parse_histories([])
    (newer,) = parse_histories({"d": {**entry, "prompt": [0, "d", graph(), {"create_time": 1_500}, ["9"]]}})
    seen = observer._job(newer, None)
    assert seen is not None
    assert seen.created.wall == 1.5


async def test_a_server_that_is_away_is_named_once_and_looked_at_again(tmp_path: Path, ledger: Ledger) -> None:
    async with running(tmp_path / "engine") as server:
        at = address(server)
        await server.run(body(1))
        async with ComfyClient(at) as client:
            observer = Observer(ledger, client)
            await observer.look()
            await server.engine.stop()
            with pytest.raises(ServerUnreachable):
                await observer.look()
            assert observer._facts is None
    told = [news async for news in observe(ledger, [at], {}, pause_s=0.0, looks=3)]
    assert [type(news) for news in told] == [ServerUnreachable]


async def test_the_command_prints_a_line_a_job_and_ends_with_ctrl_c(server: Client, home: Path) -> None:
    await server.run(body(1))
    words = [sys.executable, "-m", "toolkit.cli", "--home", str(home), "--server", address(server).url, "watch"]
    child = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        line = (await child.stdout.readline()).decode()  # type: ignore[union-attr]
        child.send_signal(signal.SIGINT)
        said = (await asyncio.wait_for(child.communicate(), 20))[1].decode()
    finally:
        if child.returncode is None:
            child.kill()
    assert "11111111 on http://127.0.0.1:" in line
    assert line.rstrip().endswith("standin_animagine")
    assert child.returncode == 0, said
    assert "No longer watching." in said
    assert await server.get("/queue") == {"queue_running": [], "queue_pending": []}
