"""People over a real uvicorn and the built-in engine: who comes in, what they see, what they may have."""

import asyncio
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
from typer.testing import CliRunner
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import end_children
from tests.serving import served
from tests.test_feed import feeding, watching
from toolkit import Studio
from toolkit.admission import Refused
from toolkit.cli import app as command
from toolkit.errors import HomeUnusable, QuotaReached, RequestInvalid
from toolkit.guests import Quota, Rules, as_ruled, pixels_of
from toolkit.ledger import Ledger, NewJob
from toolkit.ledger.people import HOUR_S, People
from toolkit.requests import ImageRequest, VideoRequest, WorkflowRequest
from toolkit.service import build_service
from toolkit.settings import Settings, public_url
from toolkit.visitors import TRIES, Tries, Visitors, caller

PATIENCE_S = 20.0
SMALL = {"width": 64, "height": 64, "steps": 1}
JSON = {"Content-Type": "application/json"}


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


@pytest.fixture
def ledger(tmp_path):
    """A ledger of its own, whose people have a clock that is moved by hand."""
    ledger = Ledger(tmp_path / "home")
    ledger.people = People(ledger._database, Clock())
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """A home with the guests ann and bob, and an owner's token."""
    home = tmp_path_factory.mktemp("people") / "home"
    with Studio("engine", home=home) as studio:
        for name in ("ann", "bob"):
            studio._ledger.people.add(name)
        yield studio
    end_children(home)


@pytest.fixture(scope="module")
def url(studio):
    """Where the home is served."""
    with served(build_service(studio, Settings(home=studio.home, token="the-owners"))) as url:
        yield url


@contextmanager
def caller_of(studio, url, name, quota=None):
    """Somebody's programs: a client with a token of theirs; the quota holds till the end."""
    people = studio._ledger.people
    if quota is not None:
        people.set_quota(name, quota)
    token = "the-owners" if name == "owner" else people.give(name, "token")
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S, limits=limits) as client:
        yield client
    if quota is not None:
        people.set_quota(name, Quota())


@pytest.fixture
def ann(studio, url):
    with caller_of(studio, url, "ann", Quota(jobs_per_hour=1000, in_line=1000)) as client:
        yield client


@pytest.fixture
def bob(studio, url):
    with caller_of(studio, url, "bob", Quota(jobs_per_hour=1000, in_line=1000)) as client:
        yield client


@pytest.fixture
def owner(studio, url):
    with caller_of(studio, url, "owner") as client:
        yield client


def ask(client, **fields):
    return client.post("/api/anime/generate/image", json={"prompt": "1girl, red scarf", **SMALL, **fields})


def done(client, **fields):
    """A job of this caller that has ended."""
    job_id = ask(client, **fields).json()["job_id"]
    deadline = time.monotonic() + PATIENCE_S
    while not (job := client.get(f"/api/anime/jobs/{job_id}").json())["ended_at"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert job["status"] == "done", job
    return job


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


# ---- keys --------------------------------------------------------------------------------------------------------------


def test_a_code_works_once_and_only_for_some_days(ledger):
    people = ledger.people
    people.add("ann")
    code, late = people.give("ann", "code", 60.0), people.give("ann", "code", 60.0)
    session = people.redeem(code)
    assert people.redeem(code) is None
    people._now.now += 61
    assert people.redeem(late) is None
    visitors = Visitors(ledger, Settings(home=ledger.home))
    assert visitors.identify(None, f"a=b; toolkit-session={session}", "1.2.3.4").person == "ann"
    people._now.now += 91 * 86_400
    assert visitors.admit("GET", "/sign-in", authorization=None, cookie=f"toolkit-session={session}", address="").person == ""


def test_nothing_in_the_file_lets_anybody_in(ledger):
    ledger.people.add("ann")
    keys = [ledger.people.give("ann", kind, 60.0) for kind in ("code", "session", "token")]
    ledger._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    stored = (ledger.home / "ledger.sqlite").read_bytes()
    assert not any(key.encode() in stored for key in keys)
    assert all(len(key) >= 22 for key in keys)  # 128 bits


def test_a_code_is_no_session_and_a_session_no_token(ledger):
    ledger.people.add("ann")
    visitors = Visitors(ledger, Settings(home=ledger.home))
    code, session, token = (ledger.people.give("ann", kind, 60.0) for kind in ("code", "session", "token"))
    for authorization, cookie in ((f"Bearer {code}", None), (f"Bearer {session}", None), (None, f"toolkit-session={token}"), (None, f"toolkit-session={code}")):
        with pytest.raises(Exception, match="Who are you"):
            visitors.identify(authorization, cookie, "1.2.3.4")


def test_tries_are_counted_by_address_and_forgotten_in_time():
    clock = Clock()
    tries = Tries(clock)
    for _ in range(TRIES):
        tries.check("203.0.113.5")
        tries.wrong("203.0.113.5")
        tries.wrong("2001:db8::1")
    with pytest.raises(Exception, match="Too many wrong keys") as refused:
        tries.check("203.0.113.5")
    assert int(refused.value.headers["Retry-After"]) == 600
    with pytest.raises(Exception, match="Too many"):
        tries.check("2001:db8::2")  # the same network
    tries.check("203.0.113.6")
    clock.now += 601
    tries.check("203.0.113.5")


def test_only_a_proxy_on_this_machine_says_who_calls(tmp_path):
    private, public = Settings(home=tmp_path), Settings(home=tmp_path, public_url="https://draw.example.org")
    assert caller("127.0.0.1", "1.1.1.1, 203.0.113.5", public) == "203.0.113.5"
    assert caller("198.51.100.7", "203.0.113.5", public) == "198.51.100.7"
    assert caller("127.0.0.1", "203.0.113.5", private) == "127.0.0.1"


def test_a_wrong_token_locks_out_strangers_and_not_the_owners_own_machine(ledger):
    visitors = Visitors(ledger, Settings(home=ledger.home, token="right"))
    for address in ("127.0.0.1", "203.0.113.5"):
        for _ in range(TRIES):
            with pytest.raises(Refused, match="asks for its token"):
                visitors.identify("Bearer wrong", None, address)
    assert visitors.identify("Bearer right", None, "127.0.0.1").is_owner
    with pytest.raises(Refused, match="Too many wrong keys"):
        visitors.identify("Bearer right", None, "203.0.113.5")


@pytest.mark.parametrize("name", ["", "owner", "Owner", "someone", "a/b", "<b>", "x" * 41, "-a", "a\nb"])
def test_what_cannot_be_a_name_is_refused(ledger, name):
    with pytest.raises(RequestInvalid, match="cannot be a guest's name"):
        ledger.people.add(name)


def test_a_name_is_one_person_in_any_case_and_a_second_link_changes_nothing(ledger):
    ledger.people.add("Ann O'Neil")
    ledger.people.set_quota("Ann O'Neil", Quota(in_line=2))
    assert ledger.people.add("ann o'neil").name == "Ann O'Neil"
    assert ledger.people.known("ANN O'NEIL").quota.in_line == 2
    assert len(ledger.people.all()) == 1


# ---- quotas and rules ---------------------------------------------------------------------------------------------------


def accept(ledger, person, seed):
    (job,) = ledger.accept(NewJob(ImageRequest(prompt="a", seed=seed), ["http://a"], person=person))
    return job


def test_a_guest_may_have_so_many_jobs_in_line_and_within_an_hour(ledger):
    ledger.people.add("ann")
    ledger.people.set_quota("ann", Quota(jobs_per_hour=3, in_line=2))
    jobs = [accept(ledger, "ann", seed) for seed in range(2)]
    with pytest.raises(QuotaReached, match="You have 2 jobs in line") as full:
        accept(ledger, "ann", 3)
    assert full.value.retry_after_s == 30
    assert accept(ledger, "ann", 1).id == jobs[1].id, "an equal one that waits is the same job"
    ledger.ask_cancel(jobs[0].id)
    accept(ledger, "ann", 4)
    ledger.ask_cancel(jobs[1].id)
    with pytest.raises(QuotaReached, match="You asked for 3 jobs within an hour") as spent:
        accept(ledger, "ann", 5)
    assert HOUR_S - 5 < spent.value.retry_after_s < HOUR_S + 5  # the clock of the test stands still
    assert ledger.count(person="ann") == 3
    ledger.people._now.now += HOUR_S + 60
    assert accept(ledger, "ann", 5).person == "ann"


def test_all_guests_together_have_a_line_of_so_many_and_the_owner_has_none(ledger):
    for name in ("ann", "bob"):
        ledger.people.add(name)
    ledger.people.set_rules(Rules(in_line=3))
    for seed in range(3):
        accept(ledger, ("ann", "bob")[seed % 2], seed)
    with pytest.raises(QuotaReached, match="line of all guests"):
        accept(ledger, "bob", 9)
    for seed in range(20):
        accept(ledger, "owner", seed)


def test_seconds_of_the_server_and_bytes_brought_are_counted(ledger):
    ledger.people.add("ann")
    ledger.people.set_quota("ann", Quota(gpu_s_per_hour=10, upload_mb_per_hour=1))
    job = accept(ledger, "ann", 1)
    columns = "job_id, number, prompt_id, reason, server_url, epoch, status, graph, run_s"
    ledger._database.rows(f"INSERT INTO attempts ({columns}) VALUES (?, 1, 'p', 'first', 'a', 1, 'done', x'', 11)", job.id)
    with pytest.raises(QuotaReached, match="took 11 s of the server"):
        accept(ledger, "ann", 2)
    ledger.people.take_upload("ann", 900_000)
    with pytest.raises(QuotaReached, match="1 MB within an hour"):
        ledger.people.take_upload("ann", 200_000)
    ledger.people._now.now += HOUR_S
    ledger.people.take_upload("ann", 200_000)


def test_a_job_that_is_too_large_is_refused_with_its_size():
    quota = Quota(pixels=100_000_000)
    quota.check_size(ImageRequest(prompt="a", width=1024, height=1024, steps=30), {})
    for request, recipe in (
        (ImageRequest(prompt="a", width=2048, height=2048, steps=30), {}),
        (ImageRequest(prompt="a"), {"width": 1024, "height": 1024, "steps": 20, "batch_size": 8}),
        (ImageRequest(prompt="a", upscale=8), {"width": 1024, "height": 1024, "steps": 20}),
        (VideoRequest(prompt="a", frames=81), {"width": 832, "height": 480, "steps": 20, "frames": 81}),
    ):
        with pytest.raises(RequestInvalid, match=f"{pixels_of(request, recipe) / 1e6:.0f} million pixel steps .* your limit is 100 million"):
            quota.check_size(request, recipe)


def test_rules_name_the_models_and_what_is_always_left_out():
    rules, tried = Rules(models=("noob", "illustrious"), negative="nsfw"), []

    def recipe_of(request):
        tried.append(request.model)
        if request.model == "noob":
            raise RequestInvalid("not here")
        return {"negative_prompt": "lowres"}

    ruled = as_ruled(ImageRequest(prompt="a", seed=1), Quota(), rules, recipe_of)
    assert (ruled.model, ruled.negative_prompt, tried) == ("illustrious", "nsfw, lowres", ["noob", "illustrious"])
    assert as_ruled(ruled, Quota(), rules, recipe_of) == ruled, "a retry is ruled again"
    assert as_ruled(ImageRequest(prompt="a", model="Illustrious-XL", negative_prompt=""), Quota(), rules, recipe_of).negative_prompt == "nsfw"
    for model in ("pony", "illu", "*"):
        with pytest.raises(RequestInvalid, match="lets guests use noob, illustrious"):
            as_ruled(ImageRequest(prompt="a", model=model), Quota(), rules, recipe_of)
    with pytest.raises(RequestInvalid, match="Workflows of your own are for the owner"):
        as_ruled(WorkflowRequest(workflow={}), Quota(), Rules(), recipe_of)


def test_where_the_page_is_served_is_noted_for_the_links(studio):
    studio._ledger.people.set_public_url("https://draw.example.org")
    try:
        assert studio._ledger.people.public_url() == "https://draw.example.org"
    finally:
        studio._ledger.people.set_public_url("")


def test_the_owners_words_are_in_what_the_server_got(studio, ann, owner):
    studio._ledger.people.set_rules(Rules(models=("standin_xl",), negative="blood"))
    try:
        job = done(ann, seed=501)
        assert job["request"]["negative_prompt"].startswith("blood, ")
        assert "blood, " in str(studio._ledger.graph(job["job_id"]))
        assert job["request"]["model"] == "standin_xl"
        assert error_of(ask(ann, model="wan"), 422)["field"] == "model"
        assert "negative_prompt" not in done(owner, seed=502)["request"]
    finally:
        studio._ledger.people.set_rules(Rules())


def test_many_requests_at_once_are_exactly_as_many_as_the_quota(studio, url):
    posts, may = 90, 20
    studio._ledger.people.add("eve")
    studio.pause(note="we count")
    try:
        with caller_of(studio, url, "eve", Quota(jobs_per_hour=may, in_line=1000)) as eve, ThreadPoolExecutor(30) as pool:
            eve.timeout = 5 * PATIENCE_S
            answers = list(pool.map(lambda seed: ask(eve, seed=seed), range(posts)))
            accepted = {answer.json()["job_id"] for answer in answers if answer.status_code == 202}
            refused = [answer for answer in answers if answer.status_code == 429]
            assert (len(accepted), len(refused)) == (may, posts - may)
            assert all(0 < int(answer.headers["Retry-After"]) <= HOUR_S for answer in refused)
            assert {error_of(answer, 429)["code"] for answer in refused} == {"quota_reached"}
            listed = eve.get("/api/anime/jobs", params={"status": "open", "limit": 200}).json()
            assert {job["job_id"] for job in listed["jobs"]} == accepted
            assert "Paused by the owner: we count" in {job["progress"]["stalled"] for job in listed["jobs"]}
    finally:
        said = CliRunner().invoke(command, ["--home", str(studio.home), "people", "remove", "eve"]).output
        studio.resume()
    assert said == f"eve is out; {may} jobs are cancelled.\n"


# ---- what a guest sees ------------------------------------------------------------------------------------------------


def test_everything_of_another_is_as_if_it_were_not_there(ann, bob, owner):
    hers = done(ann, seed=1)
    name, unknown = hers["files"][0]["url"].rsplit("/", 1)[1], "3f2a9c1e-5d0b-4c7e-9a61-0f4be2d87c55"
    for method, rest in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", f"/files/{name}"), ("HEAD", f"/files/{name}")):
        said = [bob.request(method, f"/api/anime/jobs/{job_id}{rest}") for job_id in (hers["job_id"], unknown)]
        assert [answer.status_code for answer in said] == [404, 404]
        assert said[0].text.replace(hers["job_id"], unknown) == said[1].text, "one cannot tell that it is there"
    assert bob.get(f"/api/anime/jobs/{hers['job_id'][:8]}").status_code == 404
    assert hers["job_id"] not in bob.get("/api/anime/jobs").text
    assert bob.get("/api/anime/stats").json()["total"] == bob.get("/api/anime/jobs").json()["total"]
    for kind in ("image", "video"):
        answer = bob.post(f"/api/anime/generate/{kind}", json={"prompt": "a", "image": {"job_id": hers["job_id"]}})
        assert answer.status_code == 404, "another's picture cannot be begun with"
    assert bob.post("/api/anime/plan", json={"kind": "image", "prompt": "a", "image": {"job_id": hers["job_id"][:6]}}).status_code == 404
    again = {**hers["request"], "kind": "image"}
    assert [client.post("/api/anime/plan", json=again).json()["duplicates"] for client in (bob, ann, owner)] == [0, 1, 1]
    assert owner.get(f"/api/anime/jobs/{hers['job_id']}").json()["person"] == "ann"
    assert ann.get(hers["files"][0]["url"]).status_code == 200


def test_two_guests_who_ask_for_the_same_get_a_job_each(ann, bob, studio):
    studio.pause()
    try:
        first, second = ask(ann, seed=77).json()["job_id"], ask(bob, seed=77).json()["job_id"]
        assert first != second
        assert ask(ann, seed=77).json()["job_id"] == first
        for client, job_id in ((ann, first), (bob, second)):
            client.post(f"/api/anime/jobs/{job_id}/cancel")
    finally:
        studio.resume()


def test_the_line_names_nobody_to_a_guest_and_its_places_are_true(studio, ann, bob, owner):
    studio.pause(note="mine")
    try:
        jobs = [ask(client, seed=seed).json()["job_id"] for seed, client in enumerate((ann, ann, bob, owner), 800)]
        mine, all_ = bob.get("/api/anime/queue").json(), owner.get("/api/anime/queue").json()
        assert [(entry["job_id"], entry["person"]) for entry in mine["waiting"] if entry["job_id"]] == [(jobs[2], "bob")]
        assert {entry["person"] for entry in mine["waiting"]} == {"bob", "someone"}
        assert [entry["position"] for entry in mine["waiting"]] == [entry["position"] for entry in all_["waiting"]]
        assert {entry["job_id"] for entry in all_["waiting"]} == set(jobs)
        assert {entry["person"] for entry in all_["waiting"]} == {"ann", "bob", "owner"}
        place = next(entry["position"] for entry in mine["waiting"] if entry["job_id"])
        assert bob.get(f"/api/anime/jobs/{jobs[2]}").json()["progress"]["ahead"] == place - 1
        assert mine["counts"]["queued"] == 1
        for job_id in jobs:
            owner.post(f"/api/anime/jobs/{job_id}/cancel")
    finally:
        studio.resume()


def test_what_is_not_listed_for_guests_is_the_owners(ann, owner):
    body = {"workflow": {"1": {"class_type": "EmptyImage", "inputs": {}}}}
    for method, path in (
        ("POST", "/api/anime/generate/workflow"), ("POST", "/api/anime/validate"), ("GET", "/api/anime/ask/people"), ("GET", "/api/anime/missing/image"),
        ("POST", "/api/anime/sql"), ("GET", "/metrics"), ("GET", "/api/anything/new"), ("GET", "/gradio_api/proxy=http://127.0.0.1:1/"), ("GET", "/monitoring"),
        ("POST", "/gradio_api/process_recording"), ("GET", "/gradio_api/file=http://127.0.0.1:1/"), ("DELETE", "/api/anime/jobs"),
    ):  # fmt: skip
        assert error_of(ann.request(method, path, json=body if method == "POST" else None), 403)["code"] == "owner_only", path
    assert owner.post("/api/anime/validate", json=body).status_code == 200
    assert ann.get("/api/anime/models").status_code == ann.get("/api/anime/health").status_code == 200


def test_a_retry_is_within_the_quota_and_stays_ones_own(studio, url):
    with caller_of(studio, url, "ann", Quota(jobs_per_hour=1000, in_line=1000)) as ann:
        job = done(ann, seed=31)
        again = ann.post(f"/api/anime/jobs/{job['job_id']}/retry").json()
        assert (again["person"], again["retry_of"], again["request"]) == ("ann", job["job_id"], job["request"])
        studio._ledger.people.set_quota("ann", Quota(jobs_per_hour=0))
        assert error_of(ann.post(f"/api/anime/jobs/{job['job_id']}/retry"), 429)["code"] == "quota_reached"


def test_an_upload_is_counted_before_it_is_read(studio, url):
    with caller_of(studio, url, "ann", Quota(upload_mb_per_hour=1)) as ann:
        assert error_of(ann.post("/api/anime/uploads", content=b"x" * 1_100_000, headers={"Content-Type": "image/png"}), 429)["code"] == "quota_reached"
        endless = iter([b"x" * 1000])
        assert error_of(ann.post("/api/anime/uploads", content=endless, headers={"Content-Type": "image/png"}), 411)["code"] == "length_required"


def test_a_session_says_who_one_is_and_what_is_left(ann, owner, url):
    me = ann.get("/api/anime/session").json()
    assert (me["person"], me["is_owner"], me["quota"]["in_line"]) == ("ann", False, 1000)
    assert owner.get("/api/anime/session").json() == {"person": "owner", "is_owner": True}
    assert httpx.get(f"{url}/api/anime/session").json() == {"person": None, "is_owner": False}


def test_a_home_without_people_asks_nobody(tmp_path):
    with Studio("http://127.0.0.1:1", home=tmp_path / "home") as studio, served(build_service(studio, Settings(home=studio.home))) as url:
        assert httpx.get(f"{url}/api/anime/session").json() == {"person": "owner", "is_owner": True}
        assert httpx.get(f"{url}/api/anime/jobs").status_code == 200
        studio._ledger.people.add("ann")
        assert error_of(httpx.get(f"{url}/api/anime/jobs"), 401)["code"] == "sign_in_required"


# ---- the feed ----------------------------------------------------------------------------------------------------------


def bearer(studio, name):
    return {"Authorization": f"Bearer {studio._ledger.people.give(name, 'token')}"}


async def test_a_guest_watches_their_own_jobs_and_never_anothers(studio, ann, bob):
    async with feeding(studio) as feed:
        async with watching(feed, additional_headers=bearer(studio, "bob")) as client:
            await client.say(type="subscribe", job_id="*")
            await client.until(lambda told: told["type"] == "statistics")
            hers = await asyncio.to_thread(done, ann, seed=41)
            for kind in ("subscribe", "get_job_progress", "unsubscribe"):
                await client.say(type=kind, job_id=hers["job_id"])
                assert (await client.until(lambda told: told["type"] == "error"))["error"]["code"] == "job_not_found"
            his = await asyncio.to_thread(done, bob, seed=42)
            await client.until_final(his["job_id"])
            await client.say(type="get_statistics")
            counted = await client.until(lambda told: told["type"] == "statistics")
        assert hers["job_id"] not in str([told for told in client.told if told["type"] != "error"])
        assert counted["total"] == studio._ledger.count(person="bob")
        for headers in ({}, {"Authorization": "Bearer no"}, {"Cookie": "toolkit-session=no"}):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{feed.port}/", additional_headers=headers)
            assert refused.value.response.status_code == 401


async def test_who_is_removed_hears_no_more(studio, ann):
    studio._ledger.people.add("mallory")
    async with feeding(studio) as feed, watching(feed, additional_headers=bearer(studio, "mallory")) as client:
        await client.say(type="get_statistics")
        await client.until(lambda told: told["type"] == "statistics")
        studio._ledger.people.remove("mallory")
        await client.say(type="get_statistics")
        with pytest.raises(ConnectionClosed):
            await client.next()
    async with feeding(studio) as feed:
        studio._ledger.people.add("mallory")
        async with watching(feed, additional_headers=bearer(studio, "mallory")) as client:
            studio._ledger.people.remove("mallory")
            await asyncio.to_thread(done, ann, seed=43)  # news for somebody else is when the feed looks
            with pytest.raises(ConnectionClosed):
                await client.next()


async def test_a_home_that_cannot_be_read_is_said_at_every_door_without_its_path(studio, url, monkeypatch):
    def locked(*args):
        raise HomeUnusable(f"{studio.home} has been locked for 5 s.", path=str(studio.home))

    async with feeding(studio) as feed:
        monkeypatch.setattr(People, "exist", locked)
        answer = await asyncio.to_thread(httpx.get, f"{url}/api/anime/jobs")
        assert error_of(answer, 503) == {"code": "home_unusable", "message": "the home has been locked for 5 s."}
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{feed.port}/")
        assert (refused.value.response.status_code, str(studio.home).encode() in refused.value.response.body) == (503, False)


# ---- signing in --------------------------------------------------------------------------------------------------------


@contextmanager
def in_public(studio, public="https://draw.example.org"):
    settings = replace(Settings(home=studio.home), public_url=public)
    with served(build_service(studio, settings)) as url, httpx.Client(base_url=url, headers={"Host": "draw.example.org"}) as client:
        yield client


def test_a_link_becomes_a_cookie_and_signing_out_ends_it(studio):
    with in_public(studio) as client:
        origin = {"Origin": "https://draw.example.org"}
        page = client.get("/sign-in")
        assert page.status_code == 200
        assert "script-src 'sha256-" in page.headers["content-security-policy"]
        assert not re.search(r"(src|href)\s*=", page.text), "nothing is loaded"
        answer = client.post("/api/anime/session", json={"code": studio._ledger.people.give("ann", "code", 60.0)}, headers=origin)
        cookie = answer.headers["set-cookie"]
        assert re.fullmatch(r"__Host-toolkit=[\w-]{43}; Path=/; Max-Age=7776000; HttpOnly; SameSite=Strict; Secure", cookie)
        signed_in = {"Cookie": cookie.split(";")[0]}
        assert client.get("/api/anime/session", headers=signed_in).json()["person"] == "ann"
        ended = client.delete("/api/anime/session", headers={**signed_in, **origin})
        assert "Max-Age=0" in ended.headers["set-cookie"]
        assert client.get("/api/anime/jobs", headers=signed_in).status_code == 401


def test_a_plain_home_has_a_cookie_that_its_own_http_can_carry(studio, url):
    answer = httpx.post(f"{url}/api/anime/session", json={"code": studio._ledger.people.give("ann", "code", 60.0)})
    assert answer.headers["set-cookie"].startswith("toolkit-session=")
    assert answer.headers["set-cookie"].endswith("HttpOnly; SameSite=Strict")


@pytest.mark.parametrize(("text", "found"), [
    ("https://draw.example.org", "https://draw.example.org"), ("draw.example.org", "https://draw.example.org"), ("https://Draw.example.org:443/", "https://draw.example.org"),
    ("http://draw.lan:8080", "http://draw.lan:8080"), ("", None),
])  # fmt: skip
def test_an_address_for_others_is_an_origin(text, found):
    assert public_url(text) == found


@pytest.mark.parametrize("text", ["ftp://x", "https://a:b@x", "https://x/draw", "https://", "https://[x"])
def test_an_address_with_more_than_a_name_is_refused(text):
    with pytest.raises(RequestInvalid):
        public_url(text)


# ---- the command line ----------------------------------------------------------------------------------------------------


def run(home, *words):
    return CliRunner().invoke(command, ["--home", str(home), "--server", "engine", "people", *words])


def test_the_command_line_lets_in_limits_and_removes(tmp_path):
    home = tmp_path / "home"
    link = run(home, "add", "ann", "--url", "https://draw.example.org").stdout.strip()
    assert re.fullmatch(r"https://draw\.example\.org/sign-in#[\w-]{22}", link)
    assert run(home, "add", "--owner").stdout.startswith("http://127.0.0.1:7860/sign-in#")
    assert '"jobs_per_hour": 5, "in_line": 2' in run(home, "quota", "ann", "--jobs-per-hour", "5", "--in-line", "2").stdout
    assert '"models": ["noob", "illu"]' in run(home, "rules", "--models", "noob, illu").stdout
    assert '"models": ["noob", "illu"], "negative": "blood"' in run(home, "rules", "--negative", "blood").stdout
    listed = run(home, "list").stdout
    assert re.search(r"ann +0 of 5 +0 of 2 +1000 M", listed)
    assert re.search(r"owner +everything", listed)
    token = run(home, "token", "ANN").stdout.strip()
    ledger = Ledger(home)
    assert Visitors(ledger, Settings(home=home)).identify(f"Bearer {token}", None, "").person == "ann"
    assert run(home, "remove", "ann").stdout == "ann is out; 0 jobs are cancelled.\n"
    with pytest.raises(Exception, match="Who are you"):
        Visitors(ledger, Settings(home=home)).identify(f"Bearer {token}", None, "")
    accept(ledger, "ann", 1)
    ledger.close()
    assert "ann asked for 1 jobs here before" in run(home, "add", "ann").stderr
    for words, said in (
        (("add",), "Give a NAME"),
        (("remove", "bob"), "owner, ann"),
        (("quota", "owner"), "no quota"),
        (("add", "../x"), "cannot be a guest's name"),
    ):
        refused = run(home, *words)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert said in refused.stderr
