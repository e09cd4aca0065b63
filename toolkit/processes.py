"""The child processes of a home: how a feeder and the built-in engine are started, found, and known to be alive.

Owns their locks, logs and environment. Neither is a child in spirit: they outlive who started them, and anybody of the home may start
the next one. Knows nothing of what they do.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from toolkit.errors import HomeUnusable, ServerUnreachable
from toolkit.settings import ENGINE, ServerAddress

ENGINE_START_S = 20.0  # a cold import of the engine takes 1 to 3 s on a busy machine
LEAN = {"OPENBLAS_NUM_THREADS": "1", "SSL_CERT_FILE": os.devnull}
"""The engine multiplies no matrices and calls nobody: NumPy's threads and the system's certificates would be a quarter of its start."""
SERVER_VARIABLE = "TOOLKIT_FEEDER_SERVER"

_children: list[subprocess.Popen[bytes]] = []


def slug(url: str) -> str:
    """A file name for a server: readable, and different for different addresses."""
    readable = re.sub(r"[^a-z0-9]+", "-", url.split("://")[-1].lower()).strip("-")[:40]
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:6]}"


def lock_of(home: Path, name: str) -> FileLock:
    """A lock that the system drops when its process dies.

    Raises:
        HomeUnusable: the home cannot be written.
    """
    try:
        (home / "locks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HomeUnusable(f"{home} cannot be written: {error.strerror}.", path=str(home), hint="Set TOOLKIT_HOME to a folder of yours.") from error
    return FileLock(home / "locks" / f"{name}.lock", thread_local=False, fallback_to_soft=False)


def feeder_lock(home: Path, url: str) -> FileLock:
    """The lock that elects the one feeder of a server and home."""
    return lock_of(home, f"feeder-{slug(url)}")


def feeder_runs(home: Path, url: str) -> bool:
    """Whether somebody holds the server's lock now."""
    lock = feeder_lock(home, url)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def start_feeder(home: Path, address: ServerAddress, headers: Mapping[str, str]) -> int:
    """Start a detached feeder for a server; its credentials travel in the environment, never on the command line. Returns its pid."""
    environment = {**os.environ, SERVER_VARIABLE: address.secret_url, "COMFYUI_HEADERS": json.dumps(dict(headers)) if headers else ""}
    return _spawn(home, ["toolkit.feeder", "--home", str(home), "--server", address.url], f"feeder-{slug(address.url)}", environment).pid


def engine_url(home: Path) -> str | None:
    """Where the home's built-in engine listens now; None if none runs."""
    try:
        about = json.loads((home / "engine" / "engine.json").read_text(encoding="utf-8"))
        url, pid = str(about["url"]), int(about["pid"])
        os.kill(pid, 0)
        parts = urlsplit(url)
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 80), timeout=1.0).close()
    except (OSError, ValueError, KeyError):
        return None
    return url


def ensure_engine(home: Path, timeout_s: float = ENGINE_START_S) -> str:
    """The URL of the home's engine, started if it does not run; whoever else starts one at the same moment shares it.

    Raises:
        ServerUnreachable: it did not come up; its log is in the home.
    """
    deadline = time.monotonic() + timeout_s
    child: subprocess.Popen[bytes] | None = None
    while time.monotonic() < deadline:
        url = engine_url(home)
        if url is not None:
            return url
        if child is None or child.poll() is not None:
            child = _spawn(home, ["toolkit.engine", "--home", str(home)], "engine", {**LEAN, **os.environ})
        time.sleep(0.03)
    raise ServerUnreachable("The built-in engine did not start.", server_url=ENGINE, not_sent=True, hint=f"Its log is {home / 'logs' / 'engine.log'}.")


BARE = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "LANG")


def answer_of(script: list[str], given: bytes, wall_s: float) -> bytes | None:
    """What a Python script answers to `given`, in a process that knows nothing of our environment; None if it took longer than `wall_s` seconds.

    One that was killed, by its memory limit say, has answered nothing: b"".
    """
    environment = {name: os.environ[name] for name in BARE if name in os.environ}
    command = [sys.executable, "-I", *script]
    try:
        return subprocess.run(command, input=given, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=wall_s, check=False).stdout
    except subprocess.TimeoutExpired:
        return None


def reap() -> None:
    """Let children that have ended go."""
    _children[:] = [child for child in _children if child.poll() is None]


def _spawn(home: Path, module: list[str], log: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    reap()
    try:
        (home / "logs").mkdir(parents=True, exist_ok=True)
        with (home / "logs" / f"{log}.log").open("ab") as stream:
            child = subprocess.Popen(
                [sys.executable, "-m", *module], cwd=home, env=dict(environment), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
    except OSError as error:
        raise HomeUnusable(f"{home} cannot be written: {error.strerror}.", path=str(home), hint="Set TOOLKIT_HOME to a folder of yours.") from error
    _children.append(child)
    return child


@atexit.register
def _forget_children() -> None:
    """They live on by design, so subprocess shall not warn of them."""
    for child in _children:
        if child.poll() is None:
            child.returncode = 0
