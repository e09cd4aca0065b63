"""SIGKILL between two lines of ours: within 30 s nothing is lost, doubled, half or falsely ended, and nobody had to do anything.

TOOLKIT_CRASH_REPEATS sets how often each point is tried, one after the other in one home: whoever took over is the next to die, which costs
one start of a feeder a death and finds what a death leaves behind for the one after it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import children_of, is_alive
from tests.faults.invariants import check
from tests.faults.layer import Layer
from tests.faults.test_faults import wait_for
from toolkit import JobHandle, Studio
from toolkit.crashpoints import POINTS, reached
from toolkit.engine.execution import Options
from toolkit.errors import JobCancelled
from toolkit.jobs import Job
from toolkit.ledger import Ledger, LiveBoard
from toolkit.settings import ServerAddress, remember_servers, remembered_servers

ROOT = Path(__file__).parents[2]
SMALL = {"width": 64, "height": 64}
LIMIT_S = 30.0
CHUNK = 2**18  # client.view's at most
NOTES = 10_000  # bytes that a file says of itself, instead of what the server wrote into it
REPEATS = int(os.environ.get("TOOLKIT_CRASH_REPEATS", "3"))
ASK = """
import sys
from toolkit import Studio
Studio(sys.argv[1], home=sys.argv[2]).image("a girl", seed=int(sys.argv[3]), width=64, height=64, steps=2)
"""
ASK_BY_REST = """
import sys
import httpx
from pathlib import Path
from tests.serving import served
from toolkit import Studio
from toolkit.service import build_service
from toolkit.settings import Settings
with Studio(sys.argv[1], home=sys.argv[2]) as studio, served(build_service(studio, Settings(home=Path(sys.argv[2])))) as url:
    body = {"prompt": "a girl", "width": 64, "height": 64, "steps": 2}
    print(httpx.post(f"{url}/api/anime/generate/image", json=body, headers={"Idempotency-Key": sys.argv[3]}, timeout=60).json()["job_id"])
"""
CONNECT = """
import sys
from pathlib import Path
from toolkit.settings import ServerAddress, remember_servers
remember_servers(Path(sys.argv[1]), (ServerAddress.parse(sys.argv[2]),))
"""

pytestmark = pytest.mark.timeout(60 + 20 * REPEATS)


def paced(step_s: float) -> Options:
    return Options(step_s, 0.0, 0.0, True, 0.0)


def ask(studio: Studio, seed: int, *, large: bool = False) -> list[JobHandle]:
    """Two on the server, one in our line, the first with four files; or one alone whose file is of several chunks."""
    if large:
        return [studio.image("a girl", seed=seed, width=1600, height=1600, steps=2)]
    return [
        studio.image("a girl", seed=seed, batch_size=4, steps=2, **SMALL),
        studio.image("a girl", seed=seed + 1, steps=2, **SMALL),
        studio.image("a girl", seed=seed + 2, steps=2, **SMALL),
    ]


def jobs_of(home: Path) -> list[Job]:
    ledger = Ledger(home)
    try:
        return list(ledger.jobs(limit=-1))
    finally:
        ledger.close()


def acknowledged(home: Path, jobs: Sequence[JobHandle]) -> int:
    ledger = Ledger(home)
    try:
        found = [ledger.attempt(job.id) for job in jobs if job.job.attempt]
        return sum(1 for attempt in found if attempt is not None and attempt.acknowledged)
    finally:
        ledger.close()


def files_of(home: Path, jobs: Sequence[JobHandle]) -> list[Path]:
    names = [job.id[:8] for job in jobs]
    return [path for path in (home / "projects").rglob("*") if path.is_file() and any(name in path.name for name in names)]


def feeder_of(home: Path, layer: Layer) -> int:
    return children_of(home)[f"feeder {layer.url}"]


def kill_feeder(home: Path, layer: Layer) -> None:
    feeder = feeder_of(home, layer)
    os.kill(feeder, signal.SIGKILL)
    wait_until_dead(feeder)


def wait_until_dead(pid: int) -> None:
    wait_for(lambda: not is_alive(pid))


def wait_until_acknowledged(home: Path, jobs: Sequence[JobHandle], count: int) -> None:
    wait_for(lambda: acknowledged(home, jobs) == count)


def check_home(home: Path, layer: Layer, handles: Sequence[JobHandle], ends: dict[str, str] | None = None, deaths: int = 1) -> None:
    """All invariants, and: each job ran once, each file is a job's, nothing is shown of what has ended."""
    check(home, layer.runs(), [handle.id for handle in handles], finished=layer.finished())
    jobs = {job.id: job for job in jobs_of(home)}
    assert sorted(jobs) == sorted(handle.id for handle in handles)
    for job in jobs.values():
        assert job.status == (ends or {}).get(job.id, "done"), job.error
        if job.is_done:
            assert [file.number for file in job.files] == list(range(1, job.request.as_json().get("batch_size", 1) + 1))
    # a claim whose feeder died before its POST never ran and has a successor; that is one at most a death
    assert sum(job.attempt - 1 for job in jobs.values()) <= deaths
    assert set(Counter(jobs_that_ran(home, layer)).values()) <= {1}
    named = {Path(file.path) for job in jobs.values() for file in job.files}
    assert {path for path in files_of(home, handles) if path.suffix != ".json"} == named
    wait_for(lambda: not _shown(home))


def jobs_that_ran(home: Path, layer: Layer) -> list[str]:
    ledger = Ledger(home)
    job_of = {attempt.prompt_id: attempt.job_id for _, tries in ledger.history_since(0) for attempt, _, _ in tries}
    ledger.close()
    return [job_of[prompt_id] for prompt_id in layer.runs()]


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


def _nothing_is_ours(home: Path, jobs: Sequence[JobHandle]) -> None:
    assert files_of(home, jobs) == []


def _half_a_file(home: Path, jobs: Sequence[JobHandle]) -> None:
    (part,) = [path for path in files_of(home, jobs) if path.name.endswith(".part")]
    assert 0 < part.stat().st_size < CHUNK + NOTES
    assert not part.with_name(part.name[1:].removesuffix(".part")).exists()


def _two_of_four(home: Path, jobs: Sequence[JobHandle]) -> None:
    assert len([path for path in files_of(home, jobs[:1]) if path.suffix == ".png"]) == 2
    assert jobs[0].job.files == ()


def _one_is_done(home: Path, jobs: Sequence[JobHandle]) -> None:
    assert [job.job.status for job in jobs].count("done") >= 1  # two runs end side by side


def _no_sidecar(home: Path, jobs: Sequence[JobHandle]) -> None:
    bare = [path for path in files_of(home, jobs) if path.suffix == ".png" and not path.with_suffix(".json").exists()]
    assert bare


DEATHS = [
    pytest.param("answer read", _nothing_is_ours, id="C05"),
    pytest.param("success known", _nothing_is_ours, id="C10"),
    pytest.param("chunk written", _half_a_file, id="C11"),
    pytest.param("second file stored", _two_of_four, id="C13"),
    pytest.param("end committed", _one_is_done, id="C14"),
    pytest.param("file published", _no_sidecar, id="C20"),
]


@pytest.mark.parametrize(("point", "looks"), DEATHS)
def test_a_feeder_that_dies_there_is_replaced(
    point: str, looks: Callable[[Path, Sequence[JobHandle]], None], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = arm(monkeypatch, tmp_path, point)
    jobs: list[JobHandle] = []
    with Layer(tmp_path / "server") as layer:
        for repeat in range(REPEATS):
            flag.unlink(missing_ok=True)
            with Studio(layer.url, home=home) as studio:
                asked = ask(studio, 10 * repeat, large=point == "chunk written")
                jobs += asked
                wait_for(flag.exists)
                wait_until_dead(feeder_of(home, layer))
                looks(home, asked)
                for job in asked:
                    job.wait(LIMIT_S)
                check_home(home, layer, jobs, deaths=repeat + 1)
                assert point != "chunk written" or asked[0].job.files[0].size_bytes > CHUNK + NOTES


def test_an_accepted_prompt_whose_answer_nobody_read_runs_once(home: Path, tmp_path: Path) -> None:
    """C04."""
    armed, killed, jobs = [False], list[int](), list[JobHandle]()

    async def swallow(request: web.Request) -> web.StreamResponse | None:
        if request.method != "POST" or not request.path.endswith("/prompt") or not armed[0]:
            return None
        armed[0] = False
        killed.append(feeder_of(home, layer))
        async with layer._session.post(layer._engine_url + request.path, data=await request.read(), headers={"Content-Type": "application/json"}):
            os.kill(killed[-1], signal.SIGKILL)
        return web.Response(status=500)

    with Layer(tmp_path / "server") as layer:
        layer.on_request = swallow
        for repeat in range(REPEATS):
            armed[0] = True
            with Studio(layer.url, home=home) as studio:
                asked = ask(studio, 10 * repeat)
                jobs += asked
                for job in asked:
                    job.wait(LIMIT_S)
                check_home(home, layer, jobs, deaths=repeat + 1)
            assert len(set(killed)) == repeat + 1
        assert layer.requests.count(("POST", "/api/prompt")) == len(jobs)


def test_a_prompt_that_waits_on_the_server_is_found_there(home: Path, tmp_path: Path) -> None:
    """C06."""
    jobs: list[JobHandle] = []
    with Layer(tmp_path / "server", paced(0.12)) as layer:
        for repeat in range(REPEATS):
            with Studio(layer.url, home=home) as studio:
                asked = [studio.image("a girl", seed=10 * repeat + seed, steps=8, **SMALL) for seed in range(3)]
                jobs += asked
                wait_until_acknowledged(home, asked, 2)
                kill_feeder(home, layer)
                assert asked[1].id not in layer.runs()
                for job in asked:
                    job.wait(LIMIT_S)
                check_home(home, layer, jobs, deaths=0)
        assert layer.requests.count(("POST", "/api/prompt")) == len(jobs)


def test_what_ended_while_nobody_looked_is_fetched_by_the_next_studio(home: Path, tmp_path: Path) -> None:
    """C08."""
    jobs: list[JobHandle] = []
    with Layer(tmp_path / "server", paced(0.05)) as layer:
        for repeat in range(REPEATS):
            with Studio(layer.url, home=home) as studio:
                asked = [studio.image("a girl", seed=10 * repeat + seed, steps=8, **SMALL) for seed in range(2)]
                ids = {job.id for job in asked}
                wait_until_acknowledged(home, asked, 2)
                kill_feeder(home, layer)
            wait_for(lambda ids=ids: ids <= layer.finished())
            with Studio(layer.url, home=home) as studio:
                found = [job for job in studio.jobs(limit=2) if job.id in ids]
                jobs += found
                for job in found:
                    job.wait(LIMIT_S)
                check_home(home, layer, jobs, deaths=0)
                assert [job.job.timings.timed_by for job in found if job.job.timings] == ["history"] * 2


def test_a_cancel_whose_sender_died_ends_as_cancelled(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C18."""
    flag = arm(monkeypatch, tmp_path, "interrupt sent")
    jobs, ends = list[JobHandle](), dict[str, str]()
    with Layer(tmp_path / "server", paced(0.1)) as layer:
        for repeat in range(REPEATS):
            flag.unlink(missing_ok=True)
            with Studio(layer.url, home=home) as studio:
                asked = [studio.image("a girl", seed=10 * repeat + seed, steps=steps, **SMALL) for seed, steps in enumerate((100, 2, 2))]
                jobs += asked
                wait_for(lambda first=asked[0]: first.progress.step is not None)
                asked[0].cancel()
                ends[asked[0].id] = "cancelled"
                wait_for(flag.exists)
                with pytest.raises(JobCancelled):
                    asked[0].wait(LIMIT_S)
                for job in asked[1:]:
                    job.wait(LIMIT_S)
                check_home(home, layer, jobs, ends, deaths=repeat + 1)


def test_who_comes_after_an_untold_end_sees_it_at_once(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14 with nothing else open, so that no feeder follows."""
    flag = arm(monkeypatch, tmp_path, "end committed")
    jobs: list[JobHandle] = []
    with Layer(tmp_path / "server") as layer:
        for repeat in range(REPEATS):
            flag.unlink(missing_ok=True)
            with Studio(layer.url, home=home) as studio:
                studio.image("a girl", seed=10 * repeat, steps=2, **SMALL)
                wait_for(flag.exists)
            with Studio(layer.url, home=home) as studio:
                (job,) = studio.jobs(limit=1)
                assert (job.job.status, job.progress.fraction) == ("done", 1.0)
                later = studio.image("a girl", seed=10 * repeat + 1, steps=2, **SMALL)
                later.wait(LIMIT_S)
                jobs += [job, later]
                check_home(home, layer, jobs, deaths=0)


def die_in(script: str, point: str, *arguments: str) -> None:
    assert point in POINTS
    died = subprocess.run([sys.executable, "-c", script, *arguments], env={**os.environ, "TOOLKIT_CRASH_AT": point}, timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL


def test_a_request_that_was_not_acknowledged_left_nothing(home: Path, tmp_path: Path) -> None:
    """C01."""
    with Layer(tmp_path / "server") as layer:
        for repeat in range(REPEATS):
            die_in(ASK, "request parsed", layer.url, str(home), str(repeat))
            assert jobs_of(home) == []
            assert not (home / "projects").exists()
            assert ("POST", "/api/prompt") not in layer.requests
        with Studio(layer.url, home=home) as studio:
            job = studio.image("a girl", seed=1, steps=2, **SMALL)
            job.wait(LIMIT_S)
            check_home(home, layer, [job], deaths=0)


def test_a_stored_request_runs_once_although_its_caller_died(home: Path, tmp_path: Path) -> None:
    """C02."""
    with Layer(tmp_path / "server") as layer:
        for repeat in range(REPEATS):
            die_in(ASK, "row committed", layer.url, str(home), str(repeat))
            assert len(jobs_of(home)) == repeat + 1
            if repeat == 0:  # whoever comes after it sees to it that the earlier ones run
                assert [job.status for job in jobs_of(home)] == ["queued"]
                assert ("POST", "/api/prompt") not in layer.requests
        with Studio(layer.url, home=home) as studio:
            jobs = list(studio.jobs(limit=-1))
            for job in jobs:
                job.wait(LIMIT_S)
            again = [studio.image("a girl", seed=seed, reuse=True, steps=2, **SMALL).id for seed in reversed(range(REPEATS))]
            assert again == [job.id for job in jobs]
            check_home(home, layer, jobs, deaths=0)


def test_a_rest_call_that_was_not_answered_is_found_again_by_its_key(home: Path, tmp_path: Path) -> None:
    """C02 over REST: row committed, no answer; the same key finds that row, and it runs once."""
    with Layer(tmp_path / "server") as layer:
        for repeat in range(min(REPEATS, 10)):
            die_in(ASK_BY_REST, "row committed", layer.url, str(home), f"key-{repeat}")
            (stored, *_) = jobs_of(home)
            said = subprocess.run(
                [sys.executable, "-c", ASK_BY_REST, layer.url, str(home), f"key-{repeat}"], timeout=60, check=True, capture_output=True, text=True
            ).stdout
            assert said.strip() == stored.id
            assert len(jobs_of(home)) == repeat + 1
        with Studio(layer.url, home=home) as studio:
            jobs = list(studio.jobs(limit=-1))
            for job in jobs:
                job.wait(LIMIT_S)
            check_home(home, layer, jobs, deaths=0)


def test_settings_that_were_being_written_are_the_old_ones_or_the_new_ones(home: Path) -> None:
    """C21."""
    old = (ServerAddress.parse("http://old:8188"),)
    remember_servers(home, old)
    for repeat in range(REPEATS):
        die_in(CONNECT, "settings written", str(home), f"http://new:{8000 + repeat}")
        assert remembered_servers(home) == old
    new = (ServerAddress.parse("http://new:8188"),)
    remember_servers(home, new)
    assert remembered_servers(home) == new


def test_every_mark_in_the_code_is_known_and_every_known_one_is_in_the_code() -> None:
    code = "".join(path.read_text() for path in (ROOT / "toolkit").rglob("*.py"))
    assert sorted(re.findall(r'\breached\("([^"]+)"', code)) == sorted(POINTS)


def test_a_mark_does_nothing_unless_it_is_named_and_kills_once_per_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached("answer read")
    flag = arm(monkeypatch, tmp_path, "answer read")
    flag.touch()
    reached("success known")
    reached("answer read")
