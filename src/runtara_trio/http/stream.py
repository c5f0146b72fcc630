"""TCP on Trio without a turn of its scheduler where nothing has to be waited for.

Trio's own streams make every call a checkpoint, which costs more than the system calls do: a
request and its answer are two small pieces. Whoever uses these must see to it that he waits now and
then.
"""

from __future__ import annotations

import socket

import trio


class TcpStream(trio.abc.HalfCloseableStream):
    """A connected socket."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected

    @classmethod
    def of(cls, stream: trio.SocketStream) -> TcpStream:
        """The connection of one of Trio's streams, which is not to be used any more."""
        return cls(socket.socket(fileno=stream.socket.detach()))

    def fileno(self) -> int:
        return self._socket.fileno()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send. A checkpoint only where the peer does not take it."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as exc:
                raise self._broken() from exc

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self._socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has come; ``b""``: the peer sends no more. A checkpoint only where nothing has."""
        while True:
            try:
                return self._socket.recv(max_bytes or 64 * 1024)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as exc:
                raise self._broken() from exc

    async def send_eof(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise self._broken() from exc

    async def aclose(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()

    def _broken(self) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if self._socket.fileno() < 0:
            return trio.ClosedResourceError("this stream was closed")
        return trio.BrokenResourceError("the connection is broken")
