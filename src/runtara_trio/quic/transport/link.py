"""The seam to the network: datagrams, sent and received without waiting.

A link loses what it cannot send: QUIC recovers, and a full buffer, a network that is gone
or a message that is too long for a path are all the same to it. A refusal is told, because
nothing shows sooner that nobody listens.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any, Protocol

import trio

Address = tuple[Any, ...]
"""As sockets have it: host and port first."""

LARGEST = 65535

_LIKE_LOSS = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        errno.EADDRNOTAVAIL,  # an interface went with its address
        errno.EPERM,  # a firewall's word
        errno.EMSGSIZE,
        errno.ENOBUFS,
    }
)


class Link(Protocol):
    """What a driver moves datagrams over."""

    async def wait_readable(self) -> None:
        """Until ``receive`` may have something."""

    def receive(self) -> tuple[bytes, Address]:
        """The next datagram and who sent it.

        Raises:
          BlockingIOError: there is no datagram.
          ConnectionRefusedError: nobody listens where something was sent to, or the
            socket cannot be used.
        """

    def send(self, datagram: bytes, address: Address) -> None:
        """Send one, or lose it. May raise ConnectionRefusedError, of an earlier one."""

    def close(self) -> None:
        """Free what is held."""


class ClientLink:
    """A UDP socket connected to one server, which is how refusals are heard of."""

    def __init__(self, family: int, address: Address) -> None:
        self._address = address
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(address)
        except BaseException:
            self._socket.close()
            raise

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._socket)

    def receive(self) -> tuple[bytes, Address]:
        try:
            return self._socket.recv(LARGEST), self._address
        except (BlockingIOError, ConnectionRefusedError):
            raise
        except OSError as exc:
            if exc.errno in _LIKE_LOSS:
                raise BlockingIOError(str(exc)) from exc
            raise ConnectionRefusedError(str(exc)) from exc

    def send(self, datagram: bytes, address: Address) -> None:
        try:
            self._socket.send(datagram)
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            raise
        except OSError as exc:
            if exc.errno not in _LIKE_LOSS:
                raise ConnectionRefusedError(str(exc)) from exc

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


class ServerLink:
    """A bound UDP socket, for any number of clients."""

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        bound.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):
                bound.setsockopt(socket.SOL_SOCKET, option, 2 << 20)

    @property
    def address(self) -> Address:
        name: Address = self._socket.getsockname()
        return name

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._socket)

    def receive(self) -> tuple[bytes, Address]:
        try:
            return self._socket.recvfrom(LARGEST)
        except BlockingIOError:
            raise
        except OSError as exc:  # that the kernel kept of an earlier datagram: one lost
            _lose(exc)
            raise BlockingIOError(str(exc)) from exc

    def send(self, datagram: bytes, address: Address) -> None:
        try:
            self._socket.sendto(datagram, address)
        except (BlockingIOError, ConnectionRefusedError):
            pass
        except OSError as exc:
            _lose(exc)

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


def _lose(error: OSError) -> None:
    if error.errno not in _LIKE_LOSS:
        raise error
