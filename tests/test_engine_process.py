"""The engine as a process: one per home, quick to start, gone when nobody needs it, and honest about where it is."""

import ast
import asyncio
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import aiohttp
import pytest

import toolkit.engine
from toolkit.engine.__main__ import parser

PATIENCE_S = 20.0
FOLDER = Path(toolkit.engine.__file__).parent


class Processes:
    """Starts engines, and ends those still there."""

    def __init__(self):
        self.started = []

    async def start(self, home, *options, **environ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "toolkit.engine", "--home", str(home), *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"TOOLKIT_ENGINE_STEP_S": "0", "TOOLKIT_ENGINE_LOAD_S": "0"} | environ,
        )
        self.started.append(process)
        return process

    async def serve(self, home, *options, **environ):
        """Start one and wait until it listens."""
        process = await self.start(home, *options, **environ)
        line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode()
        about = json.loads((home / "engine" / "engine.json").read_text())
        assert line == f"built-in engine at {about['url']} (pid {process.pid})\n"
        return process, about


@pytest.fixture
async def processes():
    processes = Processes()
    yield processes
    for process in processes.started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process):
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def get(url, path):
    async with aiohttp.ClientSession(url) as session, session.get(path) as reply:
        return await reply.json()


PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 1}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "kept"}},
}


async def run_picture(url):
    async with aiohttp.ClientSession(url) as session:
        async with session.post("/prompt", json={"prompt": PICTURE}) as reply:
            answer = await reply.json()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if entry := await get(url, f"/history/{answer['prompt_id']}"):
                    return answer, entry[answer["prompt_id"]]
                await asyncio.sleep(0.01)


async def test_it_says_where_it_is(processes, tmp_path):
    before = time.time()
    process, about = await processes.serve(tmp_path)
    assert about["pid"] == process.pid
    assert about["url"] == f"http://127.0.0.1:{about['port']}"
    assert before <= about["started_at"] <= time.time()
    stats = await get(about["url"], "/system_stats")
    assert stats["system"]["instance_id"] == about["instance_id"]


async def test_second_engine_on_a_home_names_the_first_and_gives_up(processes, tmp_path):
    _, about = await processes.serve(tmp_path)
    code, out, err = await ended(await processes.start(tmp_path))
    assert (code, out) == (3, "")
    assert f"on port {about['port']}." in err
    assert err.count("\n") == 1
    assert await get(about["url"], "/prompt") == {"exec_info": {"queue_remaining": 0}}


async def test_taken_port_is_one_sentence(processes, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = await ended(await processes.start(tmp_path, "--port", str(port)))
    assert (code, out) == (2, "")
    assert err == f"Port {port} is taken by another program; choose another with --port.\n"
    assert not (tmp_path / "engine" / "engine.json").exists()


async def test_it_ends_by_itself_when_nobody_is_there(processes, tmp_path):
    process, _ = await processes.serve(tmp_path, TOOLKIT_ENGINE_IDLE_S="0.2")
    assert (await ended(process))[0] == 0
    assert not (tmp_path / "engine" / "engine.json").exists()


async def test_an_open_socket_keeps_it(processes, tmp_path):
    process, about = await processes.serve(tmp_path, "--idle-s", "0.1")
    async with aiohttp.ClientSession(about["url"]) as session, session.ws_connect("/ws?clientId=A"):
        for _ in range(8):
            await asyncio.sleep(0.05)
        assert process.returncode is None
    assert (await ended(process))[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_told_to_end_it_closes_sockets_and_cleans_up(processes, tmp_path, number):
    process, about = await processes.serve(tmp_path)
    async with aiohttp.ClientSession(about["url"]) as session, session.ws_connect("/ws?clientId=A") as ear:
        await ear.receive()
        process.send_signal(number)
        assert (await ear.receive(PATIENCE_S)).type is aiohttp.WSMsgType.CLOSE
        assert ear.close_code == 1001
    code, _, err = await ended(process)
    assert (code, err) == (0, "")
    assert not (tmp_path / "engine" / "engine.json").exists()


async def test_killed_it_forgets_everything_but_its_output_files(processes, tmp_path):
    process, first = await processes.serve(tmp_path)
    answer, entry = await run_picture(first["url"])
    assert answer["number"] == 0
    temporary = entry["outputs"]["2"]["images"][0]["filename"]
    process.kill()
    await ended(process)
    assert (tmp_path / "engine" / "engine.json").exists()
    _, second = await processes.serve(tmp_path)
    assert second["instance_id"] != first["instance_id"]
    assert await get(second["url"], "/history") == {}
    assert not (tmp_path / "engine" / "temp" / temporary).exists()
    answer, entry = await run_picture(second["url"])
    assert answer["number"] == 0
    assert entry["outputs"]["3"]["images"][0]["filename"] == "kept_00002_.png"
    lines = [json.loads(line) for line in (tmp_path / "engine" / "runs.jsonl").read_text().splitlines()]
    assert [line["instance_id"] for line in lines] == [first["instance_id"]] * 2 + [second["instance_id"]] * 2


@pytest.mark.parametrize("option", [("--host", "0.0.0.0"), ("--step-s", "slow"), ("--preview-method", "taesd"), ("--models", "some")])
async def test_wrong_call_is_refused(processes, tmp_path, option):
    code, _, err = await ended(await processes.start(tmp_path, *option))
    assert code == 2
    assert option[0] in err


def test_environment_holds_defaults_that_flags_override():
    environ = {"TOOLKIT_ENGINE_STEP_S": "0.5", "TOOLKIT_ENGINE_NOISE": "0.1", "TOOLKIT_ENGINE_LOAD_S": "3", "TOOLKIT_ENGINE_IDLE_S": "7"}
    asked = parser(environ).parse_args(["--home", "x", "--load-s", "4"])
    assert (asked.step_s, asked.noise, asked.load_s, asked.idle_s) == (0.5, 0.1, 4.0, 7.0)
    asked = parser({}).parse_args(["--home", "x"])
    assert (asked.step_s, asked.noise, asked.load_s, asked.idle_s, asked.port) == (0.1, 0.0, 0.2, 60.0, 0)
    assert (asked.newer, asked.models, asked.jobs_api) == ("on", "all", "off")
    asked = parser({"TOOLKIT_ENGINE_NEWER": "off", "TOOLKIT_ENGINE_MODELS": "vae/ae.safetensors"}).parse_args(["--home", "x"])
    assert (asked.newer, asked.models) == ("off", "vae/ae.safetensors")


async def test_classes_and_model_files_are_chosen_from_outside(processes, tmp_path):
    _, about = await processes.serve(tmp_path, "--newer", "off", TOOLKIT_ENGINE_MODELS="sdxl")
    assert "ManualSigmas" not in await get(about["url"], "/object_info")
    assert await get(about["url"], "/models/vae") == []
    assert (await get(about["url"], "/models/loras"))[0] == "mika_v3.safetensors"


async def test_starting_does_not_import_what_drawing_and_encoding_need():
    code = "import sys, toolkit.engine.__main__; print([name for name in ('av', 'resvg_py', 'toolkit.engine.drawing') if name in sys.modules])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0].decode().strip() == "[]"


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.py")), ids=lambda file: file.relative_to(FOLDER).as_posix())
def test_engine_imports_nothing_else_of_the_toolkit(file):
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert not name.startswith("toolkit") or name.startswith("toolkit.engine"), name
