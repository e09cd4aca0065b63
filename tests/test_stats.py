"""stats: the log equals the ledger, is replaced whole, and answers in DuckDB's words."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from filelock import FileLock

from tests.benchmarks.history import made_up_home
from toolkit.errors import HomeUnusable, OutputError, QueryInvalid, RequestInvalid
from toolkit.jobs import Attempt, Eta, Instant, Job, JobStatus, NodeTiming, OutputFile, Timings
from toolkit.ledger.store import Claim, Ledger, NewJob, Outcome
from toolkit.requests import ImageRequest, VideoRequest, WorkflowRequest
from toolkit.stats import Stats, log, tables, workfile
from toolkit.stats.connections import query_errors, without_paths
from toolkit.stats.workfile import Stamp, wal_of

ENGINE = "engine"
GRAPH = {"3": {"class_type": "KSampler", "inputs": {}}}
RECIPE = {
    "family": "sdxl", "model": "animagine", "models": ["animagine", "vae/fix"], "loras": [{"name": "ink", "strength": 0.8}, {"name": "mika", "strength": 1}],
    "preset": "standard", "prompt": "a fox", "negative_prompt": "blur", "sampler": "euler", "scheduler": "normal", "steps": 20, "cfg": 7, "denoise": 1.0,
    "seed": 2**64 - 1, "width": 832, "height": 1216, "batch_size": 2, "graph_hash": "abc", "parameters": {"clip_skip": 2},
}  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "home")
    yield made
    made.close()


@pytest.fixture
def stats(ledger: Ledger) -> Iterator[Stats]:
    made = Stats(ledger)
    yield made
    made.close()


def accepted(ledger: Ledger, count: int = 1, **fields: Any) -> list[Job]:
    return ledger.accept(*(NewJob(ImageRequest(prompt="a fox", **fields), servers=[ENGINE], reuse=False) for _ in range(count)))


def sent(ledger: Ledger, job: Job, recipe: dict[str, Any] | None = None, environment_id: str | None = None) -> tuple[Attempt, int]:
    epoch = ledger.take_server(ENGINE)
    attempt = ledger.sending(Claim(job.id, ENGINE, epoch, GRAPH, RECIPE if recipe is None else recipe, environment_id=environment_id))
    assert attempt is not None
    return attempt, epoch


def stored(job: Job, number: int = 1, **facts: Any) -> OutputFile:
    name = f"fox/{job.id}-{number}.png"
    about = {"kind": "image", "media_type": "image/png", "size_bytes": 1000, "width": 1664, "height": 2432, "node_id": "9", "stored_at": 1.7e9, **facts}
    return OutputFile(number=number, path="", name=name, sha256="e3b0", **about)


def done(ledger: Ledger, job: Job, recipe: dict[str, Any] | None = None, **facts: Any) -> Job:
    attempt, epoch = sent(ledger, job, recipe)
    ledger.record(attempt, epoch, JobStatus.RUNNING, submitted=Instant.now(), started=Instant.now())
    outcome = Outcome(JobStatus.DONE, **{"files": [stored(job)], "timings": Timings(run_s=4.5, warmth="warm", nodes_run=3, timed_by="events"), **facts})
    assert ledger.end(attempt, epoch, outcome)
    return ledger.job(job.id)


def row(stats: Stats, query: str, **parameters: Any) -> dict[str, Any]:
    relation = stats.sql(query, **parameters)
    (values,) = relation.fetchall()
    return dict(zip(relation.columns, values, strict=True))


def value(stats: Stats, query: str, **parameters: Any) -> Any:
    (only,) = row(stats, query, **parameters).values()
    return only


def stamp(path: Path) -> Stamp | None:
    with contextlib.closing(duckdb.connect(":memory:")) as connection:
        connection.execute(f"ATTACH '{path}' AS s (READ_ONLY)")
        connection.execute("USE s")
        return workfile.stamp_of(connection)


class History:
    """Counts which jobs were read from the ledger for the log."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.since: list[int] = []
        self.jobs: list[str] = []
        self._inner = ledger.history_since
        monkeypatch.setattr(ledger, "history_since", self._read)

    def _read(self, revision: int, limit: int = 5000) -> Any:
        found = self._inner(revision, limit)
        self.since.append(revision)
        self.jobs += [job.id for job, _ in found]
        return found


# ---- the tables ---------------------------------------------------------------------------------------------------------------------

# name | type | unit | meaning; a meaning that is empty here may be said in any words
COLUMNS = {
    "jobs": """
job_id | VARCHAR |  | UUID; also the first attempt's prompt_id
group_id | VARCHAR |  | batch, sweep or keyframe-then-clip it belongs to; NULL alone
group_name | VARCHAR |  | the name given to that group
project | VARCHAR |  | project folder
labels | MAP(VARCHAR, VARCHAR) |  | free labels given with the request, e.g. {'probe': 'before'}
kind | VARCHAR |  | image, video, workflow
origin | VARCHAR |  | notebook, page, rest, cli; observed = seen on the server, submitted by something else; imported = read from an older file
person | VARCHAR |  | who asked; 'owner' on a private home; NULL for observed and imported
simulated | BOOLEAN |  | made by the built-in engine; answers and ETAs leave these out
status | VARCHAR |  | created queued submitted running collecting | done done_partial done_no_files rejected failed cancelled removed lost timed_out
failure_kind | VARCHAR |  | oom, missing_model, node_error, server_disk_full, ...; NULL unless failed
failure_node | VARCHAR |  | class of the node that failed
attempts | INTEGER | count | attempts made
server_url | VARCHAR |  | server of the latest attempt
environment_id | VARCHAR |  | the server's configuration at that time (view servers)
family | VARCHAR |  | sdxl, illustrious, anima, wan22_5b, ...; NULL if not recognised
model | VARCHAR |  | main diffusion model: file name, forward slashes, no extension
models | VARCHAR[] |  | every model file of the graph, in graph order
loras | STRUCT(name VARCHAR, strength DOUBLE)[] |  | LoRAs applied, in order
preset | VARCHAR |  | draft, standard, high or NULL
prompt | VARCHAR |  | positive prompt as sent
negative_prompt | VARCHAR |  | negative prompt as sent
sampler | VARCHAR |  | NULL where two samplers differ
scheduler | VARCHAR |  |
steps | INTEGER | steps | summed over samplers
cfg | DOUBLE |  |
denoise | DOUBLE | 0..1 |
seed | UBIGINT |  | 0 .. 2^64-1
width | INTEGER | px | of the final file
height | INTEGER | px | of the final file
batch_size | INTEGER | count | pictures in one latent batch
frames | INTEGER | frames | 1 for pictures
fps | DOUBLE | 1/s | NULL for pictures
clip_s | DOUBLE | s | frames / fps; NULL for pictures
megapixels | DOUBLE | Mpx | width * height * batch_size * frames / 1e6
parameters | JSON |  | every role parameter found in the graph
graph_hash | VARCHAR |  | of the graph without seeds and file prefixes: equal = the same recipe
created_at | TIMESTAMPTZ |  | accepted and in the ledger
submitted_at | TIMESTAMPTZ |  | POSTed to the server
started_at | TIMESTAMPTZ |  | the server began
ended_at | TIMESTAMPTZ |  | final status reached
wait_home_s | DOUBLE | s | accepted -> POSTed: waiting in the toolkit's own line
wait_server_s | DOUBLE | s | POSTed -> execution_start: waiting in the server's queue
run_s | DOUBLE | s | execution_start -> execution_success
load_s | DOUBLE | s | in loader nodes (reading files; weights may move to the device later, see first_step_s)
encode_s | DOUBLE | s | in text, image and VAE encoding nodes
sample_s | DOUBLE | s | in sampler nodes, first step included
decode_s | DOUBLE | s | in VAE decoding nodes
save_s | DOUBLE | s | in output nodes
other_s | DOUBLE | s | run_s minus the five above
fetch_s | DOUBLE | s | download, check and store
total_s | DOUBLE | s | created_at -> ended_at
first_step_s | DOUBLE | s | first step of the longest sampler; far above step_s = weights moved to the device
step_s | DOUBLE | s/step | median of its other steps: the s/it people compare
warmth | VARCHAR |  | cold = a loader node ran; warm = all loaders cached; cached = no sampler ran; NULL unknown
nodes_run | INTEGER | count | nodes executed
nodes_cached | INTEGER | count | nodes the server reused
timed_by | VARCHAR |  | events = socket frames, our monotonic clock; history = the server's own timestamps (no stages, no steps)
files | INTEGER | count | files stored
size_bytes | BIGINT | bytes | of these files
""",
    "nodes": """
job_id | VARCHAR |  |
attempt | INTEGER |  | 1-based
node_id | VARCHAR |  | id in the sent graph
class | VARCHAR |  | class_type
title | VARCHAR |  | title in the user's workflow
stage | VARCHAR |  | load, encode, sample, decode, save, other
model | VARCHAR |  | file a loader reads
cached | BOOLEAN |  | not run, reused
started_at | TIMESTAMPTZ |  |
elapsed_s | DOUBLE | s | 0 if cached
steps | INTEGER | steps | progress maximum
first_step_s | DOUBLE | s |
step_s | DOUBLE | s/step | median of steps 2..
""",
    "outputs": """
job_id | VARCHAR |  |
output | INTEGER |  | 1-based in the job
attempt | INTEGER |  |
node_id | VARCHAR |  |
name | VARCHAR |  | path below the projects folder
media_type | VARCHAR |  |
kind | VARCHAR |  | image, video, audio, text, model3d, latent
size_bytes | BIGINT | bytes |
sha256 | VARCHAR |  |
width | INTEGER | px |
height | INTEGER | px |
frames | INTEGER | frames |
fps | DOUBLE | 1/s |
cached | BOOLEAN |  | the server reused an older file; ours is a copy
temporary | BOOLEAN |  | from a preview node
blank | BOOLEAN |  | one colour or all zero
disk | VARCHAR |  | present, trashed (can be restored), missing (deleted outside the toolkit)
verdict | VARCHAR |  | keep, reject or NULL: the latest rating
stored_at | TIMESTAMPTZ |  |
""",
    "attempts": """
job_id | VARCHAR |  |
attempt | INTEGER |  | 1-based
prompt_id | VARCHAR |  | id on the server
reason | VARCHAR |  | first, lost, asked, output_missing, failover
server_url | VARCHAR |  |
environment_id | VARCHAR |  |
status | VARCHAR |  | final status of this try
failure_kind | VARCHAR |  |
failure_node | VARCHAR |  |
message | VARCHAR |  | first line of the server's error, secrets removed
submitted_at | TIMESTAMPTZ |  |
started_at | TIMESTAMPTZ |  |
ended_at | TIMESTAMPTZ |  |
run_s | DOUBLE | s | server time spent, also when it failed or was cancelled
""",
    "etas": """
job_id | VARCHAR |  |
attempt | INTEGER |  |
moment | VARCHAR |  | accepted, started, p10, p25, p50, p75
target | VARCHAR |  | start or end
basis | VARCHAR |  | history, family (shrunk), this_run (no history yet)
made_at | TIMESTAMPTZ |  |
expected_s | DOUBLE | s | from made_at
low_s | DOUBLE | s | 10th percentile promised
high_s | DOUBLE | s | 90th percentile promised
actual_s | DOUBLE | s | what it was; NULL until known or if the job did not get there
error | DOUBLE | ratio | expected_s / actual_s - 1
inside | BOOLEAN |  | low_s <= actual_s <= high_s
""",
    "servers": """
environment_id | VARCHAR |  |
server_url | VARCHAR |  |
name | VARCHAR |  | the owner's word for the box
simulated | BOOLEAN |  |
device | VARCHAR |  | as /system_stats names it
vram_bytes | BIGINT | bytes | total
comfyui_version | VARCHAR |  |
pytorch_version | VARCHAR |  | with its CUDA or ROCm build, e.g. 2.13.0+cu130; the driver is not visible over HTTP
python_version | VARCHAR |  |
os | VARCHAR |  |
arguments | VARCHAR[] |  | its command line, secrets removed
packs_hash | VARCHAR |  | of the node classes and their modules in /object_info
price_per_hour | DOUBLE | currency/h | set by the owner; NULL unset
first_seen_at | TIMESTAMPTZ |  |
last_seen_at | TIMESTAMPTZ |  |
""",
    "ratings": """
job_id | VARCHAR |  |
output | INTEGER |  | 1-based
person | VARCHAR |  |
verdict | VARCHAR |  | keep, reject
stars | TINYINT | 1..5 | optional
reasons | VARCHAR[] |  | hands, face, anatomy, style, blur, off_prompt, ... or free words
comment | VARCHAR |  |
rated_at | TIMESTAMPTZ |  |
""",
}
SPELT = {"TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE", "STRUCT(name VARCHAR, strength DOUBLE)[]": 'STRUCT("name" VARCHAR, strength DOUBLE)[]'}


@pytest.mark.parametrize("table", COLUMNS)
def test_every_column_has_the_type_and_comment_that_are_promised(stats: Stats, table: str) -> None:
    found = stats.sql("from duckdb_columns() select column_name, data_type, comment where table_name = $table order by column_index", table=table).fetchall()
    promised = [[part.strip() for part in line.split("|", 3)] for line in COLUMNS[table].strip().splitlines()]
    assert [name for name, _, _ in found] == [name for name, *_ in promised]
    for (name, type_, comment), (_, promised_type, unit, meaning) in zip(found, promised, strict=True):
        assert type_ == SPELT.get(promised_type, promised_type), name
        assert comment.startswith(f"{unit}: " if unit else ""), name
        assert comment.removeprefix(f"{unit}: ") == meaning if meaning else len(comment) > len(unit) + 2, name


def test_tables_views_and_their_columns_all_say_what_they_are(stats: Stats) -> None:
    of_ours = "database_name = current_database() and not internal"
    silent = stats.sql(f"from duckdb_columns() select table_name, column_name where comment is null and {of_ours}").fetchall()
    silent += stats.sql(f"from duckdb_tables() select table_name where comment is null and {of_ours}").fetchall()
    silent += stats.sql(f"from duckdb_views() select view_name where comment is null and {of_ours}").fetchall()
    assert silent == []
    for view in tables.VIEWS:
        relation = stats.sql(f"from {view.name}")
        assert list(zip(relation.columns, map(str, relation.types), strict=True)) == [(column.name, column.type) for column in view.columns]


# ---- rows ---------------------------------------------------------------------------------------------------------------------------


def test_a_done_job_is_a_row_with_all_it_was_made_of(ledger: Ledger, stats: Stats) -> None:
    (job,) = accepted(ledger, labels={"probe": "before"}, project="fox")
    job = done(ledger, job)
    found = row(stats, "from jobs")
    assert job.submitted is not None
    assert job.started is not None
    assert job.ended is not None
    assert job.created.until(job.ended) == found["total_s"]
    expected = {
        "job_id": job.id, "project": "fox", "labels": {"probe": "before"}, "kind": "image", "origin": "notebook", "person": "owner", "simulated": True,
        "status": "done", "failure_kind": None, "attempts": 1, "server_url": ENGINE, "prompt": "a fox", "seed": 2**64 - 1, "steps": 20, "cfg": 7.0,
        "width": 1664, "height": 2432, "batch_size": 2, "frames": 1, "fps": None, "clip_s": None, "megapixels": 1664 * 2432 * 2 / 1e6, "run_s": 4.5,
        "warmth": "warm", "nodes_run": 3, "timed_by": "events", "load_s": None, "files": 1, "size_bytes": 1000, "graph_hash": "abc",
        "created_at": job.created.utc, "submitted_at": job.submitted.utc, "started_at": job.started.utc, "ended_at": job.ended.utc,
        "wait_home_s": job.created.until(job.submitted), "wait_server_s": job.submitted.until(job.started), "model": "animagine",
        "models": ["animagine", "vae/fix"], "loras": [{"name": "ink", "strength": 0.8}, {"name": "mika", "strength": 1.0}],
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert json.loads(found["parameters"]) == {"clip_skip": 2}
    assert found["created_at"].utcoffset().total_seconds() == 0


def test_outputs_attempts_and_nodes_equal_the_ledger(ledger: Ledger, stats: Stats) -> None:
    (job,) = accepted(ledger)
    nodes = [
        NodeTiming("1", "CheckpointLoaderSimple", "Load", "load", model="animagine", cached=True, elapsed_s=0.0),
        NodeTiming("3", "KSampler", "KSampler", "sample", started_at=1.7e9, elapsed_s=3.0, steps=20, first_step_s=0.5, step_s=0.13),
    ]
    job = done(ledger, job, nodes=nodes, files=[stored(job, blank=False, cached=True), stored(job, 2, temporary=True)])
    assert stats.sql('from nodes select node_id, "class", stage, model, cached, elapsed_s, steps, step_s order by node_id').fetchall() == [
        ("1", "CheckpointLoaderSimple", "load", "animagine", True, 0.0, None, None),
        ("3", "KSampler", "sample", None, False, 3.0, 20, 0.13),
    ]
    assert value(stats, "from nodes select max(started_at)") == datetime.fromtimestamp(1.7e9, UTC)
    assert stats.sql("from outputs select job_id, output, name, sha256, width, cached, temporary, blank, disk, verdict order by output").fetchall() == [
        (job.id, 1, f"fox/{job.id}-1.png", "e3b0", 1664, True, False, False, "present", None),
        (job.id, 2, f"fox/{job.id}-2.png", "e3b0", 1664, False, True, None, "present", None),
    ]
    attempt = ledger.attempt(job.id)
    assert attempt is not None
    assert stats.sql("from attempts select job_id, attempt, prompt_id, reason, server_url, status, run_s").fetchall() == [
        (job.id, 1, attempt.prompt_id, "first", ENGINE, "done", 4.5)
    ]


def test_a_clip_is_measured_by_its_final_file_and_a_queued_job_by_nothing(ledger: Ledger, stats: Stats) -> None:
    clip, workflow = ledger.accept(
        NewJob(VideoRequest(prompt="a fox runs"), servers=[ENGINE]), NewJob(WorkflowRequest(workflow=GRAPH), servers=["http://127.0.0.1:8188"])
    )
    preview = stored(clip, temporary=True, width=64, height=64)
    film = stored(clip, 2, kind="video", width=832, height=480, frames=49, fps=24.0)
    done(ledger, clip, {"width": 1, "height": 1, "frames": 50, "fps": 16}, files=[preview, film])
    found = row(stats, "from jobs where kind = 'video'")
    assert (found["width"], found["height"], found["frames"], found["fps"], found["clip_s"]) == (832, 480, 49, 24.0, 49 / 24)
    assert found["megapixels"] == pytest.approx(832 * 480 * 49 / 1e6)
    waiting = row(stats, "from jobs where kind = 'workflow'")
    unknown = ("width", "frames", "fps", "megapixels", "seed", "prompt", "model", "models", "started_at", "run_s", "total_s", "environment_id", "server_url")
    assert {name for name in unknown if waiting[name] is not None} == set()
    assert (waiting["job_id"], waiting["status"], waiting["simulated"]) == (workflow.id, "queued", False)


def test_servers_carry_their_facts_and_period(ledger: Ledger, stats: Stats) -> None:
    facts = {"device": "cuda:0 RTX", "vram_bytes": 25_000_000_000, "arguments": ["main.py", "--listen"], "price_per_hour": 0.4, "simulated": False}
    environment_id = ledger.remember_server("http://127.0.0.1:8188", facts, None, None)
    found = row(stats, "from servers")
    assert {name: found[name] for name in facts} == facts
    assert (found["environment_id"], found["server_url"], found["os"]) == (environment_id, "http://127.0.0.1:8188", None)
    before = found["last_seen_at"]
    ledger.remember_server("http://127.0.0.1:8188", facts, None, None)
    assert value(stats, "from servers select last_seen_at") > before
    ledger.name_server("http://127.0.0.1:8188", "attic", 0.5)
    assert row(stats, "from servers select name, price_per_hour") == {"name": "attic", "price_per_hour": 0.4}, "the price holds from the next look"
    environment_id = ledger.remember_server("http://127.0.0.1:8188", facts, None, None)
    assert stats.sql("from servers select name, price_per_hour order by first_seen_at").fetchall() == [("attic", 0.4), ("attic", 0.5)]
    (job,) = accepted(ledger)
    sent(ledger, job, environment_id=environment_id)
    assert row(stats, "from jobs join servers using (environment_id) select device, price_per_hour") == {"device": "cuda:0 RTX", "price_per_hour": 0.5}


def test_a_failure_says_where_in_both_tables(ledger: Ledger, stats: Stats) -> None:
    (job,) = accepted(ledger)
    attempt, epoch = sent(ledger, job)
    started = Instant(100.0)
    ledger.record(attempt, epoch, JobStatus.RUNNING, started=started)
    ended = Instant(103.5)
    ledger.end(attempt, epoch, Outcome(JobStatus.FAILED, error="Out of memory\nat 3", failure_kind="oom", failure_node="KSampler", ended=ended))
    found = row(
        stats, "from attempts join jobs using (job_id) select attempts.* exclude job_id, jobs.failure_kind as of_job, files, size_bytes, jobs.run_s as ran"
    )
    assert (found["status"], found["failure_kind"], found["failure_node"], found["message"]) == ("failed", "oom", "KSampler", "Out of memory")
    assert (found["of_job"], found["files"], found["size_bytes"], found["ran"]) == ("oom", 0, 0, None)
    assert found["run_s"] == 3.5  # spent although it failed


def test_predictions_are_rows_with_their_error(ledger: Ledger, stats: Stats) -> None:
    made = Instant(1.7e9)
    etas = [
        Eta("accepted", "start", "family", made, 2.0, 1.0, 3.0, 4.0), Eta("started", "end", "history", made, 5.0, 4.0, 6.0, 4.0),
        Eta("p50", "end", "this_run", made, 5.0, 4.0, 6.0, None), Eta("accepted", "end", "history", made, 0.0, 0.0, 1.0, 0.0),
    ]  # fmt: skip
    job = done(ledger, accepted(ledger)[0], etas=etas)
    found = stats.sql("from etas select job_id, attempt, moment, target, basis, expected_s, actual_s, error, inside order by moment, target").fetchall()
    assert found == [
        (job.id, 1, "accepted", "end", "history", 0.0, 0.0, None, True), (job.id, 1, "accepted", "start", "family", 2.0, 4.0, -0.5, False),
        (job.id, 1, "p50", "end", "this_run", 5.0, None, None, None), (job.id, 1, "started", "end", "history", 5.0, 4.0, 0.25, True),
    ]  # fmt: skip
    assert row(stats, "from etas select low_s, high_s, made_at where moment = 'started'") == {"low_s": 4.0, "high_s": 6.0, "made_at": made.utc}
    again = ledger.accept(NewJob(ImageRequest(prompt="a fox"), [ENGINE], retry_of=job.id))[0]
    done(ledger, again, etas=etas[:1])
    assert sorted(stats.sql("from etas select job_id, count(*) group by all").fetchall()) == sorted([(job.id, 4), (again.id, 1)])


def test_what_does_not_fit_a_column_is_null_and_stops_nothing(ledger: Ledger, stats: Stats) -> None:
    odd = {
        "steps": 2**40, "cfg": "seven", "denoise": math.nan, "seed": -1, "models": "one", "loras": [{"strength": "x"}, 5], "sampler": "\ud800x", "width": [1],
        "batch_size": 1.5, "parameters": {"a": math.inf, "b": "\ud800"}, "scheduler": 3, "model": "nul\0",
    }  # fmt: skip
    (job,) = accepted(ledger)
    attempt, epoch = sent(ledger, job, odd)
    ledger.record(attempt, epoch, started=Instant(1e18))
    found = row(stats, "from jobs")
    assert [found[name] for name in ("steps", "cfg", "denoise", "seed", "models", "width", "batch_size", "started_at")] == [None] * 8
    assert (found["sampler"], found["scheduler"], found["model"], found["loras"]) == ("?x", "3", "nul\0", [{"name": "", "strength": None}])
    assert json.loads(found["parameters"]) == {"a": None, "b": "?"}


def test_views_unfold_models_and_count_days(ledger: Ledger, stats: Stats) -> None:
    job = done(ledger, accepted(ledger)[0])
    accepted(ledger, 2)
    assert stats.sql("from models order by kind desc, place").fetchall() == [
        (job.id, "model", 1, "animagine", None), (job.id, "model", 2, "vae/fix", None), (job.id, "lora", 1, "ink", 0.8), (job.id, "lora", 2, "mika", 1.0),
    ]  # fmt: skip
    found = row(stats, "select sum(jobs) as jobs, sum(done) as done, sum(failed) as failed, sum(run_s) as run_s from daily")
    assert found == {"jobs": 3, "done": 1, "failed": 0, "run_s": 4.5}


QUESTIONS = {
    text.split(":", 1)[0]: text.split("\n", 1)[1].strip().removesuffix(";")
    for text in (Path(__file__).parents[1] / "toolkit" / "analysis" / "questions.sql").read_text(encoding="utf-8").split("\n-- ")[1:]
}


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stats]:
    """The log of a made-up home of 3,000 jobs."""
    home = tmp_path_factory.mktemp("past")
    made_up_home(home, 3000, waiting=20)
    with contextlib.closing(Ledger(home)) as ledger:
        made = Stats(ledger)
        yield made
        made.close()


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_runs_word_for_word(past: Stats, question: str) -> None:
    relation = past.sql(QUESTIONS[question])
    found = relation.fetchall()
    by_chance = {"people", "probe", "winners", "upgrade"}  # of the last week; of one job in a thousand; of eight of one recipe
    assert found or question in by_chance, question
    rare = {"before", "after", "version_before"} | ({"comfyui_version", "price_per_hour"} if question in by_chance else set())
    silent = [name for place, name in enumerate(relation.columns) if found and name not in rare and all(row[place] is None for row in found)]
    assert silent == [], "a column that knows nothing"


def test_there_are_eighteen_questions() -> None:
    assert len(QUESTIONS) == 18


def test_every_column_is_filled_by_some_job_of_a_long_past(past: Stats) -> None:
    for table in tables.TABLES:
        (counts,) = past.sql(f"select count(columns(*)) from {table.name}").fetchall()
        silent = {column.name for column, count in zip(table.columns, counts, strict=True) if not count}
        made_up = {"servers": {"pytorch_version", "python_version"}, "nodes": set[str](), "ratings": {"stars", "comment"}}
        assert silent <= made_up.get(table.name, set()), (table.name, silent)


def test_a_job_of_two_attempts_waited_in_line_twice_and_a_lost_run_lasted_nobody_knows_how_long(ledger: Ledger, stats: Stats) -> None:
    (job,) = accepted(ledger)
    attempt, epoch = sent(ledger, job)
    ledger.record(attempt, epoch, JobStatus.RUNNING, started=Instant.now())
    ledger.end(attempt, epoch, Outcome(JobStatus.LOST, again=True))
    first = ledger.attempt(job.id)
    assert value(stats, "from jobs select wait_home_s") == job.created.until(first.sent if first else None)
    job = done(ledger, job, timings=Timings(run_s=4.5, wait_home_s=99.0))
    second = ledger.attempt(job.id)
    assert first is not None
    assert second is not None
    assert first.ended is not None
    waited = (job.created.until(first.sent) or 0) + (first.ended.until(second.sent) or 0)
    assert row(stats, "from jobs select attempts, wait_home_s") == {"attempts": 2, "wait_home_s": pytest.approx(waited)}
    assert stats.sql("from attempts select attempt, status, run_s order by attempt").fetchall() == [(1, "lost", None), (2, "done", 4.5)]
    with ledger._database.transaction() as connection:
        connection.execute("UPDATE attempts SET ended = NULL WHERE number = 1")
    ledger.ask_cancel(accepted(ledger)[0].id)
    (job,) = accepted(ledger)
    attempt, epoch = sent(ledger, job)
    ledger.record(attempt, epoch, JobStatus.RUNNING, started=Instant(100.0))
    ledger.end(attempt, epoch, Outcome(JobStatus.CANCELLED, ended=Instant(107.0)))
    assert value(stats, "from attempts select run_s where status = 'cancelled'") == 7.0


def test_a_judgement_is_a_row_and_the_latest_one_is_the_outputs_verdict(ledger: Ledger, stats: Stats) -> None:
    (job,) = accepted(ledger)
    job = done(ledger, job, files=[stored(job), stored(job, 2)])
    judged = [("ann", "keep", 5, '["style"]', "yes", 10.0), ("ben", "reject", None, "[]", None, 20.0)]
    with ledger._database.transaction() as connection:
        for values in judged:
            connection.execute(
                "INSERT INTO ratings (job_id, output, person, verdict, stars, reasons, comment, rated_at) VALUES (?, 1, ?, ?, ?, ?, ?, ?)", (job.id, *values)
            )
        connection.execute("UPDATE jobs SET revision = (SELECT revision FROM counter)")
    assert stats.sql("from outputs select output, verdict order by output").fetchall() == [(1, "reject"), (2, None)]
    assert stats.sql("from ratings select job_id, output, person, verdict, stars, reasons, comment, epoch(rated_at) order by rated_at").fetchall() == [
        (job.id, 1, "ann", "keep", 5, ["style"], "yes", 10.0), (job.id, 1, "ben", "reject", None, [], None, 20.0),
    ]  # fmt: skip


# ---- publish ------------------------------------------------------------------------------------------------------------------------


def test_a_changed_job_replaces_its_rows_and_doubles_none(ledger: Ledger, stats: Stats) -> None:
    first, second = accepted(ledger, 2)
    assert stats.publish()
    assert not stats.publish()
    done(ledger, first)
    assert stats.publish()
    assert sorted(stats.sql("from jobs select job_id, status").fetchall()) == sorted([(first.id, "done"), (second.id, "queued")])
    attempt, epoch = sent(ledger, second)
    stats.publish()
    ledger.end(attempt, epoch, Outcome(JobStatus.LOST, again=True))
    sent(ledger, second)
    assert stats.publish()
    assert stats.sql("from attempts select attempt, status where job_id = $id order by attempt", id=second.id).fetchall() == [(1, "lost"), (2, "submitted")]
    assert value(stats, "select count(*) from jobs") == 2
    assert value(stats, "select count(*) from outputs") == 1


def test_a_deleted_job_leaves_the_log_too(ledger: Ledger, stats: Stats) -> None:
    job, other = accepted(ledger, 2)
    done(ledger, job, files=[stored(job)])
    assert value(stats, "select count(*) from jobs") == 2
    ledger.forget([job.id])
    assert stats.sql("select job_id from jobs").fetchall() == [(other.id,)]
    assert value(stats, "select count(*) from outputs") == 0


def test_only_changed_jobs_are_read_again(ledger: Ledger, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = accepted(ledger, 5)
    stats.publish()
    before = ledger.revision()
    history = History(ledger, monkeypatch)
    done(ledger, jobs[2])
    assert stats.publish()
    assert history.since == [before]
    assert history.jobs == [jobs[2].id]
    stats.sql("from jobs").fetchall()
    assert len(history.since) == 1  # it was current: the ledger was not read


def test_batches_cover_everything_even_what_changes_while_they_are_read(ledger: Ledger, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [accepted(ledger)[0] for _ in range(7)]
    monkeypatch.setattr(workfile, "BATCH", 2)
    inner = ledger.history_since
    changed = iter([jobs[1], jobs[6]])

    def changing(revision: int, limit: int) -> Any:
        job = next(changed, None)
        if job is not None:
            ledger.ask_cancel(job.id)
        return inner(revision, limit)

    monkeypatch.setattr(ledger, "history_since", changing)
    assert stats.publish()
    assert stats.publish()  # what changed meanwhile
    assert not stats.publish()
    expected = {job.id: "cancelled" if job in (jobs[1], jobs[6]) else "queued" for job in jobs}
    assert dict(stats.sql("from jobs select job_id, status").fetchall()) == expected
    assert value(stats, "select count(*) from jobs") == 7


def test_jobs_accepted_together_are_never_parted_by_a_batch(ledger: Ledger, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workfile, "BATCH", 3)
    for count in (2, 7, 1, 4):  # the jobs of one accept share a revision
        accepted(ledger, count)
    assert value(stats, "select count(distinct job_id) from jobs") == value(stats, "select count(*) from jobs") == 14


def test_at_most_every_waits_for_its_time(ledger: Ledger, stats: Stats) -> None:
    assert stats.publish(at_most_every_s=60)
    accepted(ledger)
    assert not stats.publish(at_most_every_s=60)
    os.utime(stats.path, (time.time() - 61,) * 2)
    assert stats.publish(at_most_every_s=60)
    os.utime(stats.path, (time.time() + 999,) * 2)  # the clock was set back
    accepted(ledger)
    assert stats.publish(at_most_every_s=60)


def test_the_published_file_is_read_only_and_has_no_wal(ledger: Ledger, stats: Stats) -> None:
    accepted(ledger)
    stats.publish()
    wal_of(stats.path).write_bytes(b"stray")
    before = stamp(stats.path)
    accepted(ledger)
    stats.publish()
    assert stats.path.stat().st_mode & 0o777 == 0o444
    assert {path.name for path in ledger.home.glob("stats*")} == {"stats.duckdb", "stats.work.duckdb"}
    assert stamp(stats.path) == (ledger.id, tables.SCHEMA, ledger.revision())
    assert stamp(stats.work_path) == before, "the two take turns"


def test_two_files_take_turns_and_none_is_copied_while_nobody_holds_the_older_one(ledger: Ledger, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(ledger)
    stats.publish()
    files = {stats.path.stat().st_ino, stats.work_path.stat().st_ino}
    with monkeypatch.context() as patch:
        patch.setattr(workfile.shutil, "copyfile", lambda *_: pytest.fail("copied"))
        for number in range(2, 6):
            accepted(ledger)
            assert value(stats, "select count(*) from jobs") == number
            assert {stats.path.stat().st_ino, stats.work_path.stat().st_ino} == files
    held = stats.sql("select count(*) from jobs")
    for _ in range(3):
        accepted(ledger)
        stats.publish()
    assert value(stats, "select count(*) from jobs") == 8
    assert held.fetchall() == [(5,)], "a relation keeps the version that it was asked of"


@pytest.mark.parametrize("reason", ["no leases", "no links", "not linux"])
def test_where_files_cannot_take_turns_they_are_copied(ledger: Ledger, stats: Stats, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EINVAL, "not here")

    match reason:
        case "no leases":
            monkeypatch.setattr(fcntl, "fcntl", refuse)
        case "no links":
            monkeypatch.setattr(os, "link", refuse)
        case _:
            monkeypatch.setattr(sys, "platform", "darwin")
    for number in range(1, 4):
        accepted(ledger)
        assert value(stats, "select count(*) from jobs") == number
    assert {path.name for path in ledger.home.glob("stats*")} == {"stats.duckdb", "stats.work.duckdb"}


def test_an_exchange_that_is_killed_between_its_steps_is_made_good_without_the_ledger(ledger: Ledger, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        accepted(ledger)
        stats.publish()
    stats.close()
    os.replace(stats.work_path, ledger.home / "stats.old.duckdb")
    accepted(ledger)
    history = History(ledger, monkeypatch)
    assert value(stats, "select count(*) from jobs") == 3
    assert 0 not in history.since
    assert {path.name for path in ledger.home.glob("stats*")} == {"stats.duckdb", "stats.work.duckdb"}


@pytest.mark.parametrize("damage", ["garbage", "empty", "cut", "flipped", "other database", "orphan wal", "corrupt wal"])
def test_made_anew_when_the_working_file_is_of_no_use(ledger: Ledger, stats: Stats, damage: str) -> None:
    jobs = accepted(ledger, 50)
    stats.publish()
    whole = stats.work_path.read_bytes()
    match damage:
        case "garbage":
            stats.work_path.write_bytes(b"no database" * 1000)
        case "empty":
            stats.work_path.write_bytes(b"")
        case "cut":
            stats.work_path.write_bytes(whole[:20_000])
        case "flipped":
            stats.work_path.write_bytes(whole[:13_000] + bytes(byte ^ 255 for byte in whole[13_000:]))
        case "other database":
            stats.work_path.unlink()
            with contextlib.closing(duckdb.connect(":memory:")) as connection:
                connection.execute(f"ATTACH '{stats.work_path}' AS other")
                connection.execute("CREATE TABLE other.jobs (job_id VARCHAR)")
        case "orphan wal":
            stats.work_path.unlink()
            wal_of(stats.work_path).write_bytes(b"of a file that is gone")
        case _:
            wal_of(stats.work_path).write_bytes(b"\x63\x00\x00torn" * 100)
    ledger.ask_cancel(jobs[0].id)
    assert value(stats, "select count(*) from jobs where status = 'queued'") == 49
    assert value(stats, "select count(*) from jobs") == 50


def test_made_anew_when_ledger_or_schema_differ_or_the_ledger_went_back(ledger: Ledger, stats: Stats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        accepted(ledger)
    stats.publish()
    with contextlib.closing(Ledger(tmp_path / "other")) as other:
        accepted(other)
        elsewhere = Stats(other)
        for name in (stats.path.name, stats.work_path.name):
            (other.home / name).write_bytes((ledger.home / name).read_bytes())
        assert value(elsewhere, "select count(*) from jobs") == 1
        elsewhere.close()
    history = History(ledger, monkeypatch)
    monkeypatch.setattr(workfile, "SCHEMA", "next")
    monkeypatch.setattr(log, "SCHEMA", "next")
    assert stats.publish()
    assert history.since == [0]
    monkeypatch.setattr(ledger, "revision", lambda: 2)  # restored from an older backup
    assert stats.publish()
    assert history.since == [0, 0]
    made = stamp(stats.path)
    assert made is not None
    assert made.revision == 2


def test_a_damaged_published_file_is_replaced_from_the_working_file(ledger: Ledger, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(ledger)
    stats.publish()
    history = History(ledger, monkeypatch)
    stats.path.chmod(0o644)
    stats.path.write_bytes(b"garbage")
    assert value(stats, "select count(*) from jobs") == 1
    stats.path.unlink()
    assert value(stats, "select count(*) from jobs") == 1
    assert history.since == []


LIMITED = """
import resource, sys
from pathlib import Path
from toolkit.errors import HomeUnusable
from toolkit.ledger.store import Ledger
from toolkit.stats import Stats
ledger = Ledger(Path(sys.argv[1])); ledger.revision(); stats = Stats(ledger)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    stats.publish()
except HomeUnusable as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("limit", [300_000, 1_100_000])
def test_a_full_disk_leaves_the_old_file_and_says_so(ledger: Ledger, stats: Stats, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(ledger)
    stats.publish()
    before = stats.path.read_bytes()
    ledger.accept(*(NewJob(ImageRequest(prompt=os.urandom(500).hex()), servers=[ENGINE]) for _ in range(3000)))
    said = subprocess.run([sys.executable, "-c", LIMITED, str(ledger.home), str(limit)], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"HomeUnusable The disk of {ledger.home} is full. Make room; nothing is lost."
    assert stats.path.read_bytes() == before
    assert not (ledger.home / "stats.new.duckdb").exists()
    history = History(ledger, monkeypatch)
    assert value(stats, "select count(*) from jobs") == 3001  # with room again it goes on from where it was
    assert 0 not in history.since


KILLED = """
import os, sys
from pathlib import Path
from toolkit.ledger.store import Ledger
from toolkit.stats import Stats, workfile
catch_up = workfile._catch_up
workfile._catch_up = lambda *known: (catch_up(*known), os._exit(9))
Stats(Ledger(Path(sys.argv[1]))).publish()
"""


def test_a_publisher_that_is_killed_leaves_a_state_to_go_on_from(ledger: Ledger, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(ledger)
    stats.publish()
    before = stats.path.read_bytes()
    accepted(ledger, 3)
    assert subprocess.run([sys.executable, "-c", KILLED, str(ledger.home)], check=False).returncode == 9
    assert wal_of(stats.work_path).exists()
    assert stats.path.read_bytes() == before
    (ledger.home / "stats.new.duckdb").write_bytes(b"half a copy")
    history = History(ledger, monkeypatch)
    assert value(stats, "select count(*) from jobs") == 4
    assert history.since == []  # its transaction was whole
    assert {path.name for path in ledger.home.glob("stats*")} == {"stats.duckdb", "stats.work.duckdb"}


def test_rows_and_stamp_change_together_or_not_at_all(ledger: Ledger, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(ledger, 2)
    stats.publish()
    before = stamp(stats.work_path)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "environments", lambda: 1 / 0)  # after the jobs' rows, before the stamp
        accepted(ledger)
        with pytest.raises(ZeroDivisionError):
            stats.publish()
    assert stamp(stats.work_path) == stamp(stats.path) == before
    assert value(stats, "select count(*) from jobs") == 3


HOLDER = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); c.execute('create table mine (x int)'); print('held', flush=True); sys.stdin.readline()"


def test_a_working_file_that_somebody_opened_is_named_and_never_made_anew(ledger: Ledger, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(ledger)
    stats.publish()
    accepted(ledger)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(stats.work_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(HomeUnusable, match=r"stats\.work\.duckdb is open in another program"):
            stats.publish()
        holder.communicate("\n")
    history = History(ledger, monkeypatch)
    assert stats.publish()
    assert 0 not in history.since


def test_damage_found_by_a_query_says_what_to_remove() -> None:
    with pytest.raises(HomeUnusable, match=r"The log is damaged.*Remove stats\.duckdb and stats\.work\.duckdb"), query_errors():
        raise duckdb.Error("Corrupt database file: computed checksum 1 does not match stored checksum 2 in block at location 536576")
    with pytest.raises(QueryInvalid), query_errors():  # a prompt may say Corrupt, too
        raise duckdb.ConversionException("Could not convert string 'Corrupt' to INT32")


def test_a_held_lock_is_waited_for_and_then_named(ledger: Ledger, stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LOCK_TIMEOUT_S", 0.05)
    (ledger.home / "locks").mkdir(exist_ok=True)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(ledger.home / "locks" / "stats.lock", thread_local=False):
            held.set()
            free.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    try:
        with pytest.raises(HomeUnusable, match=r"Another process has been publishing the log for 0.05 s"):
            stats.publish()
    finally:
        free.set()
        thread.join()
    assert stats.publish()


PUBLISHER = """
import sys
from pathlib import Path
from toolkit.ledger.store import Ledger, NewJob
from toolkit.requests import ImageRequest
from toolkit.stats import Stats
ledger = Ledger(Path(sys.argv[1])); stats = Stats(ledger)
print("ready", flush=True); sys.stdin.readline()
for n in range(8):
    (job,) = ledger.accept(NewJob(ImageRequest(prompt=f"{sys.argv[2]} {n}"), servers=["engine"]))
    stats.publish()
    found = stats.sql("select count(*), count(distinct job_id), count(*) filter (job_id = $id) from jobs", id=job.id).fetchall()[0]
    assert found[0] == found[1] and found[2] == 1, found
"""


def test_two_processes_publishing_at_once_lose_nothing(ledger: Ledger, stats: Stats) -> None:
    command = [sys.executable, "-W", "error", "-c", PUBLISHER, str(ledger.home)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, name], **pipes) for name in ("a", "b")]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 0
    ids = [found for (found,) in stats.sql("from jobs select job_id order by job_id").fetchall()]
    assert ids == sorted(job.id for job in ledger.jobs(limit=100))
    assert len(ids) == 16


def test_threads_publish_and_ask_at_once(ledger: Ledger, stats: Stats) -> None:
    def work(number: int) -> int:
        (job,) = accepted(ledger, project=f"p{number}")
        return int(value(stats, "select count(*) from jobs where job_id = $id", id=job.id))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(24))) == [1] * 24
    assert value(stats, "select count(*) from jobs") == 24


# ---- ask ----------------------------------------------------------------------------------------------------------------------------


def test_who_holds_an_older_version_keeps_it_whole(ledger: Ledger, stats: Stats) -> None:
    accepted(ledger, 2)
    old = stats.sql("from jobs")
    unread = stats.sql("select count(*) from jobs")
    accepted(ledger, 3)
    assert len(stats.sql("from jobs").fetchall()) == 5
    gc.collect()
    assert len(old.fetchall()) == 2
    assert unread.fetchall() == [(2,)]
    stats.close()
    assert len(old.fetchall()) == 2
    assert len(stats.sql("from jobs").fetchall()) == 5


def test_results_do_not_block_one_another(ledger: Ledger, stats: Stats) -> None:
    accepted(ledger, 3)
    first, second = stats.sql("from jobs"), stats.sql("from range(100000)")
    second.limit(1).fetchall()
    assert len(first.filter("status = 'queued'").fetchall()) == 3
    assert len(second.fetchall()) == 100000


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # duckdb 2.0.0 with pandas 3.1
def test_a_relation_becomes_a_frame_with_times_in_utc(ledger: Ledger, stats: Stats) -> None:
    (job,) = accepted(ledger)
    frame = stats.sql("from jobs select job_id, created_at, seed").df()
    assert frame["job_id"].tolist() == [job.id]
    assert frame["created_at"][0].to_pydatetime() == job.created.utc


def test_parameters_are_values_and_never_sql(ledger: Ledger, stats: Stats) -> None:
    accepted(ledger, labels={"who": "it's"})
    assert value(stats, "select count(*) from jobs where labels['who'] = $who", who="it's") == 1
    assert value(stats, "select count(*) from jobs where labels['who'] = $who", who="x' or 1=1") == 0
    with pytest.raises(QueryInvalid, match=r"Values were not provided for the following parameters: project"):
        stats.sql("from jobs where project = $project")
    with pytest.raises(QueryInvalid, match="Expected 0, got 1"):
        stats.sql("from jobs", project="fox")


def test_a_faulty_query_is_answered_in_duckdbs_words_without_paths(stats: Stats) -> None:
    with pytest.raises(QueryInvalid, match=r'(?s)Referenced column "modle".*Candidate bindings.*"model"') as caught:
        stats.sql("select modle from jobs")
    assert isinstance(caught.value.__cause__, duckdb.Error)
    with pytest.raises(QueryInvalid, match=r"(?s)syntax error.*LINE 1: selec a/b/c from jobs"):
        stats.sql("selec a/b/c from jobs")
    with pytest.raises(QueryInvalid, match=r'Table with name jbs does not exist!\n?.*Did you mean "jobs"'):
        stats.sql("from jbs")
    for query in ("from '/etc/secret dir/none.csv'", "from read_parquet('/etc/none/none.parquet')", f"from read_csv('{stats.path.with_name('x.csv')}')"):
        with pytest.raises(QueryInvalid) as caught:
            stats.sql(query).fetchall()
        message = str(caught.value).partition("\nLINE ")[0]
        assert "/etc" not in message
        assert str(stats.path.parent) not in message


def test_paths_are_cut_and_links_and_arithmetic_stay() -> None:
    assert without_paths('IO Error: "/home/ann/my home/x.duckdb" and /opt/py/bin/python (PID 1)') == 'IO Error: "x.duckdb" and python (PID 1)'
    assert without_paths("See https://duckdb.org/docs/current") == "See https://duckdb.org/docs/current"
    assert without_paths("Could not convert '2026/11/22'\n\nLINE 1: select a /b/c") == "Could not convert '2026/11/22'\n\nLINE 1: select a /b/c"


def test_an_error_found_while_fetching_can_be_translated_too(ledger: Ledger, stats: Stats) -> None:
    accepted(ledger)
    relation = stats.sql("select prompt::int from jobs")
    with pytest.raises(QueryInvalid, match="Could not convert string 'a fox' to INT32"), query_errors():
        relation.fetchall()


@pytest.mark.parametrize(
    "query",
    [
        "delete from jobs", "insert into jobs (job_id) values ('x')", "update jobs set status = 'done'", "drop table jobs", "create table t (a int)",
        "create temp table t as from jobs", "copy jobs to 'jobs.csv'", "attach 'x.duckdb'", "use memory", "set threads = 1", "checkpoint", "begin",
        "export database 'x'", "install httpfs", "pragma enable_profiling",
    ],
)  # fmt: skip
def test_writing_is_refused(stats: Stats, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stats.publish()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(QueryInvalid, match=r"^The log is read-only: [A-Z]+ is no query\."):
        stats.sql(query)
    assert sorted(tmp_path.rglob("*")) == before


def test_one_statement_at_a_time(stats: Stats) -> None:
    for query in ("select 1; drop table jobs", "from jobs; from nodes;"):
        with pytest.raises(QueryInvalid, match=r"^One statement at a time: these are 2\."):
            stats.sql(query)
    with pytest.raises(QueryInvalid, match=r"^The query is empty\."):
        stats.sql("  -- nothing")
    assert stats.sql("-- a comment\nselect ';'; -- another").fetchall() == [(";",)]


@pytest.mark.parametrize("query", ["describe jobs", "show tables", "summarize jobs", "explain from jobs", "pivot jobs on status using count(*)", "values (1)"])
def test_every_way_of_reading_is_a_query(ledger: Ledger, stats: Stats, query: str) -> None:
    accepted(ledger)
    assert len(stats.sql(query).fetchall()) >= 1


def test_a_misspelt_table_is_never_a_python_variable(stats: Stats) -> None:
    for name in ("query", "parameters", "statement", "stats"):
        with pytest.raises(QueryInvalid, match="does not exist"):
            stats.sql(f"from {name}")


# ---- export -------------------------------------------------------------------------------------------------------------------------


def test_an_exported_database_opens_anywhere_with_its_comments(ledger: Ledger, stats: Stats, tmp_path: Path) -> None:
    job = done(ledger, accepted(ledger)[0])
    target = stats.export(tmp_path / "out" / "it's mine.duckdb")
    stats.export(target)
    assert target.stat().st_mode & 0o200
    with contextlib.closing(duckdb.connect(str(target))) as connection:
        assert connection.execute("select job_id from jobs").fetchall() == [(job.id,)]
        assert connection.execute("select count(*) from models").fetchall() == [(4,)]
        comments = connection.execute("select count(*) from duckdb_columns() where comment is null and not internal").fetchall()
        assert comments == [(0,)]
        assert "v1.2.0" in str(connection.execute("select tags from duckdb_databases() where not internal").fetchall())
        connection.execute("delete from jobs")  # theirs to change
    assert value(stats, "select count(*) from jobs") == 1


def test_exported_parquet_and_csv_open_again(ledger: Ledger, stats: Stats, tmp_path: Path) -> None:
    job = done(ledger, accepted(ledger, labels={"probe": "a"})[0])
    folder = stats.export(str(tmp_path / "log.parquet"))
    assert {path.name for path in folder.iterdir()} == {f"{table.name}.parquet" for table in tables.TABLES}
    sheet = stats.export(tmp_path / "log.csv")
    with contextlib.closing(duckdb.connect(":memory:")) as connection:
        (found,) = connection.execute(f"select job_id, seed, created_at, labels, loras from '{folder}/jobs.parquet'").fetchall()
        assert found == (job.id, 2**64 - 1, job.created.utc, {"probe": "a"}, [{"name": "ink", "strength": 0.8}, {"name": "mika", "strength": 1.0}])
        (told,) = connection.execute(f"select job_id, seed, created_at from '{sheet}'").fetchall()
        assert told == (job.id, 2**64 - 1, job.created.utc)
    assert stats.export(folder) == folder


def test_exports_elsewhere_are_refused(stats: Stats, tmp_path: Path) -> None:
    for name in ("log.xlsx", "log", "log.json"):
        with pytest.raises(RequestInvalid, match=r"end it in \.duckdb, \.parquet"):
            stats.export(tmp_path / name)
    for own in (stats.path, stats.work_path):
        with pytest.raises(RequestInvalid, match="the home's own log"):
            stats.export(own)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.duckdb").mkdir()
    (tmp_path / "file.parquet").write_text("")
    for place in (tmp_path / "file" / "log.csv", tmp_path / "folder.duckdb", tmp_path / "file.parquet"):
        with pytest.raises(OutputError, match="cannot be written"):
            stats.export(place)
    assert not (tmp_path / "folder.duckdb.new").exists()


# ---- cost ---------------------------------------------------------------------------------------------------------------------------


def test_importing_the_toolkit_loads_no_duckdb() -> None:
    code = "import sys, toolkit, toolkit.stats; assert 'duckdb' not in sys.modules and 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.no_cover
def test_many_jobs_are_published_and_asked(ledger: Ledger, stats: Stats, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.accept(*(NewJob(ImageRequest(prompt=f"fox {n}", seed=n), servers=[ENGINE], reuse=False) for n in range(20_000)))
    seconds = [time.perf_counter()]
    stats.publish()
    seconds.append(time.perf_counter())
    done(ledger, ledger.latest())
    stats.publish()
    seconds.append(time.perf_counter())
    assert value(stats, "select count(distinct job_id) from jobs") == 20_000
    with capsys.disabled():
        print(f"\n20,000 jobs published in {seconds[1] - seconds[0]:.2f} s, one changed in {seconds[2] - seconds[1]:.3f} s")
