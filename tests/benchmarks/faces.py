"""Crowds at the faces: two hundred watchers of the feed (L02), a hundred callers of REST (L09), each in a process of their own.

Shorter than a soak: half a minute each. Both sides share two cores here, so the delays are those of a busy machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.usage import processor_s, resident_mb
from tests.conftest import end_children
from tests.serving import served
from toolkit import Studio, WorkflowRequest
from toolkit.feed import Feed
from toolkit.jobs import Instant, JobStatus
from toolkit.ledger import Claim, NewJob
from toolkit.service import build_service
from toolkit.settings import Settings

Row = Callable[..., None]
WATCHERS, RUNNING, UPDATES_S = 200, 2, 10
CALLERS, CALLS_S = 100, 10
SECONDS = float(os.environ.get("TOOLKIT_BENCH_SECONDS", "30"))
URL = "http://127.0.0.1:9"

# what each writes into `elapsed_s` is the clock of the machine, so that who reads it knows how old it is
FEEDER = """
import sys, time
from pathlib import Path
from toolkit.ledger import LiveBoard
from toolkit.progress import Progress
board, jobs, pause, until = LiveBoard(Path(sys.argv[1])), sys.argv[4:], 1 / float(sys.argv[2]), time.monotonic() + float(sys.argv[3])
due, number = time.monotonic(), 0
while due < until:
    for job in jobs:
        board.show(job, Progress(fraction=0.5, node="KSampler", step=number, steps=10**6, elapsed_s=time.time()).dump())
    due, number = due + pause, number + 1
    time.sleep(max(due - time.monotonic(), 0))
"""
WATCHING = """
import asyncio, json, sys, time
from websockets.asyncio.client import connect
async def watch(url, until, delays):
    async with connect(url, compression=None) as socket:
        await socket.send('{"type": "subscribe", "job_id": "*"}')
        while (left := until - time.monotonic()) > 0:
            try:
                told = json.loads(await asyncio.wait_for(socket.recv(), left))
            except TimeoutError:
                return
            if told["type"] == "progress_update" and told["progress"]["elapsed_s"] > 1e9:
                delays.append(time.time() - told["progress"]["elapsed_s"])
async def main(url, watchers, seconds):
    delays = []
    await asyncio.gather(*(watch(url, time.monotonic() + seconds, delays) for _ in range(watchers)))
    delays.sort()
    print(json.dumps({"told": len(delays), "p50": delays[len(delays) // 2], "p99": delays[int(len(delays) * 0.99)], "max": delays[-1]}))
asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""
CALLING = """
import asyncio, json, sys, time
import aiohttp
async def main(url, callers, each_s, seconds, ids):
    took, asked, codes = [], [], {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async def timed(into, due, method, path, **call):
            async with session.request(method, f"{url}/api/anime/{path}", **call) as answer:
                await answer.read()
            codes[answer.status] = codes.get(answer.status, 0) + 1
            into.append(time.monotonic() - due)  # from when it was due: a late caller hides no wait
        async def call(place, until):
            due = until - seconds + place / callers / each_s
            while due < until:
                await asyncio.sleep(due - time.monotonic())
                await timed(took, due, "GET", f"jobs/{ids[place % len(ids)]}")
                due += 1 / each_s
        async def submit(until):
            while (due := time.monotonic()) < until:
                await timed(asked, due, "POST", "generate/image", json={"prompt": "a fox", "width": 64, "height": 64, "steps": 1})
                await asyncio.sleep(0.5)
        until = time.monotonic() + 1.0 + seconds
        await asyncio.gather(*(call(place, until) for place in range(callers)), submit(until))
    took.sort(), asked.sort()
    about = {"calls": len(took), "p50": took[len(took) // 2], "p99": took[int(len(took) * 0.99)], "max": took[-1], "codes": codes}
    print(json.dumps({**about, "submitted": len(asked), "submit_p99": asked[int(len(asked) * 0.99)]}))
asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), sys.argv[5:]))
"""


def measure(home: Path, row: Row) -> None:
    """Both crowds, each in a home of its own."""
    asyncio.run(_watched(home / "watched", row))
    _called(home / "called", row)


async def _watched(home: Path, row: Row) -> None:
    with Studio(URL, home=home) as studio:
        jobs = _running(studio)
        async with Feed(studio, Settings(home=home, feed_port=0)) as feed:
            before, began = processor_s(), time.perf_counter()
            url = f"ws://127.0.0.1:{feed.port}/"
            watching = await _started(WATCHING, url, WATCHERS, SECONDS)
            feeding = await _started(FEEDER, home, UPDATES_S, SECONDS, *jobs)
            await asyncio.sleep(SECONDS / 3)
            early = resident_mb()
            found = json.loads((await watching.communicate())[0])
            share, added = (processor_s() - before) / (time.perf_counter() - began), resident_mb() - early
            await feeding.communicate()
    how = f"once, {SECONDS:g} s: {WATCHERS} watchers of {RUNNING} running jobs with {UPDATES_S} updates a second, {found['told']} messages"
    row("L02: delay of an update at a watcher, p99", found["p99"], "s", "< 1", found["p99"] < 1, f"{how}, p50 {found['p50']:.3f}")
    row("L02: processor of the feed's process", share, "cores", "< 1", share < 1, how)
    row("L02: memory added after the first third", added, "MB", "< 10", added < 10, how)
    wanted = 0.9 * WATCHERS * RUNNING * UPDATES_S * (SECONDS - 3)
    row("L02: messages told", found["told"] / wanted, "of 0.9 of all", ">= 1", found["told"] >= wanted, "newer progress may take the place of older")


def _running(studio: Studio) -> list[str]:
    """Jobs that a server is said to run."""
    ledger = studio._ledger
    graph: dict[str, Any] = {"1": {"class_type": "SaveImage", "inputs": {}}}
    jobs = ledger.accept(*(NewJob(WorkflowRequest(workflow=graph), [URL], reuse=False) for _ in range(RUNNING)))
    epoch = ledger.take_server(URL)
    for job in jobs:
        attempt = ledger.sending(Claim(job.id, URL, epoch, graph))
        assert attempt is not None
        ledger.record(attempt, epoch, JobStatus.RUNNING, started=Instant.now(), acknowledged=1)
    return [job.id for job in jobs]


async def _started(script: str, *arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", script, *map(str, arguments), stdout=asyncio.subprocess.PIPE)


def _called(home: Path, row: Row) -> None:
    with Studio("engine", home=home) as studio, served(build_service(studio, Settings(home=home))) as url:
        done = [studio.image("a fox", seed=seed, width=64, height=64, steps=1) for seed in range(20)]
        for job in done:
            job.wait(60)
        before, began = processor_s(), time.perf_counter()
        command = [sys.executable, "-c", CALLING, url, str(CALLERS), str(CALLS_S), str(SECONDS), *(job.id for job in done)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        share = (processor_s() - before) / (time.perf_counter() - began)
    end_children(home)
    how = f"once, {SECONDS:g} s: {CALLERS} callers, {CALLS_S} calls a second each, {found['calls']} calls"
    failed = sum(count for code, count in found["codes"].items() if int(code) >= 500)
    row("L09: GET /jobs/{id}, p99", 1000 * found["p99"], "ms", "< 250", found["p99"] < 0.25, f"{how}, p50 {1000 * found['p50']:.1f} ms")
    row("L09: answers with a 5xx", failed, "calls", "0", failed == 0, str(found["codes"]))
    row("L09: submissions meanwhile, p99", found["submit_p99"], "s", "< 1", found["submit_p99"] < 1, f"{found['submitted']} of them")
    row("L09: processor of the serving process", share, "cores", "told", True, how)
