"""`make bench`: the figures that issues name, most of them beside a bare client in the same run; a table, and data/bench.json.

All of them, or `make bench ARGS="throughput order eta log"` by name.

On the built-in engine, and with COMFYUI_URL on a real server, whose output folder may be told in TOOLKIT_BENCH_OUTPUT. Runs are paired and
medians are quoted, since machines are shared and noisy; TOOLKIT_BENCH_ROUNDS says of how many runs, 5 by default.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks import eta, faces, order, sessions
from tests.benchmarks.crowds import cards, from_one_cell
from tests.benchmarks.log import measured
from tests.benchmarks.rounds import ROUNDS, repeated
from tests.benchmarks.throughput import full_folder, paired
from tests.benchmarks.workflows import converted
from tests.conftest import end_children
from tests.templates import object_info
from toolkit import Studio
from toolkit.processes import ensure_engine

Row = Callable[..., None]
DATA = Path(__file__).parents[2] / "data"


def main() -> None:
    """Print the table and write data/bench.json."""
    rows: list[dict[str, Any]] = []

    def row(name: str, value: float, unit: str, bound: str, holds: bool, how: str = f"median of {ROUNDS} paired runs") -> None:
        rows.append({"name": name, "value": round(value, 3), "unit": unit, "bound": bound, "holds": holds, "how": how})
        print(f"{name}: {value:.3f} {unit} (bound {bound})", flush=True)

    url = os.environ.get("COMFYUI_URL", "").rstrip("/")
    real = url if url not in ("", "engine") else None
    parts: dict[str, Callable[[], None]] = {
        "workflows": lambda: converted("0.3.64", object_info(), row),
        "throughput": lambda: _throughput(row, real),
        "order": lambda: order.measure(row, real),
        "eta": lambda: eta.measure(row, real),
        "faces": lambda: _in_a_folder(faces.measure, row),
        "sessions": lambda: _in_a_folder(sessions.measure, row),
        "log": lambda: measured(row, int(os.environ.get("TOOLKIT_BENCH_JOBS", "100000"))),
    }
    for name in sys.argv[1:] or parts:
        parts[name]()
    _show(rows)
    DATA.mkdir(exist_ok=True)
    (DATA / "bench.json").write_text(json.dumps(rows, indent=1) + "\n")


def _throughput(row: Row, real: str | None) -> None:
    os.environ |= {"TOOLKIT_ENGINE_STEP_S": "0", "TOOLKIT_ENGINE_LOAD_S": "0"}
    with tempfile.TemporaryDirectory() as folder:
        cards(Path(folder) / "cards", row)
        output, engine = os.environ.get("TOOLKIT_BENCH_OUTPUT"), Path(folder) / "engine"
        servers = [("engine", "engine", engine / "engine" / "output"), *([("real", real, Path(output) if output else None)] if real is not None else [])]
        for name, address, _ in servers:
            with Studio(address, home=Path(folder) / name) as studio:
                paired(name, ensure_engine(engine) if name == "engine" else address, studio, row)
        repeated(partial(from_one_cell, engine), row)
        for name, address, files in servers:  # last: a disk that was rid of 20,000 files is slow for minutes
            if files is not None:
                with Studio(address, home=Path(folder) / name) as studio:
                    full_folder(name, files, studio, row)
            end_children(Path(folder) / name)


def _in_a_folder(measure: Callable[[Path, Row], None], row: Row) -> None:
    """Measure on an engine that takes no time, in a home of its own."""
    os.environ |= {"TOOLKIT_ENGINE_STEP_S": "0", "TOOLKIT_ENGINE_LOAD_S": "0"}
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder) / "home", row)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("what", "value", "unit", "bound", "holds")
    for found in rows:
        table.add_row(found["name"], f"{found['value']:.3f}", found["unit"], found["bound"], "yes" if found["holds"] else "NO")
    Console().print(table)


if __name__ == "__main__":
    main()
