"""A network in memory: datagrams between links, on Trio's clock, lost and late on script.

With it a QUIC client and a server run on MockClock, and no packet is ever lost by chance.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from typing import Any

import trio

from runtara_trio.quic.transport.link import Address

Fate = Callable[[bytes, bool], Iterable[tuple[float, bytes]]]
"""What becomes of a datagram (and whether a client sent it): seconds until it arrives, and as
what; nothing: it is lost."""

DELAY = 0.001


def delivered(datagram: bytes, from_client: bool) -> Iterable[tuple[float, bytes]]:
    """Each arrives, after a millisecond."""
    return [(DELAY, datagram)]


def rough(
    seed: int, *, loss: float = 0.0, reorder: float = 0.0, double: float = 0.0, corrupt: float = 0.0
) -> Fate:
    """A network that loses, reorders, doubles and corrupts, with these probabilities."""
    dice = random.Random(seed)

    def fate(datagram: bytes, from_client: bool) -> Iterable[tuple[float, bytes]]:
        if dice.random() < loss:
            return
        if dice.random() < corrupt:
            spoiled = bytearray(datagram)
            spoiled[dice.randrange(len(spoiled))] ^= 1 << dice.randrange(8)
            datagram = bytes(spoiled)
        yield DELAY + (dice.random() * 0.005 if dice.random() < reorder else 0), datagram
        if dice.random() < double:
            yield DELAY + dice.random() * 0.005, datagram

    return fate


class Network:
    """Links that reach each other by address."""

    def __init__(self, fate: Fate = delivered) -> None:
        self.fate = fate
        self.refuses = True
        """Whether a sender is told that nobody listens."""
        self.links: dict[Address, MemoryLink] = {}
        self.sent: list[tuple[float, bool, bytes]] = []
        self._ports = itertools.count(50_000)
        self._numbers = itertools.count()

    def listen(self, port: int) -> MemoryLink:
        """A server's link."""
        return self._add(("127.0.0.1", port), None)

    def connect(self, family: int, address: Address) -> MemoryLink:
        """A client's link, as a session opens it."""
        return self._add(("127.0.0.1", next(self._ports)), address)

    def _add(self, address: Address, peer: Address | None) -> MemoryLink:
        link = self.links[address] = MemoryLink(self, address, peer)
        return link

    def carry(self, link: MemoryLink, datagram: bytes, target: Address) -> None:
        from_client = link.peer is not None
        self.sent.append((trio.current_time(), from_client, datagram))
        for delay, arriving in self.fate(datagram, from_client):
            receiver = self.links.get(target)
            if receiver is not None:
                receiver.put(delay, next(self._numbers), arriving, link.address)
            elif self.refuses:
                link.refused += 1
                link.news.set()


class MemoryLink:
    """One end of the network."""

    def __init__(self, network: Network, address: Address, peer: Address | None) -> None:
        self.address = address
        self.peer = peer
        self.refused = 0
        self.news = trio.Event()
        self._network = network
        self._arriving: list[Any] = []

    def put(self, delay: float, number: int, datagram: bytes, source: Address) -> None:
        heapq.heappush(self._arriving, (trio.current_time() + delay, number, datagram, source))
        self.news.set()

    async def wait_readable(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            if self.refused or (self._arriving and self._arriving[0][0] <= trio.current_time()):
                return
            self.news = trio.Event()
            first = self._arriving[0][0] if self._arriving else float("inf")
            with trio.move_on_at(first):
                await self.news.wait()

    def receive(self) -> tuple[bytes, Address]:
        if self.refused:
            self.refused -= 1
            raise ConnectionRefusedError
        if not self._arriving or self._arriving[0][0] > trio.current_time():
            raise BlockingIOError
        _, _, datagram, source = heapq.heappop(self._arriving)
        return datagram, source

    def send(self, datagram: bytes, address: Address) -> None:
        self._network.carry(self, datagram, self.peer or address)

    def close(self) -> None:
        if self._network.links.get(self.address) is self:
            del self._network.links[self.address]
