"""The notebooks run from top to bottom, and are saved as the house wants them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(path: Path, home: Path) -> None:
    environment = {**os.environ, "TOOLKIT_HOME": str(home), "TOOLKIT_ENGINE_STEP_S": "0.05"}  # there is a middle in which something can break
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(path)]
    done = subprocess.run(command, env=environment, cwd=path.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_short_saved_executed_and_small(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert len(cells) <= 15
    assert statistics.median(len(cell.source.splitlines()) for cell in cells) <= 4
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert cells[-1].outputs, "it ends with something to look at"
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    text = path.read_text()
    assert len(text) < 300_000
    assert "/tmp/" not in text
    assert "/home/" not in text
