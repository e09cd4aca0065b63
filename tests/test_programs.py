"""What README tells other programs to do, done: each of its examples against a page, REST and a feed that run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from tests.conftest import end_children
from tests.test_app import PATIENCE_S, PROGRAM

SECTION = (Path(__file__).parents[1] / "README.md").read_text().split("## From other programs")[1].split("\n## ")[0]
SHELL = re.findall(r"^curl (?:.*\\\n)*.*$", SECTION, re.MULTILINE)
PYTHON = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
FAST = {"TOOLKIT_ENGINE_STEP_S": "0", "TOOLKIT_ENGINE_LOAD_S": "0", "COMFYUI_URL": "engine", "TOOLKIT_TOKEN": ""}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The program running: what README calls its addresses, and what they are here."""
    home = tmp_path_factory.mktemp("programs") / "home"
    settings = {"TOOLKIT_HOME": str(home), "TOOLKIT_PORT": "0", "TOOLKIT_FEED_PORT": "0", "PYTHONUNBUFFERED": "1", **FAST}
    program = subprocess.Popen([sys.executable, str(PROGRAM)], env=os.environ | settings, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    said = dict(re.findall(r"^(Page|Feed) +(\S+)/$", "".join(program.stdout.readline() for _ in range(3)), re.MULTILINE))
    yield {"http://127.0.0.1:7860": said["Page"], "ws://127.0.0.1:8329": said["Feed"]}
    program.terminate()
    program.communicate()
    end_children(home)


def placed(text: str, places: dict[str, str]) -> str:
    for written, real in places.items():
        text = text.replace(written, real)
    return text


def test_the_curl_calls_of_readme_answer_json(places: dict[str, str]) -> None:
    assert len(SHELL) == 4
    answers = [json.loads(subprocess.run(["sh", "-c", placed(call, places)], capture_output=True, check=True).stdout) for call in SHELL]
    again = json.loads(subprocess.run(["sh", "-c", placed(SHELL[0], places)], capture_output=True, check=True).stdout)
    assert [answer.get("error") for answer in answers] == [None] * 4
    assert answers[0]["job_id"] == again["job_id"]  # it has a key
    assert answers[2]["columns"][0] == "kind"
    assert answers[3]["status"] == "ok"


@pytest.mark.parametrize(("program", "files"), list(zip(PYTHON, ("*.png", "*.png", "*/*"), strict=True)), ids=["REST", "feed", "gradio's client"])
def test_each_program_of_readme_runs_a_job_to_its_file(places: dict[str, str], tmp_path: Path, program: str, files: str) -> None:
    assert len([line for line in program.splitlines() if line and "import" not in line]) <= 10
    subprocess.run([sys.executable, "-W", "error::SyntaxWarning", "-c", placed(program, places)], cwd=tmp_path, timeout=PATIENCE_S, check=True)
    found = sorted(path.suffix for path in tmp_path.glob(files) if path.is_file())
    assert found == ([".mp4", ".png"] if files == "*/*" else [".png"])
    Image.open(next(tmp_path.glob(files.replace("*/*", "*/*.png")))).verify()


def test_what_a_program_asks_through_gradio_is_checked_like_everything_else(places: dict[str, str], tmp_path: Path) -> None:
    """B41: values that no field of the page would send."""
    page = Client(places["http://127.0.0.1:7860"], download_files=tmp_path, verbose=False)
    try:
        for wrong, said in (({"prompt": ""}, "The prompt is empty"), ({"prompt": "x", "seed": -1}, "`seed`"), ({"prompt": "x", "preset": "best"}, "'draft'")):
            with pytest.raises(AppError, match=said):
                page.predict(**wrong, api_name="/image")
        assert not list(tmp_path.iterdir())
    finally:
        page.close()
