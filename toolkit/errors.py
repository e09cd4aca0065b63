"""Every error of the toolkit: one tree, each with fields and one sentence.

ToolkitError
 ├ RequestInvalid(ValueError)    KeyReused
 ├ WorkflowInvalid(ValueError)   NodeUnknown · ModelUnknown · ParameterMissing · ExportUnreadable
 ├ ServerError(.server_url)      ServerUnreachable(ConnectionError) · ServerRefused(.status) · PromptRejected(.node_errors) · WireError
 ├ JobError(.job_id, .status)    JobFailed(.node_title, .cause) · JobCancelled · JobTimeout(TimeoutError) · JobLost
 ├ JobUnknown(LookupError)       no job, or more than one, has this id
 ├ QuotaReached(.retry_after_s)  a guest has had what the owner lets them have
 └ OutputError(.path): OutputGone · DiskFull · HomeUnusable(.path) · NoServer(.required_nodes) · QueryInvalid(ValueError) · PortBusy(.port)

The sentence says what happened, to what, and what to try. Foreign exceptions are translated at one border (aiohttp in
client.py, sqlite3 in ledger.py, duckdb in stats.py) and chained with `from`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ToolkitError(Exception):
    """Any failure the toolkit explains; `str(error)` is one sentence, `hint` a next step, `code` its word in REST."""

    code = "error"

    def __init__(self, message: str, *, hint: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class RequestInvalid(ToolkitError, ValueError):
    """A request that cannot be accepted; `field` names the place."""

    code = "request_invalid"


class KeyReused(RequestInvalid):
    """A caller's key for a request, used again for another one."""

    code = "idempotency_key_reused"


class WorkflowInvalid(ToolkitError, ValueError):
    """A graph or workflow file that the server would refuse; `faults` lists everything found."""

    code = "workflow_invalid"

    def __init__(self, message: str, *, faults: Sequence[str] = (), hint: str | None = None, field: str | None = None) -> None:
        super().__init__(message, hint=hint, field=field)
        self.faults = tuple(faults)


class NodeUnknown(WorkflowInvalid):
    """The server has no node of this class."""

    code = "node_unknown"


class ModelUnknown(WorkflowInvalid):
    """No model file of the server fits the name, or more than one does."""

    code = "model_unknown"


class ParameterMissing(WorkflowInvalid):
    """The workflow has no parameter of this name."""

    code = "parameter_missing"


class ExportUnreadable(WorkflowInvalid):
    """A file that holds no workflow we can read."""

    code = "export_unreadable"


class ServerError(ToolkitError):
    """Something between us and a ComfyUI server; `server_url` carries no credentials."""

    code = "server_error"

    def __init__(self, message: str, *, server_url: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.server_url = server_url


class ServerUnreachable(ServerError, ConnectionError):
    """Nobody answers there: refused, timed out, or the name is unknown; `not_sent` when no byte of the request can have arrived."""

    code = "server_unreachable"

    def __init__(self, message: str, *, server_url: str, not_sent: bool = False, hint: str | None = None) -> None:
        super().__init__(message, server_url=server_url, hint=hint)
        self.not_sent = not_sent


class ServerRefused(ServerError):
    """The server answered with a status that says no."""

    code = "server_refused"

    def __init__(self, message: str, *, server_url: str, status: int, hint: str | None = None) -> None:
        super().__init__(message, server_url=server_url, hint=hint)
        self.status = status


class PromptRejected(ServerError):
    """POST /prompt was answered with 400; `reply` is the whole answer, `node_errors` its account of the nodes, `kind` its word for it."""

    code = "prompt_rejected"

    def __init__(
        self, message: str, *, server_url: str, node_errors: Mapping[str, Any], kind: str = "rejected", reply: Any = None, hint: str | None = None
    ) -> None:
        super().__init__(message, server_url=server_url, hint=hint)
        self.reply = reply
        self.node_errors = dict(node_errors)
        self.kind = kind


class WireError(ServerError):
    """The server said something that is not ComfyUI's protocol."""

    code = "wire_error"


class JobError(ToolkitError):
    """A job that did not end well; raised by `await job` and `job.wait()`."""

    code = "job_error"

    def __init__(self, message: str, *, job_id: str, status: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.job_id = job_id
        self.status = status


class JobFailed(JobError):
    """The server, or the request, made it fail; `node_title` and `cause` say where and why."""

    code = "job_failed"

    def __init__(self, message: str, *, job_id: str, status: str, node_title: str | None = None, cause: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, job_id=job_id, status=status, hint=hint)
        self.node_title = node_title
        self.cause = cause


class JobCancelled(JobError):
    """Somebody cancelled it, or removed it from the server's queue."""

    code = "job_cancelled"


class JobTimeout(JobError, TimeoutError):
    """`wait(timeout_s)` or the request's own `timeout_s` ran out; after the former the job goes on."""

    code = "job_timeout"


class JobLost(JobError):
    """The server forgot the job, and the request does not allow another try."""

    code = "job_lost"


class JobUnknown(ToolkitError, LookupError):
    """No job, or more than one, begins with this id; `matches` lists the several."""

    code = "job_not_found"

    def __init__(self, message: str, *, matches: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.matches = tuple(matches)


class OutputError(ToolkitError):
    """A file of a job that cannot be fetched, checked or stored."""

    code = "output_error"

    def __init__(self, message: str, *, path: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class OutputGone(OutputError):
    """A file that the server named and no longer has."""

    code = "output_gone"


class DiskFull(OutputError):
    """No room for a file on our side; what is there stays, the job waits."""

    code = "disk_full"


class HomeUnusable(ToolkitError):
    """The home folder cannot be used: read-only, locked, newer than this toolkit, on a network disk."""

    code = "home_unusable"

    def __init__(self, message: str, *, path: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class NoServer(ToolkitError):
    """No configured server can run this; `required_nodes` says what it would need."""

    code = "no_server"

    def __init__(self, message: str, *, required_nodes: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.required_nodes = tuple(required_nodes)


class QueryInvalid(ToolkitError, ValueError):
    """SQL that the log cannot answer; the text is DuckDB's own, with position and candidates."""

    code = "query_invalid"


class PortBusy(ToolkitError):
    """A port that somebody else listens on."""

    code = "port_busy"

    def __init__(self, message: str, *, port: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.port = port


class QuotaReached(ToolkitError):
    """A guest has had what the owner lets them have for now; `retry_after_s` is when to ask again."""

    code = "quota_reached"

    def __init__(self, message: str, *, retry_after_s: float = 60.0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
