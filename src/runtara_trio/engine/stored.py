"""What earlier runs have stored, read ahead.

A run that goes on asks for all that was done before, one id after the other. One read an
id would make a replay as slow as the work; so what is stored is read in pages, in the
order of the ids, as far as the id that is asked for. Nobody else writes while the lease
holds: what a page does not have is not stored, until this run saves it. A run of a new
instance has nothing to read.

An instance protocol has no such call; there it is one read an id, and many at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..errors import NotSupported
from ..ids import DURABLE, RESERVED, own_record
from ..messages import GetCheckpoint, ReadCheckpoints

PAGE = 1000
PAGE_BYTES = 1 << 20
MOST_BYTES = 32 << 20
"""Bytes of states that are kept until somebody asks for them; beyond, it is one read an id."""

Ask = Callable[[Any], Awaitable[Any]]


class Stored:
    """The stored checkpoints of one instance, as far as they were read."""

    __slots__ = ("_areas", "_bytes", "_instance_id", "_new", "_paged", "_request")

    def __init__(self, instance_id: str, request: Ask) -> None:
        self._instance_id = instance_id
        self._request = request
        self._new = False
        self._paged = True
        self._bytes = 0
        self._areas: dict[str, _Area] = {}

    def nothing_yet(self) -> None:
        """The instance is new: nothing is stored but by this run."""
        self._new = True

    async def find(self, checkpoint_id: str, *, touched: bool, keep: bool = False) -> bytes | None:
        """What is stored under an id; None: nothing.

        Args:
          touched: this run has had to do with the id before, or it cannot be told.
          keep: it will be asked for again.
        """
        if touched:
            return await self._ask(checkpoint_id)
        if self._new:
            return None
        prefix = area_of(checkpoint_id)
        if prefix is None or not self._paged:
            return await self._ask(checkpoint_id)
        area = self._areas.setdefault(prefix, _Area(prefix))
        if not area.covers(checkpoint_id) and self._bytes <= MOST_BYTES:
            try:
                await self._read(area, checkpoint_id)
            except NotSupported:
                self._paged = False
                return await self._ask(checkpoint_id)
        if not area.covers(checkpoint_id):
            return await self._ask(checkpoint_id)
        if keep:
            return area.states.get(checkpoint_id)
        state = area.states.pop(checkpoint_id, None)
        self._bytes -= len(state or b"")
        return state

    async def _ask(self, checkpoint_id: str) -> bytes | None:
        message = GetCheckpoint(instance_id=self._instance_id, checkpoint_id=checkpoint_id)
        reply = await self._request(message)
        return reply.state if reply.found else None

    async def _read(self, area: _Area, checkpoint_id: str) -> None:
        async with area.reading:
            while not area.covers(checkpoint_id) and self._bytes <= MOST_BYTES:
                page = await self._request(
                    ReadCheckpoints(
                        instance_id=self._instance_id,
                        prefix=area.prefix,
                        after=area.read_to,
                        limit=PAGE,
                        most_bytes=PAGE_BYTES,
                    )
                )
                for one in page.checkpoints:
                    area.states[one.checkpoint_id] = one.state
                    self._bytes += len(one.state)
                    area.read_to = one.checkpoint_id
                area.whole = not page.more


class _Area:
    """Ids that begin alike, and are read in one go."""

    __slots__ = ("prefix", "read_to", "reading", "states", "whole")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.states: dict[str, bytes] = {}
        self.read_to: str | None = None
        self.whole = False
        self.reading = trio.Lock()

    def covers(self, checkpoint_id: str) -> bool:
        # Code points and UTF-8 bytes sort alike.
        return self.whole or (self.read_to is not None and checkpoint_id <= self.read_to)


def area_of(checkpoint_id: str) -> str | None:
    """What is read along with an id: the durable calls, or those of the outermost path."""
    if checkpoint_id.startswith(DURABLE):
        return DURABLE
    kind, _ = own_record(checkpoint_id)
    if kind:  # failures are looked for by every call that is new, and are few
        return f"{RESERVED}{kind}::" if kind.startswith("failure") else None
    head, slash, _ = checkpoint_id.partition("/")
    return head + slash if slash else None
