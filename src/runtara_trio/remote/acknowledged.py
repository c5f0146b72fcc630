"""Signals that were acknowledged, and that the server delivers again.

runtara-core on SQLite returns a signal after its acknowledgement for ever; what it asked
for must not be done twice. So before a signal is acknowledged it is saved as a checkpoint,
``runtara_trio::ack::<n>``, of which the highest counts. A signal equal to it is stale,
until a poll has found no signal: then the next one that is equal is new, and an empty record
is saved before it is delivered. (Two signals of a type without payloads cannot be told
apart but by that.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from ..ids import acknowledgement_id
from ..types import Signal

Version = int
"""The number of a poll of an instance's signals, in the order in which they were sent."""


class Checkpoints(Protocol):
    """What this needs of the server."""

    async def read(self, instance_id: str, checkpoint_id: str, /) -> bytes | None:
        """What is stored under an id."""

    async def save(self, instance_id: str, checkpoint_id: str, state: bytes, /) -> bytes:
        """Store a state, or get the one that is there."""


class Acknowledged:
    """What one instance has acknowledged."""

    def __init__(self, instance_id: str, checkpoints: Checkpoints, *, resumed: bool = True) -> None:
        self._instance_id = instance_id
        self._checkpoints = checkpoints
        self._lock = trio.Lock()
        # Most runs never see a signal: nothing is read before there is one.
        self._count: int | None = None if resumed else 0
        self._last = b""
        self._acknowledged_at: Version = 0
        self._none_at: Version = -1

    async def fresh(self, signal: Signal | None, version: Version) -> Signal | None:
        """The signal that a poll found, unless it was acknowledged before."""
        if signal is None:
            self._none_at = max(self._none_at, version)
            return None
        if self._count == 0:
            return signal
        async with self._lock:
            await self._load()
            if _record(signal) != self._last:
                return signal
            if self._none_at <= self._acknowledged_at:
                return None
            await self._add(b"")
            return signal

    async def add(self, signal: Signal, next_version: Callable[[], Version]) -> None:
        """This signal is about to be acknowledged."""
        async with self._lock:
            await self._load()
            if self._last != _record(signal):
                await self._add(_record(signal))
            self._acknowledged_at = next_version()

    async def _add(self, record: bytes) -> None:
        assert self._count is not None
        while True:
            self._count += 1
            stands = await self._save(self._count, record)
            self._last = stands
            if stands == record:
                return

    async def _load(self) -> None:
        """Find the highest record. They are numbered without gaps."""
        if self._count is not None:
            return
        above = 1
        while await self._read(above) is not None:
            above *= 2
        below = above // 2
        while above - below > 1:
            middle = (below + above) // 2
            if await self._read(middle) is None:
                above = middle
            else:
                below = middle
        self._last = (await self._read(below) or b"") if below else b""
        self._count = below

    def _read(self, number: int) -> Awaitable[bytes | None]:
        return self._checkpoints.read(self._instance_id, acknowledgement_id(number))

    def _save(self, number: int, record: bytes) -> Awaitable[bytes]:
        return self._checkpoints.save(self._instance_id, acknowledgement_id(number), record)


def _record(signal: Signal) -> bytes:
    return f"{signal.type}:".encode() + signal.payload
