"""What a run learns of its attempt, on its way into the ledger.

Owns when it is written: soon, or with the end, so that a job of some milliseconds costs one commit there and not four. What a crash takes
before that leaves the attempt in doubt, as a crash before the server's answer does, and the next feeder asks the server. The claim before
the POST and the end after the files are not delayed.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

from toolkit.crashpoints import reached
from toolkit.feeder.collect import Desk
from toolkit.jobs import Attempt, JobStatus
from toolkit.ledger import Outcome

log = logging.getLogger(__name__)

WRITE_S = 0.05  # as long as a person could not tell, and as the live board waits


class Account:
    """One attempt's status and facts as its run knows them; some are not in the ledger yet."""

    def __init__(self, desk: Desk, attempt: Attempt) -> None:
        self.status = JobStatus(attempt.status)
        self._desk, self._attempt = desk, attempt
        self._facts: dict[str, Any] = {}
        self._since: float | None = None

    def learn(self, status: JobStatus | None = None, **facts: Any) -> None:
        """Take what `Ledger.record` shall be told."""
        self.status = status or self.status
        self._facts |= facts
        self._since = time.monotonic() if self._since is None else self._since

    def due_in_s(self) -> float | None:
        """Seconds until it must be written; None if all of it is."""
        return None if self._since is None else max(self._since + WRITE_S - time.monotonic(), 0.0)

    async def write(self) -> None:
        """Write down what was learned."""
        status, facts = self.status, self._facts
        self._facts, self._since = {}, None
        await self._desk.clerk.write(lambda: self._desk.home_ledger.record(self._attempt, self._desk.epoch, status, **facts))

    async def end(self, outcome: Outcome) -> None:
        """Write down the end, with what was learned before and not written, and without the secrets of the server."""
        outcome = replace(outcome, **{name: self._desk.discreet(getattr(outcome, name)) for name in ("error", "hint", "warnings", "reply")})
        clerk, hurries = self._desk.clerk, outcome.status != JobStatus.DONE or not self._desk.has_more()
        write = clerk.write if hurries else clerk.write_with_next  # with the claim of the job that takes the free place, as a rule
        written = await write(lambda: self._desk.settled_end(self._attempt, outcome, self._facts))
        reached("end committed")
        log.info("%s attempt %d: %s%s", self._attempt.job_id[:8], self._attempt.number, outcome.status, "" if written else " (was ended before)")
