"""Histories nobody would think of: whatever users, servers, networks and crashes do in whatever order, nothing is lost, doubled or told falsely.

A hypothesis state machine and a day's soak over simulation.py. After each rule the home is held against the server's own journal.
TOOLKIT_HISTORIES sets how many histories, TOOLKIT_SEED repeats a run; each run prints its seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from tests.faults.invariants import check
from tests.faults.simulation import CLOCK, STUMBLES, URL, World, picture, simulated_modules, without_texts
from toolkit import ImageRequest, WorkflowRequest, request_of
from toolkit.jobs import FINAL
from toolkit.ledger import Ledger, NewJob
from toolkit.requests import Request

pytestmark = pytest.mark.no_cover  # a thousand histories go through the same lines: to count them takes as long again
HISTORIES = int(os.environ.get("TOOLKIT_HISTORIES", "1000"))
SHARDS = 4  # so that several workers share them
RULES = 20
SEED = int(os.environ.get("TOOLKIT_SEED") or secrets.randbelow(2**32))
LOOKED_AT_WITHIN_S = 60.0
SETTLED_WITHIN_S = 600.0
CLIP = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "clip"}},
}
TRULY: dict[str, set[str | None]] = {  # the end of an attempt, and what the server may have made of its prompt
    "done": {"success"},
    "done_partial": {"success"},
    "failed": {"error", "oom"},
    "removed": {"cleared", "forgotten"},
    "rejected": {None},
}


SEEN = Counter[tuple[str, str]]()  # how jobs ended, so that a rig in which nothing can happen is found out


def image(number: int, batch: int = 1) -> Request:
    """A picture: sent once more when it is lost."""
    return ImageRequest(prompt="a girl", seed=number, width=64, height=64, steps=2, batch_size=batch)


def clip(number: int) -> Request:
    """An own workflow has a clip's policy, never twice, and costs less to build."""
    return WorkflowRequest(workflow=CLIP, labels={"n": str(number)})


class Judge:
    """Holds a world against I1 to I7, while it goes on and at its end."""

    def __init__(self, world: World) -> None:
        self.world, self.asked = world, list[str]()
        self.ends: dict[Any, str] = {}
        self.seen: set[tuple[str, int]] = set()
        self.given_up: set[str] = set()
        self.calm_since = CLOCK.now
        self._version = -1
        self._ledger = sqlite3.connect(f"file:{world.home / 'ledger.sqlite'}?mode=ro", uri=True)
        self._ledger.row_factory = sqlite3.Row

    def close(self) -> None:
        self._ledger.close()

    def now(self) -> None:
        """What must hold at any moment."""
        assert not STUMBLES.found, STUMBLES.found
        assert not self.world.server.meddled, f"I6: {self.world.server.meddled}"
        self._ran_once()
        self._looked_at()
        version = self._ledger.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        self._version = version
        jobs = {row["id"]: row for row in self._ledger.execute("SELECT id, status, attempt, cancel_asked, kind FROM jobs")}
        attempts = self._ledger.execute("SELECT job_id, number, prompt_id, status, failure_kind FROM attempts").fetchall()
        assert sorted(jobs) == sorted(self.asked), "I1: an id is not there exactly once"
        for key, status in [*((job_id, row["status"]) for job_id, row in jobs.items()), *(((row["job_id"], row["number"]), row["status"]) for row in attempts)]:
            assert self.ends.get(key, status) == status, f"I2: {key} was {self.ends[key]} and is {status}"
            if status in FINAL and key not in self.ends:
                self.ends[key] = status
                if isinstance(key, str):
                    SEEN[jobs[key]["kind"], status] += 1
                    assert status != "rejected" or jobs[key]["attempt"], f"I7: {key} was rejected and never sent"
                else:
                    self._ended_truly(next(row for row in attempts if (row["job_id"], row["number"]) == key), jobs[key[0]])
        runs = Counter(self.world.server.runs())
        sent = {row["prompt_id"]: row["job_id"] for row in attempts}
        assert set(runs) <= set(sent), f"I4: ran without a record: {set(runs) - set(sent)}"
        often = Counter(sent[prompt_id] for prompt_id in runs)
        assert all(often[job_id] <= 1 for job_id, row in jobs.items() if row["kind"] != "image"), f"I4: a clip ran twice: {often}"
        self._files(sent)

    def _ran_once(self) -> None:
        doubled = {prompt_id: often for prompt_id, often in Counter(self.world.server.runs()).items() if often > 1}
        assert not doubled, f"I4: ran more than once: {doubled}"
        late = self.given_up & set(self.world.server.runs())
        assert not late, f"I4: given up, and ran after that: {late}"

    def _ended_truly(self, attempt: sqlite3.Row, job: sqlite3.Row) -> None:
        """I7: no false end, in either direction."""
        server, prompt_id, status = self.world.server, attempt["prompt_id"], attempt["status"]
        end = server.ends.get(prompt_id)
        what = f"I7: {prompt_id} is {status} ({attempt['failure_kind']}), the server says {end}"
        if status == "failed" and attempt["failure_kind"] in ("outputs_gone", "bad_file", "outputs_unknown"):
            assert prompt_id in server.dropped, what
            return
        unreadable = status == "removed" and prompt_id in server.dropped  # it ran, unheard, and its history was emptied: nobody can tell that from a removal
        assert unreadable or end in TRULY.get(status, {end}), what
        if status == "cancelled":
            assert job["cancel_asked"] or end == "interrupted", what
        if status in ("lost", "removed"):
            assert not server.knows(prompt_id), f"{what}, which still has it"
        if prompt_id not in server.runs():
            self.given_up.add(prompt_id)
        if end == "success" and prompt_id not in server.dropped and not job["cancel_asked"]:
            assert status in ("done", "done_partial"), what

    def _files(self, sent: dict[str, str]) -> None:
        """I3 and I6: what is recorded lies there, and it is this prompt's."""
        query = (
            "SELECT files.*, prompt_id, request FROM files JOIN jobs ON files.job_id = jobs.id"
            " JOIN attempts ON files.job_id = attempts.job_id AND files.attempt = attempts.number"
        )
        for file in self._ledger.execute(query):
            if (file["job_id"], file["number"]) not in self.seen:
                self.seen.add((file["job_id"], file["number"]))
                data = (self.world.home / "projects" / file["name"]).read_bytes()
                assert without_texts(data) == picture(file["prompt_id"], file["number"]), f"I6: {file['name']} shows another prompt"
                assert request_of(data).as_json() == json.loads(file["request"]), f"I6: {file['name']} tells of another request"
                assert file["job_id"].encode() not in data, f"I6: {file['name']} tells whose it is"
                assert hashlib.sha256(data).hexdigest() == file["sha256"], f"I3: {file['name']}"

    def disturbed(self) -> None:
        self.calm_since = CLOCK.now

    def _looked_at(self) -> None:
        """I5: with nothing in the way, every prompt on the server has been asked about or heard of within T."""
        server, process = self.world.server, self.world.process
        if not server.is_up or server.stalled or server.disk_full or process is None or process.task is None or process.task.done():
            return self.disturbed()
        if CLOCK.now - self.calm_since > LOOKED_AT_WITHIN_S:
            for job in self.world.ledger.open_jobs():
                attempt = self.world.ledger.attempt(job.id)
                if attempt is not None and attempt.sent is not None and attempt.status not in FINAL:
                    ago = CLOCK.now - max(server.looked.get(attempt.prompt_id, 0.0), self.calm_since, attempt.sent.mono or 0.0)
                    assert ago <= LOOKED_AT_WITHIN_S, f"I5: nobody looked at {job.id} for {ago:.0f} s"
        return None

    def at_the_end(self) -> None:
        """Everything is final, and the other account of the same invariants agrees."""
        self.now()
        server = self.world.server
        finished = {prompt_id for prompt_id, end in server.ends.items() if end == "success" and prompt_id not in server.dropped}
        check(self.world.home, server.runs(), self.asked, finished=finished)
        for prompt_id in server.others:
            assert server.ends.get(prompt_id) in server.intended.get(prompt_id, {"success", "cleared", "forgotten"}), (
                f"I6: another's {prompt_id} is {server.ends.get(prompt_id)}"
            )


class Histories(RuleBasedStateMachine):
    """One history: users, a server, a network and our own deaths, in any order."""

    template: Path
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir=self.folder))
        shutil.copy(self.template, self.home)
        self.requests: list[tuple[str, Request]] = []

    @initialize(has_instance=st.booleans(), version=st.sampled_from(["0.3.64", "0.3.50", "0.38.1"]))
    def begin(self, has_instance: bool, version: str) -> None:
        self.world = World(self.home, has_instance=has_instance, version=version)
        self.server, self.judge = self.world.server, Judge(self.world)
        self.world.advance(0.1)

    # ---- the user -------------------------------------------------------------------------------------------------------

    def _accept(self, new: NewJob) -> str:
        (job,) = self.world.ledger.accept(new)
        if job.id not in self.judge.asked:
            self.judge.asked.append(job.id)
            self.requests.append((job.id, new.request))
        self.world.tend()
        return job.id

    @rule(is_image=st.booleans(), batch=st.integers(1, 2), wait=st.booleans())
    def submit(self, is_image: bool, batch: int, wait: bool) -> None:
        number = len(self.requests)
        self._accept(NewJob(image(number, batch) if is_image else clip(number), [URL], reuse=False))
        if wait:
            self.world.advance(0.1)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def submit_the_same(self, data: st.DataObject) -> None:
        _, request = data.draw(st.sampled_from(self.requests))
        equal = {job_id for job_id, other in self.requests if other == request}
        reusable = {job.id for job in self.world.ledger.open_jobs() if job.id in equal and not job.cancel_asked}
        got = self._accept(NewJob(request, [URL]))
        assert got in reusable if reusable else got not in equal

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.world.ledger.ask_cancel(data.draw(st.sampled_from(self.requests))[0])
        self.world.tend()

    @precondition(lambda self: any(isinstance(key, str) for key in self.judge.ends))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(key for key in self.judge.ends if isinstance(key, str))))
        self._accept(NewJob(self.world.ledger.job(job_id).request, [URL], retry_of=job_id))

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 2.5, 7.0, 65.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(hours=st.sampled_from([-1, 24]))
    def the_wall_clock_jumps(self, hours: int) -> None:
        CLOCK.wall += hours * 3600.0

    # ---- the server -----------------------------------------------------------------------------------------------------

    @rule(often=st.integers(1, 3))
    def server_steps(self, often: int) -> None:
        for _ in range(often):
            self.server.step()
        self.world.advance(0.05)

    @precondition(lambda self: self.server.running or self.server.pending)
    @rule(how=st.sampled_from(["success", "success", "success", "error", "oom"]), lag_s=st.sampled_from([0.0, 0.0, 0.2, 2.0]), wait=st.booleans())
    def server_finishes(self, how: str, lag_s: float, wait: bool) -> None:
        if self.server.running is None:
            self.server.step()
        if self.server.running is not None and self.server.running.id in self.server.others:
            self.server.intended.setdefault(self.server.running.id, {how})
        self.server.finish(how, lag_s)
        if wait:
            self.world.advance(0.3)

    @rule(down_s=st.sampled_from([0.0, 0.0, 3.0, 40.0]))
    def server_restarts(self, down_s: float) -> None:
        self.server.die()
        self.judge.disturbed()
        self.world.advance(down_s)
        self.server.is_up = True

    @rule()
    def history_is_evicted(self) -> None:
        self.server.evict()

    @rule()
    def another_queues_a_prompt(self) -> None:
        self.server.post_of_another()

    @precondition(lambda self: self.server.pending)
    @rule()
    def another_clears_the_queue(self) -> None:
        self.server.clear()

    @rule(seconds=st.sampled_from([4.0, 35.0, 50.0]))
    def server_stands_still(self, seconds: float) -> None:
        self.server.stalled = True
        self.judge.disturbed()
        self.world.advance(seconds)
        self.server.resume()

    # ---- the network ----------------------------------------------------------------------------------------------------

    @rule(certain=st.booleans(), notices_after_s=st.sampled_from([0.0, 1.0]))
    def sockets_drop(self, certain: bool, notices_after_s: float) -> None:
        self.server.cut(certain=certain, notices_after_s=0.0 if certain else notices_after_s)

    @precondition(lambda self: self.server.open)
    @rule(how=st.sampled_from(["deaf", "doubles", "swaps"]))
    def sockets_go_wrong(self, how: str) -> None:
        for socket in self.server.open:
            setattr(socket, how, True)

    @rule()
    def sockets_are_refused_or_let_in(self) -> None:
        self.server.refuses_sockets = not self.server.refuses_sockets

    @rule(
        call=st.sampled_from(["submit", "queue", "history", "delete", "cancel", "view", "system_stats"]),
        how=st.sampled_from(["reply lost", "reset", "503", "garbage"]),
    )
    def an_answer_goes_wrong(self, call: str, how: str) -> None:
        self.server.glitches[call] = how

    @rule(how=st.sampled_from(["reply lost", "reset", "503", "500", "refused", "garbage"]))
    def the_next_prompt_meets_trouble(self, how: str) -> None:
        self.server.glitches["submit"] = how

    @rule(how=st.sampled_from(["short", "reset"]))
    def a_fetch_is_cut(self, how: str) -> None:
        self.server.glitches["chunk"] = how

    @rule()
    def server_is_cut_off_or_back(self) -> None:
        self.server.is_up = not self.server.is_up
        self.judge.disturbed()

    # ---- ourselves ------------------------------------------------------------------------------------------------------

    @rule(calls=st.integers(0, 12), fate=st.sampled_from(["before", "after", "home"]), seconds=st.sampled_from([0.0, 0.3, 4.0]))
    def we_die(self, calls: int, fate: str, seconds: float) -> None:
        self.world.doom(calls, fate)
        self.judge.disturbed()
        self.world.advance(seconds)

    @rule()
    def another_feeder_takes_the_server(self) -> None:
        self.world.start_feeder()

    @rule()
    def our_disk_is_full_or_has_room(self) -> None:
        self.server.disk_full = not self.server.disk_full

    # ---- what must hold -------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        if hasattr(self, "judge"):
            self.judge.now()

    def teardown(self) -> None:
        try:
            if hasattr(self, "judge"):
                settle(self.world, self.judge)
                self.judge.at_the_end()
        finally:
            if hasattr(self, "world"):
                self.world.close()
            if hasattr(self, "judge"):
                self.judge.close()
            shutil.rmtree(self.home)


def settle(world: World, judge: Judge) -> None:
    """Lift all faults and let the server work until no job is open."""
    world.server.lift_faults()
    world.doom(-1, "")
    world.tend()
    until = CLOCK.now + SETTLED_WITHIN_S
    while world.ledger.open_jobs() or world.server.pending or world.server.running:
        left = [(job.id, job.status, job.attempt) for job in world.ledger.open_jobs()]
        assert CLOCK.now < until, f"I5: not ended: {left}"
        world.server.work()
        world.advance(0.5)
        judge.now()


def make_template(folder: Path) -> None:
    """An empty ledger to begin each history with: migrating one takes 4 ms. It may not know which file it is, or copies would say so."""
    Ledger(folder).close()
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("DELETE FROM meta WHERE key = 'file'")


RUN_HERE: list[int] = []


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where the system has such a place: the crashes here are not of the kind that loses pages."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        make_template(Path(name))
        yield Path(name)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_history_loses_doubles_or_belies_a_job(folder: Path, shard: int) -> None:
    """I1 to I7 after each of 20 rules, and everything final within 600 s of calm."""
    print(f"TOOLKIT_SEED={SEED}, shard {shard}")
    template, home = folder / "ledger.sqlite", folder
    machine = type("History", (Histories,), {"template": template, "folder": home})
    options = settings(
        max_examples=max(1, HISTORIES // SHARDS), stateful_step_count=RULES, deadline=None, database=None, print_blob=True,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    with simulated_modules():
        seed(SEED + shard)(machine)
        run_state_machine_as_test(machine, settings=options)
    RUN_HERE.append(shard)
    if HISTORIES >= 1000 and len(RUN_HERE) == SHARDS:  # a shard alone, on one of several workers, may miss a rare one by chance
        wanted = {(kind, status) for kind in ("image", "workflow") for status in ("done", "cancelled")}
        rare = {("workflow", "lost"), ("image", "removed"), ("image", "failed")} if HISTORIES >= 10_000 else set()
        assert wanted | rare <= set(SEEN), f"no history had one of {(wanted | rare) - set(SEEN)}"


# ---- L07: a day --------------------------------------------------------------------------------------------------------------

DAY_S = 24 * 3600.0
SOAK_JOBS = int(os.environ.get("TOOLKIT_SOAK_JOBS", "200"))


def one_fault(world: World, chance: random.Random) -> str:
    """Something goes wrong, and is repaired by the next minute at the latest."""
    server = world.server
    fault = chance.choice(
        ["restart", "evict", "cut", "deaf", "doubles", "swaps", "glitch", "chunk", "down", "stall", "die", "takeover", "full", "clock", "another"]
    )
    match fault:
        case "restart":
            server.die()
            server.is_up = True
        case "evict":
            server.evict()
        case "cut":
            server.cut(certain=chance.random() < 0.5)
        case "deaf" | "doubles" | "swaps":
            for socket in server.open:
                setattr(socket, fault, True)
        case "glitch":
            server.glitches[chance.choice(["submit", "queue", "history", "view"])] = chance.choice(["reply lost", "reset", "503", "garbage"])
        case "chunk":
            server.glitches["chunk"] = chance.choice(["short", "reset"])
        case "down":
            server.is_up = False
        case "stall":
            server.stalled = True
        case "die":
            world.doom(chance.randrange(12), chance.choice(["before", "after", "home"]))
        case "takeover":
            world.start_feeder()
        case "full":
            server.disk_full = True
        case "clock":
            CLOCK.wall += chance.choice([-3600.0, 86400.0])
        case "another":
            server.post_of_another()
    return fault


def a_day(home: Path, number: int, jobs: int, length_s: float = DAY_S) -> list[Any]:
    """Jobs spread over a day, a fault a minute, the server at work; returns everything that happened."""
    chance, happened = random.Random(number), list[Any]()
    world = World(home, number, version=chance.choice(["0.3.64", "0.3.50", "0.38.1"]))
    judge = Judge(world)
    due = sorted(chance.uniform(0, length_s) for _ in range(jobs))
    try:
        for minute in range(int(length_s // 60)):
            judge.disturbed()
            happened.append(one_fault(world, chance))
            for part in range(4):
                world.advance(15.0)
                if part == 2:
                    world.server.lift_faults()
                while due and due[0] <= (minute + 1) * 60.0:
                    due.pop(0)
                    number = len(judge.asked)
                    (job,) = world.ledger.accept(NewJob(image(number) if chance.random() < 0.5 else clip(number), [URL]))
                    judge.asked.append(job.id)
                    world.tend()
                world.advance(0.1)
                for _ in range(chance.randrange(4)):
                    world.server.work()
            if minute % 60 == 59:
                judge.now()
        settle(world, judge)
        judge.at_the_end()
        return [*happened, *world.server.journal, *sorted(judge.ends.items(), key=str), sorted(world.lives.items())]
    finally:
        world.close()
        judge.close()


def test_the_same_seed_is_the_same_day(folder: Path) -> None:
    """L07: what failed can be had again."""
    with simulated_modules():
        first, second, other = (a_day(folder / name, number, 20, 3600.0) for name, number in (("a", 1), ("b", 1), ("c", 2)))
    assert first == second
    assert first != other


@pytest.mark.timeout(3600)
def test_a_day_with_a_fault_a_minute_loses_nothing(folder: Path) -> None:
    """L07: 24 hours of the virtual clock; I1 to I7 each hour and at the end."""
    print(f"TOOLKIT_SEED={SEED}, {SOAK_JOBS} jobs")
    with simulated_modules():
        happened = a_day(folder / "day", SEED, SOAK_JOBS)
    assert len([what for what in happened if what in ("restart", "die", "takeover", "stall", "down")]) > 100
