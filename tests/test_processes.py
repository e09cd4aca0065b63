"""Several processes, one home, one engine: nothing lost, nothing doubled, nobody waits for a stuck neighbour."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import children_of
from toolkit import ImageRequest, Progress, Studio
from toolkit.feeder.feeder import AT_ONCE
from toolkit.jobs import FINAL
from toolkit.ledger import Ledger

KERNEL = """
import sys
from toolkit import Studio
studio = Studio("engine")
first = int(sys.argv[1])
for number in range(50):
    job = studio.image("a girl at the sea", seed=first + number, steps=1, width=64, height=64)
    print(job.id, flush=True)
    if number == 0:
        job.wait(60)
for job in studio.jobs(limit=1):
    job.wait(120)
"""
STUCK = """
import ctypes, sys
from toolkit import Studio
studio = Studio("engine")
jobs = [studio.image("a girl", seed=seed, steps=2, width=64, height=64) for seed in range(3)]
print("stuck", flush=True)
ctypes.PyDLL(None).sleep(int(sys.argv[1]))  # PyDLL keeps the interpreter's lock
print("free", flush=True)
"""
SUBMITTED_EACH = 50


def start(script: str, home: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TOOLKIT_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def page(home: Path) -> Iterator[str]:
    """`make run` on this home; gives the address of its REST."""
    environment = {**os.environ, "TOOLKIT_HOME": str(home), "TOOLKIT_PORT": "0", "TOOLKIT_FEED_PORT": "0"}
    with subprocess.Popen([sys.executable, "app.py"], env=environment, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = next(word for line in process.stdout for word in line.split() if word.startswith("http://127.0.0.1"))
        yield address.rstrip("/").removesuffix("/docs")
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(timeout=30) == 0


def everything_ends(home: Path, ids: list[str], within_s: float) -> None:
    """Each id has one final status in time, each attempt one run, each file its hash."""
    ledger = Ledger(home)
    deadline = time.monotonic() + within_s
    while ledger.open_jobs():
        assert time.monotonic() < deadline, f"{ledger.counts()} after {within_s} s"
        time.sleep(0.05)
    jobs = [ledger.job(job_id) for job_id in ids]
    assert len({job.id for job in jobs}) == len(ids)
    assert {job.status for job in jobs} == {"done"}
    assert all(job.status in FINAL for job in jobs)
    for job in jobs:
        for file in job.files:
            assert hashlib.sha256(Path(file.path).read_bytes()).hexdigest() == file.sha256
    runs = [json.loads(line) for line in (home / "engine" / "runs.jsonl").read_text().splitlines()]
    started = Counter(run["prompt_id"] for run in runs if run["event"] == "start")
    attempts = [attempt for _, tries in ledger.history_since(0) for attempt, _, _ in tries]
    # a claim whose feeder was killed before the POST never ran and says so; its successor did
    never_sent = {attempt.prompt_id for attempt in attempts if attempt.status == "lost" and not attempt.acknowledged}
    assert len(never_sent) <= AT_ONCE
    assert started == Counter(attempt.prompt_id for attempt in attempts if attempt.prompt_id not in never_sent)
    assert ledger.count() == len(jobs)
    assert not list((home / "projects").rglob("*.part"))
    ledger.close()


@pytest.mark.timeout(180)
def test_a_killed_kernel_loses_and_doubles_nothing(home: Path, page: str) -> None:
    """Two kernels and the page submit 50 each; one kernel is killed at its 20th."""
    acknowledged: list[str] = []
    kernels = [start(KERNEL, home, "1000"), start(KERNEL, home, "2000")]
    with httpx.Client(base_url=page, timeout=30) as rest:
        for number in range(SUBMITTED_EACH):
            body = {"prompt": "a girl", "seed": number, "steps": 1, "width": 64, "height": 64}
            acknowledged.append(rest.post("/api/anime/generate/image", json=body).raise_for_status().json()["job_id"])
    victim = kernels[0]
    assert victim.stdout is not None
    for number, line in enumerate(victim.stdout, start=1):
        acknowledged.append(line.strip())
        if number == 20:
            victim.kill()
            break
    acknowledged += [line.strip() for line in victim.stdout if len(line) == 37]
    acknowledged += [line.strip() for line in kernels[1].stdout or ()]
    submitted = Ledger(home)
    unheard = [job.id for job in submitted.jobs(limit=1000) if job.id not in acknowledged]  # accepted, but killed before it could say so
    submitted.close()
    assert len(unheard) <= 1
    everything_ends(home, acknowledged + unheard, within_s=30.0)
    for kernel in kernels:
        kernel.wait(timeout=60)
        assert kernel.stdout is not None
        kernel.stdout.close()


@pytest.mark.timeout(180)
def test_a_killed_feeder_loses_and_doubles_nothing(home: Path, page: str) -> None:
    """The same with the feeder killed at its 30th job."""
    kernels = [start(KERNEL, home, "1000"), start(KERNEL, home, "2000")]
    acknowledged: list[str] = []
    ledger = Ledger(home)
    killed = False
    with httpx.Client(base_url=page, timeout=30) as rest:
        for number in range(SUBMITTED_EACH):
            body = {"prompt": "a girl", "seed": number, "steps": 1, "width": 64, "height": 64}
            acknowledged.append(rest.post("/api/anime/generate/image", json=body).raise_for_status().json()["job_id"])
            killed = killed or kill_feeder_at(30, ledger, home)
    while not killed:
        killed = kill_feeder_at(30, ledger, home)
        time.sleep(0.005)
    for kernel in kernels:
        assert kernel.stdout is not None
        acknowledged += [line.strip() for line in kernel.stdout]
        kernel.stdout.close()
        kernel.wait(timeout=60)
    ledger.close()
    everything_ends(home, acknowledged, within_s=30.0)


def kill_feeder_at(number: int, ledger: Ledger, home: Path) -> bool:
    if ledger.count(status="done") < number:
        return False
    os.kill(children_of(home)["feeder engine"], signal.SIGKILL)
    return True


@pytest.mark.timeout(120)
def test_a_stuck_kernel_delays_no_other_process(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_ENGINE_STEP_S", "0.1")
    with Studio("engine", home=home) as studio:
        studio.image("warm up", seed=99, steps=1, width=64, height=64).wait(60)
        stuck = start(STUCK, home, "6")
        assert stuck.stdout is not None
        assert stuck.stdout.readline() == "stuck\n"
        seen: list[float] = []
        began = time.monotonic()
        handle = studio.submit(ImageRequest(prompt="a girl", seed=7, steps=20, width=64, height=64))
        handle.subscribe(lambda news: seen.append(time.monotonic()) if isinstance(news, Progress) and news.step else None)
        assert handle.wait(60).job.status == "done"
        took = time.monotonic() - began
        assert stuck.poll() is None  # it was stuck all the while
        gaps = [later - earlier for earlier, later in itertools.pairwise(seen)]
        assert took < 6.0
        assert max(gaps) < 1.0
        assert stuck.stdout.readline() == "free\n"
        assert stuck.wait(timeout=30) == 0
        stuck.stdout.close()
