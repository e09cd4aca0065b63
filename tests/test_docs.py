"""What the documents list is what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tables_page

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))


def test_every_room_is_in_the_table_of_contributing() -> None:
    rooms = {path.name + ("/" if path.is_dir() else "") for path in (ROOT / "toolkit").iterdir() if path.name[0] not in "_." and path.name != "py.typed"}
    table = CONTRIBUTING.split("## The rooms")[1].split("\n## ")[0]
    named = set(re.findall(r"[a-z_]+(?:\.py|/)", table))
    assert rooms <= named, f"not in the table: {rooms - named}"


def test_every_command_of_the_readme_exists() -> None:
    helped = subprocess.run([sys.executable, "-m", "toolkit.cli", "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^[│ ]+([a-z]+)  ", helped, re.MULTILINE))
    named = set(re.findall(r"(?<!from )\btoolkit ([a-z]+)\b(?=[\s`\"])", README))
    assert {"connect", "image", "video", "run", "jobs", "cancel", "sql"} <= named
    assert named <= known, f"README names {named - known}"


def test_every_variable_of_the_readme_is_read() -> None:
    code = "".join(path.read_text() for path in (ROOT / "toolkit").rglob("*.py"))
    named = set(re.findall(r"\b(?:TOOLKIT|COMFYUI)_[A-Z_]+\b", README))
    assert named
    assert [name for name in named if f'"{name}"' not in code] == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_and_pictures_of_the_documents_are_there(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_makefile_has_the_promised_targets() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test", "lab", "bench", "check"} <= targets


def test_the_lock_has_hashes_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    pins = re.findall(r"^[\w.\-\[\]]+==", lock, re.MULTILINE)
    assert lock.count("--hash=sha256:") >= len(pins) > 100


def test_the_tables_page_has_the_words_of_the_files_comments() -> None:
    assert tables_page.PAGE.read_text() == tables_page.page(), "python -m tests.tables_page"
