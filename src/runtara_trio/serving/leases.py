"""Whose instance it is: the leases of a server's clients.

The server is one owner of its store, and each lease belongs to one client and one instance.
A register takes the instance from another client of this server; a writing call without a
register takes one that is free, or whose client is gone: so a stock client goes on that has
lost its connection, or whose server was restarted.

A client over QUIC is a connection. When it goes its leases stay for a while, in case it comes
back. Over HTTP the calls of one client come on any connection: its leases stay for a while
after each call.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from ..backend import Backend
from ..errors import LeaseLost, SdkError
from ..messages import FreeLease, Register, Registered, ReplyT, Request, TakeLease
from ..tasks import RepeatedEvent

Client = Any
"""Whoever has a lease. It is compared, and never opened."""


class _Leased:
    __slots__ = ("client", "lease", "timed", "until")

    def __init__(self, client: Client, lease: int) -> None:
        self.client: Client | None = client
        """None: its connection is gone."""
        self.lease = lease
        self.until = math.inf
        """When it is let go of, by Trio's clock."""
        self.timed = False
        """Whether that is looked after."""


class ClientLeases:
    """What the clients of one server have leased."""

    def __init__(self, backend: Backend, keep: float) -> None:
        """``keep``: seconds that a lease outlives its connection."""
        self._backend = backend
        self._keep = keep
        self._leased: dict[str, _Leased] = {}
        self._by_client: dict[Client, set[str]] = {}
        self._taking: dict[str, trio.Lock] = {}
        self._timed: list[tuple[float, int, str, _Leased]] = []
        self._numbers = itertools.count()
        self._more = RepeatedEvent()

    def __len__(self) -> int:
        return len(self._leased)

    def has(self, client: Client, instance_id: str) -> bool:
        """Whether a client has leased an instance."""
        leased = self._leased.get(instance_id)
        return leased is not None and leased.client == client

    async def register(self, client: Client, instance_id: str, **values: Any) -> Registered:
        """Register an instance for a client, as runtara-core does: a finished one is revived."""
        async with self._alone(instance_id):
            leased = self._leased.get(instance_id)
            message = Register(
                instance_id=instance_id,
                revive=True,
                replaces=0 if leased is None else leased.lease,
                **values,
            )
            reply: Registered = await self._backend.request(message)
            self._give(client, instance_id, reply.lease)
            return reply

    async def write(
        self,
        client: Client,
        instance_id: str,
        make: Callable[[int], Request[ReplyT]],
        *,
        ends: bool = False,
        suspended: bool = False,
    ) -> ReplyT:
        """Send a writing message under the client's lease.

        Args:
          ends: it gives the lease up.
          suspended: it may also be about a suspended instance, which has no lease.

        Raises:
          LeaseLost: another living client or owner has the instance.
          ServerError: no such instance runs.
        """
        lease = await self._lease(client, instance_id, suspended=suspended)
        try:
            reply = await self._backend.request(make(lease))
        except LeaseLost:
            self._dropped(instance_id, lease)
            raise
        if ends:
            self._dropped(instance_id, lease)
        return reply

    async def _lease(self, client: Client, instance_id: str, *, suspended: bool) -> int:
        """The lease that a client writes with."""
        leased = self._leased.get(instance_id)
        if leased is not None and leased.client == client:
            return leased.lease
        async with self._alone(instance_id):
            leased = self._leased.get(instance_id)
            if leased is not None and leased.client == client:
                return leased.lease
            if leased is not None and leased.client is not None:
                raise LeaseLost(instance_id)
            taken = await self._backend.request(
                TakeLease(
                    instance_id=instance_id,
                    replaces=0 if leased is None else leased.lease,
                    suspended=suspended,
                )
            )
            self._give(client, instance_id, taken.lease)
            return taken.lease

    def _give(self, client: Client, instance_id: str, lease: int) -> None:
        before = self._leased.get(instance_id)
        if before is not None:
            self._dropped(instance_id, before.lease)
        self._leased[instance_id] = _Leased(client, lease)
        self._by_client.setdefault(client, set()).add(instance_id)

    def _dropped(self, instance_id: str, lease: int) -> None:
        """The instance has ended, or the lease was lost."""
        leased = self._leased.get(instance_id)
        if leased is not None and leased.lease == lease:
            del self._leased[instance_id]
            others = self._by_client.get(leased.client)
            if others is not None:
                others.discard(instance_id)
                if not others:
                    del self._by_client[leased.client]

    def _alone(self, instance_id: str) -> _Turn:
        return _Turn(self._taking, instance_id)

    # ---- leases that nobody uses

    def has_gone(self, client: Client) -> None:
        """A client's connection is gone: its leases stay for a while."""
        for instance in self._by_client.pop(client, ()):
            leased = self._leased[instance]
            leased.client = None
            self._keep_until(instance, leased, trio.current_time() + self._keep)

    def used(self, client: Client, instance_id: str, quiet: float) -> None:
        """A client without a connection of its own has called: its lease, if it has one, ends after
        ``quiet`` seconds without another call."""
        leased = self._leased.get(instance_id)
        if leased is not None and leased.client == client:
            self._keep_until(instance_id, leased, trio.current_time() + quiet)

    def _keep_until(self, instance_id: str, leased: _Leased, until: float) -> None:
        leased.until = until
        if not leased.timed:
            leased.timed = True
            heapq.heappush(self._timed, (until, next(self._numbers), instance_id, leased))
            self._more.set()

    async def free_unused(self) -> None:
        """Let go of what nobody came back for. Runs until cancelled."""
        while True:
            while not self._timed:
                await self._more.wait()
            first = self._timed[0][0]
            with trio.move_on_at(first):
                await self._more.wait()  # for one that is due before
            if trio.current_time() < first:
                continue
            _, _, instance, leased = heapq.heappop(self._timed)
            leased.timed = False
            if self._leased.get(instance) is not leased:
                continue
            if leased.until > first:  # it was used since
                self._keep_until(instance, leased, leased.until)
                continue
            self._dropped(instance, leased.lease)
            with contextlib.suppress(SdkError):  # the store has gone, and this owner too
                await self._backend.request(FreeLease(instance_id=instance, lease=leased.lease))


@asynccontextmanager
async def open_leases(backend: Backend, *, keep: float = 30.0) -> AsyncIterator[ClientLeases]:
    """The leases of all servers of a backend.

    Args:
      keep: seconds that those of a connection outlive it.
    """
    leases = ClientLeases(backend, keep)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leases.free_unused)
        yield leases
        nursery.cancel_scope.cancel()


class _Turn:
    """One at a time an instance; nothing is kept of those that nobody wants."""

    def __init__(self, locks: dict[str, trio.Lock], instance_id: str) -> None:
        self._locks = locks
        self._instance_id = instance_id

    async def __aenter__(self) -> None:
        self._lock = self._locks.setdefault(self._instance_id, trio.Lock())
        await self._lock.acquire()

    async def __aexit__(self, *exc: object) -> None:
        self._lock.release()
        if not self._lock.locked() and not self._lock.statistics().tasks_waiting:
            self._locks.pop(self._instance_id, None)
