"""A call of an instance that has come, and what all of them share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ...backend import Backend
from ...errors import ServerError
from ...messages import GetStatus, RecordOutcome, ReplyT, Request
from ...serving.leases import ClientLeases
from ...types import InstanceStatus, Signal
from .. import bodies
from .messages import Reply, json

DONE = json(bodies.Done(True))


class Call(NamedTuple):
    """One of the protocol."""

    code: str
    """How the codes of its errors begin."""
    answer: Callable[[One], Awaitable[Reply]]


class One(NamedTuple):
    """A call that has come."""

    backend: Backend
    leases: ClientLeases
    client: str
    """Who it is, where it says so: stock clients are one."""
    instance: str
    name: str
    """The last of its path."""
    body: bytearray

    async def status(self) -> InstanceStatus:
        return (await self.backend.request(GetStatus(instance_id=self.instance))).status

    async def end(
        self, status: InstanceStatus, payload: bytes = b"", signal: Signal | None = None
    ) -> Reply:
        """Record an outcome. One that does not run any more keeps its own."""
        try:
            await self.write(
                lambda lease: RecordOutcome(
                    instance_id=self.instance,
                    lease=lease,
                    status=status,
                    payload=payload,
                    signal=signal,
                ),
                ends=True,
                suspended=status is InstanceStatus.CANCELLED,
            )
        except ServerError:
            if await self.status() is InstanceStatus.UNKNOWN:
                raise
        return DONE

    async def write(
        self, make: Callable[[int], Request[ReplyT]], *, ends: bool = False, suspended: bool = False
    ) -> ReplyT:
        """Send a writing message under the client's lease."""
        return await self.leases.write(
            self.client, self.instance, make, ends=ends, suspended=suspended
        )
