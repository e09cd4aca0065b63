"""Cases of the network below HTTP: a proxy that refuses, stalls, cuts and speaks TLS, and a feeder whose limits a test can make short."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.faults.aside import FeederHere
from tests.faults.invariants import check
from tests.faults.layer import Layer
from tests.faults.proxy import Proxy
from tests.faults.test_faults import SIZE, ends_done, is_post, posts, wait_for
from toolkit import JobHandle, Studio
from toolkit.client import ComfyClient
from toolkit.errors import ServerUnreachable

CERTIFICATE = Path(__file__).parent / "localhost.pem"  # self-signed for 127.0.0.1, its key with it; it guards nothing
ANSWER_S = 0.6  # in the place of 30 s
PING_S = 0.4  # in the place of 20 s
SILENCE_S = 4.0  # several times the answer limit and the two pings


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer limit and the pings of a feeder in this process, 50 times shorter."""
    monkeypatch.setitem(ComfyClient.__init__.__kwdefaults__, "timeout_s", ANSWER_S)
    monkeypatch.setattr("toolkit.client.PING_INTERVAL_S", PING_S)


def trouble(job: JobHandle) -> str:
    return job.progress.stalled or ""


# ---- silence ----------------------------------------------------------------------------------------------------------------


def test_a_half_open_connection_is_noticed_and_said_and_ends_no_job(slow_layer: Layer, home: Path, impatient: None) -> None:
    """F05: nothing arrives any more and nobody closes; when it does again, the job that ran meanwhile is done."""
    with Proxy(slow_layer.url) as proxy, Studio(proxy.url, home=home) as studio, FeederHere(home, proxy.url):
        jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=20) for seed in (21, 22, 23)]
        wait_for(lambda: (jobs[0].progress.step or 0) >= 2)
        sockets = slow_layer.requests.count(("GET", "/api/ws"))
        proxy.stall()
        began = time.monotonic()
        wait_for(lambda: "does not answer" in trouble(jobs[0]), 20.0)
        wait_for(lambda: time.monotonic() - began > SILENCE_S)
        assert jobs[0].job.status == "running"
        assert not any(job.job.is_final for job in jobs)
        assert len(slow_layer.finished()) >= 1  # it went on behind the silence
        proxy.go_on()
        ends_done(slow_layer, home, *jobs)
        assert posts(slow_layer) == len(jobs)
        assert [job.job.attempt for job in jobs] == [1, 1, 1]
        assert slow_layer.requests.count(("GET", "/api/ws")) > sockets  # the dead peer was noticed


def test_a_server_that_stands_still_for_longer_than_the_answer_limit_gets_nothing_twice(layer: Layer, home: Path, impatient: None) -> None:
    """F06: its loop is blocked while it reads a prompt, so that the POST itself runs out of time."""
    stood: list[float] = []

    async def stand_still(request: web.Request) -> web.StreamResponse | None:
        if is_post(request) and not stood:
            stood.append(time.monotonic())
            time.sleep(SILENCE_S)  # noqa: ASYNC251 - the loop itself is blocked, which is the fault
            stood.append(time.monotonic())
        return None

    with Studio(layer.url, home=home) as studio, FeederHere(home, layer.url):
        layer.on_request = stand_still
        jobs = [studio.image("a girl", seed=seed, **SIZE) for seed in (24, 25)]
        wait_for(lambda: "does not answer" in trouble(jobs[0]), 20.0)
        assert len(stood) == 1  # said while it stood
        ends_done(layer, home, *jobs)
        assert stood[1] - stood[0] > ANSWER_S
        assert posts(layer) == len(jobs)
        assert [job.job.attempt for job in jobs] == [1, 1]


# ---- no server --------------------------------------------------------------------------------------------------------------


def test_a_refused_connection_is_tried_again_under_the_same_prompt_id(layer: Layer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F13: refused five times, then up."""
    sent: list[str] = []
    submit = ComfyClient.submit

    async def note(client: ComfyClient, graph: Any, prompt_id: str, *rest: Any) -> Any:
        sent.append(prompt_id)
        return await submit(client, graph, prompt_id, *rest)

    monkeypatch.setattr(ComfyClient, "submit", note)
    with Proxy(layer.url) as proxy, Studio(proxy.url, home=home) as studio, FeederHere(home, proxy.url):
        before = studio.image("a girl", seed=26, **SIZE)
        before.wait(30)
        proxy.refuse()
        job = studio.image("a girl", seed=27, **SIZE)
        wait_for(lambda: sent.count(job.id) > 5)
        assert posts(layer) == 1
        assert "No ComfyUI answers" in trouble(job)
        proxy.accept()
        ends_done(layer, home, before, job)
        assert set(sent) == {before.id, job.id}
        assert posts(layer) == 2
        assert job.job.attempt == 1


def test_a_server_away_for_long_is_said_to_be_down_and_a_fresh_one_gets_each_job_once(slow_layer: Layer, home: Path) -> None:
    """F22: the system killed it while it worked; refused for six seconds, then there again with nothing in its memory."""
    with Proxy(slow_layer.url) as proxy, Studio(proxy.url, home=home) as studio:
        jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=8) for seed in range(6)]
        wait_for(lambda: jobs[0].job.is_final and jobs[1].progress.step is not None)
        proxy.refuse()
        began = time.monotonic()
        slow_layer.forget()
        wait_for(lambda: all("No ComfyUI answers" in trouble(job) for job in jobs if not job.job.is_final))
        assert [server.state for server in studio.servers()] == ["unreachable"]
        held = [job for job in jobs if not job.job.is_final]
        assert len(held) >= 4
        wait_for(lambda: time.monotonic() - began > 6.0)
        assert not any(job.job.is_final for job in held)
        proxy.accept()
        ends_done(slow_layer, home, *jobs)
        assert all(job.job.attempt == 1 for job in jobs[3:])
        assert sum(job.job.attempt - 1 for job in jobs) <= 2
        assert len(slow_layer.finished()) == len(jobs)


def test_a_slow_line_delays_files_and_breaks_none(layer: Layer, home: Path) -> None:
    """The proxy's own proof that it throttles and cuts: a file that comes at 200 kB a second, and is cut in the middle."""
    with Proxy(layer.url) as proxy, Studio(proxy.url, home=home) as studio:
        studio.image("a girl", seed=28, width=64, height=64, steps=1).wait(30)
        proxy.throttle(100_000)
        job = studio.image("a girl", seed=29, width=768, height=768, steps=1)
        wait_for(lambda: layer.requests.count(("GET", "/api/view")) == 2)
        proxy.cut()
        proxy.throttle(None)
        ends_done(layer, home, *studio.jobs())
        assert layer.requests.count(("GET", "/api/view")) == 3
        assert job.job.attempt == 1


def test_bytes_that_were_changed_on_the_way_are_not_taken_for_a_picture(layer: Layer, home: Path) -> None:
    """A corrupted body: the file does not decode, and the job does not claim to have it."""
    with Proxy(layer.url) as proxy, Studio(proxy.url, home=home) as studio:
        proxy.on_data = lambda data: data.replace(b"\x89PNG", b"\x89PNX")
        job = studio.image("a girl", seed=30, **SIZE)
        wait_for(lambda: job.job.is_final)
        assert (job.job.status, job.job.failure_kind) == ("failed", "bad_file")
        check(home, layer.runs(), [job.id], finished=layer.finished())


# ---- https and paths --------------------------------------------------------------------------------------------------------


def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def test_a_certificate_nobody_signed_is_refused_in_a_sentence_and_taken_when_it_is_trusted(layer: Layer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F35: https and wss with a self-signed certificate; SSL_CERT_FILE names it as trusted."""
    with Proxy(layer.url, tls()) as proxy:
        with Studio(proxy.url, home=home) as studio, pytest.raises(ServerUnreachable, match="certificate that is not trusted"):
            studio.image("a girl", seed=31, **SIZE)
        assert layer.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        with Studio(proxy.url, home=home) as studio:
            ends_done(layer, home, studio.image("a girl", seed=31, **SIZE))
        assert proxy.url.startswith("https://")
        assert ("GET", "/api/ws") in layer.requests


def test_jobs_wait_for_a_server_whose_certificate_is_not_trusted(layer: Layer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F35: a job that was accepted stays queued and says why, until the certificate is trusted."""
    with Proxy(layer.url, tls()) as proxy, Studio(proxy.url, home=home) as studio:
        with FeederHere(home, proxy.url) as feeder:
            wait_for(feeder.beats)
            job = studio.image("a girl", seed=32, **SIZE)
            wait_for(lambda: "certificate that is not trusted" in trouble(job))
            assert job.job.status == "queued"
            monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))  # for the feeder that follows
        ends_done(layer, home, job)


def test_a_server_below_a_path_is_used_there_with_its_password_told_to_nobody(tmp_path: Path, home: Path) -> None:
    """F35: https://host/comfy/ behind a login."""
    secret = "tr0ub4dor-and-3"

    async def gate(request: web.Request) -> web.StreamResponse | None:
        return None if "Authorization" in request.headers else web.Response(status=401)

    with Layer(tmp_path / "server", prefix="/comfy") as layer, Studio(layer.url.replace("//", f"//ann:{secret}@") + "/", home=home) as studio:
        layer.on_request = gate
        ends_done(layer, home, studio.image("a girl", seed=34, **SIZE), secrets=(secret, f"ann:{secret}"))
        assert secret not in repr(studio)
        assert ("GET", "/comfy/api/ws") in layer.requests
        assert all(path.startswith("/comfy/api/") for _, path in layer.requests)
