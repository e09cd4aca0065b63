"""A real server around an application, and the whole program in public as a process, for tests and benchmarks."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from websockets.sync.client import connect

from tests.conftest import end_children
from toolkit.ledger import Ledger

PATIENCE_S = 60.0
PUBLIC = "https://draw.example.org"


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of a server around an application, on a port of the system's choice."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, ws="none", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Program:
    """`toolkit serve --public` as a process, with what it said and the keys of its people."""

    def __init__(self, home):
        self.home, self.said = home, ""
        environ = {"TOOLKIT_HOME": str(home), "TOOLKIT_PORT": "0", "TOOLKIT_FEED_PORT": "0", "PYTHONUNBUFFERED": "1", "FORWARDED_ALLOW_IPS": "*"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent.parent / "app.py"), "--public", PUBLIC, "engine"],
            env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while "Server " not in self.said:
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line
        self.page, self.feed = (re.search(rf"^{name} +(\S+)$", self.said, re.MULTILINE)[1].rstrip("/") for name in ("Page", "Feed"))
        self.port = int(self.page.rpartition(":")[2])
        self.ledger = Ledger(home)
        self._reading = threading.Thread(target=self._read_on)
        self._reading.start()

    def _read_on(self):
        for line in self.process.stdout:
            self.said += line

    def stop(self):
        """End it as a service manager does; its exit code."""
        self.process.terminate()
        code = self.process.wait(timeout=PATIENCE_S)
        self._reading.join()
        self.process.stdout.close()
        self.ledger.close()
        end_children(self.home)
        return code

    def client(self, name=None, address="203.0.113.1", **headers):
        """As the proxy passes somebody on: the public host, the address of who calls, their cookie."""
        headers = {"Host": "draw.example.org", "X-Forwarded-For": address, "X-Forwarded-Proto": "https", **headers}
        if name is not None:
            headers["Cookie"] = self.cookie(name)
        return httpx.Client(base_url=self.page, headers=headers, timeout=PATIENCE_S, limits=httpx.Limits(max_keepalive_connections=0))

    def cookie(self, name):
        return f"__Host-toolkit={self.ledger.people.give(name, 'session', 3600.0)}"

    def watch(self, name, **headers):
        headers = {"Cookie": self.cookie(name), **headers} if name else headers
        return connect(self.feed, additional_headers=headers, origin=PUBLIC, open_timeout=PATIENCE_S)

    def raw(self, data, timeout_s=PATIENCE_S):
        """What is answered to these very bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(data)
            return connection.recv(65536)
