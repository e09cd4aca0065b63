"""logs: a line a record, as text or JSON, and no secret in any of them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from toolkit import logs


def record(message, *arguments, error=None, **extra):
    made = logging.getLogger("toolkit.test").makeRecord("toolkit.test", logging.WARNING, __file__, 1, message, arguments, error and (type(error), error, None))
    made.__dict__.update(extra)
    return made


def as_json(made, *secrets):
    line = logs.Lines(secrets, True).format(made)
    assert "\n" not in line
    return json.loads(line)


def test_a_line_of_json_says_when_who_how_bad_and_what():
    said = as_json(record("%s took %d ms", "it", 3, job_id="a-1", status=202, unknown="x"))
    assert set(said) == {"at", "level", "logger", "pid", "job_id", "status", "message"}
    assert (said["level"], said["logger"], said["pid"], said["job_id"], said["message"]) == ("warning", "toolkit.test", os.getpid(), "a-1", "it took 3 ms")
    assert said["at"].endswith("+00:00")


def test_the_job_of_a_task_is_in_its_lines():
    token = logs.job.set("b-2")
    try:
        assert as_json(record("x"))["job_id"] == "b-2"
    finally:
        logs.job.reset(token)


@pytest.mark.parametrize("json_", [True, False])
def test_no_secret_is_in_a_line_not_in_a_traceback_nor_a_field(json_):
    try:
        raise ValueError("no answer from http://ann:p4ssw0rd@host/ with t0ken-1234")
    except ValueError as error:
        line = logs.Lines(["t0ken-1234"], json_).format(record("sent t0ken-1234", error=error, path="/t0ken-1234"))
    assert "ValueError" in line
    assert "t0ken-1234" not in line
    assert "p4ssw0rd" not in line


@pytest.mark.parametrize(("wanted", "lines"), [("json", 2), ("", 1)])
def test_text_begins_where_it_was_told_to_and_json_at_info(wanted, lines):
    script = "import logging, os; from toolkit import logs; logs.set_up(os.environ, ['s3cret'], logging.WARNING)"
    script += "; logging.info('one s3cret'); logging.getLogger('uvicorn.error').warning('two s3cret')"
    said = subprocess.run([sys.executable, "-c", script], env={**os.environ, "TOOLKIT_LOG": wanted}, capture_output=True, text=True, check=True).stderr
    assert len(said.splitlines()) == lines
    assert said.count("***") == lines
    assert "s3cret" not in said
