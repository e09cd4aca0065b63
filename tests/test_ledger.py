"""ledger: what is accepted stays, what is final stays final, and many processes share one file without losing or doubling anything."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from toolkit.errors import HomeUnusable, JobUnknown, KeyReused, RequestInvalid
from toolkit.graph import NodeCatalog
from toolkit.jobs import FINAL, OPEN, Attempt, Eta, Instant, Job, JobStatus, NodeTiming, OutputFile, Rating, Timings
from toolkit.ledger import Claim, Key, Ledger, LiveBoard, LiveServer, NewBatch, NewJob, Outcome, StaleEpoch, database, find, live, presence, rows
from toolkit.ledger.database import Database, lock_holder
from toolkit.requests import ImageRequest, VideoRequest, WorkflowRequest

ENGINE = "engine"
A, B = "http://a:8188", "http://b:8188"
GRAPH = {"3": {"class_type": "KSampler", "inputs": {"seed": 7}}}
relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[LiveBoard]:
    made = LiveBoard(tmp_path / "home")
    yield made
    made.close()


def new(prompt: str = "a fox", servers: tuple[str, ...] = (ENGINE,), **fields: Any) -> NewJob:
    about = {name: fields.pop(name) for name in tuple(fields) if name in NewJob.__slots__}
    return NewJob(ImageRequest(**{"prompt": prompt, "seed": 7, **fields}), servers, **{"reuse": False, **about})


def accepted(ledger: Ledger, prompt: str = "a fox", **fields: Any) -> Job:
    (job,) = ledger.accept(new(prompt, **fields))
    return job


def sent(ledger: Ledger, job: Job, epoch: int, url: str = ENGINE, **claim: Any) -> Attempt:
    attempt = ledger.sending(Claim(job.id, url, epoch, GRAPH, **claim))
    assert attempt is not None
    return attempt


def stored(job: Job, number: int = 1, **facts: Any) -> OutputFile:
    about = {"kind": "image", "media_type": "image/png", "size_bytes": 10, "sha256": "e3b0", **facts}
    return OutputFile(number=number, path="", name=f"default/{job.id}-{number}.png", **about)


def done(ledger: Ledger, job: Job, epoch: int, status: JobStatus = JobStatus.DONE, **facts: Any) -> Job:
    assert ledger.end(sent(ledger, job, epoch), epoch, Outcome(status, **facts))
    return ledger.job(job.id)


# ---- accept ---------------------------------------------------------------------------------------------------------------------------


def test_an_accepted_job_is_there_for_another_process_at_once(ledger):
    job = accepted(ledger, project="fox", labels={"probe": "before"}, priority="background", origin="rest", person="ann", warnings=["rounded"])
    code = "import sys; from pathlib import Path; from toolkit.ledger import Ledger; print(Ledger(Path(sys.argv[1])).job(sys.argv[2]).request.as_json())"
    said = subprocess.run([sys.executable, "-c", code, str(ledger.home), job.id], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(job.request.as_json())
    assert (job.status, job.priority, job.origin, job.person, job.warnings, job.servers) == ("queued", "background", "rest", "ann", ("rounded",), (ENGINE,))
    assert (job.attempt, job.server_url, job.files, job.timings, job.simulated, job.prompt) == (0, None, (), None, True, "a fox")


def test_jobs_are_returned_in_the_order_they_were_given(ledger):
    jobs = ledger.accept(*(new(f"fox {n}") for n in range(1200)))
    assert [job.prompt for job in jobs] == [f"fox {n}" for n in range(1200)]
    assert [job.seq for job in jobs] == sorted(job.seq for job in jobs)
    assert len({job.revision for job in jobs}) == 1
    assert [open_job.id for open_job in ledger.open_jobs()] == [job.id for job in jobs]


def test_writes_together_are_seen_by_others_at_the_end_of_the_block_all_or_none(ledger):
    other = Ledger(ledger.home)
    with ledger.together():
        accepted(ledger, "a")
        accepted(ledger, "b")
        assert (ledger.count(), other.count()) == (2, 0)
    assert other.count() == 2
    with pytest.raises(sqlite3.IntegrityError):
        twice_together(ledger, new("c", id=str(uuid.uuid4())))
    assert (ledger.count(), other.count()) == (2, 2)
    with pytest.raises(HomeUnusable, match="failed"):
        beside_a_fault_that_nobody_tells(ledger, new("c", id=str(uuid.uuid4())))
    assert (ledger.count(), other.count()) == (2, 2)
    assert accepted(ledger, "d").prompt == other.latest().prompt == "d"
    other.close()


def twice_together(ledger: Ledger, job: NewJob) -> None:
    with ledger.together():
        ledger.accept(job)
        ledger.accept(job)


def beside_a_fault_that_nobody_tells(ledger: Ledger, job: NewJob) -> None:
    with ledger.together():
        with contextlib.suppress(sqlite3.IntegrityError):
            ledger.accept(job)
            ledger.accept(job)
        accepted(ledger)


def test_reading_together_keeps_no_other_process_from_writing(ledger):
    other = Ledger(ledger.home)
    with ledger.together():
        assert ledger.count() == 0
        accepted(other)
    assert ledger.count() == 1
    other.close()


def test_a_batch_is_accepted_whole_or_not_at_all(ledger):
    twice = new("b", id=str(uuid.uuid4()))
    with pytest.raises(sqlite3.IntegrityError):
        ledger.accept(new("a"), twice, twice)
    assert ledger.count() == 0
    assert ledger.accept() == []


@pytest.mark.parametrize(
    "request_",
    [VideoRequest(prompt="a", seconds=2.5, seed=2**64 - 1), WorkflowRequest(workflow={"1": {"class_type": "X", "inputs": {"a": None}}})],
    ids=["video", "workflow"],
)
def test_every_kind_of_request_comes_back_equal(ledger, request_):
    (job,) = ledger.accept(NewJob(request_, (A, B)))
    assert ledger.job(job.id).request == request_
    assert job.kind == request_.kind
    assert (job.servers, job.simulated) == ((A, B), False)


# ---- reuse ----------------------------------------------------------------------------------------------------------------------------


def test_an_equal_unfinished_job_is_found_again_by_default(ledger):
    job = accepted(ledger, reuse=None)
    assert accepted(ledger, reuse=None).id == job.id
    assert accepted(ledger, reuse=True).id == job.id
    assert accepted(ledger, reuse=False).id != job.id
    assert accepted(ledger, reuse=None, retry_of=job.id).id != job.id
    assert ledger.count() == 3


@pytest.mark.parametrize("other", [{"prompt": "another"}, {"seed": 8}, {"project": "fox"}, {"servers": (A,)}])
def test_another_request_or_server_is_another_job(ledger, other):
    job = accepted(ledger, reuse=None)
    assert accepted(ledger, reuse=None, **other).id != job.id


def test_a_finished_job_is_found_again_only_when_asked_for(ledger):
    job = done(ledger, accepted(ledger), ledger.take_server(ENGINE))
    assert accepted(ledger, reuse=True).id == job.id
    assert accepted(ledger, reuse=None).id != job.id


@pytest.mark.parametrize("status", sorted(FINAL - {JobStatus.DONE}))
def test_a_job_that_ended_otherwise_is_never_found_again(ledger, status):
    job = done(ledger, accepted(ledger), ledger.take_server(ENGINE), status)
    assert accepted(ledger, reuse=True).id != job.id


def test_a_job_that_is_being_cancelled_is_not_found_again(ledger):
    job = accepted(ledger)
    sent(ledger, job, ledger.take_server(ENGINE))
    ledger.ask_cancel(job.id)
    assert accepted(ledger, reuse=None).id != job.id


def test_equal_requests_of_one_batch_are_one_job(ledger):
    assert len({job.id for job in ledger.accept(new(reuse=None), new(reuse=None), new("other", reuse=None))}) == 2


# ---- find -----------------------------------------------------------------------------------------------------------------------------


# ---- a caller's key -------------------------------------------------------------------------------------------------------------------


def test_the_same_key_is_the_same_job_whatever_became_of_it(ledger):
    first = accepted(ledger, key=Key("a", "1"))
    assert accepted(ledger, "another body is not looked at", key=Key("a", "1")).id == first.id
    ledger.ask_cancel(first.id)
    again = accepted(ledger, key=Key("a", "1"), reuse=True)
    assert (again.id, again.status) == (first.id, "cancelled")
    assert ledger.keyed("owner", Key("a", "1")) == first.id
    assert ledger.keyed("owner", Key("b", "1")) is None


def test_a_key_decides_alone_and_belongs_to_one_person(ledger):
    ids = {accepted(ledger, key=Key("a", "1")).id, accepted(ledger, key=Key("b", "1"), reuse=None).id, accepted(ledger, key=Key("a", "1"), person="ann").id}
    assert len(ids) == 3


def test_a_key_of_another_request_is_refused_and_the_whole_batch_with_it(ledger):
    first = accepted(ledger, key=Key("a", "1"))
    with pytest.raises(KeyReused, match=f"another request, job {first.id[:8]}"):
        ledger.accept(new("x"), new("y", key=Key("a", "2")))
    assert [job.id for job in ledger.jobs()] == [first.id]


# ---- find -----------------------------------------------------------------------------------------------------------------------------


def test_a_job_is_read_from_memory_until_it_changes(ledger):
    job = accepted(ledger)
    assert ledger.job(job.id) is ledger.job(job.id[:8])
    ledger.ask_cancel(job.id)
    assert ledger.job(job.id).status == "cancelled"


def test_what_was_read_before_is_remembered_by_its_whole_id_until_it_changes_or_goes(ledger):
    job = accepted(ledger)
    assert ledger.remembered(job.id) is None
    assert ledger.remembered(ledger.job(job.id).id[:8]) is None
    assert ledger.remembered(job.id) is ledger.job(job.id)
    ledger.ask_cancel(job.id)
    assert ledger.remembered(job.id).status == "cancelled"
    assert ledger.job(job.id).status == "cancelled"
    ledger.forget([job.id])
    assert ledger.remembered(job.id) is None


def test_a_job_that_changes_while_it_is_read_is_read_again(ledger, monkeypatch):
    job, read = accepted(ledger), Ledger._jobs

    def late(self, where, ids):
        monkeypatch.setattr(Ledger, "_jobs", read)
        ledger.ask_cancel(job.id)
        return read(self, where, ids)

    monkeypatch.setattr(Ledger, "_jobs", late)
    found = ledger.job(job.id)
    assert (found.status, found.revision) == ("cancelled", ledger.revision())


def test_only_so_many_jobs_are_kept_in_memory(ledger, monkeypatch):
    monkeypatch.setattr(find, "REMEMBERED", 2)
    for job in [accepted(ledger, str(number)) for number in range(5)]:
        ledger.job(job.id)
        assert len(ledger._read) <= 2


def test_any_unambiguous_beginning_of_an_id_is_enough(ledger):
    ids = ["3f2a0000-0000-4000-8000-000000000000", "3f2b0000-0000-4000-8000-000000000000", "3f2"]
    for job_id in ids:
        accepted(ledger, id=job_id)
    assert ledger.job("3f2a").id == ids[0]
    assert ledger.job(ids[1]).id == ids[1]
    assert ledger.job("3f2").id == "3f2", "a whole id wins over beginnings"
    with pytest.raises(JobUnknown, match="begins several ids") as several:
        ledger.job("3f")
    assert sorted(several.value.matches) == sorted(ids)


@pytest.mark.parametrize("job_id", ["", "nothing", "%", "_", "3f2a*", "'; DROP TABLE jobs"])
def test_an_id_that_nobody_has_is_said_so(ledger, job_id):
    accepted(ledger)
    with pytest.raises(JobUnknown, match="There is no job") as unknown:
        ledger.job(job_id)
    assert unknown.value.matches == ()


def test_the_latest_jobs_are_found_by_their_place(ledger):
    with pytest.raises(JobUnknown):
        ledger.latest()
    first, second = accepted(ledger, "1"), accepted(ledger, "2")
    assert (ledger.latest().id, ledger.latest(-2).id) == (second.id, first.id)
    for place in (-3, 0, 1):
        with pytest.raises(JobUnknown, match=f"There is no job {place}"):
            ledger.latest(place)


def test_a_batch_that_nobody_made_is_said_so_with_the_nearest_name(ledger):
    ledger.accept(new(group_id="g1", group_name="fox looks"))
    assert ledger.group("fox looks") == ("g1", "fox looks")
    with pytest.raises(JobUnknown, match="no batch 'fox look'") as unknown:
        ledger.group("fox look")
    assert unknown.value.hint == "Did you mean 'fox looks'?"
    with pytest.raises(JobUnknown) as unknown:
        ledger.group("a storm at sea")
    assert unknown.value.hint is None


def test_the_last_open_job_of_a_batch_may_be_anothers(ledger):
    jobs = [accepted(ledger, str(n), group_id="g") for n in range(2)]
    ledger.accept_batch([new(job.request.prompt, reuse=None) for job in jobs], NewBatch("h", "the same again", "base"))
    assert (ledger.last_open("g"), ledger.last_open("h"), ledger.last_open("i")) == (jobs[1].id, jobs[1].id, None)
    ledger.ask_cancel(jobs[1].id)
    assert (ledger.last_open("g"), ledger.last_open("h")) == (jobs[0].id, jobs[0].id)


def test_jobs_are_filtered_counted_and_paged_from_the_newest(ledger):
    jobs = [accepted(ledger, str(n), project="fox" if n % 2 else "owl", group_id="g" if n < 3 else None) for n in range(7)]
    (clip,) = ledger.accept(NewJob(VideoRequest(prompt="v", project="fox"), (ENGINE,)))
    ended = done(ledger, jobs[6], ledger.take_server(ENGINE))

    def found(**filters: Any) -> list[str]:
        return [job.id for job in ledger.jobs(**filters)]

    assert found() == [clip.id] + [job.id for job in reversed(jobs)]
    assert found(limit=2) == [clip.id, jobs[6].id]
    assert found(before_seq=jobs[6].seq, limit=2) == [jobs[5].id, jobs[4].id]
    assert found(project="fox") == [clip.id, jobs[5].id, jobs[3].id, jobs[1].id]
    assert found(kind="video") == [clip.id]
    assert found(status="done") == found(status="final") == [ended.id]
    assert len(found(status="open")) == 7
    assert found(since=jobs[5].created.wall) == [clip.id, jobs[6].id, jobs[5].id]
    assert found(status="sleeping") == []
    assert ledger.count() == 8
    assert (ledger.count(status="open"), ledger.count(project="owl"), ledger.count(kind="image", project="owl")) == (7, 4, 4)
    assert ledger.counts() == {"queued": 7, "done": 1}


# ---- the way of an attempt ------------------------------------------------------------------------------------------------------------


def test_a_job_goes_its_way_and_keeps_what_was_learned(ledger):
    epoch = ledger.take_server(ENGINE)
    job = accepted(ledger, warnings=["rounded"])
    recipe = {"prompt": "masterpiece, a fox", "seed": 7, "simulated": True}
    claim = Claim(job.id, ENGINE, epoch, GRAPH, recipe, ["rounded", "said"], environment_id="e", instance="i")
    attempt = ledger.sending(claim)
    assert (attempt.prompt_id, attempt.number, attempt.reason, attempt.status, attempt.acknowledged) == (job.id, 1, "first", "submitted", False)
    assert (attempt.environment_id, attempt.instance) == ("e", "i")
    assert ledger.graph(job.id) == ledger.graph(job.id, 1) == GRAPH
    assert [found.prompt_id for found in ledger.in_flight(ENGINE)] == [job.id]
    assert ledger.in_flight(A) == []

    now = Instant.now()
    assert ledger.record(attempt, epoch, None, acknowledged=1, queue_number=4.0, submitted=now)
    assert ledger.record(attempt, epoch, JobStatus.RUNNING, started=now)
    running = ledger.job(job.id)
    assert (running.status, running.started, running.submitted, running.server_url, running.prompt) == ("running", now, now, ENGINE, "masterpiece, a fox")
    assert (ledger.attempt(job.id).acknowledged, ledger.attempt(job.id).queue_number) == (True, 4.0)
    (open_job,) = ledger.open_jobs()
    assert (open_job.status, open_job.server_url, open_job.attempt, open_job.cancel_asked) == ("running", ENGINE, 1, False)

    file = stored(job, width=64, height=48, blank=False, cached=True, fps=None, node_id="9", stored_at=5.0)
    timings, node = Timings(run_s=4.5, warmth="warm"), NodeTiming("3", "KSampler", "Paint", "sample", steps=20)
    assert ledger.end(attempt, epoch, Outcome(JobStatus.DONE, [file], timings, [node], warnings=["said", "late"], ended=now))
    ended = ledger.job(job.id)
    assert (ended.status, ended.ended, ended.timings, ended.warnings) == ("done", now, timings, ("rounded", "said", "late"))
    (kept,) = ended.files
    assert (kept.name, kept.path, kept.cached, kept.blank, kept.width) == (file.name, str(ledger.projects / file.name), True, False, 64)
    assert ledger.in_flight(ENGINE) == ledger.open_jobs() == []
    ((_, ((ended_attempt, nodes, etas),)),) = ledger.history_since(0)
    assert (ended_attempt.status, ended_attempt.run_s, nodes[0]["title"], etas) == ("done", 4.5, "Paint", [])


def eta(moment: str, target: str = "end", made: float = 100.0, **facts: Any) -> Eta:
    return Eta(moment, target, made=Instant(made), **{"basis": "history", "expected_s": 4.0, "low_s": 3.0, "high_s": 6.0, "actual_s": 5.0, **facts})


def test_predictions_are_kept_with_what_became_of_them(ledger):
    epoch, job = ledger.take_server(ENGINE), accepted(ledger)
    made = [eta("accepted", "start", basis="family"), eta("started", made=101.0), eta("p50", made=103.0, basis="this_run", actual_s=None)]
    attempt, before = sent(ledger, job, epoch), ledger.revision()
    assert ledger.end(attempt, epoch, Outcome(JobStatus.DONE, etas=[*made, eta("started", expected_s=9.0)]))
    assert ledger.job(job.id).revision == ledger.revision() == before + 1, "they are one transaction with the end"
    ((_, ((_, _, kept),)),) = ledger.history_since(0)
    assert list(kept) == made, "of two of one moment the first stays"
    assert not ledger.end(attempt, epoch, Outcome(JobStatus.DONE, etas=[eta("p75")]))
    assert [len(tries[0].etas) for _, tries in ledger.history_since(0)] == [3]


def test_predictions_are_found_newest_first_by_server_kind_moment_and_target(ledger):
    for url in (ENGINE, A):
        epoch = ledger.take_server(url)
        for n, (status, actual) in enumerate(
            [(JobStatus.DONE, 5.0), (JobStatus.DONE, 6.0), (JobStatus.FAILED, 1.0), (JobStatus.DONE, None), (JobStatus.DONE, 7.0)]
        ):
            attempt = sent(ledger, accepted(ledger, servers=(url,)), epoch, url)
            ledger.end(attempt, epoch, Outcome(status, etas=[eta("started", made=100.0 + n, actual_s=actual), eta("accepted", "start", actual_s=0.5)]))
    assert [found.actual_s for found in ledger.etas(A, "image", "started", "end")] == [7.0, 6.0, 5.0], "not of failed ones, nor unknown ones"
    assert ledger.etas(A, "image", "started", "end", limit=1) == [eta("started", made=104.0, actual_s=7.0)]
    assert [found.actual_s for found in ledger.etas(A, "image", "accepted", "start")] == [0.5] * 4
    for other in [("http://c:8188", "image", "started", "end"), (A, "video", "started", "end"), (A, "image", "p10", "end"), (A, "image", "started", "start")]:
        assert ledger.etas(*other) == []


def test_judgements_are_read_oldest_first(ledger):
    job, other = accepted(ledger), accepted(ledger)
    assert ledger.ratings([job.id, other.id]) == []
    with ledger._database.transaction() as connection:
        for row in [
            (job.id, "ann", "reject", None, '["hands"]', "six", 6.0),
            (job.id, "ann", None, None, "[]", None, 7.0),
            (job.id, "ben", "keep", 5, "[]", None, 5.0),
        ]:
            connection.execute("INSERT INTO ratings (job_id, output, person, verdict, stars, reasons, comment, rated_at) VALUES (?, 1, ?, ?, ?, ?, ?, ?)", row)
    assert ledger.ratings([job.id, other.id]) == [
        Rating(job.id, 1, "ben", "keep", 5, (), None, 5.0), Rating(job.id, 1, "ann", "reject", None, ("hands",), "six", 6.0),
        Rating(job.id, 1, "ann", None, None, (), None, 7.0),
    ]  # fmt: skip
    assert ledger.ratings([other.id]) == []


def test_a_job_is_claimed_once(ledger):
    epoch = ledger.take_server(ENGINE)
    job = accepted(ledger)
    sent(ledger, job, epoch)
    assert ledger.sending(Claim(job.id, ENGINE, epoch, GRAPH)) is None
    assert ledger.sending(Claim("nobody", ENGINE, epoch, GRAPH)) is None


def test_a_cancelled_job_is_not_claimed(ledger):
    job = accepted(ledger)
    ledger.ask_cancel(job.id)
    assert ledger.sending(Claim(job.id, ENGINE, ledger.take_server(ENGINE), GRAPH)) is None
    assert ledger.attempt(job.id) is None
    assert ledger.graph(job.id) == {}


def test_what_ended_stays_ended(ledger):
    epoch = ledger.take_server(ENGINE)
    job = accepted(ledger)
    attempt = sent(ledger, job, epoch)
    assert ledger.end(attempt, epoch, Outcome(JobStatus.FAILED, error="first line\nsecond", hint="Retry.", failure_kind="oom", failure_node="KSampler"))
    before = ledger.job(job.id)
    assert (before.error, before.hint, before.failure_kind, before.failure_node) == ("first line\nsecond", "Retry.", "oom", "KSampler")
    assert ledger.attempt(job.id).message == "first line"
    assert not ledger.end(attempt, epoch, Outcome(JobStatus.DONE, [stored(job)]))
    assert not ledger.record(attempt, epoch, JobStatus.RUNNING, started=Instant.now())
    assert not ledger.end_unsent(job.id, Outcome(JobStatus.REJECTED))
    assert ledger.ask_cancel(job.id) == ledger.job(job.id) == before


def test_another_attempt_has_its_own_prompt_id_and_decides_alone(ledger):
    epoch = ledger.take_server(ENGINE)
    job = accepted(ledger)
    first = sent(ledger, job, epoch)
    assert ledger.end(first, epoch, Outcome(JobStatus.LOST, error="The server restarted.", warnings=["lost once"], again=True))
    waiting = ledger.job(job.id)
    assert (waiting.status, waiting.ended, waiting.warnings) == ("queued", None, ("lost once",))
    second = sent(ledger, job, epoch, reason="lost")
    assert (second.number, second.reason) == (2, "lost")
    assert second.prompt_id != job.id == first.prompt_id
    assert not ledger.end(first, epoch, Outcome(JobStatus.DONE))
    assert not ledger.record(first, epoch, JobStatus.RUNNING)
    assert ledger.end(second, epoch, Outcome(JobStatus.DONE))
    ((_, tries),) = ledger.history_since(0)
    assert [(attempt.number, attempt.status) for attempt, _, _ in tries] == [(1, "lost"), (2, "done")]
    assert ledger.graph(job.id, 1) == ledger.graph(job.id, 2) == GRAPH
    assert ledger.graph(job.id, 3) == {}


def test_a_cancel_wins_over_another_attempt(ledger):
    epoch = ledger.take_server(ENGINE)
    job = accepted(ledger)
    attempt = sent(ledger, job, epoch)
    ledger.ask_cancel(job.id)
    ledger.end(attempt, epoch, Outcome(JobStatus.LOST, again=True))
    assert ledger.job(job.id).status == "cancelled"


def test_a_move_that_the_table_forbids_is_not_recorded(ledger):
    epoch = ledger.take_server(ENGINE)
    job = accepted(ledger)
    attempt = sent(ledger, job, epoch)
    assert ledger.record(attempt, epoch, JobStatus.COLLECTING)
    revision = ledger.job(job.id).revision
    assert ledger.record(attempt, epoch, JobStatus.RUNNING)
    assert (ledger.job(job.id).status, ledger.job(job.id).revision) == ("collecting", revision)
    assert ledger.record(attempt, epoch, JobStatus.RUNNING, acknowledged=1)
    assert (ledger.job(job.id).status, ledger.attempt(job.id).acknowledged) == ("collecting", True)
    assert ledger.job(job.id).revision > revision


def test_recording_nothing_changes_nothing(ledger):
    epoch = ledger.take_server(ENGINE)
    job = accepted(ledger)
    attempt = sent(ledger, job, epoch)
    revision = ledger.revision()
    assert ledger.record(attempt, epoch)
    assert ledger.revision() == revision


def test_files_with_a_name_that_is_taken_leave_the_attempt_open(ledger):
    epoch = ledger.take_server(ENGINE)
    job, other = accepted(ledger, "a"), accepted(ledger, "b")
    done(ledger, other, epoch, files=[stored(other)])
    attempt = sent(ledger, job, epoch)
    with pytest.raises(sqlite3.IntegrityError):
        ledger.end(attempt, epoch, Outcome(JobStatus.DONE, [stored(job), stored(other, 2), stored(other, 1)]))
    assert (ledger.job(job.id).status, ledger.job(job.id).files) == ("submitted", ())


# ---- cancel ---------------------------------------------------------------------------------------------------------------------------


def test_a_waiting_job_is_cancelled_at_once(ledger):
    job = ledger.ask_cancel(accepted(ledger).id[:8])
    assert (job.status, job.ended is not None) == ("cancelled", True)


@pytest.mark.parametrize("status", [None, JobStatus.RUNNING, JobStatus.COLLECTING])
def test_a_job_in_flight_is_marked_once(ledger, status):
    epoch = ledger.take_server(ENGINE)
    job = accepted(ledger)
    attempt = sent(ledger, job, epoch)
    ledger.record(attempt, epoch, status)
    marked = ledger.ask_cancel(job.id)
    assert (marked.cancel_asked, marked.status) == (True, status or "submitted")
    assert ledger.ask_cancel(job.id).revision == marked.revision
    assert [open_job.cancel_asked for open_job in ledger.open_jobs()] == [True]


def test_an_unknown_job_cannot_be_cancelled(ledger):
    with pytest.raises(JobUnknown):
        ledger.ask_cancel("nobody")


def test_a_job_that_waits_can_be_rejected_before_it_is_sent(ledger):
    job = accepted(ledger)
    assert ledger.end_unsent(job.id, Outcome(JobStatus.REJECTED, error="No such model.", hint="Get it.", failure_kind="missing_model"))
    ended = ledger.job(job.id)
    assert (ended.status, ended.error, ended.hint, ended.failure_kind, ended.attempt) == ("rejected", "No such model.", "Get it.", "missing_model", 0)
    assert not ledger.end_unsent(job.id, Outcome(JobStatus.REJECTED))
    assert not ledger.end_unsent("nobody", Outcome(JobStatus.REJECTED))
    assert not ledger.end_unsent(accepted(ledger).id, Outcome(JobStatus.DONE)), "done without being sent is no legal move"


# ---- epochs ---------------------------------------------------------------------------------------------------------------------------


def test_a_feeder_that_lost_its_server_is_refused_everything(ledger):
    old = ledger.take_server(ENGINE)
    job, waiting = accepted(ledger, "a"), accepted(ledger, "b")
    attempt = sent(ledger, job, old)
    current = ledger.take_server(ENGINE)
    assert current == old + 1
    before = ledger.revision()
    with pytest.raises(StaleEpoch, match="Another feeder has taken engine"):
        ledger.sending(Claim(waiting.id, ENGINE, old, GRAPH))
    with pytest.raises(StaleEpoch):
        ledger.record(attempt, old, JobStatus.RUNNING)
    with pytest.raises(StaleEpoch):
        ledger.end(attempt, old, Outcome(JobStatus.DONE))
    assert ledger.revision() == before
    assert ledger.end(attempt, current, Outcome(JobStatus.DONE)), "the next feeder carries on with its attempts"


def test_epochs_of_servers_are_apart_and_unknown_ones_refused(ledger):
    assert (ledger.take_server(A), ledger.take_server(B), ledger.take_server(B)) == (1, 1, 2)
    with pytest.raises(StaleEpoch):
        ledger.sending(Claim(accepted(ledger).id, "http://c", 1, GRAPH))


# ---- what changed ---------------------------------------------------------------------------------------------------------------------


def test_every_change_of_a_job_is_seen_once_and_in_its_latest_state(ledger):
    revision, jobs = ledger.changed_since(0)
    assert (revision, jobs) == (0, [])
    job, other = ledger.accept(new("a"), new("b"))
    revision, jobs = ledger.changed_since(0)
    assert {found.id for found in jobs} == {job.id, other.id}
    assert ledger.changed_since(revision) == (revision, [])
    epoch = ledger.take_server(ENGINE)
    attempt = sent(ledger, job, epoch)
    ledger.record(attempt, epoch, JobStatus.RUNNING)
    latest, (changed,) = ledger.changed_since(revision)
    assert (changed.id, changed.status, changed.revision) == (job.id, "running", latest)
    assert latest == ledger.revision()
    assert ledger.changed_since(0, {other.id}.__contains__) == (latest, [other]), "the revision covers also what is not wanted"


def test_every_kind_of_change_raises_the_revision(ledger):
    epoch, seen = ledger.take_server(ENGINE), [0]
    job = accepted(ledger)
    steps = [
        lambda: sent(ledger, job, epoch),
        lambda: ledger.record(ledger.attempt(job.id), epoch, JobStatus.RUNNING),
        lambda: ledger.record(ledger.attempt(job.id), epoch, None, acknowledged=1),
        lambda: ledger.ask_cancel(job.id),
        lambda: ledger.end(ledger.attempt(job.id), epoch, Outcome(JobStatus.CANCELLED)),
    ]
    for step in steps:
        seen.append(ledger.job(job.id).revision)
        step()
        assert ledger.job(job.id).revision > seen[-1]
        assert ledger.job(job.id).revision == ledger.revision()


def test_the_history_is_read_oldest_change_first_in_pieces(ledger):
    jobs = [accepted(ledger, str(n)) for n in range(5)]
    ledger.ask_cancel(jobs[0].id)
    order = [job.id for job, _ in ledger.history_since(0)]
    assert order == [job.id for job in (*jobs[1:], jobs[0])]
    assert [job.id for job, _ in ledger.history_since(0, limit=2)] == order[:2]
    last = ledger.history_since(0, limit=2)[-1][0].revision
    assert [job.id for job, _ in ledger.history_since(last)] == order[2:]
    assert ledger.history_since(ledger.revision()) == []


def test_jobs_of_one_revision_are_never_parted(ledger):
    batch = ledger.accept(*(new(str(n)) for n in range(4)))
    accepted(ledger, "after")
    assert {job.id for job, _ in ledger.history_since(0, limit=2)} == {job.id for job in batch}


def test_a_change_elsewhere_is_noticed_cheaply(ledger):
    before = ledger.data_version()
    assert ledger.data_version() == before
    other = Ledger(ledger.home)
    accepted(other)
    other.close()
    assert ledger.data_version() != before


# ---- servers --------------------------------------------------------------------------------------------------------------------------


def test_what_a_server_said_is_remembered(ledger):
    assert (ledger.server(A), ledger.epoch_and_pause(A), ledger.catalog_hash(A)) == (None, (0, None), None)
    assert ledger.catalog(A) is None
    first = ledger.remember_server(A, {"device": "RTX 3060"}, "boot-1", NodeCatalog({"KSampler": {}}, ["easynegative"]))
    assert (ledger.catalog(A).object_info, ledger.catalog(A).embeddings) == ({"KSampler": {}}, ["easynegative"])
    assert ledger.remember_server(A, {"device": "RTX 3060"}, "boot-2", None) == first
    assert ledger.catalog(A).object_info == {"KSampler": {}}, "no new catalog, no change"
    about = ledger.server(A)
    assert (about.facts, about.instance, about.environment_id, about.epoch) == ({"device": "RTX 3060"}, "boot-2", first, 0)
    assert ledger.catalog_hash(A)
    assert time.time() - about.seen_at < 60
    ledger.take_server(A)
    assert (ledger.server(A).epoch, ledger.server(A).facts) == (1, {"device": "RTX 3060"})


def test_another_configuration_is_another_environment(ledger):
    ids = [ledger.remember_server(A, {"version": version}, None, None) for version in ("1", "2", "1")]
    ids.append(ledger.remember_server(B, {"version": "1"}, None, None))
    assert len(set(ids)) == 4, "going back begins a period of its own"
    found = {about["environment_id"]: about for about in ledger.environments()}
    assert found[ids[1]]["facts"] == {"version": "2"}
    assert ledger.remember_server(A, {"version": "1"}, "restarted", None) == ids[2]
    found = {about["environment_id"]: about for about in ledger.environments()}
    first, second, third = (found[environment_id] for environment_id in ids[:3])
    assert first["facts"] == third["facts"]
    assert first["first_seen_at"] == first["last_seen_at"] < second["first_seen_at"] < third["first_seen_at"] < third["last_seen_at"]
    assert third["revision"] > second["revision"]


def test_the_owners_words_stay_and_a_price_begins_a_period(ledger):
    ledger.name_server(A, "attic", 0.4)
    before = ledger.remember_server(A, {"device": "RTX 3060"}, None, None)
    assert ledger.server(A).facts == {"device": "RTX 3060", "price_per_hour": 0.4}
    revision = ledger.revision()
    ledger.name_server(A, "cellar", 0.4)
    assert ledger.revision() > revision
    assert ledger.remember_server(A, {"device": "RTX 3060"}, None, None) == before, "a name is no change of the server"
    ledger.name_server(A, "cellar", None)
    assert ledger.remember_server(A, {"device": "RTX 3060"}, None, None) != before
    assert [(about["name"], about["facts"].get("price_per_hour")) for about in ledger.environments()] == [("cellar", 0.4), ("cellar", None)]


def test_a_server_that_only_has_a_feeder_has_no_facts_yet(ledger):
    ledger.take_server(A)
    assert ledger.server(A).facts == {}
    assert ledger.catalog(A) is None


def test_past_runs_are_those_that_ended_well_and_were_watched_oldest_first(ledger):
    epoch = ledger.take_server(ENGINE)
    node = NodeTiming("3", "KSampler", "KSampler", "sample", elapsed_s=1.0)
    for number, (status, nodes) in enumerate([("done", [node]), ("failed", [node]), ("done", []), ("done", [node])]):
        job = accepted(ledger, f"fox {number}")
        attempt = ledger.sending(Claim(job.id, ENGINE, epoch, {"3": {"class_type": "KSampler", "inputs": {"steps": number}}}))
        ledger.end(attempt, epoch, Outcome(JobStatus(status), nodes=nodes, timings=Timings(fetch_s=0.5) if number else None))
    first, last = ledger.past_runs(ENGINE, 10)
    assert (first.kind, first.graph["3"]["inputs"]["steps"], first.nodes, first.fetch_s) == ("image", 0, [node], None)
    assert (last.graph["3"]["inputs"]["steps"], last.fetch_s) == (3, 0.5)
    assert ledger.past_runs(ENGINE, 1) == [last]
    assert ledger.past_runs(A, 10) == []


def test_what_a_job_costs_can_be_said_later_and_is_seen_in_the_line(ledger):
    known, unknown = accepted(ledger, "a", recipe_key="k", loads=("x", "y")), accepted(ledger, "b")
    line = ledger.line()
    assert [(job.recipe_key, job.loads) for job in line.jobs()] == [("k", ("x", "y")), ("", ())]
    ledger.describe({unknown.id: ("k2", ("z",))})
    assert [(job.recipe_key, job.loads) for job in line.jobs()] == [("k", ("x", "y")), ("k2", ("z",))]
    assert ledger.job(known.id).revision < ledger.job(unknown.id).revision


def test_the_longest_run_is_known_by_kind_and_server_of_those_that_ended_well(ledger):
    assert ledger.longest_run_s("image", ENGINE) is None
    epoch = ledger.take_server(ENGINE)
    for status, run_s in [(JobStatus.DONE, 4.0), (JobStatus.DONE, 6.0), (JobStatus.DONE, 5.0), (JobStatus.FAILED, 60.0), (JobStatus.DONE, None)]:
        done(ledger, accepted(ledger), epoch, status, timings=Timings(run_s=run_s))
    done(ledger, accepted(ledger), epoch)
    assert (ledger.longest_run_s("image", ENGINE), ledger.longest_run_s("video", ENGINE), ledger.longest_run_s("image", A)) == (6.0, None, None)


@settings(relaxed, max_examples=20)
@given(st.data())
def test_counts_and_pages_agree_with_a_plain_look_at_all_jobs(data):
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        epoch = ledger.take_server(ENGINE)
        for _ in range(data.draw(st.integers(0, 12))):
            kind = data.draw(st.sampled_from([ImageRequest, VideoRequest]))
            (job,) = ledger.accept(NewJob(kind(prompt="a", project=data.draw(st.sampled_from(["fox", "owl"]))), [ENGINE], reuse=False))
            match data.draw(st.sampled_from(["queued", "cancelled", "submitted", "done", "again"])):
                case "cancelled":
                    ledger.ask_cancel(job.id)
                case "submitted":
                    sent(ledger, job, epoch)
                case "done":
                    done(ledger, job, epoch)
                case "again":
                    done(ledger, job, epoch, JobStatus.LOST, again=True)
        everything = ledger.jobs(limit=100)
        asked = {
            "status": data.draw(st.sampled_from([None, "open", "final", "done", "queued", "failed"])),
            "project": data.draw(st.sampled_from([None, "fox", "owl", "nobody"])), "kind": data.draw(st.sampled_from([None, "image", "video"])),
        }  # fmt: skip
        words = {"open": OPEN, "final": FINAL}.get(asked["status"], {asked["status"]})
        fit = [
            job.id for job in everything
            if (asked["status"] is None or job.status in words) and asked["project"] in (None, job.project) and asked["kind"] in (None, job.kind)
        ]  # fmt: skip
        assert [job.id for job in ledger.jobs(**asked, limit=100)] == fit
        assert [job.id for job in ledger.jobs(**asked, since=0.0, limit=100)] == fit
        assert ledger.count(**asked) == len(fit)
        pages, before = [], None
        while page := ledger.jobs(**asked, before_seq=before, limit=2):
            pages, before = pages + page, page[-1].seq
        assert [job.id for job in pages] == fit
        assert ledger.counts() == {status: n for status in JobStatus if (n := sum(job.status == status for job in everything))}
        ledger.close()


def test_the_witness_is_the_last_prompt_whose_history_the_server_must_have(ledger):
    assert ledger.witness(ENGINE) is None
    epoch, jobs = ledger.take_server(ENGINE), [accepted(ledger, str(n)) for n in range(4)]
    for job, status in zip(jobs, (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.LOST), strict=True):
        done(ledger, job, epoch, status)
    assert ledger.witness(ENGINE) == jobs[1].id
    assert ledger.witness(A) is None


# ---- one file, many hands -------------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from toolkit.ledger import Ledger, NewJob
from toolkit.requests import ImageRequest
print("ready", flush=True)
sys.stdin.readline()
ledger = Ledger(Path(sys.argv[1]))
for n in range(50):
    (job,) = ledger.accept(NewJob(ImageRequest(prompt=f"{sys.argv[2]} {n}"), ["engine"], reuse=False))
    print(job.id, flush=True)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "ready"
    return child


def test_four_processes_that_open_a_new_home_and_accept_at_once_lose_nothing(tmp_path):
    writers = [start(WRITER, str(tmp_path / "home"), str(n)) for n in range(4)]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    ids = [line for writer in writers for line in writer.communicate(timeout=60)[0].split()]
    assert [writer.returncode for writer in writers] == [0, 0, 0, 0]
    ledger = Ledger(tmp_path / "home")
    jobs = ledger.jobs(limit=1000)
    ledger.close()
    assert len(ids) == len(set(ids)) == 200
    assert {job.id for job in jobs} == set(ids)
    assert {job.prompt for job in jobs} == {f"{writer} {n}" for writer in range(4) for n in range(50)}


def test_threads_share_a_ledger(ledger):
    def work(name: int) -> None:
        for n in range(10):
            accepted(ledger, f"{name} {n}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.count() == 40


def test_a_forked_process_opens_its_own_connection(ledger):
    held = ledger._database.connection()
    ledger._database._local.held = (os.getpid() + 1, held)
    assert ledger._database.connection() is not held
    assert accepted(ledger).status == "queued"


def test_the_same_job_is_claimed_by_one_of_two_feeders(ledger):
    epoch = ledger.take_server(ENGINE)
    jobs = ledger.accept(*(new(str(n)) for n in range(10)))
    won: list[str] = []

    def feed() -> None:
        for job in jobs:
            attempt = ledger.sending(Claim(job.id, ENGINE, epoch, GRAPH))
            won.extend([attempt.job_id] if attempt else [])

    threads = [threading.Thread(target=feed) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(job.id for job in jobs)


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_locked_ledger_names_who_holds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    ledger = Ledger(tmp_path)
    job = accepted(ledger)
    holder = start(HOLDER, str(tmp_path / "ledger.sqlite"))
    try:
        assert lock_holder(tmp_path / "ledger.sqlite") == holder.pid
        with pytest.raises(HomeUnusable, match=rf"ledger.sqlite has been locked for 0.05 s by process {holder.pid}. End that process") as locked:
            accepted(ledger)
        assert locked.value.path == str(tmp_path / "ledger.sqlite")
        assert ledger.job(job.id).status == "queued", "reading goes on"
    finally:
        holder.communicate("end\n", timeout=20)
    assert accepted(ledger).status == "queued", "and writing again afterwards"
    ledger.close()


def test_a_holder_that_cannot_be_known_is_not_named(tmp_path, monkeypatch):
    assert lock_holder(tmp_path / "nothing.sqlite") is None
    ledger = Ledger(tmp_path)
    assert lock_holder(tmp_path / "ledger.sqlite") is None
    monkeypatch.setattr(database, "lock_holder", lambda _path: None)
    said = ledger._database._sentence(sqlite3.OperationalError("database is locked"))
    assert said.endswith("has been locked for 5 s.")
    ledger.close()


def test_a_ledger_of_a_newer_toolkit_is_refused_and_left_alone(tmp_path):
    Ledger(tmp_path).close()
    plain = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None, timeout=0.1)
    plain.execute("PRAGMA user_version = 99")
    with pytest.raises(HomeUnusable, match=rf"newer toolkit \(schema 99, this one knows {len(rows.MIGRATIONS)}\)\. Restart the kernel or upgrade") as newer:
        Ledger(tmp_path)
    plain.execute("BEGIN IMMEDIATE")  # the refused one holds no lock, though its traceback is still alive
    plain.execute("COMMIT")
    plain.close()
    assert newer.value.__traceback__ is not None


def test_a_ledger_that_becomes_newer_while_it_is_open_is_refused(ledger):
    job = accepted(ledger)
    plain = sqlite3.connect(ledger.home / "ledger.sqlite", isolation_level=None)
    plain.execute(f"PRAGMA user_version = {len(rows.MIGRATIONS) + 1}")
    plain.close()
    with pytest.raises(HomeUnusable, match="newer toolkit"):
        accepted(ledger)
    assert [found.id for found in ledger.jobs()] == [job.id]


def test_a_ledger_that_was_replaced_while_open_is_refused(ledger, tmp_path):
    accepted(ledger)
    path = ledger.home / "ledger.sqlite"
    shutil.copy(path, tmp_path / "copy.sqlite")
    os.replace(tmp_path / "copy.sqlite", path)
    with pytest.raises(HomeUnusable, match=r"was replaced while it was open. Restart this program"):
        accepted(ledger)
    path.unlink()
    with pytest.raises(HomeUnusable, match=r"is gone: No such file"):
        accepted(ledger)


def test_a_home_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnusable, match=r"cannot be used: Not a directory. Set TOOLKIT_HOME to a folder of yours."):
        Ledger(tmp_path / "file" / "home")


def test_a_ledger_that_is_a_folder_is_one_sentence(tmp_path):
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(HomeUnusable, match=r"cannot be written. Set TOOLKIT_HOME"):
        Ledger(tmp_path)


def test_a_file_that_is_no_database_is_one_sentence(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(HomeUnusable, match=r"cannot be read: file is not a database. Restore it from a backup."):
        Ledger(tmp_path)


def test_a_ledger_that_only_may_be_read_is_one_sentence(tmp_path):
    ledger = Ledger(tmp_path)
    ledger._database.connection().execute("PRAGMA query_only = ON")
    with pytest.raises(HomeUnusable, match=r"cannot be written. Set TOOLKIT_HOME"):
        accepted(ledger)
    ledger.close()


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(ledger):
    connection = ledger._database.connection()
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0] + 4}")
    kept: list[str] = []

    def fill() -> None:
        while True:
            kept.append(accepted(ledger, "x" * 3000 + str(len(kept))).id)

    with pytest.raises(HomeUnusable, match=r"The disk of .* is full. Make room; nothing is lost."):
        fill()
    assert kept
    assert not connection.in_transaction
    assert {job.id for job in ledger.jobs(limit=100)} == set(kept)
    connection.execute("PRAGMA max_page_count = 100000")
    assert accepted(ledger).status == "queued"


def test_any_other_trouble_of_sqlite_is_a_sentence_too(ledger):
    with pytest.raises(HomeUnusable, match=r"cannot be used: no such table: nowhere"):
        ledger._database.rows("SELECT * FROM nowhere")
    assert ledger._database._sentence(sqlite3.OperationalError("disk I/O error")).endswith("cannot be used: disk I/O error.")


def test_a_migration_that_fails_leaves_the_old_schema(tmp_path):
    path = tmp_path / "x.sqlite"
    Database(path, ["CREATE TABLE a (x)"], durable=False).close()
    with pytest.raises(HomeUnusable, match="syntax error"):
        Database(path, ["CREATE TABLE a (x)", "CREATE TABLE b (y);\nNONSENSE"], durable=False)
    both = Database(path, ["CREATE TABLE a (x)", "CREATE TABLE b (y);\n"], durable=False)
    assert [row[0] for row in both.rows("SELECT name FROM sqlite_master ORDER BY name")] == ["a", "b"]
    assert both.rows("PRAGMA user_version")[0][0] == 2
    both.close()


def test_a_migration_that_another_process_just_made_is_not_made_again(tmp_path, monkeypatch):
    path, scripts = tmp_path / "x.sqlite", ["CREATE TABLE a (x)"]
    rival = sqlite3.connect(path, isolation_level=None)
    late = Database.connection

    def connection(self: Database) -> sqlite3.Connection:
        found = late(self)
        if rival.execute("PRAGMA user_version").fetchone()[0] == 0:
            found.set_trace_callback(lambda statement: migrate() if statement == "BEGIN IMMEDIATE" else None)
        return found

    def migrate() -> None:
        if not rival.execute("PRAGMA user_version").fetchone()[0]:
            rival.executescript("CREATE TABLE a (x); PRAGMA user_version = 1")

    monkeypatch.setattr(Database, "connection", connection)
    made = Database(path, scripts, durable=False)
    assert [row[0] for row in made.rows("SELECT name FROM sqlite_master")] == ["a"]
    made.close()
    rival.close()


def test_a_home_keeps_its_identity(tmp_path):
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    assert first.id == second.id == str(uuid.UUID(first.id))
    first.close()
    second.close()


def test_a_closed_ledger_leaves_no_connection_open(tmp_path):
    ledger = Ledger(tmp_path)
    accepted(ledger)
    connection = ledger._database.connection()
    ledger.close()
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")


# ---- rows -----------------------------------------------------------------------------------------------------------------------------


@relaxed
@given(st.builds(Instant, st.floats(allow_nan=False), st.none() | st.floats(allow_nan=False), st.none() | st.from_regex(r"[0-9a-f]{8}", fullmatch=True)))
def test_an_instant_comes_back_equal_from_its_column(instant):
    assert rows.read_instant(rows.instant_text(instant)) == instant


def test_no_instant_and_no_blob_stay_nothing():
    assert rows.instant_text(None) is None
    assert rows.read_instant(None) is None
    assert rows.unpacked(None) is None


@relaxed
@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_a_packed_value_comes_back_equal(value):
    assert rows.unpacked(rows.packed(value)) == json.loads(json.dumps(value))


# ---- any sequence ---------------------------------------------------------------------------------------------------------------------


class AnyHistory(RuleBasedStateMachine):
    """Two feeders, users and a model of what must hold: nothing accepted is lost or doubled, nothing final changes."""

    def __init__(self) -> None:
        super().__init__()
        folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.ledger = Ledger(self.folder)
        self.line = self.ledger.line()
        self.accepted: list[str] = []
        self.final: dict[str, Job] = {}
        self.attempts: list[Attempt] = []
        self.epoch = 0
        self.revision = 0

    def teardown(self) -> None:
        self.ledger.close()
        shutil.rmtree(self.folder)

    @initialize()
    def elect(self) -> None:
        self.epoch = self.ledger.take_server(ENGINE)

    @rule(prompts=st.lists(st.sampled_from("abc"), max_size=3), reuse=st.sampled_from([None, True, False]))
    def accept(self, prompts: list[str], reuse: bool | None) -> None:
        for job in self.ledger.accept(*(new(prompt, reuse=reuse) for prompt in prompts)):
            if job.id not in self.accepted:
                self.accepted.append(job.id)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data(), old=st.booleans())
    def send(self, data: st.DataObject, old: bool) -> None:
        job_id = data.draw(st.sampled_from(self.accepted))
        before = self.ledger.job(job_id)
        if old:
            with pytest.raises(StaleEpoch):
                self.ledger.sending(Claim(job_id, ENGINE, self.epoch - 1, GRAPH))
            return
        attempt = self.ledger.sending(Claim(job_id, ENGINE, self.epoch, GRAPH))
        assert (attempt is not None) == (before.status == "queued" and not before.cancel_asked)
        self.attempts += [attempt] if attempt else []

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), status=st.none() | st.sampled_from([JobStatus.SUBMITTED, JobStatus.RUNNING, JobStatus.COLLECTING]))
    def record(self, data: st.DataObject, status: JobStatus | None) -> None:
        self.ledger.record(data.draw(st.sampled_from(self.attempts)), self.epoch, status, acknowledged=1)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), status=st.sampled_from(sorted(FINAL)), again=st.booleans())
    def end(self, data: st.DataObject, status: JobStatus, again: bool) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        was = self.ledger.attempt(attempt.job_id)
        closed = self.ledger.end(attempt, self.epoch, Outcome(status, again=again))
        assert closed == (was.number == attempt.number and was.status not in FINAL)

    @precondition(lambda self: self.accepted)
    @rule(data=st.data(), reject=st.booleans())
    def stop(self, data: st.DataObject, reject: bool) -> None:
        job_id = data.draw(st.sampled_from(self.accepted))
        if reject:
            self.ledger.end_unsent(job_id, Outcome(JobStatus.REJECTED))
        else:
            job = self.ledger.ask_cancel(job_id)
            assert job.cancel_asked or job.is_final

    @rule()
    def take_over(self) -> None:
        self.epoch = self.ledger.take_server(ENGINE)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.folder)
        self.line = self.ledger.line()

    @invariant()
    def every_accepted_id_exists_exactly_once(self) -> None:
        assert sorted(job.id for job in self.ledger.jobs(limit=1000)) == sorted(self.accepted)
        assert sum(self.ledger.counts().values()) == len(self.accepted)

    @invariant()
    def what_is_final_stays_and_the_open_ones_are_the_others(self) -> None:
        for job in self.ledger.jobs(status="final", limit=1000):
            assert self.final.setdefault(job.id, job) == job
        assert len(self.final) == self.ledger.count(status="final")
        found = self.ledger.open_jobs()
        assert {job.id for job in found} == set(self.accepted) - set(self.final)
        assert self.line.jobs() == found
        assert all(job.status in OPEN for job in found)
        flying = {attempt.job_id for attempt in self.ledger.in_flight(ENGINE)}
        assert flying == {job.id for job in found if job.status in ("submitted", "running", "collecting")}

    @invariant()
    def the_revision_never_falls(self) -> None:
        assert self.ledger.revision() >= self.revision
        self.revision = self.ledger.revision()


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(deadline=None, max_examples=25, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow])


# ---- the live board -------------------------------------------------------------------------------------------------------------------


def test_the_board_shows_the_latest_progress_and_keeps_the_preview(board):
    assert board.job("j") is None
    board.show("j", "one", b"picture", "image/jpeg")
    board.show("j", "two")
    shown = board.job("j")
    assert (shown.progress, shown.preview, shown.preview_type) == ("two", b"picture", "image/jpeg")
    assert b"picture" not in repr(shown).encode()
    board.show("j", "three", b"other", "image/png")
    assert (board.job("j").preview, board.job("j").preview_type) == (b"other", "image/png")
    board.remove("j")
    board.remove("nobody")
    assert board.job("j") is None


def test_the_board_says_what_was_shown_anew_oldest_first(board):
    for job_id in "abca":
        board.show(job_id, job_id)
    assert [job.id for job in board.jobs_since(0)] == ["b", "c", "a"]
    assert board.jobs_since(board.jobs_since(0)[-1].version) == []
    board.remove("a")
    board.show("d", "d")
    assert [job.id for job in board.jobs_since(3)] == ["d"], "versions go on after a removal"


def test_a_feeders_pulse_is_on_the_board_until_it_leaves(board):
    assert board.server(A) is None
    first = LiveServer(B, 1, 100.0, "ready", None, 0, 0)
    board.beat(first)
    board.beat(LiveServer(A, 2, 100.0, "busy", "sentence", 1, 3))
    board.beat(LiveServer(A, 2, 101.0, "ready", None, 0, 0))
    assert [server.url for server in board.servers()] == [A, B]
    assert (board.server(A).beat, board.server(A).state) == (101.0, "ready")
    board.leave(A)
    assert board.servers() == [first]


def test_a_pulse_goes_stale_after_three_seconds():
    server = LiveServer(A, 1, 100.0, "ready", None, 0, 0)
    assert server.is_alive(100.0 + live.BEAT_STALE_S - 0.01)
    assert not server.is_alive(100.0 + live.BEAT_STALE_S)
    assert not server.is_alive()


def test_the_board_of_another_process_is_noticed(board, tmp_path):
    before = board.data_version()
    other = LiveBoard(tmp_path / "home")
    other.show("j", "one")
    other.close()
    assert board.data_version() != before
    assert board.job("j").progress == "one"


def test_a_lost_board_is_simply_a_new_one(tmp_path):
    first = LiveBoard(tmp_path)
    first.show("j", "one")
    first.close()
    for path in tmp_path.glob("live.sqlite*"):
        path.unlink()
    second = LiveBoard(tmp_path)
    assert second.jobs_since(0) == []
    second.close()


def test_a_file_that_is_locked_while_it_becomes_a_wal_is_waited_for_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite refuses the switch at once while another connection is at it, whatever its busy timeout."""
    path = tmp_path / "a.sqlite"
    rival = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    rival.execute("CREATE TABLE a (x)")
    rival.execute("BEGIN EXCLUSIVE")
    connection = sqlite3.connect(path, timeout=0)
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        database._set_wal(connection)
    monkeypatch.undo()
    threading.Timer(0.2, lambda: rival.execute("COMMIT")).start()
    database._set_wal(connection)
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    connection.close()
    rival.close()


def test_a_refusal_is_kept_whole_and_a_pause_with_its_note(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    (job,) = ledger.accept(NewJob(ImageRequest(prompt="a girl"), ["engine"]))
    assert ledger.reply(job.id) is None
    attempt = ledger.sending(Claim(job.id, "engine", ledger.take_server("engine"), {}))
    assert attempt is not None
    ledger.end(attempt, 1, Outcome(JobStatus.REJECTED, reply={"error": {"type": "odd"}}))
    assert ledger.reply(job.id) == {"error": {"type": "odd"}}
    assert ledger.pause("engine") is None
    ledger.pause_server("engine", "mine", free=True)
    assert ledger.pause("engine").free  # type: ignore[union-attr]
    ledger.freed("engine")
    assert (ledger.pause("engine").note, ledger.pause("engine").free) == ("mine", False)  # type: ignore[union-attr]
    assert ledger.unpause_server("engine")
    assert not ledger.unpause_server("engine")
    ledger.close()


# ---- files that somebody deleted -------------------------------------------------------------------------------------------------------


def in_folder(ledger: Ledger, epoch: int, folder: str, *numbers: int) -> Job:
    """A done job with files that are really there."""
    job = accepted(ledger)
    files = [replace(stored(job, number), name=f"{folder}/{job.id}-{number}.png") for number in numbers]
    for file in files:
        path = ledger.projects / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return done(ledger, job, epoch, files=files)


def disks(ledger: Ledger, job: Job) -> list[str]:
    return [file.disk for file in ledger.job(job.id).files]


def settle_folders(ledger: Ledger) -> None:
    """As if every folder had last changed an hour ago."""
    for place, _, _ in os.walk(ledger.projects):
        os.utime(place, (1.6e9, 1.6e9))


def test_a_file_deleted_outside_is_marked_missing_and_present_again_when_it_is_back(ledger):
    epoch = ledger.take_server(ENGINE)
    one, other = in_folder(ledger, epoch, "fox/2026-11-22", 1, 2), in_folder(ledger, epoch, "fox/2026-11-23", 1)
    revision = ledger.job(other.id).revision
    assert ledger.look_at_files() == 0
    path = ledger.projects / one.files[1].name
    path.rename(path.with_suffix(".away"))
    assert ledger.look_at_files() == 1
    assert (disks(ledger, one), disks(ledger, other)) == (["present", "missing"], ["present"])
    assert ledger.job(one.id).revision > one.revision  # who watches, and the log, hear of it
    assert ledger.job(other.id).revision == revision
    path.with_suffix(".away").rename(path)
    assert ledger.look_at_files() == 1
    assert disks(ledger, one) == ["present", "present"]


def test_a_deleted_folder_takes_its_files_along_and_no_trashed_one(ledger):
    epoch = ledger.take_server(ENGINE)
    one, other = in_folder(ledger, epoch, "fox/2026-11-22", 1, 2), in_folder(ledger, epoch, "wolf/2026-11-22", 1)
    with ledger._database.transaction() as connection:
        connection.execute("UPDATE files SET disk = 'trashed' WHERE job_id = ? AND number = 2", (one.id,))
    shutil.rmtree(ledger.projects / "fox")
    assert ledger.look_at_files() == 1
    assert (disks(ledger, one), disks(ledger, other)) == (["missing", "trashed"], ["present"])
    assert ledger.look_at_files() == 0


def test_a_folder_that_did_not_change_is_not_read_again(ledger, monkeypatch):
    epoch = ledger.take_server(ENGINE)
    in_folder(ledger, epoch, "fox/2026-11-22", 1)
    kept = in_folder(ledger, epoch, "fox/2026-11-23", 1)
    settle_folders(ledger)
    assert ledger.look_at_files() == 0
    read = list[str]()
    monkeypatch.setattr(presence.os, "listdir", lambda folder: read.append(Path(folder).name) or [])
    assert ledger.look_at_files() == 0
    assert read == []
    (ledger.projects / kept.files[0].name).unlink()
    assert ledger.look_at_files() == 1
    assert read == ["2026-11-23"]


def test_a_disk_that_cannot_be_read_for_a_moment_took_no_file_away(ledger, monkeypatch):
    job = in_folder(ledger, ledger.take_server(ENGINE), "fox/2026-11-22", 1)

    def away(path: Path) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(presence.os, "stat", away)
    assert ledger.look_at_files() == 0
    monkeypatch.undo()
    assert disks(ledger, job) == ["present"]


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda ledger: ledger.open_jobs(), "jobs_open"), (lambda ledger: ledger.held(), "jobs_open"), (lambda ledger: ledger.in_flight(A), "attempts_open"),
        (lambda ledger: ledger.witness(A), "attempts_witness"), (lambda ledger: ledger.jobs(status="failed"), "jobs_listed"),
        (lambda ledger: ledger.jobs(kind="video", project="fox", before_seq=5), "jobs_listed"), (lambda ledger: ledger.jobs(since=5.0), "jobs_created"),
        (lambda ledger: ledger.last_open("g"), "jobs_group"), (lambda ledger: ledger.changed_since(7), "jobs_revision"),
        (lambda ledger: ledger.history_since(7), "jobs_revision"), (lambda ledger: ledger.etas(A, "image", "started", "end"), "etas_known"),
        (lambda ledger: ledger.has_equal(ImageRequest(prompt="a", seed=1)), "jobs_request"), (lambda ledger: ledger.counts(), "tallies"),
        (lambda ledger: ledger.jobs(person="ann"), "jobs_person"), (lambda ledger: ledger.count(person="ann"), "jobs_person"),
        (lambda ledger: ledger.counts("ann"), "jobs_person"), (lambda ledger: ledger.people.used("ann"), "jobs_open"),
        (lambda ledger: ledger.count(status="failed"), "tallies"), (lambda ledger: ledger.longest_run_s("image", A), "longest"),
    ],
)  # fmt: skip
def test_what_is_asked_all_the_time_walks_an_index_and_never_all_jobs(ledger, monkeypatch, ask, index):
    """SQLite silently walks a million rows of kilobytes where a query is worded otherwise than a partial index."""
    asked, inner = [], ledger._database.rows
    monkeypatch.setattr(ledger._database, "rows", lambda query, *values: asked.append((query, values)) or inner(query, *values))
    ask(ledger)
    plan = [row["detail"] for query, values in asked for row in inner(f"EXPLAIN QUERY PLAN {query}", *values)]
    assert index in str(plan)
    assert [step for step in plan if re.match(r"SCAN (jobs|attempts|files|etas)\b(?!.*INDEX)", step)] == []


# ---- what people keep -----------------------------------------------------------------------------------------------------------------


def judged(job: Job, verdict: str | None, at: float, person: str = "owner", output: int = 1) -> Rating:
    return Rating(job.id, output, person, verdict, None, (), None, at)


def test_the_latest_judgement_counts_and_one_without_a_verdict_takes_it_back(ledger):
    job, before = accepted(ledger), ledger.revision()
    ledger.rate(judged(job, "keep", 1.0), judged(job, "reject", 2.0, output=2))
    assert ledger.verdicts([job.id]) == {(job.id, 1): "keep", (job.id, 2): "reject"}
    assert ledger.revision() > before
    ledger.rate(judged(job, None, 3.0), Rating(job.id, 2, "ann", "keep", 5, ("hands",), "nice", 4.0))
    assert ledger.verdicts([job.id]) == {(job.id, 1): None, (job.id, 2): "keep"}
    assert [rating.stars for rating in ledger.ratings([job.id])] == [None, None, None, 5]


def test_a_trashed_file_lies_in_the_bin_and_is_not_taken_for_missing(ledger):
    epoch, job = ledger.take_server(ENGINE), accepted(ledger)
    done(ledger, job, epoch, files=[stored(job)])
    ledger.mark([(job.id, 1, "trashed")])
    (file,) = ledger.job(job.id).files
    assert (file.disk, file.path) == ("trashed", str(ledger.home / "trash" / file.name))
    ledger.look_at_files()
    assert ledger.job(job.id).files[0].disk == "trashed"


def test_a_deleted_job_leaves_its_id_and_nothing_else(ledger):
    epoch, job, other = ledger.take_server(ENGINE), accepted(ledger), accepted(ledger, "a cat")
    done(ledger, job, epoch, files=[stored(job)])
    ledger.rate(judged(job, "keep", 1.0))
    before = ledger.revision()
    ledger.forget([job.id])
    with pytest.raises(JobUnknown):
        ledger.job(job.id)
    assert ledger.deleted_since(before) == [job.id]
    assert ledger.deleted_since(ledger.revision()) == []
    assert (ledger.count(), ledger.ratings([job.id]), ledger.attempt(job.id)) == (1, [], None)
    with pytest.raises(RequestInvalid, match="has not ended"):
        ledger.forget([other.id])
    assert ledger.job(other.id).status == "queued"


def batch(ledger: Ledger, group: str, prompts: list[str], **about: Any) -> list[str]:
    made = NewBatch(group, "cfg test", **{"base": "b", "axes": ("prompt",), **about})
    cells = [(number, {"prompt": prompt}) for number, prompt in enumerate(prompts)]
    return ledger.accept_batch([new(prompt, group_id=group, group_name="cfg test", reuse=None) for prompt in prompts], made, cells)


def test_a_batch_made_again_keeps_what_is_done_or_on_its_way_and_makes_the_rest(ledger):
    epoch = ledger.take_server(ENGINE)
    first = batch(ledger, "g", ["a", "b", "c"])
    done(ledger, ledger.job(first[0]), epoch)
    ledger.ask_cancel(first[1])
    again = batch(ledger, "g", ["a", "b", "c", "d"])
    assert (again[0], again[2]) == (first[0], first[2])
    assert ledger.job(again[1]).retry_of == first[1]
    assert [cell.job_id for cell in ledger.cells("g")] == again
    fewer = batch(ledger, "g", ["c"])
    assert [cell.axes["prompt"] for cell in ledger.cells("g")] == ["c", "a", "b", "d"]
    assert fewer == [first[2]]


def test_a_batch_is_found_by_what_it_was_made_of(ledger):
    assert ledger.batch_like("b", None) is None
    (job_id,) = batch(ledger, "g", ["a"], seed="18446744073709551615")
    found = ledger.batch_like("b", None)
    assert found == ledger.batch_like("b", "cfg test") == ledger.batch("g")
    assert found is not None
    assert (found.seed, found.axes) == (2**64 - 1, ("prompt",))
    ledger.ask_cancel(job_id)
    assert ledger.batch_like("b", None) is None, "one without a name is only gone on with while a job of it is open"
    assert ledger.batch_like("b", "another") is None


def test_a_retry_takes_the_place_of_what_failed_and_later_jobs_stand_behind(ledger):
    first, second = batch(ledger, "g", ["a", "b"])
    ledger.ask_cancel(first)
    (again,) = ledger.accept(new("a", group_id="g", group_name="cfg test", retry_of=first))
    (later,) = ledger.accept(new("a clip", group_id="g", group_name="cfg test"))
    assert [cell.job_id for cell in ledger.cells("g")] == [again.id, second, later.id]


def test_the_line_reads_of_a_large_home_only_what_changed(ledger, monkeypatch):
    line, asked, inner = ledger.line(), [], ledger._database.rows
    line.jobs()
    accepted(ledger)
    monkeypatch.setattr(ledger._database, "rows", lambda query, *values: asked.append((query, values)) or inner(query, *values))
    assert len(line.jobs()) == 1
    plan = [row["detail"] for query, values in asked for row in inner(f"EXPLAIN QUERY PLAN {query}", *values)]
    assert "SEARCH jobs USING INDEX jobs_revision (revision>?)" in plan
