"""A real socket before a server's, which loses, delays, doubles and spoils datagrams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from .network import Fate, delivered

Address = tuple[str, int]


class RoughProxy:
    """Stands before a UDP port of this machine; each client has a socket of its own behind it."""

    def __init__(self, front: trio.socket.SocketType, port: int, nursery: trio.Nursery) -> None:
        self.address: Address = front.getsockname()
        self.fate: Fate = delivered
        self._front = front
        self._server = ("127.0.0.1", port)
        self._nursery = nursery
        self._behind: dict[Address, trio.socket.SocketType] = {}

    async def carry(self) -> None:
        while True:
            datagram, client = await receive(self._front)
            if client not in self._behind:
                behind = self._behind[client] = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
                await behind.bind(("127.0.0.1", 0))
                self._nursery.start_soon(self._carry_back, behind, client)
            self._deliver(datagram, self._behind[client], self._server, from_client=True)

    async def _carry_back(self, behind: trio.socket.SocketType, client: Address) -> None:
        with behind:
            while True:
                datagram, _ = await receive(behind)
                self._deliver(datagram, self._front, client, from_client=False)

    def _deliver(
        self, datagram: bytes, link: trio.socket.SocketType, target: Address, *, from_client: bool
    ) -> None:
        for delay, arriving in self.fate(datagram, from_client):
            self._nursery.start_soon(send_later, link, delay, arriving, target)


async def receive(link: trio.socket.SocketType) -> tuple[bytes, Address]:
    while True:
        try:
            return await link.recvfrom(65535)
        except ConnectionRefusedError:  # of a datagram before: nobody listens just now
            continue


async def send_later(
    link: trio.socket.SocketType, delay: float, datagram: bytes, target: Address
) -> None:
    await trio.sleep(delay)
    with suppress(OSError):  # it is lost
        await link.sendto(datagram, target)


@asynccontextmanager
async def open_rough_proxy(port: int) -> AsyncIterator[RoughProxy]:
    """Before a port of this machine, until the end of the block."""
    front = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
    with front:
        await front.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            proxy = RoughProxy(front, port, nursery)
            nursery.start_soon(proxy.carry)
            yield proxy
            nursery.cancel_scope.cancel()
