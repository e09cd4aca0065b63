"""The recipes of docs/public.md as they stand there, tried: nginx and Caddy in front of the program, all that a guest does through them.

Only what must differ on this machine is put in: ports, a certificate, and where each may write.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import aiohttp
import httpx
import pytest
from websockets.sync.client import connect

from tests.benchmarks.sessions import Page
from tests.serving import PATIENCE_S, PUBLIC, Program
from toolkit.ledger import Ledger

ROOT = Path(__file__).parent.parent
CERTIFICATE = ROOT / "tests" / "faults" / "localhost.pem"
NAME = PUBLIC.removeprefix("https://")
SMALL = {"width": 64, "height": 64, "steps": 1}


def recipe(language: str, program: Program) -> str:
    """The recipe of the docs, with this program's ports."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "docs" / "public.md").read_text(), re.DOTALL)
    assert found is not None
    feed = program.feed.rpartition(":")[2]
    return found[1].replace("127.0.0.1:7860", f"127.0.0.1:{program.port}").replace("127.0.0.1:8329", f"127.0.0.1:{feed}")


def nginx(folder: Path, port: int, program: Program) -> tuple[list[str], dict[str, str]]:
    """How to start nginx with its recipe."""
    text = recipe("nginx", program).replace("listen 443", f"listen 127.0.0.1:{port}")
    text = re.sub(r"(ssl_certificate(?:_key)? +)\S+;", rf"\g<1>{CERTIFICATE};", text)
    places = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}} http {{ access_log off; {places}\n{text}\n}}"
    )
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(folder), "-e", f"{folder}/errors", "-c", str(folder / "nginx.conf")], {}


def caddy(folder: Path, port: int, program: Program) -> tuple[list[str], dict[str, str]]:
    """How to start Caddy with its recipe; it signs a certificate itself, where a public one would be fetched."""
    text = recipe("caddy", program).replace(f"{NAME} {{", f"{NAME}:{port} {{\n bind 127.0.0.1\n tls internal", 1)
    (folder / "Caddyfile").write_text(f"{{\n admin off\n skip_install_trust\n auto_https disable_redirects\n}}\n{text}")
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"], {"HOME": str(folder), "XDG_DATA_HOME": str(folder)}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    home = tmp_path_factory.mktemp("public") / "home"
    ledger = Ledger(home)
    for number in range(2):
        ledger.people.add(f"guest {number}")
    ledger.people.add("owner", is_owner=True)
    ledger.close()
    program = Program(home)
    yield program
    assert program.stop() == 0, program.said


def trusting() -> ssl.SSLContext:
    """A client that takes any certificate, since the name is not this machine's."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def port(request, program, tmp_path):
    name = request.param.__name__
    if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"{name} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command, environ = request.param(tmp_path, port, program)
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(command, env=os.environ | environ, stdout=said, stderr=said)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert process.poll() is None, (tmp_path / "said").read_text()
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as connection:
            trusting().wrap_socket(connection, server_hostname=NAME).close()
            break
        time.sleep(0.05)
    yield port
    process.terminate()
    process.wait(timeout=PATIENCE_S)


@contextlib.contextmanager
def visiting(port, cookie=None):
    """A browser at the public name, which the proxy's port of this machine stands for."""
    headers = {"Host": NAME, "Origin": PUBLIC} | ({"Cookie": cookie} if cookie else {})
    transport = httpx.HTTPTransport(verify=trusting())
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", headers=headers, transport=transport, timeout=PATIENCE_S) as client:
        client.event_hooks["request"] = [lambda request: request.extensions.update(sni_hostname=NAME)]
        yield client


def test_a_guest_signs_in_makes_a_picture_and_watches_it_through_the_proxy(program, port):
    code = program.ledger.people.give("guest 0", "code", 60.0)
    with visiting(port) as stranger:
        assert "for invited people" in stranger.get("/").text
        entered = stranger.post("/api/anime/session", json={"code": code})
        assert entered.status_code == 200, entered.text
        said = entered.headers["Set-Cookie"]
        assert "Secure" in said
        assert "HttpOnly" in said
    with visiting(port, said.split(";")[0]) as guest:
        assert guest.get("/api/anime/session").json()["person"] == "guest 0"
        headers = {"Cookie": said.split(";")[0]}
        with socket.create_connection(("127.0.0.1", port)) as plain:
            feed = connect(f"wss://{NAME}/feed", sock=plain, ssl=trusting(), server_hostname=NAME, additional_headers=headers, origin=PUBLIC)
            with feed:
                feed.send(json.dumps({"type": "subscribe", "job_id": "*"}))
                job = guest.post("/api/anime/generate/image", json={"prompt": "a fox", **SMALL}).json()
                told = {"status": None}
                while told.get("status") != "done":
                    news = json.loads(feed.recv(timeout=PATIENCE_S))
                    told = news.get("job") or told
        assert told["job_id"] == job["job_id"]
        file = guest.get(told["files"][0]["url"])
        assert file.content.startswith(b"\x89PNG")
        too_large = guest.post("/api/anime/uploads", content=b"x" * 23_000_000, headers={"Content-Type": "image/png"})
        assert too_large.status_code == 413


def test_the_page_lives_through_the_proxy(program, port):
    """The page's news are a stream: a proxy that holds them back would show nothing until the end."""

    async def visit() -> Page:
        connector = aiohttp.TCPConnector(ssl=trusting(), resolver=Here(port))
        async with aiohttp.ClientSession(f"https://{NAME}:{port}", connector=connector, read_bufsize=2**24) as http:
            page = Page(http, 1, program.cookie("guest 1"))
            await page.open()
            await page.make(1)
            await page.close()
            return page

    page = asyncio.run(visit())
    assert (page.made, page.wrong, page.foreign) == (1, 0, 0)


class Here(aiohttp.abc.AbstractResolver):
    """Finds every name on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [{"hostname": host, "host": "127.0.0.1", "port": port or self._port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self):
        pass
