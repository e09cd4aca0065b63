"""jobs: statuses move along one table, final is final, and durations survive clocks that jump."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import jobs
from toolkit.errors import JobCancelled, JobFailed, JobLost, JobTimeout
from toolkit.jobs import DONE, FINAL, IN_FLIGHT, MOVES, OPEN, Instant, Job, JobStatus, boot_id, error_of, may_move
from toolkit.requests import ImageRequest, VideoRequest, WorkflowRequest

relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault

NOW = Instant(1_795_000_000.0, 100.0, "boot")


def job(status: str = "queued", **fields) -> Job:
    request = fields.pop("request", ImageRequest(prompt="a fox", seed=7))
    return Job(id="3f2a9c1e-0000-4000-8000-000000000000", seq=1, revision=1, request=request, status=status, created=NOW, **fields)


# ---- the table ------------------------------------------------------------------------------------------------------------------------


def test_every_status_is_either_open_or_final():
    assert set(JobStatus) == OPEN | FINAL
    assert set() == OPEN & FINAL
    assert IN_FLIGHT.issubset(OPEN)
    assert DONE.issubset(FINAL)


def test_the_table_knows_every_status():
    assert set(MOVES) == set(JobStatus)


@pytest.mark.parametrize("status", sorted(FINAL))
def test_a_final_status_leads_nowhere(status):
    assert MOVES[status] == frozenset()
    assert not any(may_move(status, other) for other in JobStatus)


def test_may_move_agrees_with_the_table_and_lets_open_ones_stay():
    for old in JobStatus:
        for new in JobStatus:
            assert may_move(old, new) == (new in MOVES[old] or (old is new and old in OPEN))
            assert may_move(str(old), str(new)) == may_move(old, new)


def test_every_open_status_can_reach_done_and_cancelled():
    for start in OPEN:
        reached, todo = set(), [start]
        while todo:
            status = todo.pop()
            reached.add(status)
            todo += MOVES[status] - reached
        assert {JobStatus.DONE, JobStatus.CANCELLED} <= reached
        assert JobStatus.CREATED not in reached - {start}


def test_only_what_was_sent_can_be_done_lost_or_removed():
    for status in (JobStatus.CREATED, JobStatus.QUEUED):
        assert not MOVES[status] & (DONE | {JobStatus.LOST, JobStatus.REMOVED})


def test_what_has_run_cannot_be_rejected():
    assert {status for status in OPEN if may_move(status, JobStatus.REJECTED)} == {JobStatus.QUEUED, JobStatus.SUBMITTED}


def test_an_unknown_status_is_an_error():
    with pytest.raises(ValueError, match="sleeping"):
        may_move("sleeping", "done")


# ---- instants -------------------------------------------------------------------------------------------------------------------------

walls = st.floats(0, 4e9)
monos = st.none() | st.floats(0, 1e7)
boots = st.none() | st.sampled_from(["one", "two"])
instants = st.builds(Instant, walls, monos, boots)


@relaxed
@given(instants, instants)
def test_a_duration_is_never_negative_and_uses_one_clock(earlier, later):
    seconds = earlier.until(later)
    same_boot = earlier.boot is not None and earlier.boot == later.boot and None not in (earlier.mono, later.mono)
    expected = later.mono - earlier.mono if same_boot else later.wall - earlier.wall
    assert seconds == (expected if expected >= 0 else None)


@relaxed
@given(walls, st.floats(0, 1e6), st.floats(0, 1e4), st.floats(-1e5, 1e5))
def test_a_wall_clock_that_is_set_does_not_change_a_duration(wall, mono, took, jump):
    assert Instant(wall, mono, "boot").until(Instant(wall + took + jump, mono + took, "boot")) == pytest.approx(took, abs=1e-6)


@relaxed
@given(instants)
def test_an_unknown_end_gives_an_unknown_duration(instant):
    assert instant.until(None) is None
    assert instant.until(instant) == 0.0


def test_now_reads_both_clocks_of_this_boot():
    first, second = Instant.now(), Instant.now()
    assert 0 <= first.until(second) < 1
    assert first.boot == boot_id() != ""
    assert abs((first.utc - datetime.now(UTC)).total_seconds()) < 5
    assert first.utc.tzinfo is UTC


def test_a_system_without_boot_ids_still_names_its_boot(monkeypatch):
    class Nowhere:
        def __init__(self, *_parts):
            pass

        def read_text(self, **_how):
            raise FileNotFoundError

    boot_id.cache_clear()
    monkeypatch.setattr(jobs, "Path", Nowhere)
    try:
        name = boot_id()
    finally:
        boot_id.cache_clear()
    assert name.lstrip("-").isdecimal()


# ---- jobs -----------------------------------------------------------------------------------------------------------------------------


def test_a_job_shows_its_requests_kind_project_and_seed():
    assert (job().kind, job().project, job().seed) == ("image", "default", 7)
    assert job(request=VideoRequest(prompt="a", project="fox")).kind == "video"
    assert job(request=VideoRequest(prompt="a", project="fox")).project == "fox"


def test_the_seed_that_was_sent_is_shown_before_the_one_that_was_asked():
    own = WorkflowRequest(workflow={"1": {"class_type": "X", "inputs": {}}})
    assert job(request=own).seed == 0
    assert job(request=own, recipe={"seed": 2**64 - 1}).seed == 2**64 - 1
    assert job(recipe={"seed": None}).seed == 7


@pytest.mark.parametrize("status", list(JobStatus))
def test_a_job_says_whether_it_is_final_and_whether_it_is_done(status):
    assert job(status).is_final == (status in FINAL)
    assert job(status).is_done == (status in {"done", "done_partial", "done_no_files"})


ERRORS = {
    "cancelled": (JobCancelled, "Job 3f2a9c1e was cancelled."),
    "removed": (JobCancelled, "Job 3f2a9c1e was removed from the server's queue."),
    "lost": (JobLost, "Job 3f2a9c1e: the server forgot it."),
    "timed_out": (JobTimeout, "Job 3f2a9c1e ran out of time."),
    "failed": (JobFailed, "Job 3f2a9c1e failed."),
    "rejected": (JobFailed, "Job 3f2a9c1e rejected."),
}


@pytest.mark.parametrize("status", list(JobStatus))
def test_awaiting_raises_for_every_bad_end_and_for_no_other(status):
    error = error_of(job(status))
    if status not in ERRORS:
        assert error is None
        assert status in OPEN | DONE
        return
    kind, sentence = ERRORS[status]
    assert type(error) is kind
    assert (str(error), error.job_id, error.status) == (sentence, job().id, status)


@pytest.mark.parametrize("status", ["removed", "lost", "timed_out", "failed", "rejected"])
def test_the_jobs_own_words_win(status):
    error = error_of(replace(job(status), error="The server restarted.", hint="Retry it."))
    assert str(error) == "The server restarted. Retry it."


def test_a_failure_says_where_and_why():
    error = error_of(job("failed", error="out of memory", failure_kind="oom", failure_node="KSampler"))
    assert (error.node_title, error.cause) == ("KSampler", "oom")
