"""A thousand jobs from one cell, and a hundred live cards: what it costs the process of a notebook."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from tests.benchmarks.bare import tiny
from tests.benchmarks.usage import peak_mb, processor_s, resident_mb
from toolkit import Studio, WorkflowRequest
from toolkit.jobs import Instant, JobStatus
from toolkit.ledger import Claim, NewJob
from toolkit.studio import JobHandle
from toolkit.widgets import ProgressCard

JOBS, CARDS, MOVING, UPDATES_S = 1000, 100, 20, 5
SECONDS = 5  # of watching the cards, five times
URL = "http://127.0.0.1:9"
FEEDER = """
import sys, time
from pathlib import Path
from toolkit.ledger import LiveBoard
from toolkit.progress import Progress
board, jobs, pause = LiveBoard(Path(sys.argv[1])), sys.argv[4:], float(sys.argv[2])
due = time.monotonic()
for number in range(10**6):
    for job in jobs:
        preview = b"\\xff\\xd8" + bytes([number % 256]) * int(sys.argv[3]) if number % 5 == 0 else None
        board.show(job, Progress(fraction=number % 1000 / 1000, node="KSampler", step=number, steps=1000, elapsed_s=number / 5).dump(), preview, "image/jpeg")
    due += pause
    time.sleep(max(due - time.monotonic(), 0))
"""
Row = Callable[..., None]


def from_one_cell(home: Path, row: Row) -> None:
    """A fresh process hands jobs over one by one in a loop, and awaits them; memory is the most it ever held."""
    command = [sys.executable, "-m", "tests.benchmarks.crowds", str(home), str(time.time_ns() % 2**24)]
    accepted, added, took, done, overtaken = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    row(f"engine: {JOBS} jobs from one cell accepted", accepted, "s", "<= 30", accepted <= 30, "each in a fresh process")
    row(
        f"engine: {JOBS} jobs from one cell, memory added",
        added,
        "MB",
        "< 150",
        added < 150,
        "peak of a fresh process beside what it held after one job",
    )
    row(f"engine: {JOBS} jobs from one cell done", done, f"of {JOBS}", "all", done == JOBS, f"in {took:.1f} s", every=True)
    row(f"engine: {JOBS} jobs from one cell, started before an earlier one", overtaken, "jobs", "0", overtaken == 0, "by their start", every=True)


def _cell(home: Path, first: int) -> tuple[float, float, float, int, int]:
    with Studio("engine", home=home) as studio:
        studio.run(tiny(first, "x")).wait(60)
        before, began = resident_mb(), time.perf_counter()
        handles = [studio.run(tiny(first + number, "x")) for number in range(1, JOBS + 1)]
        accepted = time.perf_counter() - began
        for handle in handles:
            handle.wait(600)
        took, added = time.perf_counter() - began, peak_mb() - before
        jobs = [handle.job for handle in handles]
    started = [job.started.mono for job in jobs if job.started is not None and job.started.mono is not None]
    overtaken = sum(later < earlier for earlier, later in pairwise(started)) + JOBS - len(started)
    return accepted, added, took, sum(job.status == JobStatus.DONE for job in jobs), overtaken


def cards(home: Path, row: Row) -> None:
    """Cards of which some move, without a browser: what drawing them takes of one core."""
    with Studio(URL, home=home) as studio:
        ledger = studio._ledger
        jobs = ledger.accept(*(NewJob(WorkflowRequest(workflow=tiny(number, "x")), [URL]) for number in range(CARDS)))
        epoch = ledger.take_server(URL)
        for job in jobs[:MOVING]:
            attempt = ledger.sending(Claim(job.id, URL, epoch, job.request.as_json()["workflow"]))
            assert attempt is not None
            ledger.record(attempt, epoch, JobStatus.RUNNING, started=Instant.now(), acknowledged=1)
        shown = [ProgressCard(JobHandle(studio, job.id)) for job in jobs]
        arguments = [str(home), str(1 / UPDATES_S), "20000", *(job.id for job in jobs[:MOVING])]
        feeder = subprocess.Popen([sys.executable, "-c", FEEDER, *arguments])
        try:
            time.sleep(1.0)
            shares = [_share() for _ in range(5)]
        finally:
            feeder.terminate()
            feeder.wait()
        moved = sum("KSampler" in card.status.value for card in shown)
        assert moved == MOVING, moved
    share = 100 * statistics.median(shares)
    said = f"median of 5 times {SECONDS} s, {MOVING} of them with {UPDATES_S} updates a second, a preview of 20 kB with each fifth"
    row(f"{CARDS} live cards", share, "% of one core", "< 25", share < 25, said)


def _share() -> float:
    began, before = time.perf_counter(), processor_s()
    time.sleep(SECONDS)
    return (processor_s() - before) / (time.perf_counter() - began)


if __name__ == "__main__":
    print(json.dumps(_cell(Path(sys.argv[1]), int(sys.argv[2]))))
