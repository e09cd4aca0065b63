"""client: whatever stands between us and ComfyUI has a sentence of its own with a next step, on real sockets; nothing secret is in it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from toolkit.client import ComfyClient
from toolkit.errors import ServerError, ServerRefused, ServerUnreachable
from toolkit.settings import ServerAddress

SECRET = "correct-horse"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
# for `localhost`, signed by themselves with this key: one until 2120, one until 2021
KEY = """-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIMVhmesiI5s1/pXhCrOV07F2XuGO/OA2vDHT7aEOk8h4oAoGCCqGSM49
AwEHoUQDQgAE0mjp2Ia04as+AfulAl0BKCaWE2v9E9cf8mGvXM8ZS12fNbv1jhGO
BR/vvDrgiB1Yn7M5134KP9wdUCmtW0q7BQ==
-----END EC PRIVATE KEY-----
"""
VALID = """-----BEGIN CERTIFICATE-----
MIIBXjCCAQSgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNJo6diGtOGrPgH7
pQJdASgmlhNr/RPXH/Jhr1zPGUtdnzW79Y4RjgUf77w64IgdWJ+zOdd+Cj/cHVAp
rVtKuwWjRTBDMBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAMBgNVHRMEBTADAQH/MB0G
A1UdDgQWBBTV3Q1hNU2k6ZptmysgaeOQjil1rTAKBggqhkjOPQQDAgNIADBFAiEA
6nZQOY2ARK47wCAodYqe44z07DDTn60BlVE9MF2uRLACIDmjtTm95Dwbz8r6boCj
p7MQ/Yb0eYLLSgzFd/6fv05D
-----END CERTIFICATE-----
"""
EXPIRED = """-----BEGIN CERTIFICATE-----
MIIBWzCCAQKgAwIBAgIBAjAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwHhcNMjAwMTAxMDAwMDAwWhcNMjEwMTAxMDAwMDAwWjAUMRIwEAYDVQQDDAls
b2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATSaOnYhrThqz4B+6UC
XQEoJpYTa/0T1x/yYa9czxlLXZ81u/WOEY4FH++8OuCIHVifsznXfgo/3B1QKa1b
SrsFo0UwQzAUBgNVHREEDTALgglsb2NhbGhvc3QwDAYDVR0TBAUwAwEB/zAdBgNV
HQ4EFgQU1d0NYTVNpOmabZsrIGnjkI4pda0wCgYIKoZIzj0EAwIDRwAwRAIgafCS
CDiqkRADrhWXeqINnnz1R93gZlRrRjwU8fSomq4CIHxJarsLVYP+XfFD2Wb4LYT9
I4OaMtZpvV4V/+Vy3JLi
-----END CERTIFICATE-----
"""


async def ask(url: str) -> ServerError:
    """How asking a server for its queue fails."""
    async with ComfyClient(ServerAddress.parse(url), headers={"X-Key": SECRET}, timeout_s=1.0) as client:
        with pytest.raises(ServerError) as caught:
            await client.queue()
    return caught.value


async def asked(talk: Talk, scheme: str = "http", host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> ServerError:
    """The same of a server that talks like this; the password of the address must not come back."""
    talks: set[asyncio.Task[None]] = set()

    async def watched(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(OSError):
            await talk(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(watched, "127.0.0.1", 0, ssl=tls)
    error = await ask(f"{scheme}://ann:{SECRET}@{host}:{server.sockets[0].getsockname()[1]}")
    server.close()
    await asyncio.gather(*talks)
    await server.wait_closed()
    assert SECRET not in f"{error} {error!r} {error.__cause__}"
    assert error.hint
    return error


def saying(answer: str) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(16)
        writer.write(answer.encode())
        await writer.drain()

    return talk


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def certified(folder: Path, certificate: str) -> ssl.SSLContext:
    for name, content in (("cert.pem", certificate), ("key.pem", KEY)):
        (folder / name).write_text(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "wants a user and password"), (403, "refuses us"), (302, "sends us elsewhere (302): https://login.example/in."), (404, "does not have"),
        (407, "A proxy before"), (502, "cannot reach ComfyUI"), (503, "not available"), (504, "waited too long"), (500, "answered 500"),
    ],
)  # fmt: skip
async def test_a_status_that_says_no_has_a_sentence_of_its_own(status: int, said: str) -> None:
    location = f"Location: https://ann:{SECRET}@login.example/in?next={SECRET}\r\n"
    error = await asked(saying(f"HTTP/1.1 {status} X\r\n{location}Content-Length: 0\r\n\r\n"))
    assert isinstance(error, ServerRefused)
    assert (error.status, said in error.message) == (status, True)


@pytest.mark.parametrize(
    ("talk", "scheme", "said", "not_sent"),
    [
        (silent, "http", "does not answer in time", False),
        (saying(""), "http", "closed the connection", False),
        (saying("SSH-2.0-OpenSSH\r\n"), "http", "does not answer with HTTP", False),
        (saying("HTTP/1.1 400 Bad Request\r\n\r\n"), "https", "does not speak TLS", True),
        (silent, "https", "no connection in time", True),
    ],
    ids=["silent", "closing", "no http", "no tls", "silent to tls"],
)
async def test_a_server_that_does_not_answer_says_how_and_whether_it_can_have_heard_us(talk: Talk, scheme: str, said: str, not_sent: bool) -> None:
    error = await asked(talk, scheme)
    assert isinstance(error, ServerUnreachable)
    assert (said in error.message, error.not_sent) == (True, not_sent), error


@pytest.mark.parametrize(
    ("certificate", "host", "trusted", "said"),
    [
        (VALID, "localhost", False, "not trusted"),
        (EXPIRED, "localhost", True, "has expired"),
        (VALID, "127.0.0.1", True, "made out to another name"),
    ],
    ids=["self-signed", "expired", "another name"],
)
async def test_each_fault_of_a_certificate_has_a_sentence_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: str, host: str, trusted: bool, said: str
) -> None:
    context = certified(tmp_path, certificate)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    error = await asked(saying(""), "https", host, context)
    assert isinstance(error, ServerUnreachable)
    assert (said in error.message, error.not_sent) == (True, True), error


async def test_a_name_nobody_knows_and_a_port_nobody_listens_on_are_told_apart() -> None:
    unknown, refused = await ask("http://no-such-host.invalid:8188"), await ask("http://127.0.0.1:1")
    assert "name in http://no-such-host.invalid:8188 is unknown" in unknown.message
    assert "No ComfyUI answers at http://127.0.0.1:1" in refused.message
    assert isinstance(unknown, ServerUnreachable)
    assert unknown.not_sent
