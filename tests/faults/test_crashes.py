"""SIGKILL between two lines of ours: within 30 s nothing is lost, doubled, half or falsely ended, and nobody had to do anything.

TOOLKIT_CRASH_REPEATS sets how often each point is tried.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import children_of, is_alive
from tests.faults.layer import Layer
from tests.test_feeder import check_files, wait_for
from toolkit import JobHandle, Studio
from toolkit.crashpoints import POINTS, reached
from toolkit.engine.execution import Options
from toolkit.errors import JobCancelled
from toolkit.jobs import Job
from toolkit.ledger import Ledger, LiveBoard

ROOT = Path(__file__).parents[2]
SMALL = {"width": 64, "height": 64, "steps": 2}
LIMIT_S = 30.0
CHUNK = 2**18  # client.view's
ASK = """
import sys
from toolkit import Studio
Studio(sys.argv[1], home=sys.argv[2]).image("a girl", seed=1, width=64, height=64, steps=2)
"""

often = pytest.mark.parametrize("repeat", range(int(os.environ.get("TOOLKIT_CRASH_REPEATS", "1"))))


def paced(step_s: float) -> Options:
    return Options(step_s, 0.0, 0.0, True, 0.0)


def ask(studio: Studio, *, large: bool = False) -> list[JobHandle]:
    """Two on the server, one in our line, the first with four files; or one alone whose file is of several chunks."""
    if large:
        return [studio.image("a girl", seed=1, width=1536, height=1536, steps=2)]
    return [
        studio.image("a girl", seed=1, batch_size=4, **SMALL),
        studio.image("a girl", seed=2, **SMALL),
        studio.image("a girl", seed=3, **SMALL),
    ]


def jobs_of(home: Path) -> list[Job]:
    ledger = Ledger(home)
    try:
        return list(ledger.jobs(limit=-1))
    finally:
        ledger.close()


def acknowledged(home: Path) -> int:
    ledger = Ledger(home)
    try:
        found = [ledger.attempt(job.id) for job in ledger.jobs(limit=-1) if job.attempt]
        return sum(1 for attempt in found if attempt is not None and attempt.acknowledged)
    finally:
        ledger.close()


def files_of(home: Path) -> list[Path]:
    return [path for path in (home / "projects").rglob("*") if path.is_file()]


def feeder_of(home: Path, layer: Layer) -> int:
    return children_of(home)[f"feeder {layer.url}"]


def kill_feeder(home: Path, layer: Layer) -> None:
    feeder = feeder_of(home, layer)
    os.kill(feeder, signal.SIGKILL)
    wait_for(lambda: not is_alive(feeder))


def check_home(home: Path, layer: Layer, handles: list[JobHandle], ends: dict[str, str] | None = None) -> None:
    """I1, I3, I4 and I7."""
    jobs = {job.id: job for job in jobs_of(home)}
    assert sorted(jobs) == sorted(handle.id for handle in handles)
    assert len(jobs_of(home)) == len(handles)
    for job in jobs.values():
        assert (job.status, job.attempt) == ((ends or {}).get(job.id, "done"), 1), job.error
        if job.is_done:
            check_files(job)
            assert [file.number for file in job.files] == list(range(1, job.request.as_json().get("batch_size", 1) + 1))
    assert sorted(layer.runs()) == sorted(jobs)  # the first attempt's prompt id is the job's id
    named = {Path(file.path) for job in jobs.values() for file in job.files}
    assert {path for path in files_of(home) if path.suffix != ".json"} == named  # nothing half, nothing of nobody
    wait_for(lambda: not _shown(home))


def _shown(home: Path) -> list[str]:
    board = LiveBoard(home)
    try:
        return [row.id for row in board.jobs_since(0)]
    finally:
        board.close()


def arm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, point: str) -> Path:
    """Let the first process that gets there die; the flag is there from then on."""
    flag = tmp_path / "died"
    assert point in POINTS
    monkeypatch.setenv("TOOLKIT_CRASH_AT", point)
    monkeypatch.setenv("TOOLKIT_CRASH_FLAG", str(flag))
    return flag


# ---- what the disk and the ledger look like where it died ---------------------------------------------------------------


def _nothing_is_ours(home: Path) -> None:
    assert files_of(home) == []


def _half_a_file(home: Path) -> None:
    (part,) = [path for path in files_of(home) if path.name.endswith(".part")]
    assert part.stat().st_size == CHUNK
    assert not part.with_name(part.name[1:].removesuffix(".part")).exists()


def _two_of_four(home: Path) -> None:
    first = min(jobs_of(home), key=lambda job: job.seq)
    assert len([path for path in files_of(home) if first.id[:8] in path.name and path.suffix == ".png"]) == 2
    assert first.files == ()


def _one_is_done(home: Path) -> None:
    assert [job.status for job in jobs_of(home)].count("done") >= 1  # two runs end side by side


def _no_sidecar(home: Path) -> None:
    bare = [path for path in files_of(home) if path.suffix == ".png" and not path.with_suffix(".json").exists()]
    assert bare


DEATHS = [
    pytest.param("answer read", _nothing_is_ours, id="C05"),
    pytest.param("success known", _nothing_is_ours, id="C10"),
    pytest.param("chunk written", _half_a_file, id="C11"),
    pytest.param("second file stored", _two_of_four, id="C13"),
    pytest.param("end committed", _one_is_done, id="C14"),
    pytest.param("file published", _no_sidecar, id="C20"),
]


@often
@pytest.mark.parametrize(("point", "looks"), DEATHS)
def test_a_feeder_that_dies_there_is_replaced(
    point: str, looks: Callable[[Path], None], repeat: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = arm(monkeypatch, tmp_path, point)
    with Layer(tmp_path / "server") as layer, Studio(layer.url, home=home) as studio:
        jobs = ask(studio, large=point == "chunk written")
        wait_for(flag.exists)
        feeder = feeder_of(home, layer)
        wait_for(lambda: not is_alive(feeder))
        looks(home)
        for job in jobs:
            job.wait(LIMIT_S)
        check_home(home, layer, jobs)
        assert point != "chunk written" or jobs[0].job.files[0].size_bytes > CHUNK


@often
def test_an_accepted_prompt_whose_answer_nobody_read_runs_once(repeat: int, home: Path, tmp_path: Path) -> None:
    """C04."""
    killed: list[int] = []

    async def swallow(request: web.Request) -> web.StreamResponse | None:
        if request.method != "POST" or not request.path.endswith("/prompt") or killed:
            return None
        killed.append(feeder_of(home, layer))
        async with layer._session.post(layer._engine_url + request.path, data=await request.read(), headers={"Content-Type": "application/json"}):
            os.kill(killed[0], signal.SIGKILL)
        return web.Response(status=500)

    with Layer(tmp_path / "server") as layer, Studio(layer.url, home=home) as studio:
        layer.on_request = swallow
        jobs = ask(studio)
        wait_for(lambda: killed)
        for job in jobs:
            job.wait(LIMIT_S)
        check_home(home, layer, jobs)
        assert layer.requests.count(("POST", "/api/prompt")) == len(jobs)


@often
def test_a_prompt_that_waits_on_the_server_is_found_there(repeat: int, home: Path, tmp_path: Path) -> None:
    """C06."""
    with Layer(tmp_path / "server", paced(0.3)) as layer, Studio(layer.url, home=home) as studio:
        jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=8) for seed in range(3)]
        wait_for(lambda: acknowledged(home) == 2)
        kill_feeder(home, layer)
        assert len(layer.runs()) <= 1
        for job in jobs:
            job.wait(LIMIT_S)
        check_home(home, layer, jobs)
        assert layer.requests.count(("POST", "/api/prompt")) == len(jobs)


@often
def test_what_ended_while_nobody_looked_is_fetched_by_the_next_studio(repeat: int, home: Path, tmp_path: Path) -> None:
    """C08."""
    with Layer(tmp_path / "server", paced(0.05)) as layer:
        with Studio(layer.url, home=home) as studio:
            asked = [studio.image("a girl", seed=seed, width=64, height=64, steps=8).id for seed in range(2)]
            wait_for(lambda: acknowledged(home) == 2)
            kill_feeder(home, layer)
        journal = tmp_path / "server" / "engine" / "runs.jsonl"
        wait_for(lambda: sum(1 for line in journal.read_text().splitlines() if json.loads(line)["event"] != "start") == 2)
        with Studio(layer.url, home=home) as studio:
            jobs = list(studio.jobs())
            assert sorted(job.id for job in jobs) == sorted(asked)
            for job in jobs:
                job.wait(LIMIT_S)
            check_home(home, layer, jobs)
            assert [job.job.timings.timed_by for job in jobs if job.job.timings] == ["history"] * 2


@often
def test_a_cancel_whose_sender_died_ends_as_cancelled(repeat: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C18."""
    flag = arm(monkeypatch, tmp_path, "interrupt sent")
    with Layer(tmp_path / "server", paced(0.2)) as layer, Studio(layer.url, home=home) as studio:
        jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=steps) for seed, steps in enumerate((60, 2, 2))]
        wait_for(lambda: jobs[0].progress.step is not None)
        jobs[0].cancel()
        wait_for(flag.exists)
        with pytest.raises(JobCancelled):
            jobs[0].wait(LIMIT_S)
        for job in jobs[1:]:
            job.wait(LIMIT_S)
        check_home(home, layer, jobs, {jobs[0].id: "cancelled"})


@often
def test_who_comes_after_an_untold_end_sees_it_at_once(repeat: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14 with nothing else open, so that no feeder follows."""
    flag = arm(monkeypatch, tmp_path, "end committed")
    with Layer(tmp_path / "server") as layer:
        with Studio(layer.url, home=home) as studio:
            studio.image("a girl", seed=1, **SMALL)
            wait_for(flag.exists)
        with Studio(layer.url, home=home) as studio:
            (job,) = studio.jobs()
            assert (job.job.status, job.progress.fraction) == ("done", 1.0)
            later = studio.image("a girl", seed=2, **SMALL)
            later.wait(LIMIT_S)
            check_home(home, layer, [job, later])


def die_asking(layer: Layer, home: Path, point: str) -> None:
    assert point in POINTS
    died = subprocess.run([sys.executable, "-c", ASK, layer.url, str(home)], env={**os.environ, "TOOLKIT_CRASH_AT": point}, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL


@often
def test_a_request_that_was_not_acknowledged_left_nothing(repeat: int, home: Path, tmp_path: Path) -> None:
    """C01."""
    with Layer(tmp_path / "server") as layer:
        die_asking(layer, home, "request parsed")
        assert jobs_of(home) == []
        assert files_of(home) == []
        assert ("POST", "/api/prompt") not in layer.requests
        with Studio(layer.url, home=home) as studio:
            job = studio.image("a girl", seed=1, **SMALL)
            job.wait(LIMIT_S)
            check_home(home, layer, [job])


@often
def test_a_stored_request_runs_once_although_its_caller_died(repeat: int, home: Path, tmp_path: Path) -> None:
    """C02."""
    with Layer(tmp_path / "server") as layer:
        die_asking(layer, home, "row committed")
        (stored,) = jobs_of(home)
        assert (stored.status, layer.requests.count(("POST", "/api/prompt"))) == ("queued", 0)
        with Studio(layer.url, home=home) as studio:
            (job,) = studio.jobs()
            job.wait(LIMIT_S)
            assert studio.image("a girl", seed=1, reuse=True, **SMALL).id == stored.id
            check_home(home, layer, [job])


def test_every_mark_in_the_code_is_known_and_every_known_one_is_in_the_code() -> None:
    code = "".join(path.read_text() for path in (ROOT / "toolkit").rglob("*.py"))
    assert sorted(re.findall(r'\breached\("([^"]+)"\)', code)) == sorted(POINTS)


def test_a_mark_does_nothing_unless_it_is_named_and_kills_once_per_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached("answer read")
    flag = arm(monkeypatch, tmp_path, "answer read")
    flag.touch()
    reached("success known")
    reached("answer read")
