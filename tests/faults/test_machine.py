"""Cases of our own machine: a disk that is full, broken or forgetful, and a clock that jumps."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.aside import FeederHere
from tests.faults.layer import Layer
from tests.faults.test_faults import SIZE, ends_done, plain, posts, wait_for
from toolkit import JobHandle, Studio
from toolkit.errors import HomeUnusable

HOUR_S = 3600.0
TIMEOUT_S = 20.0  # of the requests: much longer than they take, much shorter than the jumps


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Let a named point fail in every process that starts from now on, while the file is there that this returns."""

    def fail(at: str) -> Path:
        flag = tmp_path / "failing"
        flag.touch()
        monkeypatch.setenv("TOOLKIT_FAIL_AT", at)
        monkeypatch.setenv("TOOLKIT_FAIL_FLAG", str(flag))
        return flag

    return fail


def half_files(home: Path) -> list[Path]:
    return [path for path in (home / "projects").rglob("*") if path.is_file()]


@pytest.mark.parametrize(("fault", "sentence"), [("ENOSPC", "The disk of .* is full"), ("EIO", "cannot be written"), ("SHORT", "cannot be written")])
def test_a_disk_that_takes_no_file_holds_the_line_and_says_so_until_it_does(
    layer: Layer, home: Path, failing: Callable[[str], Path], fault: str, sentence: str
) -> None:
    """F30: outputs. The job stays `collecting`, nothing more is sent, and it goes on by itself."""
    flag = failing(f"chunk written={fault}")
    with Studio(layer.url, home=home) as studio:
        first = studio.image("a girl", seed=40, **SIZE)
        wait_for(lambda: first.job.status == "collecting" and first.progress.stalled)
        assert re.search(sentence, first.progress.stalled or "")
        sent = posts(layer)
        later = [studio.image("a girl", seed=seed, **SIZE) for seed in (41, 42, 43)]
        tries = layer.requests.count(("GET", "/api/view"))
        wait_for(lambda: layer.requests.count(("GET", "/api/view")) >= tries + 2)  # it tries again, the line does not move
        assert (first.job.status, [job.job.status for job in later], posts(layer)) == ("collecting", ["queued"] * 3, sent)
        assert not [path for path in half_files(home) if not path.name.endswith(".part")]
        flag.unlink()
        ends_done(layer, home, first, *later)
        assert first.job.attempt == 1


def test_a_disk_that_fails_at_one_file_of_four_keeps_the_others_as_they_are(layer: Layer, home: Path, failing: Callable[[str], Path]) -> None:
    """F30: the third pass fails; what was stored before is stored once."""
    flag = failing("chunk written:3=ENOSPC")
    with Studio(layer.url, home=home) as studio:
        job = studio.image("a girl", seed=44, batch_size=4, **SIZE)
        wait_for(lambda: "full" in (job.progress.stalled or ""))
        pictures = {path: path.stat().st_ino for path in half_files(home) if path.suffix == ".png"}
        assert len(pictures) == 2
        flag.unlink()
        ends_done(layer, home, job)
        assert len(job.job.files) == 4
        assert {path: path.stat().st_ino for path in pictures} == pictures


def test_a_full_disk_refuses_new_requests_before_any_server_hears_of_them(layer: Layer, home: Path) -> None:
    """F30: the ledger. REST answers 503 for the same error, in test_service.py."""
    with Studio(layer.url, home=home) as studio:
        before = studio.image("a girl", seed=45, **SIZE)
        before.wait(30)
        connection = studio._ledger._database.connection()  # this thread's: the feeder's own goes on
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        kept: list[JobHandle] = []

        def fill() -> None:
            while True:
                kept.append(studio.image(f"{len(kept)} {'x' * 5000}", seed=46, width=64, height=64, steps=1))

        connection.execute(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(HomeUnusable, match=r"The disk of .* is full"):
            fill()
        connection.execute("PRAGMA max_page_count = 1000000")
        later = studio.image("a girl", seed=47, **SIZE)
        ends_done(layer, home, before, *kept, later)
        assert posts(layer) == len(kept) + 2  # none for the one that was refused
        assert len(studio.jobs(limit=-1)) == len(kept) + 2


# ---- the clock --------------------------------------------------------------------------------------------------------------


class WallClock:
    """`time.time` as a person sees it who sets the clock; what is monotonic goes on."""

    def __init__(self) -> None:
        self.real, self.offset_s = time.time, 0.0

    def __call__(self) -> float:
        return self.real() + self.offset_s


def test_a_clock_that_jumps_ends_no_job_early_and_mixes_no_line(slow_layer: Layer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F34: an hour back and a day forth while jobs run."""
    clock = WallClock()
    monkeypatch.setattr(time, "time", clock)
    with Studio(slow_layer.url, home=home) as studio, FeederHere(home, slow_layer.url):
        jobs = []
        for seed, offset_s in ((50, -HOUR_S), (51, 24 * HOUR_S), (52, 0.0)):
            jobs.append(studio.image("a girl", seed=seed, width=64, height=64, steps=12, timeout_s=TIMEOUT_S))
            wait_for(lambda: jobs[-1].progress.step is not None)
            assert not jobs[-1].job.is_final
            clock.offset_s = offset_s
            jobs.append(studio.image("a girl", seed=seed + 10, width=64, height=64, steps=4, timeout_s=TIMEOUT_S))
        ends_done(slow_layer, home, *jobs)
        assert slow_layer.runs() == [job.id for job in jobs]
        assert [job.id for job in studio.jobs()] == [job.id for job in reversed(jobs)]
        created = [job.job.created.wall for job in jobs]
        assert created != sorted(created)  # the clock did jump
        for job in jobs:
            assert job.job.timings is not None
            assert all(0 <= (taken or 0.0) < TIMEOUT_S for taken in (job.job.timings.total_s, job.job.timings.run_s, job.job.timings.wait_home_s))


def test_a_picture_its_owner_deleted_is_marked_missing_and_breaks_nothing(layer: Layer, home: Path) -> None:
    """G4: deleted outside the toolkit, and back again."""
    disk = "select disk from outputs where job_id = $id"
    with Studio(layer.url, home=home) as studio:
        job = studio.run(plain(0x908070))
        path = Path(job.wait(30).files[0].path)
        data = path.read_bytes()
        path.unlink()
        assert studio.sql(disk, id=job.id).fetchall() == [("missing",)]
        assert [file.disk for file in job.wait(1).job.files] == ["missing"]
        assert job.job.status == "done"
        for shown in (job, job.wait(1), job.wait(1).files[0]):
            assert path.name in str(shown._repr_mimebundle_()["text/html"])
        path.write_bytes(data)
        assert studio.sql(disk, id=job.id).fetchall() == [("present",)]
        ends_done(layer, home, job)
