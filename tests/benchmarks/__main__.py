"""`make bench`: the toolkit beside a bare client in the same run, as ratios, and what becomes of workflow files; a table, and data/bench.json.

The bare client does what any must: POST, one socket, GET /history/{id}, GET /view, and nothing else. On the built-in engine, and with
COMFYUI_URL on a real server. Runs are paired and medians are quoted, since machines are shared and noisy.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from tests.benchmarks.workflows import converted
from tests.conftest import end_children
from tests.templates import object_info
from toolkit import Studio
from toolkit.processes import ensure_engine

JOBS, PAIRS = 100, 5


def tiny(number: int, folder: str) -> dict[str, Any]:
    """EmptyImage -> SaveImage: what it costs is the client."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": number % 2**24}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": f"{folder}/{number}/x"}},
    }


async def bare(url: str, first: int, count: int) -> float:
    """Seconds a bare client takes, two prompts on the server at a time."""
    client_id, ended = uuid.uuid4().hex, dict[str, asyncio.Event]()
    folder = f"bare/{client_id}"
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId={client_id}", max_msg_size=0) as socket:

        async def listen() -> None:
            async for message in socket:
                frame = json.loads(message.data) if isinstance(message.data, str) else {}
                if frame.get("type") == "executing" and frame["data"]["node"] is None:
                    ended[frame["data"]["prompt_id"]].set()

        async def one(number: int) -> None:
            prompt_id = str(uuid.uuid4())
            ended[prompt_id] = asyncio.Event()
            async with at_once:
                body = {"prompt": tiny(number, folder), "prompt_id": prompt_id, "client_id": client_id}
                async with session.post(f"{url}/prompt", json=body) as answer:
                    await answer.read()
                await ended[prompt_id].wait()
            async with session.get(f"{url}/history/{prompt_id}") as answer:
                outputs = (await answer.json())[prompt_id]["outputs"]
            async with session.get(f"{url}/view", params=outputs["2"]["images"][0]) as answer:
                assert len(await answer.read()) > 100

        at_once = asyncio.Semaphore(2)
        listening = asyncio.create_task(listen())
        began = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(first, first + count)))
        took = time.perf_counter() - began
        listening.cancel()
    return took


def ours(studio: Studio, first: int, count: int) -> float:
    """Seconds from the first submit to the last file in the ledger."""
    began = time.perf_counter()
    handles = [studio.run(tiny(number, "x")) for number in range(first, first + count)]
    for handle in handles:
        handle.wait(300)
    return time.perf_counter() - began


def paired(name: str, url: str, studio: Studio, row: Callable[..., None]) -> None:
    """Throughput and the cost of one job alone, ours beside bare."""
    ours(studio, 0, 5), asyncio.run(bare(url, 0, 5))
    many, alone = list[float](), list[float]()
    for pair in range(PAIRS):
        first = 1000 * (pair + 1)
        many.append(asyncio.run(bare(url, first, JOBS)) / ours(studio, first + 200, JOBS))
        alone += [1000 * (ours(studio, first + 400 + n, 1) - asyncio.run(bare(url, first + 500 + n, 1))) for n in range(5)]
    row(f"{name}: throughput of {JOBS} tiny jobs", statistics.median(many), "of bare", ">= 0.85", statistics.median(many) >= 0.85)
    row(f"{name}: one tiny job alone", statistics.median(alone), "ms more than bare", "<= 10", statistics.median(alone) <= 10)


def main() -> None:
    """Print the table and write data/bench.json."""
    rows: list[dict[str, Any]] = []

    def row(name: str, value: float, unit: str, bound: str, holds: bool, how: str = f"median of {PAIRS} paired runs") -> None:
        rows.append({"name": name, "value": round(value, 3), "unit": unit, "bound": bound, "holds": holds, "how": how})
        print(f"{name}: {value:.3f} {unit} (bound {bound})", flush=True)

    os.environ |= {"TOOLKIT_ENGINE_STEP_S": "0", "TOOLKIT_ENGINE_LOAD_S": "0"}
    real = os.environ.get("COMFYUI_URL", "")
    converted("0.3.64", object_info(), row)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "engine"
        with Studio("engine", home=home) as studio:
            paired("engine", ensure_engine(home), studio, row)
        end_children(home)
        if real and real != "engine":
            home = Path(folder) / "real"
            with Studio(real, home=home) as studio:
                paired("real", real.rstrip("/"), studio, row)
            end_children(home)
    table = Table("what", "value", "unit", "bound", "holds")
    for found in rows:
        table.add_row(found["name"], f"{found['value']:.3f}", found["unit"], found["bound"], "yes" if found["holds"] else "NO")
    Console().print(table)
    data = Path(__file__).parents[2] / "data"
    data.mkdir(exist_ok=True)
    (data / "bench.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
