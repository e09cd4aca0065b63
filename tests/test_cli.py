"""The command line as a user has it: processes in a folder elsewhere, on the built-in engine; cheap cases in this process."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.main import get_command
from typer.testing import CliRunner, Result

from tests.conftest import end_children
from tests.faults.layer import Layer
from tests.test_exported import UI
from toolkit import ImageRequest, Studio, VideoRequest, __version__
from toolkit.cli import app
from toolkit.errors import ExportUnreadable
from toolkit.jobs import OPEN
from toolkit.ledger import Ledger, NewJob
from toolkit.metadata import read
from toolkit.processes import engine_url

TOOLKIT = [sys.executable, "-m", "toolkit.cli"]
NOBODY = "http://127.0.0.1:1"
WAIT_S = 30.0
WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "inverted"}},
}


def toolkit(home: Path, *words: str, **environment: str) -> Result:
    """A command in this process; one that needs no look at how processes end."""
    return CliRunner().invoke(app, words, env={"TOOLKIT_HOME": str(home), **environment}, prog_name="toolkit")


def process(home: Path, cwd: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a shell runs it, in a folder of no importance."""
    return subprocess.run(
        [*TOOLKIT, *words], cwd=cwd, env={**os.environ, "TOOLKIT_HOME": str(home), **environment}, capture_output=True, text=True, timeout=WAIT_S
    )


@contextlib.contextmanager
def running(home: Path, cwd: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command that is under way, listening to Ctrl-C however these tests were started."""
    listening = "import signal; signal.signal(2, signal.default_int_handler); from toolkit.cli import main; main()"
    environment = {**os.environ, "TOOLKIT_HOME": str(home)}
    command = [sys.executable, "-c", listening, *words]
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def until(done: Callable[[], Any], said: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = done()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not after {WAIT_S:g} s: {said}")


def refused(result: Result | subprocess.CompletedProcess[str], expected: int = 2) -> str:
    """The one sentence of a call that was wrong."""
    code = result.exit_code if isinstance(result, Result) else result.returncode
    assert code == expected, result
    assert result.stdout == ""
    assert result.stderr.startswith("error: "), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.removeprefix("error: ").strip()


def accepted(home: Path) -> int:
    with contextlib.closing(Ledger(home)) as ledger:
        return ledger.count()


@pytest.fixture(scope="module")
def slow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose engine takes 0.1 s a step."""
    home = tmp_path_factory.mktemp("slow-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_ENGINE_STEP_S", "0.1")
        with Studio("engine", home=home) as studio:
            studio.servers()
    yield home
    for job in lines(toolkit(home, "jobs", "--status", "open", "--json").stdout):
        toolkit(home, "cancel", job["id"])
    until(lambda: not toolkit(home, "jobs", "--status", "open", "--json").stdout, "no open job")
    end_children(home)


@pytest.fixture(scope="module")
def done_job(shared_home: Path) -> dict[str, Any]:
    """A small picture that is done."""
    made = toolkit(shared_home, "image", "a fox [red] :fox:", "--steps", "3", "--width", "128", "--height", "128", "--project", "cli", "--json")
    return json.loads(made.stdout)


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    path = tmp_path / "invert.json"
    path.write_text(json.dumps(WORKFLOW))
    return path


# ---- make -----------------------------------------------------------------------------------------------------------------


def test_a_picture_asked_for_in_any_folder_is_a_file_with_the_sha256_it_says(shared_home: Path, tmp_path: Path) -> None:
    done = process(shared_home, tmp_path, "image", "silver hair, rain", "--steps", "3", "--width", "128", "--height", "192", "--json", "--label", "set=1")
    assert done.returncode == 0, done.stderr
    (job,) = lines(done.stdout)
    (file,) = job["files"]
    assert (job["kind"], job["status"], job["error"]) == ("image", "done", None)
    assert (job["request"]["steps"], job["request"]["labels"]) == (3, {"set": "1"})
    assert job["timings"]["run_s"] >= 0
    content = Path(file["path"]).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size_bytes"], file["sha256"])
    assert (file["width"], file["height"], file["frames"]) == (128, 192, 1)
    assert not list(tmp_path.iterdir())


def test_a_clip_says_its_frames_and_its_rate(shared_home: Path) -> None:
    done = toolkit(shared_home, "video", "wind", "--frames", "5", "--width", "128", "--height", "96", "--steps", "2", "--json")
    assert done.exit_code == 0, done.stderr
    (job,) = lines(done.stdout)
    assert (job["files"][0]["frames"], job["files"][0]["fps"]) == (5, 16.0)
    assert Path(job["files"][0]["path"]).suffix in (".mp4", ".webm")


def test_without_json_stdout_holds_the_paths_and_nothing_else(shared_home: Path) -> None:
    done = toolkit(shared_home, "image", "two of them", "--steps", "2", "--width", "64", "--height", "64", "--batch-size", "2")
    assert done.exit_code == 0
    paths = done.stdout.splitlines()
    assert len(paths) == 2
    assert all(Path(path).is_file() for path in paths)
    assert "stand-in drawing" in done.stderr


def test_a_workflow_file_runs_with_the_values_that_were_set(shared_home: Path, workflow: Path) -> None:
    done = toolkit(shared_home, "run", str(workflow), "--set", "1.width=96", "--set", "1.color=16711680", "--json")
    assert done.exit_code == 0, done.stderr
    (job,) = lines(done.stdout)
    assert job["kind"] == "workflow"
    assert (job["files"][0]["width"], job["files"][0]["height"]) == (96, 64)
    assert job["request"]["workflow"]["1"]["inputs"]["color"] == 16711680


def test_a_file_as_comfyuis_page_saves_it_runs_too(shared_home: Path, tmp_path: Path) -> None:
    path = tmp_path / "drawn.json"
    path.write_text(json.dumps(UI))
    done = toolkit(shared_home, "run", str(path), "--set", "1.width=128", "--json")
    assert done.exit_code == 0, done.stderr
    (job,) = lines(done.stdout)
    assert (job["files"][0]["width"], job["files"][0]["height"]) == (128, 64)


def test_a_picture_from_a_friend_runs_with_another_seed_and_prompt(shared_home: Path, tmp_path: Path) -> None:
    made = toolkit(shared_home, "image", "a fox", "--lora", "mika:0.8", "--seed", "1", "--steps", "3", "--width", "128", "--height", "128", "--json")
    friend = Path(shutil.copy(json.loads(made.stdout)["files"][0]["path"], tmp_path / "friend.png"))
    again = toolkit(shared_home, "run", str(friend), "--set", "seed=7", "--set", "prompt=a wolf in the snow", "--json")
    assert again.exit_code == 0, again.stderr
    (job,) = lines(again.stdout)
    assert (job["seed"], job["prompt"], job["files"][0]["width"]) == (7, "a wolf in the snow", 128)
    inputs = {name: value for node in job["request"]["workflow"].values() for name, value in node["inputs"].items()}
    assert (inputs["lora_name"], inputs["strength_model"], inputs["steps"]) == ("mika_v3.safetensors", 0.8, 3)
    before = accepted(shared_home)
    said = refused(toolkit(shared_home, "run", str(friend), "--set", "lora=mika_v4.safetensors"))
    assert "`lora_name` is 'mika_v4.safetensors', which the server does not have. Did you mean mika_v3.safetensors" in said
    assert "Did you mean" in refused(toolkit(shared_home, "image", "a fox <lora:mikka_v3:1>", "--steps", "2"))
    assert accepted(shared_home) == before


def test_validate_says_what_can_be_set_and_what_would_be_refused_and_sends_nothing(shared_home: Path, tmp_path: Path, workflow: Path) -> None:
    before = accepted(shared_home)
    ready = toolkit(shared_home, "validate", str(workflow))
    assert (ready.exit_code, ready.stdout.splitlines()[:2]) == (0, [f"{workflow}: 3 nodes, ready", "  width = 64  (1 to 16384)"])
    faulty, drawn, no = tmp_path / "faulty.json", tmp_path / "drawn.json", tmp_path / "no.png"
    faulty.write_text(json.dumps({**WORKFLOW, "2": {"class_type": "ImageInvrt", "inputs": {}}, "1": {"class_type": "EmptyImage", "inputs": {"width": 0}}}))
    drawn.write_text(json.dumps(UI))
    no.write_text("x")
    told = toolkit(shared_home, "validate", str(faulty), str(drawn), str(no), "--json")
    assert told.exit_code == 2
    first, second, third = lines(told.stdout)
    assert [(fault["kind"], fault["node_id"]) for fault in first["faults"]][:2] == [("out_of_range", "1"), ("missing_input", "1")]
    assert "Did you mean ImageInvert?" in str([fault["sentence"] for fault in first["faults"]])
    assert (second["faults"], second["parameters"]["width"]["maximum"]) == ([], 16384)
    assert (third["graph"], third["faults"][0]["kind"]) == (None, "export_unreadable")
    recorded = Path(__file__).with_name("recordings") / "object_info-0.3.64.json"
    assert "ready" in toolkit(shared_home, "validate", str(workflow), "--catalog", str(recorded)).stdout
    assert "no answer of /object_info" in refused(toolkit(shared_home, "validate", str(workflow), "--catalog", str(workflow)))
    assert accepted(shared_home) == before


def test_a_parameter_the_workflow_lacks_is_refused_with_the_nearest_one(shared_home: Path, workflow: Path) -> None:
    assert "1.width" in refused(toolkit(shared_home, "run", str(workflow), "--set", "1.widht=96"))
    assert "NAME=VALUE" in refused(toolkit(shared_home, "run", str(workflow), "--set", "seed"))
    assert "'self'" in refused(toolkit(shared_home, "run", str(workflow), "--set", "self=1"))


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), ("{", "is not JSON"), ('{"nodes": [], "links": []}', "no workflow"), ("[]", "no workflow")]
)
def test_a_file_that_is_no_workflow_is_refused_in_one_sentence(shared_home: Path, tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "workflow.json"
    if content is not None:
        path.write_text(content)
    assert said in refused(toolkit(shared_home, "run", str(path)))
    assert "cannot be read" in refused(toolkit(shared_home, "run", str(tmp_path)))


@pytest.mark.parametrize("request_type", [ImageRequest, VideoRequest])
def test_every_field_of_a_request_has_an_option(request_type: type[ImageRequest | VideoRequest]) -> None:
    kind = str(request_type.model_fields["kind"].default)
    command = get_command(app).commands[kind]  # type: ignore[attr-defined]
    assert {parameter.name for parameter in command.params} >= set(request_type.model_fields) - {"kind"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "nosuch"], "no model 'nosuch'"),
        (["--width", "100"], "width"),
        (["--project", "../x"], "cannot be a project"),
        (["--label", "x"], "NAME=VALUE"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_a_request_that_cannot_be_is_refused_and_not_accepted(shared_home: Path, done_job: dict[str, Any], options: Sequence[str], said: str) -> None:
    before = accepted(shared_home)
    assert said in refused(toolkit(shared_home, "image", "x", *options))
    assert accepted(shared_home) == before


def test_an_unknown_model_is_refused_by_the_first_command_of_a_home_too(home: Path, tmp_path: Path) -> None:
    assert "no model 'nosuch'" in refused(process(home, tmp_path, "image", "x", "--model", "nosuch"))
    assert accepted(home) == 0


def test_no_wait_prints_the_job_that_was_accepted(slow_home: Path) -> None:
    left = toolkit(slow_home, "image", "x", "--steps", "1", "--no-wait", "--json")
    assert left.exit_code == 0
    (job,) = lines(left.stdout)
    assert job["status"] in OPEN
    assert toolkit(slow_home, "cancel", job["id"]).exit_code == 0


# ---- follow ---------------------------------------------------------------------------------------------------------------


def test_a_log_gets_a_few_lines_of_progress_and_a_terminal_gets_a_bar(slow_home: Path, tmp_path: Path) -> None:
    words = ["image", "x", "--steps", "8", "--width", "64", "--height", "64", "--json"]
    plain = process(slow_home, tmp_path, *words)
    said = [line for line in plain.stderr.splitlines() if line.startswith("image ")]
    assert 2 <= len(said) <= 12
    assert re.search(r"\d+ % KSampler \d/8", plain.stderr)
    assert "\x1b" not in plain.stderr
    master, slave = pty.openpty()
    environment = {**os.environ, "TOOLKIT_HOME": str(slow_home), "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([*TOOLKIT, *words], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=slave, text=True) as child:
        os.close(slave)
        shown = _read_terminal(master)
        assert child.stdout is not None
        assert lines(child.stdout.read())[0]["status"] == "done"
    assert "━" in shown
    assert re.search(r"KSampler \d/8", shown)


def _read_terminal(master: int) -> str:
    shown = b""
    with contextlib.suppress(OSError):  # Linux says EIO when the other end is closed
        while select.select([master], [], [], WAIT_S)[0] and (piece := os.read(master, 65536)):
            shown += piece
    os.close(master)
    return shown.decode()


def test_ctrl_c_leaves_the_job_and_it_goes_on_to_its_end(slow_home: Path, tmp_path: Path) -> None:
    with running(slow_home, tmp_path, "image", "left alone", "--steps", "25", "--width", "64", "--height", "64", "--project", "left", "--json") as child:
        job = until(lambda: lines(toolkit(slow_home, "jobs", "--status", "running", "--project", "left", "--json").stdout), "it runs")[0]
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=WAIT_S)
    assert child.returncode == 130
    assert [(line["id"], line["status"] in OPEN) for line in lines(out)] == [(job["id"], True)]
    assert f"{job['id']} goes on" in said
    assert f"toolkit cancel {job['id'][:8]}" in said
    assert "Traceback" not in said
    assert lines(toolkit(slow_home, "jobs", "--project", "left", "--json").stdout)[0]["status"] in OPEN
    with Studio("engine", home=slow_home) as studio:
        assert studio.job(job["id"]).wait(WAIT_S).job.status == "done"


def test_a_second_ctrl_c_leaves_at_once_and_takes_no_job_with_it(slow_home: Path, tmp_path: Path) -> None:
    with running(slow_home, tmp_path, "image", "left in a hurry", "--steps", "60", "--width", "64", "--height", "64", "--project", "hurry") as child:
        until(lambda: toolkit(slow_home, "jobs", "--project", "hurry", "--json").stdout, "it is accepted")
        until(lambda: _sent(child), "it follows")
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=WAIT_S)
    assert child.returncode in (130, -signal.SIGINT)  # the second may come when Python is gone already; for a shell both are 130
    (job,) = lines(toolkit(slow_home, "jobs", "--project", "hurry", "--json").stdout)
    assert job["status"] in OPEN
    toolkit(slow_home, "cancel", job["id"])


def _sent(child: subprocess.Popen[str]) -> bool:
    """Whether it has begun to tell of its progress."""
    assert child.stderr is not None
    return bool(select.select([child.stderr], [], [], 0)[0])


def test_ctrl_c_before_a_job_is_accepted_says_so(home: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(WAIT_S)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with running(home, tmp_path, "--server", address, "image", "x") as child, silent.accept()[0]:  # it asks, and gets no answer
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=WAIT_S)
    assert (child.returncode, said) == (130, "Interrupted before the job was accepted.\n")
    assert accepted(home) == 0


@pytest.mark.parametrize("phase", ["queued", "collecting"])
def test_ctrl_c_while_it_waits_and_while_its_files_come_leaves_it_and_tells_its_id(tmp_path: Path, home: Path, phase: str) -> None:
    let_go = threading.Event()

    async def hold(request: web.Request) -> web.StreamResponse | None:
        if request.path.endswith("/view"):
            await asyncio.to_thread(let_go.wait, WAIT_S)
        return None

    with Layer(tmp_path / "server") as layer, Studio(layer.url, home=home) as studio:
        layer.on_request = hold
        if phase == "queued":
            studio.servers()
            studio.pause()
        with running(home, tmp_path, "--server", layer.url, "image", "x", "--steps", "1", "--width", "64", "--height", "64", "--json") as child:
            until(lambda: lines(toolkit(home, "jobs", "--status", phase, "--json").stdout), f"it is {phase}")
            until(lambda: _sent(child), "it follows")
            child.send_signal(signal.SIGINT)
            out, said = child.communicate(timeout=WAIT_S)
        (job,) = lines(out)
        assert (child.returncode, job["status"], f"{job['id']} goes on" in said) == (130, phase, True)
        let_go.set()
        studio.resume()
        assert studio.job(job["id"]).wait(WAIT_S).job.status == "done"
        assert len(layer.runs()) == 1
        end_children(home)


def test_a_job_that_somebody_cancels_ends_its_command_with_1(slow_home: Path, tmp_path: Path) -> None:
    with running(slow_home, tmp_path, "image", "x", "--steps", "150", "--width", "64", "--height", "64", "--project", "stopped", "--json") as child:
        job = until(lambda: lines(toolkit(slow_home, "jobs", "--status", "running", "--project", "stopped", "--json").stdout), "it runs")[0]
        asked = toolkit(slow_home, "cancel", job["id"][:8])
        assert (asked.exit_code, asked.stderr) == (0, f"image {job['id'][:8]} is cancelled.\n")
        assert lines(toolkit(slow_home, "jobs", "--project", "stopped", "--json").stdout)[0]["status"] == "cancelled"  # read back, not only asked
        out, said = child.communicate(timeout=WAIT_S)
    assert child.returncode == 1
    assert lines(out)[0]["status"] == "cancelled"
    assert said.splitlines()[-1] == f"error: Job {job['id'][:8]} was cancelled."


# ---- find -----------------------------------------------------------------------------------------------------------------


def test_jobs_are_found_by_status_project_and_kind(shared_home: Path, done_job: dict[str, Any]) -> None:
    shown = toolkit(shared_home, "jobs", "--project", "cli")
    assert done_job["id"][:8] in shown.stdout
    assert "a fox [red] :fox:" in shown.stdout
    found = lines(toolkit(shared_home, "jobs", "--project", "cli", "--status", "done", "--kind", "image", "--limit", "1", "--json").stdout)
    assert [(job["id"], job["files"]) for job in found] == [(done_job["id"], done_job["files"])]
    assert toolkit(shared_home, "jobs", "--project", "cli", "--kind", "video", "--json").stdout == ""
    assert "done_partial" in refused(toolkit(shared_home, "jobs", "--status", "finished"))


def test_a_job_is_made_once_more_by_the_beginning_of_its_id(shared_home: Path, done_job: dict[str, Any]) -> None:
    again = toolkit(shared_home, "retry", done_job["id"][:12], "--json")
    assert again.exit_code == 0, again.stderr
    (job,) = lines(again.stdout)
    assert (job["retry_of"], job["status"], job["seed"]) == (done_job["id"], "done", done_job["seed"])
    assert job["id"] != done_job["id"]
    left = toolkit(shared_home, "retry", done_job["id"], "--no-wait")
    assert (left.exit_code, len(left.stdout.split())) == (0, 1)
    assert "no job" in refused(toolkit(shared_home, "retry", "ffff0000")).lower()


def test_an_unfinished_job_is_not_made_once_more_and_ctrl_c_leaves_one_that_is(slow_home: Path, tmp_path: Path) -> None:
    (job,) = lines(toolkit(slow_home, "image", "x", "--steps", "60", "--width", "64", "--height", "64", "--no-wait", "--json").stdout)
    assert "has not ended" in refused(toolkit(slow_home, "retry", job["id"]))
    assert toolkit(slow_home, "cancel", job["id"]).exit_code == 0
    with running(slow_home, tmp_path, "retry", job["id"], "--json") as child:
        until(lambda: _sent(child), "it follows")
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=WAIT_S)
    (again,) = lines(out)
    assert (child.returncode, again["retry_of"], f"{again['id']} goes on" in said) == (130, job["id"], True)
    assert toolkit(slow_home, "cancel", again["id"]).exit_code == 0


def test_a_waiting_job_is_cancelled_and_no_server_is_looked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.client.discover", lambda *_: pytest.fail("a server was looked for"))
    monkeypatch.setattr("toolkit.studio.servers.ensure_engine", lambda *_: pytest.fail("the engine was started"))
    with contextlib.closing(Ledger(home)) as ledger:
        ledger.accept(*(NewJob(ImageRequest(prompt="x"), ["http://gone:8188"], id=f"{start}-0000") for start in ("aaaa1", "aaaa2", "b")))
    assert "queued" in toolkit(home, "jobs", COMFYUI_URL="").stdout
    assert lines(toolkit(home, "cancel", "aaaa1", "--json", COMFYUI_URL="").stdout)[0]["status"] == "cancelled"
    assert toolkit(home, "cancel", "aaaa1", COMFYUI_URL="").exit_code == 0
    assert toolkit(home, "sql", "select count(*) as n from jobs where status = 'cancelled'", "--json", COMFYUI_URL="").stdout == '{"n": 1}\n'


def test_unknown_ambiguous_and_finished_ids_have_three_messages_and_three_codes(home: Path, shared_home: Path, done_job: dict[str, Any]) -> None:
    with contextlib.closing(Ledger(home)) as ledger:
        ledger.accept(*(NewJob(ImageRequest(prompt="x"), ["engine"], id=f"{start}-0000") for start in ("aaaa1", "aaaa2", "b")))
        assert "no job 'zzz'" in refused(toolkit(home, "cancel", "b", "zzz"))
        several = refused(toolkit(home, "cancel", "b", "aaaa"), 3)
        assert "aaaa1-0000" in several
        assert "aaaa2-0000" in several
        assert ledger.job("b").status == "queued"
    finished = toolkit(shared_home, "cancel", done_job["id"])
    assert (finished.exit_code, finished.stderr) == (1, f"image {done_job['id'][:8]} has ended already: done.\n")


def test_the_log_answers_in_sql_as_table_lines_or_csv(shared_home: Path, tmp_path: Path, done_job: dict[str, Any]) -> None:
    query = "select kind, median(run_s) from jobs group by all"
    table = process(shared_home, tmp_path, "sql", query)
    assert table.returncode == 0, table.stderr
    assert "median(run_s)" in table.stdout
    assert re.search(r"image +\d", table.stdout)
    rows = lines(toolkit(shared_home, "sql", query, "--json").stdout)
    assert {row["kind"] for row in rows} >= {"image"}
    assert all(row["median(run_s)"] >= 0 for row in rows)
    path = tmp_path / "jobs.csv"
    assert toolkit(shared_home, "sql", f"select kind, created_at from jobs where job_id = '{done_job['id']}'", "-o", str(path)).stdout == f"{path}\n"
    assert [row[0] for row in csv.reader(path.read_text().splitlines())] == ["kind", "image"]


@pytest.mark.parametrize(
    ("query", "said"),
    [("from nosuch", "nosuch"), ("select 1; drop table jobs", "One statement at a time"), ("drop table jobs", "read-only"), ("select 'x'::int", "'x'")],
)
def test_a_query_the_log_cannot_answer_is_refused_without_a_traceback(shared_home: Path, done_job: dict[str, Any], query: str, said: str) -> None:
    answer = toolkit(shared_home, "sql", query)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert said in answer.stderr
    assert str(shared_home) not in answer.stderr


# ---- servers --------------------------------------------------------------------------------------------------------------


def test_a_paused_server_sends_nothing_until_it_is_used_again(slow_home: Path) -> None:
    assert "engine is paused" in toolkit(slow_home, "pause", "engine", "--note", "rendering", "--free-memory").stdout
    made = toolkit(slow_home, "image", "x", "--steps", "1", "--width", "64", "--height", "64", "--no-wait", "--json")
    (job,) = lines(made.stdout)
    assert lines(toolkit(slow_home, "pause", "--json").stdout) == [{"url": "engine", "paused": True, "note": None}]
    with Studio("engine", home=slow_home) as studio:
        assert studio.job(job["id"]).job.status == "queued"
        assert lines(toolkit(slow_home, "resume", "--json").stdout) == [{"servers": 1, "jobs": 0}]
        assert studio.job(job["id"]).wait(WAIT_S).job.status == "done"
    assert toolkit(slow_home, "resume").stdout == "None was paused, no job was held.\n"
    assert "http://elsewhere:1" in refused(toolkit(slow_home, "pause", "elsewhere:1"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://x", "ftp://x"),
        ("http://", "no host"),
        ("localhost:port", "localhost:port"),
        ("http://h:99999", "99999"),
        ("http://ann:hunter22@h:x", "//h:x"),
        ("http://h h", "h h"),
        ("localhost:1/", "http://localhost:1"),
        ("127.0.0.1:1/comfy/", "http://127.0.0.1:1/comfy"),
        ("[::1]:1", "http://[::1]:1"),
        ("http://bücher.invalid:1", "http://xn--bcher-kva.invalid:1"),
        ("http://ann:hunter22@127.0.0.1:1", "http://127.0.0.1:1"),
    ],
)
def test_a_server_address_is_put_right_or_refused_in_one_sentence_without_its_password(home: Path, url: str, said: str) -> None:
    for wrong in (toolkit(home, "image", "x", COMFYUI_URL=url), toolkit(home, "--server", url, "image", "x")):
        sentence = refused(wrong)
        assert said in sentence
        assert "hunter22" not in sentence
    assert accepted(home) == 0


def test_connect_looks_at_a_server_remembers_it_and_forgets_it(home: Path, shared_home: Path, done_job: dict[str, Any]) -> None:
    url = str(engine_url(shared_home))
    said = toolkit(home, "connect", url.removeprefix("http://") + "/", "--json", COMFYUI_URL="")
    (look,) = lines(said.stdout)
    assert (look["url"], look["simulated"], "sdxl" in look["can_make"]) == (url, True, True)
    assert json.loads((home / "settings.json").read_text()) == {"servers": [url]}
    assert (home / "settings.json").stat().st_mode & 0o077 == 0
    assert toolkit(home, "connect", "--forget", COMFYUI_URL="").exit_code == 0
    assert json.loads((home / "settings.json").read_text()) == {"servers": []}


def test_connect_remembers_no_server_that_does_not_answer(home: Path) -> None:
    assert NOBODY in refused(toolkit(home, "connect", NOBODY))
    assert "address" in refused(toolkit(home, "connect", "ftp://x"))
    assert "No server is named" in refused(toolkit(home, "connect"))
    assert not (home / "settings.json").exists()


def test_a_named_server_that_is_down_accepts_nothing(home: Path, tmp_path: Path) -> None:
    assert NOBODY in refused(process(home, tmp_path, "--server", NOBODY, "image", "x"))
    assert accepted(home) == 0


def test_what_was_meant_for_a_remembered_server_never_runs_on_the_engine(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (home / "settings.json").write_text(json.dumps({"servers": [NOBODY]}))
    assert NOBODY in refused(process(home, tmp_path, "image", "x", COMFYUI_URL=""))
    assert accepted(home) == 0
    assert engine_url(home) is None


def test_the_engine_in_the_foreground_ends_with_ctrl_c_and_passes_its_code_on(home: Path, tmp_path: Path) -> None:
    with running(home, tmp_path, "engine", "--step-s", "0") as child:
        until(lambda: engine_url(home), "the engine answers")
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=WAIT_S)
    assert child.returncode == 0
    assert "built-in engine at http://127.0.0.1:" in out
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        busy = process(home, tmp_path, "engine", "--port", port)
    assert (busy.returncode, port in busy.stderr) == (2, True)


def test_serve_on_a_port_that_is_taken_names_the_variable(home: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        busy = process(home, tmp_path, "serve", TOOLKIT_PORT=port, TOOLKIT_FEED_PORT="0")
    assert (busy.returncode, busy.stdout) == (2, "")
    assert "TOOLKIT_PORT" in busy.stderr
    assert "Traceback" not in busy.stderr


# ---- files ----------------------------------------------------------------------------------------------------------------

RECORDED = Path(__file__).with_name("recordings") / "files-0.3.64"


def test_strip_copies_pictures_and_clips_without_what_they_say(tmp_path: Path) -> None:
    for path in RECORDED.iterdir():
        shutil.copy(path, tmp_path)
    names = sorted(path.name for path in RECORDED.iterdir())
    made = toolkit(tmp_path / "home", "strip", *(str(tmp_path / name) for name in names))
    assert (made.exit_code, made.stderr) == (0, "")
    assert made.stdout.split() == [str(tmp_path / f"{Path(name).stem}.clean{Path(name).suffix}") for name in names]
    for line in made.stdout.split():
        with pytest.raises(ExportUnreadable, match="no workflow stored"):
            read(line)
    assert all((tmp_path / name).read_bytes() == (RECORDED / name).read_bytes() for name in names)
    again = toolkit(tmp_path / "home", "strip", str(tmp_path / "SaveImage.png"))
    assert refused(again).startswith(f"{tmp_path / 'SaveImage.clean.png'} exists already.")
    assert not (tmp_path / "home").exists()


def test_strip_into_a_folder_goes_on_after_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    words = ["strip", str(tmp_path / "a.txt"), str(tmp_path / "none.png"), str(RECORDED / "SaveVideo.mp4"), "-o", str(tmp_path / "new" / "folder"), "--json"]
    made = toolkit(tmp_path, *words)
    clean = tmp_path / "new" / "folder" / "SaveVideo.mp4"
    assert lines(made.stdout) == [{"file": str(RECORDED / "SaveVideo.mp4"), "clean": str(clean), "size_bytes": clean.stat().st_size}]
    assert (made.exit_code, made.stderr.count("\n")) == (2, 2)
    assert made.stderr.startswith(f"error: {tmp_path / 'a.txt'} cannot be stripped: it is no PNG")
    assert "cannot be made: " in refused(toolkit(tmp_path, "strip", str(RECORDED / "SaveImage.png"), "-o", str(tmp_path / "a.txt")))
    assert [path.name for path in clean.parent.iterdir()] == ["SaveVideo.mp4"]


def test_strip_in_place_changes_the_file_a_link_leads_to_and_none_of_the_home(tmp_path: Path) -> None:
    projects = tmp_path / "home" / "projects" / "fox"
    projects.mkdir(parents=True)
    ours, theirs, link = projects / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    for path in (ours, theirs):
        shutil.copy(RECORDED / "SaveImage.png", path)
    link.symlink_to(theirs)
    held = refused(toolkit(tmp_path / "home", "strip", str(ours), "--in-place"))
    assert held == f"{ours} is in the log as it is. Leave out --in-place: a copy goes beside it."
    assert ours.read_bytes() == (RECORDED / "SaveImage.png").read_bytes()
    assert toolkit(tmp_path / "home", "strip", str(link), "--in-place").stdout == f"{theirs}\n"
    assert link.is_symlink()
    assert len(theirs.read_bytes()) < len(ours.read_bytes())
    assert "not both" in refused(toolkit(tmp_path / "home", "strip", str(theirs), "--in-place", "-o", str(tmp_path)))


# ---- the call itself ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["jobs"], ["image", "x"], ["sql", "from jobs"], ["cancel", "x"], ["connect", "engine"], ["engine"]])
def test_a_home_that_cannot_be_used_is_one_sentence(tmp_path: Path, words: Sequence[str]) -> None:
    (tmp_path / "file").touch()
    assert "TOOLKIT_HOME" in refused(toolkit(tmp_path / "file" / "home", *words))


def test_home_and_server_stand_before_the_command(tmp_path: Path, shared_home: Path, done_job: dict[str, Any]) -> None:
    assert done_job["id"] in toolkit(tmp_path, "--home", str(shared_home), "--server", "engine", "jobs", "--limit", "99", "--json").stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [(["imagge", "x"], "image"), (["image", "x", "--stesp", "3"], "--steps"), (["image", "x", "--steps", "many"], "--steps"), (["image"], "PROMPT")],
)
def test_a_misspelt_command_or_option_is_2_with_the_nearest_one(tmp_path: Path, words: Sequence[str], said: str) -> None:
    wrong = toolkit(tmp_path, *words)
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert said in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_the_version_and_the_help_need_no_home(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    assert toolkit(nowhere, "--version").stdout == f"toolkit {__version__}\n"
    for command in ("image", "video", "run", "retry", "jobs", "cancel", "sql", "ask", "strip", "connect", "pause", "resume", "serve", "engine"):
        assert toolkit(nowhere, command, "--help").exit_code == 0
        assert command in toolkit(nowhere, "--help").stdout
    assert "--install-completion" in toolkit(nowhere, "--help").stdout
    assert not nowhere.exists()


def test_starting_up_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = "{'duckdb', 'gradio', 'pandas', 'ipywidgets', 'fastapi', 'av', 'numpy', 'matplotlib'}"
    code = f"import sys, toolkit.cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True).stdout == "[]\n"
