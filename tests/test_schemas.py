"""schemas: REST called by its own description, with whatever fits it and whatever does not, answers as it says and never with a 5xx."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_service import calling
from toolkit import Studio

EXAMPLES = int(os.environ.get("TOOLKIT_SCHEMA_EXAMPLES", "4"))  # of each call; `make soak` asks for many, and for each bound of each field
CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance"


@pytest.mark.timeout(60 + 10 * EXAMPLES)
def test_no_call_that_its_description_allows_or_forbids_ends_in_a_5xx(home):
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        "--checks",
        CHECKS,
        "--max-examples",
        str(EXAMPLES),
        "--no-color",
        "--warnings",
        "off",
    ]
    command += ["--phases", "examples,fuzzing" if EXAMPLES < 10 else "examples,coverage,fuzzing", "--suppress-health-check", "all"]
    command += ["--generation-deterministic"] if EXAMPLES < 10 else []  # else its seed is printed
    with Studio("engine", home=home) as studio, calling(studio) as rest:
        studio.image("a fox", seed=1, width=64, height=64, steps=1).wait(60)
        studio.pause()  # what is accepted shall not be drawn
        ended = subprocess.run([*command, f"{rest.base_url}/api/openapi.json"], capture_output=True, text=True, cwd=home, check=False)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert f"Tested: {rest_calls(ended.stdout)}" in ended.stdout


def rest_calls(said: str) -> str:
    """How many operations it says there are."""
    return said.split("Selected: ")[1].split("/")[0]
