"""C22: a Jupyter kernel that is restarted while its jobs are on their way, with a real kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.faults.layer import Layer
from tests.faults.test_faults import ends_done
from toolkit import Studio

COUNT = 20
UP_S = 60.0  # a kernel is there after 1 s here, after 20 s on a busy machine
OPEN = "import json; from toolkit import Studio; studio = Studio({url!r}, home={home!r})"
ASK = f"""
jobs = [studio.image("a girl", seed=seed, width=64, height=64, steps=4, reuse=True) for seed in range({COUNT})]
print(json.dumps([job.id for job in jobs]))"""
FIND = """
found = studio.jobs(limit=-1)
print(json.dumps([[job.id for job in found], sum(not job.job.is_final for job in found)]))"""
WAIT = "print(json.dumps([job.wait(60).job.status for job in found]))"


class Notebook:
    """One kernel and what its cells print."""

    def __init__(self, manager: KernelManager) -> None:
        self.manager = manager
        self._client = self._connected()

    def run(self, cell: str) -> Any:
        """Run a cell that prints JSON."""
        printed: list[str] = []

        def take(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                printed.append(message["content"]["text"])

        reply = self._client.execute_interactive(cell, output_hook=take, timeout=UP_S)
        assert reply["content"]["status"] == "ok", reply["content"]
        return json.loads("".join(printed) or "null")

    def restart(self) -> None:
        """What "Restart kernel" does to one that does not listen: SIGKILL and a new process."""
        self.close()
        self.manager.restart_kernel(now=True)
        self._client = self._connected()

    def close(self) -> None:
        self._client.stop_channels()

    def _connected(self) -> BlockingKernelClient:
        client: BlockingKernelClient = self.manager.client()  # type: ignore[assignment]
        client.start_channels()
        client.wait_for_ready(timeout=UP_S)
        return client


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    manager = KernelManager()
    manager.start_kernel(cwd=str(tmp_path))
    notebook = Notebook(manager)
    yield notebook
    notebook.close()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


def test_a_restarted_kernel_finds_its_jobs_and_the_same_cell_asks_for_nothing_twice(slow_layer: Layer, home: Path, notebook: Notebook) -> None:
    """C22."""
    opened = OPEN.format(url=slow_layer.url, home=str(home))
    asked = notebook.run(opened + ASK)
    notebook.restart()
    found, open_jobs = notebook.run(opened + FIND)
    assert open_jobs > 0  # they were in flight
    assert sorted(found) == sorted(asked)
    assert notebook.run(ASK) == asked
    assert notebook.run(WAIT) == ["done"] * COUNT
    assert notebook.run(ASK) == asked  # also when all are done
    with Studio(slow_layer.url, home=home) as studio:
        ends_done(slow_layer, home, *studio.jobs(limit=-1))
    assert sorted(slow_layer.runs()) == sorted(asked)
