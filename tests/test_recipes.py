"""The page of recipes is true: its Python runs from top to bottom on the engine, its commands take what they are given."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toolkit import Studio
from toolkit.cli import app

PAGE = Path(__file__).parents[1] / "notebooks" / "README.md"
BLOCKS = re.findall(r"```(python)?\n(.*?)```", PAGE.read_text(), re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if not language for line in text.splitlines() if line.startswith("toolkit ")]


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.drop")  # DuckDB's own .df() uses it
def test_the_python_of_the_recipes_runs_from_top_to_bottom(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PAGE.parent)
    monkeypatch.setenv("TOOLKIT_HOME", str(home))
    names: dict[str, Any] = {}

    async def run() -> None:
        for language, text in BLOCKS:
            if language:
                done = eval(compile(text, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
                if inspect.iscoroutine(done):
                    await done

    try:
        asyncio.run(run())
        assert names["result"].files[0].path
        ended = names["studio"].jobs(limit=100)
        assert len(ended) >= 18
        assert [handle.job.error for handle in ended if handle.job.status in ("failed", "rejected", "lost")] == []
    finally:
        if "studio" in names:
            names["studio"].close()


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_recipes_takes_what_it_is_given(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told of a home that is a file, each command gets as far as looking at it, or at the files it was given: it was understood."""
    (tmp_path / "home").write_text("")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, shlex.split(line)[1:], env={"TOOLKIT_HOME": str(tmp_path / "home")}, prog_name="toolkit")
    assert done.exit_code == 2
    assert "error:" in done.output.lower()
    assert "usage:" not in done.output.lower()


def test_the_recipes_name_every_notebook() -> None:
    named = re.findall(r"\]\((\w+\.ipynb)\)", PAGE.read_text())
    assert named == sorted(path.name for path in PAGE.parent.glob("*.ipynb"))


def test_the_recipes_use_the_door_that_is_there() -> None:
    used = set(re.findall(r"\bstudio\.(\w+)\(", PAGE.read_text()))
    assert len(used) > 15
    assert used <= set(dir(Studio))
