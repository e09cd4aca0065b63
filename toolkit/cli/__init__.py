"""`toolkit`, the command line: the studio for shells and scripts. Results go to stdout, everything said along the way to stderr.

Owns the global options and exit codes (door.py), the commands (making.py, finding.py, files.py, keeping.py, logs.py, servers.py, people.py), their
common options (options.py), and how a job is followed (following.py) and printed (printing.py). Holds no rule about requests, jobs or servers: those
refuse and explain themselves, in one sentence each. What only some commands need (DuckDB, the page, rich's bars) is imported inside them, so that help
and tab completion stay quick.
"""

from toolkit.cli import making, finding, files, keeping, logs, servers, people  # noqa: F401, I001  their commands add themselves, in the order of --help
from toolkit.cli.door import app

__all__ = ["app", "main"]


def main() -> None:
    """The entry of `toolkit` and of `python -m toolkit.cli`."""
    app(prog_name="toolkit")
