"""Homes on the built-in engine, real processes over real sockets, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit import Studio
from toolkit.ledger import LiveBoard

RECORDINGS = Path(__file__).parent / "recordings"
ENVIRONMENT = {
    "COMFYUI_URL": "engine",
    "COMFYUI_HEADERS": "",
    "TOOLKIT_ENGINE_STEP_S": "0",
    "TOOLKIT_ENGINE_LOAD_S": "0",
    "TOOLKIT_ENGINE_IDLE_S": "60",
    "TOOLKIT_FEEDER_IDLE_S": "60",
    "TOOLKIT_TOKEN": "",
}


LONG = ("tests/faults/", "tests/test_notebooks.py", "tests/test_processes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the long tests out to the workers first: each begins with an equal part of all, and a long one at the end would be waited for alone."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = [item for item in items if item.nodeid.startswith(LONG)]
    short = [item for item in items if not item.nodeid.startswith(LONG)]
    share = -(-len(short) // workers)
    items[:] = [item for worker in range(workers) for item in (*long[worker::workers], *short[worker * share : (worker + 1) * share])]


@pytest.hookimpl(wrapper=True, trylast=True)  # within pytest-cov's own
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Run tests marked `no_cover` without counting: under xdist pytest-cov 7.1 goes on, since its workers begin twice."""
    if item.get_closest_marker("no_cover") is None:
        return (yield)
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


def children_of(home: Path) -> dict[str, int]:
    """The processes that serve a home: its engine and its feeders, by name."""
    found: dict[str, int] = {}
    if (home / "live.sqlite").exists():
        board = LiveBoard(home)
        found |= {f"feeder {server.url}": server.pid for server in board.servers()}
        board.close()
    if (home / "engine" / "engine.json").exists():
        found["engine"] = int(json.loads((home / "engine" / "engine.json").read_text())["pid"])
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def end_children(home: Path) -> None:
    """Ask a home's processes to end and wait until they have."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        pids = [pid for pid in children_of(home).values() if is_alive(pid)]
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
    raise AssertionError(f"{children_of(home)} did not end")


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every test runs on the engine and in a home of the run, never in the user's."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as with `nohup make test &`: every program started here would ignore Ctrl-C, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    os.environ["TOOLKIT_HOME"] = str(tmp_path_factory.mktemp("default-home"))
    os.environ["LIVE_COMFYUI_URL"] = before.get("COMFYUI_URL", "")
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One home with an instant engine for all tests that only need a studio: starting one costs 2 s."""
    home = tmp_path_factory.mktemp("shared-home")
    yield home
    end_children(home)


@pytest.fixture
def studio(shared_home: Path) -> Iterator[Studio]:
    """A studio on the shared home; ask it for your own jobs only."""
    with Studio("engine", home=shared_home) as studio:
        yield studio


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of this test alone; its processes end with it. Set TOOLKIT_ENGINE_* by monkeypatch before the first job."""
    home = tmp_path / "home"
    yield home
    end_children(home)
