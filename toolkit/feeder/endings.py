"""How an attempt ends that made nothing: each way as the outcome that the ledger is told, with a sentence and what to try.

Pure words: which of them is true is found out in run.py; the words for failures are failures.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.errors import PromptRejected, ServerError, ServerRefused
from toolkit.failures import refusal_words
from toolkit.graph import NodeCatalog
from toolkit.jobs import JobStatus
from toolkit.ledger import Outcome
from toolkit.protocol import parse_rejection


def refused(error: ServerError, graph: Mapping[str, Any], catalog: NodeCatalog | None) -> Outcome | None:
    """The end that a refusal of the POST means, if it is certain."""
    if isinstance(error, PromptRejected):
        first, *others = refusal_words(parse_rejection(error.reply), graph, catalog)
        reply = error.reply if isinstance(error.reply, Mapping) else None
        return Outcome(
            JobStatus.REJECTED, error=first.message, hint=first.hint, failure_kind=first.kind, failure_node=first.node,
            warnings=tuple(map(str, others)), reply=reply,
        )  # fmt: skip
    if isinstance(error, ServerRefused) and error.status < 500:
        return Outcome(JobStatus.REJECTED, error=error.message, hint=error.hint, failure_kind=f"http_{error.status}")
    return None


def refused_late(error: ServerError) -> Outcome:
    """A refusal that was in doubt, of a prompt that is nowhere."""
    return Outcome(JobStatus.REJECTED, error=error.message, hint=error.hint, failure_kind="server_error")


def outputs_unknown() -> Outcome:
    """It ended well, and neither history nor files are left."""
    said = "The server finished it, and forgot what it made before that was fetched."
    return Outcome(JobStatus.FAILED, error=said, hint="Look into the server's output folder, or retry it.", failure_kind="outputs_unknown")


def lost(*, arrived: bool, again: bool) -> Outcome:
    """The server has no trace of it; `again` if it is sent once more."""
    said = "The server restarted and forgot it." if arrived else "The server never received it."
    return Outcome(JobStatus.LOST, error=said, hint="Retry it.", again=again)


def removed() -> Outcome:
    """It is out of the queue, and not by us."""
    return Outcome(JobStatus.REMOVED, error="Somebody removed it from the server's queue.", hint="Retry it if that was a mistake.")


def interrupted() -> Outcome:
    """It was stopped while it ran, and not by us."""
    return Outcome(JobStatus.CANCELLED, error="Somebody interrupted it on the server.")


def stopped(why: JobStatus | None, timeout_s: float | None, dropped: Sequence[str]) -> Outcome:
    """We stopped it: for its time limit of `timeout_s`, for the branches that the server `dropped`, or because somebody asked."""
    match why:
        case JobStatus.TIMED_OUT:
            return Outcome(JobStatus.TIMED_OUT, error=f"It took longer than the {timeout_s:g} s it was given.")
        case JobStatus.REJECTED:
            return Outcome(
                JobStatus.REJECTED, error=f"The server would leave out a part: {dropped[0]}", failure_kind="dropped_branch", warnings=dropped
            )  # fmt: skip
        case _:
            return Outcome(JobStatus.CANCELLED)
