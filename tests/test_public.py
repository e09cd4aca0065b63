"""A hostile session against the program in public, over real sockets: nothing leaks, nothing falls.

The rules, and where each is held: 1 (versions of ComfyUI) test_client.py, 2 (bound to loopback) test_app.py and here, 3 (keys) test_people.py and here,
4 and 5 (JSON, Origin, Host, no CORS) here, 6 (limits) here and test_service.py, 7 (quotas) test_people.py, 8 (ownership) test_people.py and here,
9 (no outgoing addresses) here, 10 (file names) test_outputs.py, 11 (served files) test_service.py and here, 12 (no pickle, no eval) here,
13 (notebooks) here, 14 (floors of versions) here, 15 (slow watchers) test_feed.py.
"""

import ast
import asyncio
import contextlib
import http.client
import json
import os
import re
import socket
import sqlite3
import struct
import threading
import time
import tomllib
import zlib
from pathlib import Path

import gradio
import httpx
import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.serving import PATIENCE_S, PUBLIC, Program
from toolkit import ImageRequest, Studio, app
from toolkit.admission import Refused
from toolkit.app import serve
from toolkit.ledger import Ledger
from toolkit.service import service
from toolkit.settings import Settings
from toolkit.ui.workflow import WorkflowHandlers
from toolkit.visitors import TRIES, Visitor

ROOT = Path(__file__).parent.parent
SMALL = {"width": 64, "height": 64, "steps": 1}
SECOND_S = 1.0  # within which a wrong request is answered


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    home = tmp_path_factory.mktemp("public") / "home"
    ledger = Ledger(home)
    for name in ("ann", "bob"):
        ledger.people.add(name)
    ledger.people.add("owner", is_owner=True)
    ledger.close()
    program = Program(home)
    yield program
    assert program.stop() == 0, program.said
    assert "Traceback" not in program.said
    assert "__Host-toolkit=" not in program.said


@pytest.fixture(scope="module")
def picture(program):
    """A picture of ann's that has been made."""
    with program.client("ann") as ann:
        return made(ann, prompt="<img src=x onerror=alert(1)> ' OR 1=1; --", seed=1)


def made(client, **fields):
    answer = client.post("/api/anime/generate/image", json={"prompt": "a", **SMALL, **fields})
    assert answer.status_code == 202, answer.text
    deadline = time.monotonic() + PATIENCE_S
    while not (job := client.get(answer.headers["location"]).json())["ended_at"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert job["status"] == "done", job
    return job


def refused(answer, status, code=None):
    assert answer.status_code == status, answer.text[:500]
    assert "Traceback" not in answer.text
    if code is not None:
        assert answer.json()["error"]["code"] == code
        assert answer.elapsed.total_seconds() < SECOND_S
    return answer


# ---- the door stands closed -----------------------------------------------------------------------------------------------


def test_it_does_not_start_wide_open(tmp_path, capsys):
    home = tmp_path / "home"
    for settings, said in (
        (Settings(home=home, public_url=PUBLIC, token="t"), "this home has no people. `toolkit people add --owner`"),
        (Settings(home=home, host="0.0.0.0"), "neither a TOOLKIT_TOKEN nor people"),
    ):
        assert serve(settings, "engine") == 2
        assert said in capsys.readouterr().err
    assert not home.exists()
    ledger = Ledger(home)
    ledger.people.add("ann")
    ledger.close()
    assert serve(Settings(home=home, public_url=PUBLIC, host="0.0.0.0"), "engine") == 2
    assert "past the proxy" in capsys.readouterr().err


def test_it_says_what_guests_may_do_where_the_proxy_is_and_listens_on_loopback(program):
    assert f"Public  {PUBLIC}/ for 2 guests and you, by sign-in; the proxy for it: docs/public.md" in program.said
    assert "Guests make pictures and clips with any model, see their own alone, and run no workflows" in program.said
    assert program.ledger.people.public_url() == PUBLIC
    for port in (program.port, int(program.feed.rpartition(":")[2])):
        listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[1].endswith(f":{port:04X}")]
        assert "0100007F" in {place.split(":")[0] for place in listening}
        assert "00000000" not in {place.split(":")[0] for place in listening}


def test_who_is_nobody_gets_the_sign_in_page_and_nothing_else(program, picture):
    url = picture["files"][0]["url"]
    with program.client() as nobody:
        page = nobody.get("/", headers={"Accept": "text/html,*/*"})
        assert (page.status_code, "gradio" in page.text) == (401, False)
        assert "Open the link you were sent" in page.text
        for path in (
            "/", "/config", "/gradio_api/info", "/gradio_api/heartbeat/x", "/api/docs", "/api/openapi.json", "/api/anime/jobs", "/api/anime/health",
            "/api/anime/ask/help", url, f"{url}?token=x", "/metrics", "/api/anime/nothing", f"/gradio_api/file={program.home}/ledger.sqlite",
        ):  # fmt: skip
            refused(nobody.get(path), 401, "sign_in_required")
        for path in ("/api/anime/generate/image", "/api/anime/uploads", "/gradio_api/upload", "/gradio_api/queue/join", "/login"):
            refused(nobody.post(path, json={}), 401, "sign_in_required")
    with pytest.raises(InvalidStatus) as closed:
        program.watch(None)
    assert closed.value.response.status_code == 401


def test_the_page_is_there_for_a_guest_and_shows_nobody_elses_jobs(program, picture):
    with program.client("bob") as bob, program.client("ann") as ann:
        assert "gradio" in bob.get("/").text
        assert bob.get("/config").status_code == 200
        assert picture["job_id"] in latest(ann)
        assert latest(bob) == ""


def latest(client):
    """The list of the latest jobs, as the page's own script asks for it."""
    config = client.get("/config").json()
    refresh = next(fn for fn in config["dependencies"] if fn["targets"][0][1] == "tick")
    shown = event(client, refresh, [None, None])["output"]["data"][0]
    return shown if isinstance(shown, str) else ""


def event(client, fn, data):
    """What the page answers to an event of its own script."""
    body = {"data": data, "fn_index": fn["id"], "session_hash": f"s{time.monotonic_ns()}", "trigger_id": None, "event_data": None}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": body["session_hash"]}) as stream:
        for line in stream.iter_lines():
            told = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if told.get("msg") == "process_completed":
                return told
    raise AssertionError("the page said nothing")


# ---- keys --------------------------------------------------------------------------------------------------------------------


def post_code(client, code, **headers):
    return client.post("/api/anime/session", json={"code": code}, headers=headers)


def test_a_code_cannot_be_used_again_and_guessing_is_throttled_by_the_address_the_proxy_says(program):
    code = program.ledger.people.give("ann", "code", 60.0)
    with program.client(address="198.51.100.1") as client:
        assert "SameSite=Strict; Secure" in post_code(client, code).headers["set-cookie"]
        refused(post_code(client, code), 403, "code_refused")
        for guess in range(TRIES - 1):
            refused(post_code(client, f"guess{guess}"), 403, "code_refused")
        fresh = program.ledger.people.give("ann", "code", 60.0)
        throttled = refused(post_code(client, fresh), 429, "too_many_tries")
        assert 0 < int(throttled.headers["retry-after"]) <= 600
        refused(post_code(client, fresh, **{"X-Forwarded-For": "9.9.9.9, 198.51.100.1"}), 429)  # what somebody wrote themselves is not the proxy's
        refused(client.get("/api/anime/jobs", headers={"Authorization": "Bearer guess"}), 429)
    with program.client(address="198.51.100.2") as other:
        assert post_code(other, fresh).status_code == 200
    with program.client("ann", address="198.51.100.1") as ann:
        assert ann.get("/api/anime/jobs").status_code == 200, "who is in stays in"


@pytest.mark.parametrize("code", ["", "x" * 100_000, "' OR 1=1 --", "\x00", "🦊", "../..", 5, None, ["a"], {"$ne": ""}])
def test_what_is_no_code_lets_nobody_in(program, code):
    with program.client(address=f"198.51.100.{abs(hash(str(code))) % 200 + 20}") as client:
        answer = post_code(client, code)
        assert answer.status_code in (403, 422)
        assert "set-cookie" not in answer.headers


def test_a_session_that_ended_ran_out_or_was_made_up_opens_nothing(program):
    people = program.ledger.people
    people.add("mallory")
    with program.client("mallory") as mallory, program.client("mallory") as again:
        assert mallory.get("/api/anime/jobs").status_code == 200
        with program.watch("mallory") as watcher:
            watcher.recv(PATIENCE_S)
            assert mallory.delete("/api/anime/session", headers={"Origin": PUBLIC}).status_code == 200
            refused(mallory.get("/api/anime/jobs"), 401)
            assert again.get("/api/anime/jobs").status_code == 200
            people.remove("mallory")
            refused(again.get("/api/anime/jobs"), 401)
            watcher.send('{"type": "get_statistics"}')
            with pytest.raises(ConnectionClosed):
                watcher.recv(PATIENCE_S)
    with program.client("bob") as bob:
        with contextlib.closing(sqlite3.connect(program.home / "ledger.sqlite")) as plain:
            plain.execute("UPDATE keys SET expires_at = 1 WHERE person = 'bob'")
            plain.commit()
        refused(bob.get("/api/anime/jobs"), 401)
    with program.client(Cookie="__Host-toolkit=; toolkit-session=x; __Host-toolkit=x") as forged:
        refused(forged.get("/api/anime/jobs"), 401)


# ---- other people's things ------------------------------------------------------------------------------------------------------


def test_another_s_picture_is_not_there_by_any_way(program, picture):
    job_id, file = picture["job_id"], picture["files"][0]
    path = program.home / "projects" / file["name"]
    with program.client("bob") as bob, program.client("ann") as ann, program.client("owner") as owner:
        for method, place in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", f"/files/{path.name}")):
            refused(bob.request(method, f"/api/anime/jobs/{job_id}{place}"), 404, "job_not_found")
        for spelling in (path, f"/{path}", str(path).replace("/projects/", "/projects/../projects/./"), os.path.relpath(path, ROOT)):
            assert bob.get(f"/gradio_api/file={spelling}").status_code in (403, 404)
        refused(bob.post("/api/anime/generate/image", json={"prompt": "a", "image": {"job_id": job_id, "number": 1}}), 404, "job_not_found")
        for name in ("queue", "jobs", "stats", "session", "models", "health"):
            assert job_id not in bob.get(f"/api/anime/{name}").text
        for client in (ann, owner):
            assert client.get(f"/gradio_api/file={path}").content == client.get(file["url"]).content == path.read_bytes()
    with program.watch("bob") as watcher:
        for kind in ("subscribe", "get_job_progress"):
            watcher.send(json.dumps({"type": kind, "job_id": job_id}))
        told = [json.loads(watcher.recv(PATIENCE_S)) for _ in range(3)]
        assert [message.get("error", {}).get("code") for message in told] == [None, "job_not_found", "job_not_found"]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd", "/gradio_api/file={home}/ledger.sqlite", "/gradio_api/file={home}/projects/../ledger.sqlite", "/gradio_api/file=app.py",
        "/gradio_api/file={home}/projects/../../../../../../etc/passwd", "/gradio_api/file=%2Fetc%2Fpasswd", "/gradio_api/file=..%2F..%2Fetc%2Fpasswd",
        "/gradio_api/file/etc/passwd", "/static/../../../../etc/passwd", "/assets/..%2f..%2f..%2f..%2fetc%2fpasswd", "/../../etc/passwd", "//etc/passwd",
        "/api/anime/jobs/..%2f..%2f..%2fledger.sqlite", "/api/anime/jobs/x/files/..%2f..%2f..%2f..%2fledger.sqlite", "/gradio_api/file=/proc/self/environ",
        "/svelte/..%2f..%2f..%2f..%2fetc%2fpasswd", "/gradio_api/custom_component/x/y/z/..%2f..%2fetc%2fpasswd",
    ],
)  # fmt: skip
@pytest.mark.parametrize("who", ["ann", "owner"])
def test_no_path_leads_out_of_the_projects(program, path, who):
    request = f"GET {path.format(home=program.home)} HTTP/1.1\r\nHost: draw.example.org\r\nCookie: {program.cookie(who)}\r\nConnection: close\r\n\r\n"
    answer = program.raw(request.encode())
    status = int(answer.split()[1])
    assert 400 <= status < 500, answer[:300]
    assert b"root:" not in answer
    assert b"SQLite" not in answer


# ---- forged, too large, too slow --------------------------------------------------------------------------------------------------


def test_only_the_public_name_and_this_machine_s_are_answered_and_only_to_the_page_itself(program):
    with program.client("ann") as ann:
        for host in ("evil.example", "draw.example.org.evil.example", "draw.example.org@evil.example", "evil.example:443", "192.168.1.5", "0.0.0.0"):
            refused(ann.get("/api/anime/jobs", headers={"Host": host}), 403, "host_refused")
        evil = ("https://evil.example", "null", "http://draw.example.org", f"{PUBLIC}.evil.example", f"{PUBLIC}:444", "http://127.0.0.1:7860", "file://")
        for origin in evil:
            for method, path in (
                ("GET", "/api/anime/jobs"),
                ("POST", "/api/anime/session"),
                ("DELETE", "/api/anime/session"),
                ("POST", "/gradio_api/queue/join"),
            ):
                answer = refused(ann.request(method, path, headers={"Origin": origin}), 403, "origin_refused")
                assert not [name for name in answer.headers if name.startswith("access-control")]
        allowed = ann.get("/api/anime/jobs", headers={"Origin": PUBLIC})
        assert allowed.status_code == 200
        assert not [name for name in allowed.headers if name.startswith("access-control")]
        body = b"prompt=a"
        for content_type in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
            refused(ann.post("/api/anime/generate/image", content=body, headers={"Content-Type": content_type}), 415, "json_required")
    for origin in evil:
        with pytest.raises(InvalidStatus) as closed:
            connect(program.feed, additional_headers={"Cookie": program.cookie("ann")}, origin=origin)
        assert closed.value.response.status_code == 403
    with pytest.raises(InvalidStatus):
        connect(program.feed, additional_headers={"Cookie": program.cookie("ann"), "Host": "evil.example"})


def test_bodies_have_an_end(program):
    with program.client("ann") as ann:
        for path, size, status in (
            ("/api/anime/generate/image", 3_000_000, 413),
            ("/api/anime/session", 3_000_000, 413),
            ("/api/anime/uploads", 25_000_000, 413),
        ):
            answer = http_post(program, path, size, program.cookie("ann"))
            assert answer == status, path
        body = (b"x" * 1_000_000 for _ in range(30))
        with contextlib.suppress(httpx.WriteError):  # it need not read what it refuses
            assert ann.post("/gradio_api/queue/join", content=body, headers={"Content-Type": "application/json"}).status_code in (400, 413)
        assert ann.get("/api/anime/health").status_code == 200
        deep = b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        refused(ann.post("/api/anime/generate/image", content=deep, headers={"Content-Type": "application/json"}), 400, "bad_json")


def http_post(program, path, size, cookie):
    """The status of a POST that says how long it is, and of which one byte comes."""
    connection = http.client.HTTPConnection("127.0.0.1", program.port, timeout=PATIENCE_S)
    try:
        connection.putrequest("POST", path, skip_host=True)
        headers = {"Host": "draw.example.org", "Cookie": cookie, "Content-Type": "image/png" if "uploads" in path else "application/json"}
        for name, value in {**headers, "Content-Length": str(size)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(b"{")
        return connection.getresponse().status
    finally:
        connection.close()


def bomb(side):
    """A PNG of side x side black pixels: a few hundred bytes for each million of them."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_picture_that_unpacks_to_gigabytes_is_refused_before_it_is_decoded(program):
    data = bomb(30_000)
    assert len(data) < 200_000
    with program.client("ann") as ann:
        before = resident(program.process.pid)
        refused(ann.post("/api/anime/uploads", content=data, headers={"Content-Type": "image/png"}), 422, "request_invalid")
        zipped = zlib.compress(json.dumps({"prompt": "a" * 50_000_000}).encode())
        refused(ann.post("/api/anime/generate/image", content=zipped, headers={"Content-Type": "application/json", "Content-Encoding": "deflate"}), 400)
        assert resident(program.process.pid) - before < 100_000_000


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_hundreds_of_half_open_connections_stop_nobody(program):
    with contextlib.ExitStack() as stack:
        for number in range(400):
            begun = (b"", b"GET / HT", b"POST /api/anime/session HTTP/1.1\r\nHost: draw.example.org\r\n", b"GET / HTTP/1.1\r\nUpgrade: web")[number % 4]
            port = program.port if number % 8 else int(program.feed.rpartition(":")[2])
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(begun)
        ann = stack.enter_context(program.client("ann"))
        began = time.monotonic()
        assert ann.get("/api/anime/jobs").status_code == 200
        with program.watch("ann") as watcher:
            assert "connection_established" in watcher.recv(PATIENCE_S)
        assert time.monotonic() - began < SECOND_S


@contextlib.contextmanager
def patient(application):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(application, log_level="critical", access_log=False, ws="none", http=app.Patient))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join()


async def hello(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi"})


def said_hello(connection):
    said = b""
    while not said.endswith(b"hi"):
        said += connection.recv(4096)
    return True


def test_a_head_that_does_not_come_is_not_waited_for_and_a_connection_in_use_is_kept(monkeypatch):
    monkeypatch.setattr(app, "HEAD_S", 0.3)
    whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with patient(hello) as place:
        for first, begun in ((b"", b""), (b"", b"GET / HT"), (whole, b"GET /")):
            with socket.create_connection(place, timeout=PATIENCE_S) as connection:
                connection.sendall(first)
                assert not first or said_hello(connection)
                connection.sendall(begun)
                began = time.monotonic()
                with contextlib.suppress(ConnectionResetError):
                    while connection.recv(4096):
                        pass
                assert 0.2 < time.monotonic() - began < 3.0
        with socket.create_connection(place, timeout=PATIENCE_S) as connection:
            for _ in range(12):
                connection.sendall(whole)
                assert said_hello(connection)
                time.sleep(0.05)


def test_a_body_that_stops_coming_is_answered(program, monkeypatch):
    monkeypatch.setattr(service, "BODY_PAUSE_S", 0.2)

    async def never():
        await asyncio.sleep(PATIENCE_S)

    with pytest.raises(Refused, match="Nothing of the body came for") as slow:
        asyncio.run(service._bounded(never)())
    assert slow.value.status == 408


# ---- markup, SQL, addresses -------------------------------------------------------------------------------------------------------------


def test_markup_stays_text_and_sql_stays_a_word(program, picture):
    with program.client("ann") as ann:
        answer = ann.get(f"/api/anime/jobs/{picture['job_id']}")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["request"]["prompt"].startswith("<img src=x onerror")
        assert "<img src=x onerror" not in latest(ann)
        served = ann.get(picture["files"][0]["url"])
        assert (served.headers["content-type"], served.headers["x-content-type-options"]) == ("image/png", "nosniff")
        assert "sandbox" in served.headers["content-security-policy"]
        for word in ("' OR '1'='1", "x'; DROP TABLE jobs; --", "%' --", '" UNION SELECT * FROM keys --'):
            refused(ann.get(f"/api/anime/jobs/{word}"), 404, "job_not_found")
            refused(ann.get("/api/anime/jobs", params={"status": word}), 422, "request_invalid")
            assert ann.get("/api/anime/jobs", params={"project": word}).json()["total"] == 0
            refused(ann.get(f"/api/anime/ask/{word}"), 403, "owner_only")
        refused(ann.get("/api/anime/ask/people"), 403, "owner_only")
    with program.client("owner") as owner:
        assert owner.get("/api/anime/ask/people").status_code == 200
        refused(owner.get("/api/anime/ask/people", params={"kind": "'; ATTACH 'x' --", "nope": "1"}), 422)


def test_an_address_that_a_visitor_names_is_not_asked(program, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.05)
        url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/x.json"
        file = {"path": url, "url": url, "orig_name": "x.json", "meta": {"_type": "gradio.FileData"}}
        with program.client("ann") as ann:
            for path in (f"/gradio_api/file={url}", f"/gradio_api/proxy={url}"):
                refused(ann.get(path), 403, "owner_only")
            config = ann.get("/config").json()
            shown = {component["id"]: component["props"].get("value") for component in config["components"]}
            files = {component["id"] for component in config["components"] if component["type"] in ("file", "image")}
            taking = [fn for fn in config["dependencies"] if files.intersection(fn["inputs"])]
            assert taking
            for fn in taking:
                data = [file if part in files else shown.get(part) for part in fn["inputs"]]
                assert "addresses are not fetched" in event(ann, fn, data)["output"]["error"]
            for wrong in ({"image": url}, {"image": {"sha256": url}}, {"image": {"url": url}}, {"model": url}, {"loras": [{"name": url}]}):
                assert ann.post("/api/anime/generate/image", json={"prompt": "a", **SMALL, **wrong}).status_code in (404, 422)
        with pytest.raises(TimeoutError):
            elsewhere.accept()

    app.ask_nobody()
    with pytest.raises(gradio.Error, match="addresses are not fetched"):
        asyncio.run(gradio.processing_utils.async_ssrf_protected_download("https://example.org/x", str(tmp_path)))


def test_a_guest_runs_no_workflow_by_rest_or_page_and_the_owner_does(program):
    body = {"workflow": {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
                         "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}}}  # fmt: skip
    with program.client("ann") as ann, program.client("owner") as owner:
        for path in ("/api/anime/generate/workflow", "/api/anime/validate"):
            refused(ann.post(path, json=body), 403, "owner_only")
        assert owner.post("/api/anime/validate", json=body).json()["faults"] == []
        assert owner.post("/api/anime/generate/workflow", json=body).status_code == 202
    with Studio("engine", home=program.home) as studio:
        path = program.home / "w.json"
        path.write_text(json.dumps(body["workflow"]))
        job_id, error = WorkflowHandlers(studio).run(str(path), {}, Visitor("ann", False))
        assert (job_id, str(error)) == (None, "Workflows of your own are for the owner of this page. Ask for a picture or a clip.")


def test_guests_and_the_owners_sweep_at_once_see_true_places_and_their_own_alone(program):
    with Studio("engine", home=program.home) as studio, contextlib.ExitStack() as stack:
        studio.pause()
        sweep = studio.submit_many([ImageRequest(prompt="sweep", seed=seed, **SMALL) for seed in range(40)])
        guests = {name: stack.enter_context(program.client(name)) for name in ("ann", "bob")}
        asked = {name: client.post("/api/anime/generate/image", json={"prompt": f"of {name}", "seed": 5, **SMALL}).json() for name, client in guests.items()}
        for name, client in guests.items():
            line = client.get("/api/anime/queue").json()["waiting"]
            mine = [entry for entry in line if entry["job_id"]]
            assert [(entry["job_id"], entry["person"]) for entry in mine] == [(asked[name]["job_id"], name)]
            assert len(line) == 42
            assert mine[0]["position"] <= 2, "a guest never waits for a whole sweep"
        studio.resume()
        for name, client in guests.items():
            deadline = time.monotonic() + PATIENCE_S
            while not (job := client.get(f"/api/anime/jobs/{asked[name]['job_id']}").json())["ended_at"]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert job["status"] == "done"
        for job in sweep:
            job.cancel()


# ---- of the code itself -----------------------------------------------------------------------------------------------------------------


def test_nothing_is_unpickled_or_evaluated():
    """Rule 12."""
    wrong = []
    for path in (ROOT / "toolkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if {"pickle", "marshal", "shelve", "dill", "yaml"}.intersection(names):
                wrong.append(f"{path}: {names}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                wrong.append(f"{path}:{node.lineno}: {node.func.id}")
    assert wrong == []


def test_no_key_is_shown_by_what_holds_one_nor_by_what_was_made(program, picture):
    """Rules 3 and 13."""
    settings = Settings(home=program.home, token="s3cret-token", public_url=PUBLIC)
    assert "s3cret" not in repr(settings)
    session = program.cookie("ann").partition("=")[2]
    made = [program.home / "projects" / file["name"] for file in picture["files"]]
    assert made
    for path in [*made, *(path.with_suffix(".json") for path in made)]:
        assert session.encode() not in path.read_bytes()
        assert b"draw.example.org" not in path.read_bytes()
    stored = b"".join(path.read_bytes() for path in program.home.glob("*.sqlite*"))
    assert session.encode() not in stored


def test_the_floors_of_versions_close_what_is_known():
    """Rule 14: what is installed is what the lock says, and the lock is above the floors of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in project["dependencies"] if ">=" in line)
    lock = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))

    def parts(version):
        return [int(part) for part in version.split(".")]

    assert parts(floors["gradio"]) >= [6, 16]
    assert [name for name, floor in floors.items() if parts(lock[name]) < parts(floor)] == []
