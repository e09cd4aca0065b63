"""order: one line for all, by priority and then by arrival."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.jobs import OPEN, JobStatus, OpenJob
from toolkit.order import ahead_of, in_line, next_job

relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault

A, B = "http://a", "http://b"


def waiting(seq: int, priority: int = 1, servers: tuple[str, ...] = (A,), **fields) -> OpenJob:
    return OpenJob(seq, f"job{seq}", "queued", "image", priority, "owner", servers, float(seq), False, 0, None, **fields)


@st.composite
def homes(draw) -> list[OpenJob]:
    count = draw(st.integers(0, 12))
    found = []
    for seq in range(count):
        status = draw(st.sampled_from(sorted(OPEN)))
        servers = draw(st.sampled_from([(A,), (B,), (A, B), (B, A)]))
        server_url = None if status in ("created", "queued") else draw(st.sampled_from(servers))
        plain = waiting(seq, draw(st.integers(0, 2)), servers)
        found.append(replace(plain, status=status, server_url=server_url, cancel_asked=draw(st.booleans())))
    return found


@relaxed
@given(homes())
def test_the_line_is_a_permutation_of_the_waiting_jobs(jobs):
    line = in_line(jobs)
    assert sorted(job.seq for job in line) == [job.seq for job in jobs if job.status == "queued" and not job.cancel_asked]


@relaxed
@given(homes())
def test_priority_comes_before_arrival(jobs):
    for earlier, later in pairwise(in_line(jobs)):
        assert (earlier.priority, earlier.seq) < (later.priority, later.seq)


@relaxed
@given(homes(), st.randoms())
def test_every_process_sees_the_same_line(jobs, random):
    shuffled = list(jobs)
    random.shuffle(shuffled)
    assert in_line(shuffled) == in_line(jobs)
    assert next_job(shuffled, A) == next_job(jobs, A)
    for job in jobs:
        assert ahead_of(shuffled, job.id) == ahead_of(jobs, job.id)


@relaxed
@given(homes())
def test_a_server_gets_the_first_job_that_was_accepted_for_it(jobs):
    for server in (A, B):
        found = next_job(jobs, server)
        fitting = [job for job in in_line(jobs) if server in job.servers]
        assert found == (fitting[0] if fitting else None)


@relaxed
@given(homes())
def test_sending_the_next_job_brings_everybody_forward_or_keeps_them(jobs):
    sent = next_job(jobs, A)
    if sent is None:
        return
    after = [replace(job, status=JobStatus.SUBMITTED, server_url=A) if job is sent else job for job in jobs]
    for job in in_line(after):
        assert ahead_of(after, job.id) <= ahead_of(jobs, job.id)


def test_a_job_that_does_not_wait_has_no_place():
    jobs = [replace(waiting(1), status="running", server_url=A), replace(waiting(2), cancel_asked=True)]
    assert ahead_of(jobs, "job1") is None
    assert ahead_of(jobs, "job2") is None
    assert ahead_of(jobs, "nobody") is None


def test_a_place_counts_what_runs_and_what_waits_on_the_same_servers_only():
    running = replace(waiting(1), status="running", server_url=A)
    elsewhere = replace(waiting(2, servers=(B,)), status="submitted", server_url=B)
    collecting = replace(waiting(3), status="collecting", server_url=A)
    jobs = [running, elsewhere, collecting, waiting(4), waiting(5, servers=(B,)), waiting(6), waiting(7, priority=0)]
    assert ahead_of(jobs, "job7") == 1
    assert ahead_of(jobs, "job4") == 2
    assert ahead_of(jobs, "job6") == 3
    assert ahead_of(jobs, "job5") == 1


def test_nothing_waits_for_a_server_nobody_named():
    assert next_job([waiting(1)], B) is None
    assert next_job([], A) is None
