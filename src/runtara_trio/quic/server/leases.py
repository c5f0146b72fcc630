"""Whose instance it is: the leases of a server's clients.

The server is one owner of its store, and each lease belongs to one connection and one
instance. A register takes the instance from another connection of this server; a writing
call without a register takes one that is free, or whose connection is gone: so a stock
client goes on that has lost its connection, or whose server was restarted. When a
connection goes its leases stay for a while, in case it comes back.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any

import trio

from ...backend import Backend
from ...errors import LeaseLost, SdkError
from ...messages import FreeLease, Register, Registered, TakeLease
from ...tasks import RepeatedEvent

Client = Any
"""Whoever has a lease. It is compared, and never opened."""


class _Leased:
    __slots__ = ("client", "lease")

    def __init__(self, client: Client | None, lease: int) -> None:
        self.client = client
        """None: its connection is gone."""
        self.lease = lease


class ClientLeases:
    """What the clients of one server have leased."""

    def __init__(self, backend: Backend, keep: float) -> None:
        """``keep``: seconds that a lease outlives its connection."""
        self._backend = backend
        self._keep = keep
        self._leased: dict[str, _Leased] = {}
        self._by_client: dict[Client, set[str]] = {}
        self._taking: dict[str, trio.Lock] = {}
        self._gone: deque[tuple[float, str, _Leased]] = deque()
        self._more = RepeatedEvent()

    def __len__(self) -> int:
        return len(self._leased)

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

    async def lease(self, client: Client, instance_id: str, *, suspended: bool = False) -> int:
        """The lease that a client writes with.

        Raises:
          LeaseLost: another living client or owner has the instance.
          ServerError: no such instance runs.
        """
        leased = self._leased.get(instance_id)
        if leased is not None and leased.client is client:
            return leased.lease
        async with self._alone(instance_id):
            leased = self._leased.get(instance_id)
            if leased is not None and leased.client is client:
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

    def dropped(self, instance_id: str, lease: int) -> None:
        """The instance has ended, or the lease was lost."""
        leased = self._leased.get(instance_id)
        if leased is not None and leased.lease == lease:
            del self._leased[instance_id]
            self._by_client.get(leased.client, set()).discard(instance_id)

    def has_gone(self, client: Client) -> None:
        """A client's connection is gone: its leases stay for a while."""
        until = trio.current_time() + self._keep
        for instance in self._by_client.pop(client, ()):
            leased = self._leased[instance]
            leased.client = None
            self._gone.append((until, instance, leased))
        self._more.set()

    async def free_gone(self) -> None:
        """Let go of what nobody came back for. Runs until cancelled."""
        while True:
            while not self._gone:
                await self._more.wait()
            until, instance, leased = self._gone[0]
            await trio.sleep_until(until)
            self._gone.popleft()
            if self._leased.get(instance) is leased and leased.client is None:
                self.dropped(instance, leased.lease)
                with contextlib.suppress(SdkError):  # the store has gone, and this owner too
                    await self._backend.request(FreeLease(instance_id=instance, lease=leased.lease))

    def _give(self, client: Client, instance_id: str, lease: int) -> None:
        before = self._leased.get(instance_id)
        if before is not None:
            self._by_client.get(before.client, set()).discard(instance_id)
        self._leased[instance_id] = _Leased(client, lease)
        self._by_client.setdefault(client, set()).add(instance_id)

    def _alone(self, instance_id: str) -> _Turn:
        return _Turn(self._taking, instance_id)


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
