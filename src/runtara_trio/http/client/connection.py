"""One connection to a server: a request, and its answer to the end.

Only what the servers of this protocol send is read: a status, headers, and as many bytes as
``content-length`` says. Anything else ends the connection.
"""

from __future__ import annotations

import re
import select
from typing import NamedTuple

import trio

LONGEST_HEAD = 64 * 1024
LONGEST_BODY = 128 * 1024 * 1024
"""Bytes of an answer. A state of 48 MiB is one of 64 in base64."""
CHUNK = 64 * 1024

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*(?=\r\n)", re.IGNORECASE)
_OTHER = re.compile(rb"\r\n(?:transfer-encoding|content-encoding):", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*(?=\r\n)", re.IGNORECASE)


class Response(NamedTuple):
    """An answer."""

    status: int
    body: bytes


class Lost(Exception):
    """The connection was lost; ``sent``: perhaps after the request had arrived."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class BadResponse(Exception):
    """What came is no answer."""


class Connection:
    """One that is open. Who uses it takes turns; one call at a time."""

    def __init__(self, stream: trio.abc.Stream, socket: int, *, is_plain: bool = True) -> None:
        """
        Args:
          socket: what is below the stream.
          is_plain: it is a :class:`TcpStream`: a read that is cancelled loses nothing.
        """
        self.is_plain = is_plain
        self._stream = stream
        self._socket = socket
        self._received = bytearray()
        self._read_head: tuple[int, int, bool] | None = None
        self.reusable = True
        """Another request may be sent on it."""

    async def send(self, request: bytes) -> None:
        """Send a request. :meth:`read` reads its answer. Raises Lost."""
        self.reusable = False
        try:
            await self._stream.send_all(request)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            # Some servers answer what is too large before they have read it all.
            if not self._received and not await self._receive_quietly():
                raise Lost(str(exc.__cause__ or exc), sent=True) from exc

    async def read(self) -> Response:
        """Read the answer to the end. Where it is cancelled, another call goes on with that.

        Raises:
          Lost, BadResponse.
        """
        if self._read_head is None:
            self._read_head = _checked(await self._head())
        status, length, closes = self._read_head
        while len(self._received) < length:
            await self._receive()
        body = bytes(self._received[:length])
        del self._received[:length]
        self._read_head = None
        self.reusable = not (self._received or closes)
        return Response(status, body)

    async def _head(self) -> bytes:
        """Status and headers of the answer, without those of an interim one."""
        searched = 0
        while (end := self._received.find(b"\r\n\r\n", max(0, searched - 3))) < 0:
            searched = len(self._received)
            if searched > LONGEST_HEAD:
                raise BadResponse("its headers have no end")
            await self._receive()
        head = bytes(self._received[: end + 2])
        del self._received[: end + 4]
        if head.startswith(b"HTTP/1.1 1"):
            return await self._head()
        return head

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive_some(CHUNK)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise Lost(str(exc.__cause__ or exc), sent=True) from exc
        if not data:
            raise Lost("the server closed the connection", sent=True)
        self._received += data

    async def _receive_quietly(self) -> bool:
        try:
            await self._receive()
        except Lost:
            return False
        return True

    def is_alive(self) -> bool:
        """Whether a connection that nobody uses is open still, as far as is known here: nothing
        comes on one unasked but its end."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return self.reusable and not poll.poll(0)

    async def close(self) -> None:
        await trio.aclose_forcefully(self._stream)


def _checked(head: bytes) -> tuple[int, int, bool]:
    """Status, length of the body, and whether the connection ends behind it. Raises BadResponse."""
    status = _STATUS.match(head)
    lengths = _LENGTH.findall(head)
    if status is None or len(lengths) != 1 or _OTHER.search(head):
        raise BadResponse(f"it begins with {bytes(head[:60])!r}")
    length = int(lengths[0])
    if length > LONGEST_BODY:
        raise BadResponse(f"it has {length} bytes")
    return int(status[1]), length, _CLOSE.search(head) is not None
