"""REST over a real uvicorn and the built-in engine: what is answered, and what is refused with which words."""

import hashlib
import http.client
import io
import json
import os
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import end_children
from tests.serving import served
from toolkit import Studio
from toolkit.errors import HomeUnusable, NoServer, ServerUnreachable
from toolkit.jobs import JobStatus
from toolkit.ledger.database import Database
from toolkit.service import build_service, schemas
from toolkit.settings import Settings

ONE_EACH = httpx.Limits(max_keepalive_connections=0)  # uvicorn ends a quiet connection after 5 s, perhaps just as it is used again
PATIENCE_S = 20.0
SMALL = {"width": 64, "height": 64, "steps": 1}


@contextmanager
def calling(studio, **changes):
    """A client of the studio's REST."""
    settings = replace(Settings(home=studio.home), **changes)
    with served(build_service(studio, settings)) as url, httpx.Client(base_url=url, limits=ONE_EACH, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture(scope="module")
def studio(shared_home):
    """The studio behind `rest`: a second one on this home would be the same, and close it."""
    with Studio("engine", home=shared_home) as studio:
        yield studio


@pytest.fixture(scope="module")
def rest(studio):
    """A client on the shared home, one server for the module; ask for your own jobs only."""
    with calling(studio) as client:
        yield client


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Studio and client on a home whose engine takes 0.1 s a step."""
    home = tmp_path_factory.mktemp("slow") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_ENGINE_STEP_S", "0.1")
        with Studio("engine", home=home) as studio, calling(studio) as client:
            yield studio, client
        end_children(home)


def ask(rest, kind="image", **fields):
    answer = rest.post(f"/api/anime/generate/{kind}", json={"prompt": "1girl, red scarf", **SMALL, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()


def until(rest, job_id, wanted=lambda job: job["ended_at"]):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        job = rest.get(f"/api/anime/jobs/{job_id}").json()
        if wanted(job):
            return job
        time.sleep(0.02)
    raise AssertionError(f"still {job}")


@pytest.fixture(scope="module")
def done(rest):
    """A picture that has been made."""
    return until(rest, ask(rest, seed=71)["job_id"])


def refused(answer, status, code):
    """The sentence of a refusal, whose shape is checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    (error,) = answer.json().values()
    assert set(error) <= {"code", "message", "field", "hint"}
    assert error["code"] == code
    assert "Traceback" not in answer.text
    return error


# ---- the way of a job --------------------------------------------------------------------------------------------------


def test_a_picture_is_accepted_at_once_and_its_bytes_match_their_hash(rest):
    accepted = ask(rest, seed=7, project="fox")
    assert set(accepted) == {"job_id", "status", "estimated_s"}
    assert accepted["status"] == "queued"
    job = until(rest, accepted["job_id"])
    assert (job["status"], job["origin"], job["seed"], job["error"]) == ("done", "rest", 7, None)
    assert job["progress"]["fraction"] == 1.0
    (file,) = job["files"]
    answer = rest.get(file["url"])
    assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
    assert len(answer.content) == file["size_bytes"]
    assert (file["width"], file["height"], file["media_type"]) == (64, 64, "image/png")
    assert file["name"].startswith("fox/")


def test_a_job_has_exactly_the_words_of_the_interface(done):
    words = {"job_id", "kind", "status", "progress", "files", "error", "request", "attempt", "server", "created_at", "started_at", "ended_at", "timings"}
    assert words <= set(done)
    assert {"fraction", "node", "step", "steps", "elapsed_s", "eta_s", "eta_low_s", "eta_high_s"} <= set(done["progress"])
    assert set(done["files"][0]) == {
        "name", "url", "media_type", "size_bytes", "sha256", "width", "height", "frames", "fps", "temporary", "cached"
    }  # fmt: skip
    assert done["simulated"] is True


def test_a_clip_says_its_frames_and_rate(rest):
    job = until(rest, ask(rest, "video", seed=8, frames=5, width=64, height=64)["job_id"])
    assert (job["status"], job["kind"]) == ("done", "video")
    clip = next(file for file in job["files"] if file["media_type"].startswith("video/"))
    assert clip["frames"] == 5
    assert clip["fps"] > 0
    answer = rest.get(clip["url"])
    assert hashlib.sha256(answer.content).hexdigest() == clip["sha256"]


def test_the_beginning_of_an_id_is_enough_and_an_ambiguous_one_lists_the_matches(rest, done, studio):
    assert rest.get(f"/api/anime/jobs/{done['job_id'][:12]}").json()["job_id"] == done["job_id"]
    ids = [studio.image("a", seed=seed, **SMALL).id for seed in range(900, 917)]  # 17 ids: two begin with the same digit
    first = next(digit for digit in "0123456789abcdef" if sum(job_id.startswith(digit) for job_id in ids) > 1)
    assert "begins several ids" in refused(rest.get(f"/api/anime/jobs/{first}"), 404, "job_not_found")["message"]


def test_a_seed_beyond_javascript_is_a_string_both_ways(rest):
    job = until(rest, ask(rest, seed=str(2**64 - 1))["job_id"])
    assert job["seed"] == job["request"]["seed"] == str(2**64 - 1)


def test_a_retry_is_a_new_job_of_the_same_request(rest, done):
    answer = rest.post(f"/api/anime/jobs/{done['job_id']}/retry")
    assert answer.status_code == 202
    again = until(rest, answer.json()["job_id"])
    assert again["job_id"] != done["job_id"]
    assert (again["retry_of"], again["request"], again["origin"]) == (done["job_id"], done["request"], "rest")


def test_cancelling_ends_a_waiting_job_at_once_and_a_running_one_soon(slow):
    _, rest = slow
    running, *_, waiting = [ask(rest, seed=seed, steps=100)["job_id"] for seed in range(4)]
    until(rest, running, lambda job: job["status"] == "running")
    assert rest.post(f"/api/anime/jobs/{waiting}/cancel").json()["status"] == "cancelled"
    refused(rest.post(f"/api/anime/jobs/{running}/retry"), 409, "job_open")
    assert rest.post(f"/api/anime/jobs/{running}/cancel").json()["cancel_asked"] is True
    ended = until(rest, running)
    assert (ended["status"], ended["files"]) == ("cancelled", [])
    assert ended["progress"]["fraction"] < 1.0
    for job in rest.get("/api/anime/jobs", params={"status": "open"}).json()["jobs"]:
        rest.post(f"/api/anime/jobs/{job['job_id']}/cancel")


def test_the_line_shows_positions_and_counts(slow):
    _, rest = slow
    ids = [ask(rest, seed=seed, steps=100)["job_id"] for seed in range(10, 15)]
    until(rest, ids[0], lambda job: job["status"] == "running")
    line = rest.get("/api/anime/queue").json()
    assert [job["job_id"] for job in line["waiting"]][-2:] == ids[-2:]
    assert [job["position"] for job in line["waiting"]] == list(range(3, 3 + len(line["waiting"])))
    assert line["counts"]["queued"] == len(line["waiting"])
    (server,) = line["servers"]
    assert {"url", "state", "version", "running", "pending"} <= set(server)
    assert server["url"] == "engine"
    for job_id in reversed(ids):
        rest.post(f"/api/anime/jobs/{job_id}/cancel")


def test_cancelling_what_has_ended_changes_nothing(rest, done):
    assert rest.post(f"/api/anime/jobs/{done['job_id']}/cancel").json() == done


def test_paging_through_a_list_meets_every_job_once_and_total_is_true(rest, studio):
    made = [studio.image("a", seed=seed, project="paging", **SMALL).id for seed in range(7)]
    found, cursor = [], None
    while True:
        page = rest.get("/api/anime/jobs", params={"project": "paging", "limit": 3, **({"cursor": cursor} if cursor else {})}).json()
        assert page["total"] == 7
        found += [job["job_id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == made[::-1]


def test_a_list_keeps_to_its_filters(rest, studio):
    studio.image("a", project="filters", **SMALL).wait(PATIENCE_S)
    studio.video("a", project="filters", frames=5, width=64, height=64).wait(PATIENCE_S)

    def total(**query):
        page = rest.get("/api/anime/jobs", params={"project": "filters", **query}).json()
        assert len(page["jobs"]) == page["total"]
        return page["total"]

    assert [total(), total(kind="video"), total(status="done"), total(status="failed"), total(status="final"), total(status="open")] == [2, 1, 2, 0, 2, 0]


def test_health_models_and_counts_are_answered(rest, done):
    assert rest.get("/api/anime/health").json()["status"] == "ok"
    (server,) = rest.get("/api/anime/models").json()["servers"]
    assert "standin_xl.safetensors" in server["models"]["checkpoints"]
    assert "sdxl" in server["can_make"]
    stats = rest.get("/api/anime/stats").json()
    assert set(stats["counts"]) == set(JobStatus)
    assert stats["total"] == sum(stats["counts"].values()) > 0


# ---- a key of the caller's -------------------------------------------------------------------------------------------------


def keyed(rest, key, kind="image", **fields):
    body = {"prompt": "1girl", **SMALL, **fields}
    return rest.post(f"/api/anime/generate/{kind}", json=body, headers={"Idempotency-Key": key})


def test_a_retry_with_its_key_is_the_same_job_though_no_seed_was_given(rest):
    first = keyed(rest, "k-1").json()["job_id"]
    assert {keyed(rest, "k-1").json()["job_id"] for _ in range(3)} == {first}
    until(rest, first)
    again = keyed(rest, "k-1")
    assert (again.status_code, again.json()["job_id"], again.json()["status"]) == (202, first, "done")
    assert keyed(rest, "k-2").json()["job_id"] != first


def test_a_key_with_another_body_or_call_is_refused(rest):
    first = keyed(rest, "k-3", seed=1).json()["job_id"]
    before = rest.get("/api/anime/jobs").json()["total"]
    error = refused(keyed(rest, "k-3", seed=2), 422, "idempotency_key_reused")
    assert first[:8] in error["message"]
    refused(keyed(rest, "k-3", "video", seed=1), 422, "idempotency_key_reused")
    for wrong in ("", "x" * 201, "a b"):
        assert refused(keyed(rest, wrong), 422, "bad_key")["field"] == "Idempotency-Key"
    assert rest.get("/api/anime/jobs").json()["total"] == before


def test_a_retry_of_a_job_has_a_key_too(rest, done):
    path, headers = f"/api/anime/jobs/{done['job_id']}/retry", {"Idempotency-Key": "k-4"}
    ids = {rest.post(path, headers=headers).json()["job_id"] for _ in range(3)}
    assert len(ids) == 1
    assert rest.post(path).json()["job_id"] not in ids


def test_twenty_callers_with_one_key_at_once_make_one_job(rest):
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: keyed(rest, "k-5"), range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["job_id"] for answer in answers}) == 1


def test_alive_is_not_ready_a_full_disk_says_so_and_liveness_looks_at_no_disk(rest, studio, monkeypatch):
    assert rest.get("/api/anime/health/live").json()["status"] == "alive"
    assert rest.get("/api/anime/health/ready").json() == rest.get("/api/anime/health").json()

    def fail(*arguments):
        raise HomeUnusable("It is locked.", path="/x", hint="End that process.")

    monkeypatch.setattr(Database, "connection", fail)
    assert refused(rest.get("/api/anime/health/ready"), 503, "home_unusable")["hint"] == "End that process."
    assert rest.get("/api/anime/health/live").status_code == 200
    monkeypatch.undo()
    monkeypatch.setattr("toolkit.ledger.store.ROOM_BYTES", 2**60)
    assert "full" in refused(rest.get("/api/anime/health/ready"), 503, "home_unusable")["message"]


def test_prometheus_reads_the_home_and_the_calls_by_their_patterns(rest, done):
    for _ in range(3):
        rest.get(f"/api/anime/jobs/{done['job_id']}")
    rest.get("/api/anime/jobs/none")
    answer = rest.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = {
        f"{sample.name} {sorted(sample.labels.values())}": sample.value for family in text_string_to_metric_families(answer.text) for sample in family.samples
    }
    assert 0 < found["toolkit_jobs ['done']"] <= rest.get("/api/anime/stats").json()["counts"]["done"]
    assert found["toolkit_request_seconds_count ['/jobs/{job_id}', '200', 'GET']"] >= 3
    assert found["toolkit_request_seconds_count ['/jobs/{job_id}', '404', 'GET']"] >= 1
    assert found["toolkit_feeder_alive ['engine']"] in (0, 1)  # on a busy machine its pulse may be late
    assert found["toolkit_feed_watchers []"] == 0
    assert found["toolkit_home_free_bytes []"] > 1e6
    assert not any(done["job_id"] in name for name in found)


# ---- files -------------------------------------------------------------------------------------------------------------


def test_a_range_of_a_file_is_exactly_those_bytes(rest, done):
    url = done["files"][0]["url"]
    whole = rest.get(url).content
    for header, expected in {"bytes=0-3": whole[:4], "bytes=10-": whole[10:], "bytes=-5": whole[-5:]}.items():
        answer = rest.get(url, headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["content-range"] == f"bytes {len(whole) - 5}-{len(whole) - 1}/{len(whole)}"
    refused(rest.get(url, headers={"Range": f"bytes={len(whole)}-"}), 416, "range_not_satisfiable")
    for wrong in ("bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "x"):
        refused(rest.get(url, headers={"Range": wrong}), 400, "bad_range")


def test_a_file_comes_with_a_fixed_type_and_nothing_a_browser_would_run(rest, done):
    answer = rest.get(done["files"][0]["url"])
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith('inline; filename="')
    assert "sandbox" in answer.headers["content-security-policy"]
    head = rest.head(done["files"][0]["url"])
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(answer.content)))


def test_only_the_files_of_that_job_are_served(rest, done):
    other = until(rest, ask(rest, seed=72)["job_id"])
    theirs = other["files"][0]["url"].rsplit("/", 1)[1]
    sidecar = theirs.replace(".png", ".json")
    for name in (theirs, sidecar, "..%2f..%2fledger.sqlite", "../../../ledger.sqlite", "%2fetc%2fpasswd", "", "x" * 5000):
        refused(rest.get(f"/api/anime/jobs/{done['job_id']}/files/{name}"), 404, "file_not_found" if ".." not in name or "%" in name else "not_found")


def test_a_file_that_was_deleted_or_made_a_link_is_gone(rest, studio):
    result = studio.image("a", seed=73, **SMALL).wait(PATIENCE_S)
    path = Path(result.files[0].path)
    url = f"/api/anime/jobs/{result.job.id}/files/{path.name}"
    path.unlink()
    refused(rest.get(url), 404, "file_gone")
    path.symlink_to("/etc/passwd")
    refused(rest.get(url), 404, "file_gone")


# ---- what is refused ---------------------------------------------------------------------------------------------------


def counted(rest):
    return rest.get("/api/anime/jobs", params={"project": "refusals"}).json()["total"]


def post(rest, body, content_type="application/json", kind="image"):
    return rest.post(f"/api/anime/generate/{kind}", content=body, headers={"Content-Type": content_type})


def test_a_model_the_server_has_not_is_refused_with_its_name(rest, done):
    error = refused(post(rest, '{"prompt": "x", "model": "no such model"}'), 422, "model_unknown")
    assert "no such model" in error["message"]


def test_a_charset_beside_the_type_is_fine_and_so_is_a_mark_of_byte_order(rest):
    body = b"\xef\xbb\xbf" + json.dumps({"prompt": "a", **SMALL}).encode()
    assert post(rest, body, "application/json; charset=utf-8").status_code == 202


def test_a_body_without_a_length_is_cut_at_the_limit(rest):
    def endless():
        for _ in range(40):
            yield b"x" * 100_000

    with httpx.Client(base_url=rest.base_url, limits=ONE_EACH) as client:
        refused(client.post("/api/anime/generate/image", content=endless(), headers={"Content-Type": "application/json"}), 413, "body_too_large")


def test_wrong_methods_and_unknown_paths_are_said_in_json(rest):
    answer = rest.get("/api/anime/generate/image")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    refused(rest.delete("/api/anime/jobs"), 405, "method_not_allowed")
    for path in ("/api/anime/nothing", "/api", "/api/", "/nothing"):
        refused(rest.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ServerUnreachable("http://x does not answer.", server_url="http://x"), "server_unreachable"),
        (NoServer("No server can make clips.", required_nodes=["X"]), "no_server"),
        (HomeUnusable("It is locked.", path="/x"), "home_unusable"),
    ],
)
def test_what_cannot_be_done_now_is_503(rest, studio, monkeypatch, error, code):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(Studio, "submit", fail)
    refused(post(rest, '{"prompt": "x"}'), 503, code)


def test_an_unreachable_server_is_shown_as_such_and_takes_no_job(home):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    with Studio(f"http://127.0.0.1:{port}", home=home) as studio, calling(studio) as rest:
        (server,) = rest.get("/api/anime/queue").json()["servers"]
        assert server["state"] == "unreachable"
        assert server["sentence"]
        refused(post(rest, '{"prompt": "x"}'), 503, "server_unreachable")
        assert rest.get("/api/anime/jobs").json() == {"jobs": [], "total": 0, "next_cursor": None}


def test_what_nobody_foresaw_is_one_sentence_and_the_server_lives(rest, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Studio, "submit", fail)
    answer = post(rest, '{"prompt": "x"}')
    refused(answer, 500, "internal_error")
    assert "secret detail" not in answer.text
    assert rest.get("/api/anime/health").status_code == 200


def test_a_refusal_creates_nothing(rest):
    before = counted(rest)
    post(rest, '{"prompt": "x", "project": "refusals", "width": 1}')
    post(rest, '{"prompt": "x", "project": "refusals"}', "text/plain")
    rest.post("/api/anime/generate/image", json={"prompt": "x", "project": "refusals"}, headers={"Origin": "http://evil.example"})
    assert counted(rest) == before == 0


# ---- hosts, origins, token ---------------------------------------------------------------------------------------------


def raw(rest, *headers, path="/api/anime/health"):
    """The status of a call whose Host is not made by a client library."""
    connection = http.client.HTTPConnection(rest.base_url.host, rest.base_url.port)
    try:
        connection.putrequest("GET", path, skip_host=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def test_only_names_of_this_machine_are_answered(rest):
    port = rest.base_url.port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST", f"[::1]:{port}", "localhost:1"):
        assert raw(rest, ("Host", host)) == 200, host
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost@evil.example", "", "169.254.169.254", "[", "localhost:x"):
        assert raw(rest, ("Host", host)) == 403, host
        assert raw(rest, ("Host", host), path="/") == 403, host
    assert raw(rest, ("Host", "localhost"), ("Host", "evil.example")) in (400, 403)


def test_the_configured_host_is_answered_too(studio):
    with calling(studio, host="draw.home.arpa") as rest:
        assert raw(rest, ("Host", "draw.home.arpa:7860")) == 200
        assert raw(rest, ("Host", "other.home.arpa")) == 403
    with calling(studio, host="0.0.0.0", token="t") as rest:
        bearer = ("Authorization", "Bearer t")
        assert raw(rest, ("Host", "192.168.1.5:7860"), bearer) == 200
        assert raw(rest, ("Host", "evil.example"), bearer) == 403


def test_pages_of_other_origins_are_refused_and_our_own_is_not(rest):
    own = f"http://127.0.0.1:{rest.base_url.port}"
    assert rest.get("/api/anime/health", headers={"Origin": own}).status_code == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"http://localhost:{rest.base_url.port}", "file://", f"{own}.evil.example", f"{own}/x"):
        error = refused(rest.get("/api/anime/health", headers={"Origin": origin}), 403, "origin_refused")
        assert error["message"].endswith(".")
        assert rest.get("/", headers={"Origin": origin}).status_code == 403


def test_a_token_is_asked_for_on_everything_below_api(studio):
    with calling(studio, token="wörd") as rest:
        for path in ("/api/anime/jobs", "/api/anime/health", "/api/docs", "/api/openapi.json", "/api/nothing", "/api/anime/jobs?token=word"):
            answer = rest.get(path)
            refused(answer, 401, "token_required")
            assert answer.headers["www-authenticate"] == "Bearer"
        for wrong in ("Bearer no", "Bearer", "Basic d29yZA==", "wörd".encode(), "Bearer wörd x".encode()):
            refused(rest.get("/api/anime/jobs", headers={"Authorization": wrong}), 401, "token_required")
        for right in ("Bearer wörd".encode(), "bearer  wörd".encode()):
            assert rest.get("/api/anime/health", headers={"Authorization": right}).status_code == 200


# ---- the loop, and the list of routes ----------------------------------------------------------------------------------


def test_a_slow_submit_holds_up_nobody_else(rest, monkeypatch):
    entered, leave = threading.Event(), threading.Event()

    def wait(*args, **kwargs):
        entered.set()
        leave.wait(PATIENCE_S)
        raise NoServer("none")

    monkeypatch.setattr(Studio, "submit", wait)
    waiting = threading.Thread(target=httpx.post, args=(f"{rest.base_url}/api/anime/generate/image",), kwargs={"json": {"prompt": "x"}, "timeout": PATIENCE_S})
    waiting.start()
    try:
        assert entered.wait(PATIENCE_S)
        began = time.monotonic()
        assert rest.get("/api/anime/health").status_code == 200
        assert time.monotonic() - began < 1.0
    finally:
        leave.set()
        waiting.join()


def test_the_routes_are_those_of_the_interface_and_the_page_of_docs_lists_them(rest):
    paths = rest.get("/api/openapi.json").json()["paths"]
    assert {f"{method.upper()} {path.removeprefix('/api/anime')}" for path, methods in paths.items() for method in methods} == {
        "POST /generate/image", "POST /generate/video", "GET /jobs/{job_id}", "GET /jobs", "GET /queue", "POST /jobs/{job_id}/cancel",
        "POST /jobs/{job_id}/retry", "GET /jobs/{job_id}/files/{name}", "GET /health", "GET /models", "GET /stats", "POST /generate/workflow",
        "POST /plan", "POST /validate", "POST /uploads", "GET /missing/{what}", "GET /ask/{question}",
        "GET /health/live", "GET /health/ready", "POST /sql", "GET /session", "POST /session", "DELETE /session",
    }  # fmt: skip
    page = rest.get("/api/docs").text
    assert all(path in page for path in paths)
    assert not re.search(r'(src|href)="https?:', page)  # nothing from elsewhere


def test_every_schema_of_the_description_is_there_and_has_an_example_of_its_own(rest):
    made = rest.get("/api/openapi.json")
    description, components = made.json(), made.json()["components"]["schemas"]
    assert set(re.findall(r'"\$ref":"#/([^"]*)"', made.text)) <= {f"components/schemas/{name}" for name in components}
    for methods in description["paths"].values():
        for about in methods.values():
            assert "4XX" in about["responses"]
            body = about.get("requestBody", {}).get("content", {}).get("application/json")
            assert body is None or set(body["example"]) <= set(components[body["schema"]["$ref"].rsplit("/", 1)[1]]["properties"])


def test_answers_are_what_the_description_says(rest, done):
    for model, path in (
        (schemas.JobSaid, f"jobs/{done['job_id']}"), (schemas.JobsPage, "jobs?limit=50"), (schemas.Queue, "queue"), (schemas.Health, "health"),
        (schemas.Alive, "health/live"), (schemas.Models, "models"), (schemas.Counts, "stats"), (schemas.Missing, "missing/video"),
        (schemas.AnswerSaid, "ask/help"), (schemas.Problem, "jobs/none"),
    ):  # fmt: skip
        model.model_validate(rest.get(f"/api/anime/{path}").json())
    for model, path, body in (
        (schemas.Accepted, "generate/image", schemas.EXAMPLES[schemas.ImageRequest] | SMALL), (schemas.Checked, "validate", {"workflow": GRAPH}),
        (schemas.Accepted, "generate/workflow", schemas.EXAMPLES[schemas.WorkflowBody]), (schemas.Planned, "plan", {"kind": "image", "prompt": "x"}),
    ):  # fmt: skip
        model.model_validate(rest.post(f"/api/anime/{path}", json=body).json())


# ---- pictures to begin with, workflows, plans ------------------------------------------------------------------------------


def png(size=(40, 60)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_comes_in_raw_or_in_a_form_and_is_one_picture(rest):
    raw = rest.post("/api/anime/uploads", content=png(), headers={"Content-Type": "image/png"})
    form = rest.post("/api/anime/uploads", files={"image": ("a.png", png(), "image/png")})
    assert (raw.status_code, form.status_code) == (201, 201)
    assert raw.json() == form.json() == {"sha256": hashlib.sha256(png()).hexdigest(), "width": 40, "height": 60}


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        ({"content": b"MZ a program", "headers": {"Content-Type": "image/png"}}, 422, "request_invalid"),
        ({"content": b"", "headers": {"Content-Type": "image/png"}}, 422, "request_invalid"),
        ({"content": png(), "headers": {"Content-Type": "text/plain"}}, 415, "picture_required"),
        ({"content": png()}, 415, "picture_required"),
        ({"content": b"\0" * 20_000_001, "headers": {"Content-Type": "image/png"}}, 413, "body_too_large"),
        ({"files": {"note": (None, "no file")}}, 400, "file_required"),
        ({"files": {"image": ("a.png", b"\0" * 20_200_000, "image/png")}}, 413, "body_too_large"),
    ],
    ids=["program", "empty", "text", "nothing said", "large", "no file", "large form"],
)
def test_what_is_no_picture_is_refused(rest, call, status, code):
    began = time.monotonic()
    assert refused(rest.post("/api/anime/uploads", **call), status, code)["message"]
    assert time.monotonic() - began < 2.0


def test_a_request_refers_to_an_upload_or_to_a_file_of_a_job(rest, done, studio):
    kept = rest.post("/api/anime/uploads", content=png(), headers={"Content-Type": "image/png"}).json()
    for reference in ({"sha256": kept["sha256"]}, {"job_id": done["job_id"], "number": 1}):
        body = {"kind": "image", "prompt": "a fox", "image": reference, "denoise": 0.5}
        graph = rest.post("/api/anime/plan", json=body).json()["graph"]
        assert not graph or "LoadImage" in {node["class_type"] for node in graph.values()}
    for wrong in ({"sha256": "f" * 64}, {"sha256": "x"}, {"job_id": done["job_id"], "number": 9}, {}, "a.png", 5):
        answer = rest.post("/api/anime/generate/image", json={"prompt": "x", "image": wrong})
        assert answer.status_code == 422, (wrong, answer.text)
    refused(rest.post("/api/anime/generate/image", json={"prompt": "x", "image": {"job_id": "nobody"}}), 404, "job_not_found")


def test_no_path_of_this_machine_is_a_picture_for_a_caller(rest, tmp_path, studio):
    (tmp_path / "private.png").write_bytes(png((3, 3)))
    for path in (str(tmp_path / "private.png"), "/etc/passwd"):
        for kind in ("image", "video"):
            assert refused(rest.post(f"/api/anime/generate/{kind}", json={"prompt": "x", "image": path}), 422, "request_invalid")["field"] == "image"
        body = {"workflow": {**GRAPH, "3": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}, "parameters": {"3.image": path}}
        assert rest.post("/api/anime/generate/workflow", json=body).status_code == 422
    assert not (studio.home / "inputs" / f"{hashlib.sha256(png((3, 3))).hexdigest()}.png").exists()


GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 1}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


def test_a_workflow_is_run_with_parameters_set(rest):
    answer = rest.post("/api/anime/generate/workflow", json={"workflow": GRAPH, "parameters": {"width": 96, "1.color": 255}, "project": "own"})
    assert answer.status_code == 202, answer.text
    job = until(rest, answer.json()["job_id"])
    assert (job["status"], job["kind"], job["project"], job["files"][0]["width"]) == ("done", "workflow", "own", 96)
    error = refused(rest.post("/api/anime/generate/workflow", json={"workflow": GRAPH, "parameters": {"widht": 9}}), 422, "parameter_missing")
    assert "width" in error["hint"]
    refused(rest.post("/api/anime/generate/workflow", json={"workflow": {"1": {"class_type": "Nope", "inputs": {}}}}), 422, "node_unknown")
    refused(rest.post("/api/anime/generate/workflow", json={"workflow": GRAPH, "parameter": {}}), 422, "request_invalid")


def test_a_workflow_is_checked_with_its_parameters_and_limits_and_nothing_is_sent(rest):
    before = rest.get("/api/anime/jobs").json()["total"]
    checked = rest.post("/api/anime/validate", json={"workflow": GRAPH}).json()
    assert (checked["graph"], checked["faults"], checked["notes"]) == (GRAPH, [], [])
    width = checked["parameters"]["width"]
    assert (width["value"], width["minimum"], width["maximum"], width["node_id"], width["input"]) == (64, 1, 16384, "1", "width")
    faulty = rest.post("/api/anime/validate", json={"workflow": {**GRAPH, "1": {"class_type": "EmptyImag", "inputs": {}}}}).json()
    assert [fault["kind"] for fault in faulty["faults"]] == ["unknown_node"]
    assert "Did you mean EmptyImage?" in faulty["faults"][0]["sentence"]
    refused(rest.post("/api/anime/validate", json={"workflow": {"nodes": []}}), 422, "export_unreadable")
    refused(rest.post("/api/anime/validate", json={}), 422, "request_invalid")
    assert rest.get("/api/anime/jobs").json()["total"] == before


def test_a_plan_says_what_would_happen_and_sends_nothing(rest):
    before = rest.get("/api/anime/jobs").json()["total"]
    plan = rest.post("/api/anime/plan", json={"kind": "image", "prompt": "a fox", "seed": 1}).json()
    assert (plan["jobs"], plan["faults"]) == (1, [])
    assert "files are all there" in plan["sentence"]
    assert "KSampler" in {node["class_type"] for node in plan["graph"].values()}
    faulty = rest.post("/api/anime/plan", json={"kind": "image", "prompt": "a fox", "model": "nobody"}).json()
    assert "no model 'nobody'" in faulty["faults"][0]
    refused(rest.post("/api/anime/plan", json={"prompt": "a fox"}), 422, "request_invalid")
    assert rest.get("/api/anime/jobs").json()["total"] == before


def test_what_is_missing_is_listed_with_its_folder(rest):
    assert rest.get("/api/anime/missing/image").json() == {"missing": []}
    refused(rest.get("/api/anime/missing/ilustrious"), 422, "request_invalid")


def test_no_token_or_path_of_the_home_leaves_with_an_answer(studio):
    with calling(studio, token="s3cret") as rest:
        rest.headers["Authorization"] = "Bearer s3cret"
        texts = [rest.get(f"/api/anime/{path}").text for path in ("jobs", "queue", "health", "models", "stats", "jobs/none")]
    assert not any("s3cret" in text or os.fspath(studio.home) in text for text in texts)
