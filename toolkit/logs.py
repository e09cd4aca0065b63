"""What a process of ours writes about itself: lines for people, or with TOOLKIT_LOG=json one JSON object a line for machines.

Owns the shape of a line, the job that it is about, and that no secret is in it: every record passes through here, those of libraries too.
Knows no job and no server; who starts a process says which secrets it was given.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime

from toolkit.failures import without_secrets

TEXT = "%(asctime)s %(process)d %(levelname)s %(message)s"
FIELDS = ("method", "path", "status", "ms", "server")

job: ContextVar[str | None] = ContextVar("job", default=None)
"""The job that a task works for, told once at its top."""


def set_up(environ: Mapping[str, str], secrets: Sequence[str], level: int) -> None:
    """Write this process's log to stderr: from `level` on as text, from INFO on as JSON."""
    as_json = environ.get("TOOLKIT_LOG", "").lower() == "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(secrets, as_json))
    logging.basicConfig(level=min(level, logging.INFO) if as_json else level, handlers=[handler])


class Lines(logging.Formatter):
    """Records as lines without secrets."""

    def __init__(self, secrets: Sequence[str], as_json: bool) -> None:
        super().__init__(TEXT)
        self._secrets, self._as_json = tuple(secrets), as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it; as JSON the traceback is in it."""
        if not self._as_json:
            return str(without_secrets(super().format(record), self._secrets))
        said = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "job_id": getattr(record, "job_id", None) or job.get(),
            **{name: getattr(record, name, None) for name in FIELDS},
            "message": record.getMessage(),
            "traceback": self.formatException(record.exc_info) if record.exc_info else None,
        }
        shown = without_secrets({name: value for name, value in said.items() if value is not None}, self._secrets)
        return json.dumps(shown, ensure_ascii=False, default=str)
