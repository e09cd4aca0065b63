"""The feed over real websockets and the built-in engine: snapshot, rising fractions, one end, and watchers that misbehave."""

import asyncio
import json
import logging
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import end_children
from toolkit import Studio
from toolkit.feed import Feed
from toolkit.jobs import FINAL, Instant, JobStatus
from toolkit.ledger import Claim, LiveBoard, NewJob
from toolkit.mailbox import Mailbox, Update
from toolkit.progress import Progress
from toolkit.requests import WorkflowRequest
from toolkit.settings import Settings

PATIENCE_S = 20.0
SMALL = {"width": 64, "height": 64}
PAGE = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """A studio of this module, whose engine takes 0.02 s a step."""
    home = tmp_path_factory.mktemp("feed") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_ENGINE_STEP_S", "0.02")
        with Studio("engine", home=home) as studio:
            yield studio
        end_children(home)


@asynccontextmanager
async def feeding(studio, send_timeout_s=5.0, **changes):
    settings = replace(Settings(home=studio.home), **{"feed_port": 0, **changes})
    async with Feed(studio, settings, send_timeout_s=send_timeout_s) as feed:
        yield feed


class Client:
    """A watcher that keeps what it was told."""

    def __init__(self, socket):
        self.socket = socket
        self.told = []

    async def say(self, **message):
        await self.socket.send(json.dumps(message))

    async def next(self):
        self.told.append(json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE_S)))
        return self.told[-1]

    async def until(self, wanted):
        while not wanted(await self.next()):
            pass
        return self.told[-1]

    async def until_final(self, job_id):
        return await self.until(lambda told: told["type"] == "job_update" and told["job"]["job_id"] == job_id and told["job"]["status"] in FINAL)


@asynccontextmanager
async def watching(feed, **options):
    async with connect(f"ws://127.0.0.1:{feed.port}/", **options) as socket:
        client = Client(socket)
        assert (await client.next())["type"] == "connection_established"
        yield client


def fraction_of(message):
    return (message["job"] if message["type"] == "job_update" else message)["progress"]["fraction"]


# ---- a job as a watcher sees it ----------------------------------------------------------------------------------------


async def test_a_watcher_gets_a_snapshot_then_rising_fractions_and_one_at_the_end(studio):
    async with feeding(studio) as feed, watching(feed) as client:
        job = studio.image("a girl", seed=1, steps=60, **SMALL)
        await client.say(type="subscribe", job_id=job.id[:13])
        final = await client.until_final(job.id)
    told = client.told[1:]
    assert told[0]["type"] == "job_update"
    assert told[0]["job"]["status"] not in FINAL
    fractions = [fraction_of(message) for message in told]
    assert fractions == sorted(fractions)
    assert any(0.0 < fraction < 1.0 for fraction in fractions[:-1])
    assert final["job"]["status"] == "done"
    assert fraction_of(final) == 1.0
    assert all(fraction < 1.0 for fraction in fractions[:-1])
    assert {message["type"] for message in told} == {"job_update", "progress_update"}
    assert [message["sequence"] for message in told] == list(range(1, len(told) + 1))
    assert len(final["job"]["files"]) == 1


async def test_progress_says_the_words_of_rest(studio):
    async with feeding(studio) as feed, watching(feed) as client:
        job = studio.image("a girl", seed=2, steps=40, **SMALL)
        await client.say(type="subscribe", job_id=job.id)
        update = await client.until(lambda told: told["type"] == "progress_update" and told["progress"]["step"])
        assert set(update) == {"type", "job_id", "progress", "sequence"}
        assert update["progress"]["steps"] == 40
        assert {"fraction", "node", "step", "steps", "elapsed_s", "eta_s", "eta_low_s", "eta_high_s"} <= set(update["progress"])
        await client.until_final(job.id)


async def test_a_job_that_is_cancelled_never_reaches_one(studio):
    async with feeding(studio) as feed, watching(feed) as client:
        job = studio.image("a girl", seed=3, steps=200, **SMALL)
        await client.say(type="subscribe", job_id=job.id)
        await client.until(lambda told: told["type"] == "progress_update" and told["progress"]["fraction"] > 0.05)
        job.cancel()
        final = await client.until_final(job.id)
    assert final["job"]["status"] == "cancelled"
    fractions = [fraction_of(message) for message in client.told[1:]]
    assert fractions == sorted(fractions)
    assert 0.05 < fractions[-1] < 1.0


async def test_a_watcher_of_everything_sees_open_jobs_and_those_that_come(studio):
    async with feeding(studio) as feed, watching(feed) as client:
        early = studio.image("a girl", seed=4, steps=30, **SMALL)
        await client.say(type="subscribe", job_id="*")
        statistics = await client.until(lambda told: told["type"] == "statistics")
        assert early.id in {told["job"]["job_id"] for told in client.told if told["type"] == "job_update"}
        assert statistics["total"] == sum(statistics["counts"].values())
        late = studio.image("a girl", seed=5, steps=2, **SMALL)
        await client.until_final(early.id)
        await client.until_final(late.id)


async def test_a_finished_job_is_a_snapshot_and_its_end(studio):
    job = studio.image("a girl", seed=6, steps=1, **SMALL)
    await job
    async with feeding(studio) as feed, watching(feed) as client:
        await client.say(type="subscribe", job_id=job.id)
        assert fraction_of(await client.until_final(job.id)) == 1.0
        await client.say(type="get_job_progress", job_id=job.id)
        told = await client.until(lambda told: told["type"] == "progress_update")  # the job's own last change may still be on its way
        assert (told["job_id"], told["progress"]) == (job.id, client.told[1]["job"]["progress"])


async def test_after_unsubscribing_nothing_more_is_told(studio):
    async with feeding(studio) as feed, watching(feed) as client, watching(feed) as other:
        job = studio.image("a girl", seed=7, steps=50, **SMALL)
        for watcher in (client, other):
            await watcher.say(type="subscribe", job_id=job.id)
        await client.until(lambda told: told["type"] == "progress_update")
        await client.say(type="unsubscribe", job_id=job.id)
        await client.say(type="get_statistics")
        await client.until(lambda told: told["type"] == "statistics")
        seen = len(client.told)
        await other.until_final(job.id)
        await client.say(type="get_statistics")
        assert (await client.next())["type"] == "statistics"
        assert len(client.told) == seen + 1


async def test_statistics_count_jobs_and_watchers(studio):
    async with feeding(studio) as feed, watching(feed), watching(feed) as client:
        await client.say(type="get_statistics")
        told = await client.next()
        assert (told["type"], told["watchers"]) == ("statistics", 2)
        assert told["counts"]["failed"] == 0


# ---- who misbehaves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "body_required"),
        ("{", "bad_json"),
        ("[" * 50_000, "bad_json"),
        (b'{"type": "get_statistics"}', "bad_json"),
        ('"subscribe"', "not_an_object"),
        ("{}", "unknown_type"),
        ('{"type": 3}', "unknown_type"),
        ('{"type": "shout"}', "unknown_type"),
        ('{"type": "subscribe"}', "request_invalid"),
        ('{"type": "subscribe", "job_id": 3}', "request_invalid"),
        ('{"type": "get_job_progress", "job_id": "*"}', "request_invalid"),
        ('{"type": "subscribe", "job_id": "zzz"}', "job_not_found"),
        ('{"type": "subscribe", "job_id": ""}', "job_not_found"),
        ('{"type": "subscribe", "job_id": "\\ud800"}', "bad_json"),
        ('{"type": "a", "type": "b"}', "duplicate_key"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_malformed_message_gets_an_error_and_the_socket_stays_open(studio, message, code):
    async with feeding(studio) as feed, watching(feed) as client:
        await client.socket.send(message)
        told = await client.next()
        assert (told["type"], told["error"]["code"]) == ("error", code)
        assert str(studio.home) not in json.dumps(told)
        await client.say(type="get_statistics")
        assert (await client.next())["type"] == "statistics"


async def test_a_stuck_watcher_is_dropped_and_the_others_get_everything(studio):
    async with feeding(studio, send_timeout_s=0.3) as feed, watching(feed) as client:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", feed.port))
            slow.setblocking(False)
            stuck = await connect(f"ws://127.0.0.1:{feed.port}/", sock=slow, max_queue=1)
            job = studio.image("a girl", seed=8, steps=60, **SMALL)
            await client.say(type="subscribe", job_id=job.id)
            for _ in range(400):
                await stuck.send(json.dumps({"type": "subscribe", "job_id": job.id}))
            assert len(feed._watchers) == 2
            final = await client.until_final(job.id)
            async with asyncio.timeout(PATIENCE_S):
                while len(feed._watchers) > 1:  # noqa: ASYNC110  it does not read, so it does not learn of its end
                    await asyncio.sleep(0.02)
            assert fraction_of(final) == 1.0
            statuses = [told["job"]["status"] for told in client.told[1:] if told["type"] == "job_update"]
            assert statuses[-1] == "done"
            assert "running" in statuses
            stuck.transport.abort()
            await stuck.wait_closed()


@asynccontextmanager
async def stuck_watchers(feed, count):
    """Watchers of everything that read nothing, and whose systems take next to nothing for them."""
    stuck = []
    for _ in range(count):
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", feed.port))
        deaf.setblocking(False)
        stuck.append(await connect(f"ws://127.0.0.1:{feed.port}/", sock=deaf, max_queue=1))
        stuck[-1].transport.pause_reading()
        await stuck[-1].send(json.dumps({"type": "subscribe", "job_id": "*"}))
    yield
    for watcher in stuck:
        watcher.transport.abort()
        await watcher.wait_closed()


def running_jobs(studio, count):
    """Jobs that a server is said to run, of which only the ledger knows."""
    graph = {"1": {"class_type": "SaveImage", "inputs": {}}}
    jobs = studio._ledger.accept(*(NewJob(WorkflowRequest(workflow=graph), ["http://127.0.0.1:9"], reuse=False) for _ in range(count)))
    epoch = studio._ledger.take_server("http://127.0.0.1:9")
    for job in jobs:
        attempt = studio._ledger.sending(Claim(job.id, "http://127.0.0.1:9", epoch, graph))
        studio._ledger.record(attempt, epoch, JobStatus.RUNNING, started=Instant.now(), acknowledged=1)
    return jobs


async def test_twenty_watchers_that_never_read_slow_nobody_and_take_no_memory(home):
    with Studio("http://127.0.0.1:9", home=home) as studio:
        async with feeding(studio, send_timeout_s=PATIENCE_S) as feed, watching(feed) as client, stuck_watchers(feed, 20):
            jobs, board = running_jobs(studio, 10), LiveBoard(home)
            await client.say(type="subscribe", job_id="*")
            await client.until(lambda told: told["type"] == "statistics")
            began = time.monotonic()
            for step in range(100):  # to each stuck one a megabyte that it does not take
                for job in jobs:
                    await asyncio.to_thread(board.show, job.id, Progress(node="x" * 1000, step=step, steps=100).dump())
                await client.until(lambda told, step=step: told["type"] == "progress_update" and told["progress"]["step"] == step)
            assert time.monotonic() - began < 10.0  # 0.1 s a round of ten jobs, written and told; one send that waits takes 20 s
            assert feed.count() == 21
            deaf = [watcher for watcher in feed._watchers if len(watcher.mailbox)]
            assert len(deaf) >= 20  # they are stuck indeed, and still there; the one that reads may be about to
            assert max(len(watcher.mailbox) for watcher in deaf) <= 3 * len(jobs)
            board.close()


async def test_an_abrupt_exit_and_a_foreign_protocol_log_nothing(studio, caplog):
    with caplog.at_level(logging.DEBUG):
        async with feeding(studio) as feed, watching(feed) as client:
            job = studio.image("a girl", seed=9, steps=30, **SMALL)
            for _ in range(3):
                gone = await connect(f"ws://127.0.0.1:{feed.port}/")
                await gone.send(json.dumps({"type": "subscribe", "job_id": "*"}))
                gone.transport.abort()
                await gone.wait_closed()
            for text in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01 no http\r\n\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", feed.port)
                writer.write(text)
                writer.write_eof()
                await asyncio.wait_for(reader.read(), PATIENCE_S)
                writer.close()
                await writer.wait_closed()
            await client.say(type="subscribe", job_id=job.id)
            await client.until_final(job.id)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info] == []


async def test_a_message_that_is_too_long_closes_only_its_own_socket(studio):
    async with feeding(studio) as feed, watching(feed) as other:
        async with watching(feed) as client:
            await client.socket.send("x" * 100_000)
            with pytest.raises(ConnectionClosed):
                await client.next()
        await other.say(type="get_statistics")
        assert (await other.next())["type"] == "statistics"


async def test_stopping_closes_the_watchers_and_leaves_no_task(studio):
    before = asyncio.all_tasks()
    async with feeding(studio) as feed:
        sockets = [await connect(f"ws://127.0.0.1:{feed.port}/") for _ in range(3)]
    for open_until_now in sockets:
        await asyncio.wait_for(open_until_now.wait_closed(), PATIENCE_S)
        assert open_until_now.close_code == 1001
    assert asyncio.all_tasks() == before
    assert studio._watcher._everything == []


# ---- who is let in -----------------------------------------------------------------------------------------------------


async def refused(feed, status, path="/", **options):
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(f"ws://127.0.0.1:{feed.port}{path}", **options):
            pass
    assert refusal.value.response.status_code == status
    error = json.loads(refusal.value.response.body)["error"]
    assert error["message"].endswith(".")
    return error["code"]


async def test_only_programs_and_our_own_page_may_open_it(studio):
    async with feeding(studio) as feed:
        for origin in (PAGE, "http://localhost:7860", None):
            async with watching(feed, origin=origin):
                pass
        for origin in ("http://evil.example", "null", "http://127.0.0.1:8888", "http://evil.example:7860", f"{PAGE}.evil.example"):
            assert await refused(feed, 403, origin=origin) == "origin_refused"


async def test_only_names_of_this_machine_are_answered(studio):
    async with feeding(studio) as feed, asyncio.timeout(PATIENCE_S):
        for host, status in (("localhost:1", 101), ("[::1]", 101), ("evil.example", 403), ("127.0.0.1.evil.example:8329", 403)):
            reader, writer = await asyncio.open_connection("127.0.0.1", feed.port)
            upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n\r\n".encode())
            assert (await reader.readline()).split()[1] == str(status).encode(), host
            writer.close()
            await writer.wait_closed()


async def test_a_token_is_asked_for_in_the_header_alone(studio):
    async with feeding(studio, token="wörd") as feed:
        assert await refused(feed, 401) == "token_required"
        assert await refused(feed, 401, path="/?token=w%C3%B6rd") == "token_required"
        assert await refused(feed, 401, additional_headers={"Authorization": "Bearer no"}) == "token_required"
    async with feeding(studio, token="word") as feed, watching(feed, additional_headers={"Authorization": "Bearer word"}) as client:
        await client.say(type="get_statistics")
        assert (await client.next())["type"] == "statistics"


async def test_another_path_is_not_the_feed(studio):
    async with feeding(studio) as feed:
        assert await refused(feed, 404, path="/jobs") == "not_found"


# ---- the mailbox, without a socket -------------------------------------------------------------------------------------


def progress(job_id, fraction):
    return Update(job_id, {"fraction": fraction})


def state(job_id, revision, fraction=0.0, is_final=False):
    return Update(job_id, {"fraction": fraction}, {"job_id": job_id, "revision": revision}, revision, is_final)


def taken(mailbox):
    return list(iter(mailbox.take, None))


def test_what_is_not_subscribed_is_not_kept():
    mailbox = Mailbox()
    assert mailbox.offer(state("a", 1))
    mailbox.subscribe("b")
    assert mailbox.offer(state("a", 2))
    assert taken(mailbox) == []


def test_progress_before_its_snapshot_and_after_the_end_is_dropped():
    mailbox = Mailbox()
    mailbox.subscribe("*")
    mailbox.offer(progress("a", 0.3))
    mailbox.offer(state("a", 1))
    mailbox.offer(state("a", 2, 1.0, is_final=True))
    mailbox.offer(progress("a", 0.9))
    mailbox.offer(state("a", 1))
    assert [(told["type"], told["sequence"], fraction_of(told)) for told in taken(mailbox)] == [("job_update", 1, 0.0), ("job_update", 2, 1.0)]


def test_newer_progress_replaces_older_and_stays_behind_what_came_between():
    mailbox = Mailbox()
    mailbox.subscribe("a")
    for update in (state("a", 1), progress("a", 0.1), state("a", 2), progress("a", 0.2), progress("a", 0.3)):
        mailbox.offer(update)
    assert [(told["type"], fraction_of(told)) for told in taken(mailbox)] == [("job_update", 0.0), ("job_update", 0.1), ("progress_update", 0.3)]


def test_a_full_mailbox_drops_the_oldest_progress_and_never_a_state():
    mailbox = Mailbox(room=4)
    mailbox.subscribe("*")
    for name in "abc":
        assert mailbox.offer(state(name, 1))
    taken(mailbox)
    for name in "abc":
        assert mailbox.offer(progress(name, 0.5))
    assert all(mailbox.offer(state("d", revision)) for revision in range(1, 5))
    assert [told["type"] for told in taken(mailbox)] == ["job_update"] * 4
    assert [mailbox.offer(state("e", revision)) for revision in range(1, 6)] == [True] * 4 + [False]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.floats(0, 1), st.sampled_from(["state", "progress", "snapshot", "take", "final"]))))
def test_fractions_never_fall_and_states_never_go_back(steps):
    mailbox = Mailbox(room=5)
    mailbox.subscribe("*")
    told = []
    for name, revision, fraction, what in steps:
        if what == "take":
            told += filter(None, [mailbox.take()])
        elif what == "progress":
            mailbox.offer(progress(name, fraction))
        else:
            mailbox.offer(state(name, revision, fraction, what == "final"), snapshot=what == "snapshot")
    told += taken(mailbox)
    for name in "ab":
        mine = [message for message in told if (message.get("job") or message)["job_id"] == name]
        fractions = [fraction_of(message) for message in mine]
        revisions = [message["job"]["revision"] for message in mine if message["type"] == "job_update"]
        assert fractions == sorted(fractions)
        assert revisions == sorted(revisions)
        assert not mine or mine[0]["type"] == "job_update"
