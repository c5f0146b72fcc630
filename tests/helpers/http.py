"""A client over HTTP that says exactly what a test wants to be said."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import trio

JSON = {"Content-Type": "application/json"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Raw:
    """One connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = b""

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request, and read its answer. ``body``: bytes, or what is sent as JSON."""
        await self.stream.send_all(request(method, path, body, headers))
        return await self.answer(is_head=method == "HEAD")

    async def answer(self, *, is_head: bool = False) -> Answer:
        """The next answer. Raises EOFError."""
        head, lines = b"", []
        while not head:
            first, end, rest = self._received.partition(b"\r\n\r\n")
            if end:
                head, self._received = first, rest
            else:
                await self._more()
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = 0 if is_head else int(headers.get("content-length", "0"))
        while len(self._received) < length:
            await self._more()
        body, self._received = self._received[:length], self._received[length:]
        return Answer(int(lines[0].split()[1]), headers, body)

    async def is_closed(self) -> bool:
        """Waits until the server ends the connection."""
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        return True

    async def _more(self) -> None:
        with trio.fail_after(30):
            data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._received += data


def request(
    method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> bytes:
    """A request's bytes."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    data = b"" if body is None else data
    named = {"Host": "localhost", **(JSON if body is not None else {}), **(headers or {})}
    if "Transfer-Encoding" not in named and "Content-Length" not in named and method == "POST":
        named["Content-Length"] = str(len(data))
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Raw]:
    """A connection to a server."""
    parts = urlsplit(url)
    stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 0)
    async with stream:
        yield Raw(stream)


def has_core() -> bool:
    """Whether there is a stock runtara-core 1.6."""
    return "INTEROP_CORE_1_6" in os.environ
