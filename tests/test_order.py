"""order: one line for all, by priority, turn and arrival; neighbours share what is loaded, servers share the work, and nobody is held back for long."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.jobs import OPEN, JobStatus, OpenJob
from toolkit.order import STARVED_S, UNKNOWN_S, Sent, ServerLine, Takes, Turn, in_line, next_job, turns

relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault

A, B = "http://a", "http://b"


def places(jobs, servers=()) -> dict[str, Turn]:
    return {turn.job.id: turn for turn in turns(jobs, servers)}


def ahead_of(jobs, job_id: str) -> int | None:
    turn = places(jobs).get(job_id)
    return None if turn is None else turn.ahead


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
def test_a_server_alone_gets_the_first_job_that_was_accepted_for_it(jobs):
    jobs = [replace(job, servers=(A,), server_url=job.server_url and A) for job in jobs]
    line = in_line(jobs)
    assert next_job(jobs, A) == (line[0] if line else None)
    assert next_job(jobs, B) is None


@relaxed
@given(homes())
def test_every_waiting_job_has_one_turn_on_a_server_it_was_accepted_for(jobs):
    found = turns(jobs)
    assert sorted(turn.job.seq for turn in found) == sorted(job.seq for job in in_line(jobs))
    assert all(turn.server_url in turn.job.servers for turn in found)


@relaxed
@given(homes())
def test_sending_the_next_job_brings_everybody_forward_or_keeps_them(jobs):
    jobs = [replace(job, servers=(A,), server_url=job.server_url and A) for job in jobs]
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


# ---- people and patience ----------------------------------------------------------------------------------------------------------------


def of(person: str, seq: int, **fields) -> OpenJob:
    return replace(waiting(seq), person=person, **fields)


def test_people_take_turns_and_what_runs_counts_as_a_turn():
    jobs = [of("ann", 1), of("ann", 2), of("ann", 3), of("ben", 4), of("ben", 5)]
    assert [job.seq for job in in_line(jobs)] == [1, 4, 2, 5, 3]
    jobs.append(of("ann", 0, status="running", server_url=A))
    assert [job.seq for job in in_line(jobs)] == [4, 1, 5, 2, 3]


def test_a_guests_picture_comes_after_the_job_that_runs_and_not_after_the_sweep():
    sweep = [of("owner", seq, priority=2) for seq in range(1, 201)]
    running = of("owner", 0, priority=2, status="running", server_url=A)
    picture = of("ben", 999)
    assert next_job([running, *sweep, picture], A) is picture
    assert ahead_of([running, *sweep, picture], picture.id) == 1


def test_nobody_starves_in_the_background():
    old, young, normal = (replace(waiting(seq, priority), created_at=at) for seq, priority, at in ((1, 2, 0.0), (2, 2, STARVED_S), (3, 1, STARVED_S)))
    assert [job.seq for job in in_line([old, young, normal], now=STARVED_S + 1)] == [1, 3, 2]
    assert [job.seq for job in in_line([old, young, normal], now=STARVED_S - 1)] == [3, 1, 2]


# ---- what is loaded ---------------------------------------------------------------------------------------------------------------------


def using(model: str, seq: int, *, lora: str | None = None, **fields) -> OpenJob:
    loads = (model,) if lora is None else (model, f"{model}+{lora}")
    return replace(waiting(seq), loads=loads, recipe_key=model, **fields)


def line(loaded: tuple[str, ...] = (), *, warm_s: float = 2.0, cold_s: float = 7.0, **fields) -> ServerLine:
    return ServerLine(A, loaded=loaded, takes={model: Takes(warm_s, cold_s) for model in "abcd"}, **fields)


def run_all(jobs: list[OpenJob], server: ServerLine, patience_s: float) -> list[tuple[OpenJob, float, float]]:
    """Jobs with when each starts and ends on one server that takes one at a time, all of them there from the start."""
    left, clock, loaded, sent, found = list(jobs), 0.0, server.loaded, [], []
    while left:
        now = replace(server, loaded=loaded, sent=tuple(sent), patience_s=patience_s)
        job = next_job(left, A, lambda now=now: [now])
        takes_s = now.takes_s(job)
        found.append((job, clock, clock + takes_s))
        clock, loaded = clock + takes_s, job.loads
        sent.append(Sent(job.seq, job.priority, takes_s))
        left.remove(job)
    return found


def loads(order: list[tuple[OpenJob, float, float]], loaded: tuple[str, ...] = ()) -> int:
    count = 0
    for job, _, _ in order:
        count += job.loads != loaded
        loaded = job.loads
    return count


def test_forty_jobs_that_alternate_between_two_models_load_each_once():
    jobs = [using("ab"[seq % 2], seq) for seq in range(40)]
    assert loads(run_all(jobs, line(), 1000.0)) == 2
    assert loads(run_all(jobs, line(), 0.0)) == 40


def test_jobs_that_share_more_go_first():
    jobs = [using("b", 1), using("a", 2), using("a", 3, lora="x")]
    assert next_job(jobs, A, lambda: [line(("a", "a+x"))]).seq == 3
    assert next_job(jobs, A, lambda: [line(("a",))]).seq == 2
    assert next_job(jobs, A, lambda: [line(("c",))]).seq == 1


def test_what_is_loaded_never_comes_before_priority():
    jobs = [using("a", 1, priority=2), using("b", 2)]
    assert next_job(jobs, A, lambda: [line(("a",))]).seq == 2


@relaxed
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.floats(0, 60), st.floats(0.5, 10), st.floats(0, 20))
def test_no_job_starts_later_than_by_arrival_by_more_than_the_stated_time(models, patience_s, warm_s, load_s):
    jobs = [using(model, seq) for seq, model in enumerate(models)]
    server = line(warm_s=warm_s, cold_s=warm_s + load_s)
    by_arrival = {job.id: start for job, start, _ in run_all(jobs, server, -1.0)}
    ours = run_all(jobs, server, patience_s)
    assert [job.seq for job, _, _ in run_all(jobs, server, -1.0)] == sorted(job.seq for job in jobs)
    for job, start, _ in ours:
        assert start - by_arrival[job.id] <= patience_s + 1e-6
    assert ours[-1][2] <= max(end for _, _, end in run_all(jobs, server, -1.0)) + 1e-6


# ---- several servers --------------------------------------------------------------------------------------------------------------------


def both(seq: int, seconds: float = 1.0, **fields) -> OpenJob:
    return replace(waiting(seq, servers=(A, B)), recipe_key=f"{seconds}", **fields)


def speeds(lengths: set[float], a: float = 1.0, b: float = 1.0, *, busy: tuple[float, float] = (0.0, 0.0), **fields) -> list[ServerLine]:
    return [
        ServerLine(url, busy_s=busy_s, takes={f"{length}": Takes(length / speed, length / speed) for length in lengths}, **fields)
        for url, speed, busy_s in ((A, a, busy[0]), (B, b, busy[1]))
    ]


def test_a_job_goes_to_the_server_that_ends_it_first():
    jobs = [both(1, 10.0)]
    assert next_job(jobs, A, lambda: speeds({10.0}, a=1, b=4)) is None
    assert next_job(jobs, B, lambda: speeds({10.0}, a=1, b=4)).seq == 1
    assert next_job(jobs, A, lambda: speeds({10.0}, a=1, b=4, busy=(0.0, 20.0))).seq == 1


def test_a_slow_server_takes_what_the_fast_one_would_end_later():
    jobs = [both(seq, 10.0) for seq in range(6)]
    found = [turn.server_url for turn in turns(jobs, speeds({10.0}, a=1, b=4))]
    assert found.count(A) == 1
    assert found[-1] == B


def test_a_server_that_is_away_is_not_counted_on():
    jobs = [both(1, 10.0)]
    slow, fast = speeds({10.0}, a=1, b=4)
    assert next_job(jobs, A, lambda: [slow, replace(fast, usable=False)]).seq == 1
    assert places(jobs, [slow, replace(fast, usable=False)])["job1"].server_url == A
    assert len(turns(jobs, [replace(slow, usable=False), replace(fast, usable=False)])) == 1


@relaxed
@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0]), min_size=60, max_size=120), st.sampled_from([(1, 2, 2, 4), (1, 1), (1, 4), (3, 2, 1)]))
def test_all_servers_end_at_nearly_the_same_time(lengths, speed):
    urls = [f"http://{number}" for number in range(len(speed))]
    jobs = [replace(waiting(seq, servers=tuple(urls)), recipe_key=f"{length}") for seq, length in enumerate(lengths)]
    servers = [ServerLine(url, takes={f"{length}": Takes(length / its, length / its) for length in lengths}) for url, its in zip(urls, speed, strict=True)]
    ends = [turn.starts_s + turn.takes_s for turn in turns(jobs, servers)]
    assert max(ends) <= sum(lengths) / sum(speed) + max(lengths) / min(speed) / 2 + max(lengths) / max(speed)


def test_clips_leave_one_server_to_pictures():
    clips = [both(seq, 60.0, kind="video") for seq in range(1, 4)]
    picture = both(9, 1.0)
    running = replace(clips[0], status="running", server_url=B)
    assert next_job([running, *clips[1:], picture], A, lambda: speeds({60.0, 1.0}, busy=(0.0, 50.0))) is picture
    assert next_job([running, *clips[1:]], A, lambda: speeds({60.0, 1.0}, busy=(0.0, 50.0))).kind == "video"


def test_times_of_waiting_jobs_count_what_comes_before_them_and_stay_unknown_after_an_unknown_one():
    jobs = [using("a", 1), using("b", 2), replace(waiting(3), recipe_key="never seen"), using("a", 4)]
    found = places(jobs, [line(("a",), busy_s=3.0)])
    assert (found["job1"].starts_s, found["job1"].takes_s) == (3.0, 2.0)
    assert (found["job4"].starts_s, found["job4"].ahead) == (5.0, 1)  # its model is loaded
    assert (found["job2"].starts_s, found["job2"].takes_s) == (7.0, 7.0)
    assert (found["job3"].starts_s, found["job3"].takes_s) == (14.0, None)
    assert places([*jobs, replace(waiting(5), recipe_key="a", loads=("z",))], [line(("a",))])["job5"].starts_s is None


def test_a_thousand_jobs_are_placed_in_a_moment():
    jobs = [using("abcd"[seq % 4], seq) for seq in range(1000)]
    assert [turn.ahead for turn in turns(jobs, [line()])] == list(range(1000))


def test_a_line_comes_back_from_the_live_board_as_it_was():
    told = line(("a", "b"), sent=(Sent(3, 1, 2.5),), busy_s=1.5)
    assert ServerLine.load(told.dump()) == told
    assert UNKNOWN_S > 0
