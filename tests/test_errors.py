"""errors: one tree, every error with its fields, one sentence and a word of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from toolkit import errors
from toolkit.errors import (
    DiskFull,
    HomeUnusable,
    JobCancelled,
    JobError,
    JobFailed,
    JobLost,
    JobTimeout,
    JobUnknown,
    ModelUnknown,
    NoServer,
    OutputError,
    PortBusy,
    PromptRejected,
    QueryInvalid,
    RequestInvalid,
    ServerError,
    ServerRefused,
    ServerUnreachable,
    ToolkitError,
    WorkflowInvalid,
)

URL = "http://h:8188"


def classes() -> Iterator[type[ToolkitError]]:
    todo = [ToolkitError]
    while todo:
        found = todo.pop()
        if found.__module__ == errors.__name__:
            yield found
        todo += found.__subclasses__()


def test_every_error_is_drawn_at_the_top():
    missing = [found.__name__ for found in classes() if found.__name__ not in errors.__doc__]
    assert missing == []


def test_every_error_has_a_word_of_its_own():
    words = [found.code for found in classes()]
    assert sorted(words) == sorted(set(words))
    assert all(word == word.lower() and " " not in word for word in words)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (RequestInvalid("no"), ValueError),
        (WorkflowInvalid("no"), ValueError),
        (QueryInvalid("no"), ValueError),
        (ServerUnreachable("no", server_url=URL), ConnectionError),
        (JobTimeout("no", job_id="1", status="timed_out"), TimeoutError),
        (JobUnknown("no"), LookupError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_also_the_builtin_a_caller_would_expect(error, builtin):
    assert isinstance(error, builtin)
    assert isinstance(error, ToolkitError)


def test_the_sentence_ends_with_the_next_step():
    assert str(ToolkitError("It broke.")) == "It broke."
    assert str(ToolkitError("It broke.", hint="Mend it.")) == "It broke. Mend it."


def test_the_fields_are_kept():
    assert RequestInvalid("no", field="steps").field == "steps"
    assert ModelUnknown("no", faults=["a", "b"], field="model").faults == ("a", "b")
    assert ServerRefused("no", server_url=URL, status=413).status == 413
    assert ServerUnreachable("no", server_url=URL, not_sent=True).not_sent
    assert not ServerUnreachable("no", server_url=URL).not_sent
    assert PromptRejected("no", server_url=URL, node_errors={"3": {}}).node_errors == {"3": {}}
    assert OutputError("no", path="/p").path == DiskFull("no", path="/p").path == HomeUnusable("no", path="/p").path == "/p"
    assert NoServer("no", required_nodes=["KSampler"]).required_nodes == ("KSampler",)
    assert PortBusy("no", port=8188).port == 8188
    assert JobUnknown("no", matches=["a", "b"]).matches == ("a", "b")


def test_what_a_server_did_names_the_server_and_what_a_job_did_the_job():
    failed = JobFailed("no", job_id="1", status="failed", node_title="KSampler", cause="oom")
    assert (failed.job_id, failed.status, failed.node_title, failed.cause) == ("1", "failed", "KSampler", "oom")
    for found in classes():
        if issubclass(found, JobError):
            assert found("no", job_id="1", status="x").job_id == "1"
        elif issubclass(found, ServerError) and found not in (ServerRefused, PromptRejected):
            assert found("no", server_url=URL).server_url == URL


def test_a_hint_can_be_given_to_every_error():
    extra = {ServerRefused: {"status": 1}, PromptRejected: {"node_errors": {}}, PortBusy: {"port": 1}}
    for found in classes():
        given = dict(extra.get(found, {}))
        if issubclass(found, ServerError):
            given["server_url"] = URL
        if issubclass(found, JobError):
            given |= {"job_id": "1", "status": "x"}
        if issubclass(found, (OutputError, HomeUnusable)):
            given["path"] = "/p"
        assert str(found("It broke.", hint="Mend it.", **given)) == "It broke. Mend it."


def test_the_four_ends_of_a_job_can_be_told_apart():
    assert len({JobFailed, JobCancelled, JobLost, JobTimeout}) == 4
    assert not issubclass(JobLost, (JobFailed, JobCancelled, JobTimeout))
