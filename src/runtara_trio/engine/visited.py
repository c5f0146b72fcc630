"""Which ids a run has had to do with.

A program that was changed between two runs may look for its work under other ids: what
it did before is then stored, but done again. Nobody can see that from one call; at the
end of a run that completed, the ids that are stored and were never asked for show it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..ids import own_record, users_id
from ..messages import CheckpointPage, ReadCheckpoints

PAGE = 1000
MOST = 100_000
"""Ids that are kept, some 10 MB; of a run with more it cannot be told."""


class Visited:
    """The ids that one run has asked for."""

    __slots__ = ("_ids", "_kept", "warns")

    def __init__(self) -> None:
        self.warns = True
        """Whether it can be told what was missed."""
        self._kept = True
        self._ids: set[str] | None = None

    def nothing_missed(self) -> None:
        """Nothing was stored before, or the run was told to begin behind it."""
        self.warns = False

    def add(self, checkpoint_id: str) -> bool:
        """Note an id. Whether it was there already, or it cannot be told."""
        if not self._kept:
            return True
        if self._ids is None:
            self._ids = set()
        before = len(self._ids)
        self._ids.add(checkpoint_id)
        if len(self._ids) > MOST:
            self._kept = self.warns = False
            self._ids = None
            return True
        return len(self._ids) == before

    def has(self, checkpoint_id: str) -> bool:
        """Whether the run has had to do with an id, or it cannot be told."""
        return not self._kept or (self._ids is not None and checkpoint_id in self._ids)

    async def missed(
        self,
        instance_id: str,
        request: Callable[[ReadCheckpoints], Awaitable[CheckpointPage]],
    ) -> tuple[set[str], set[str]]:
        """The ids that are stored and that this run never asked for; and the durable calls of
        which it is stored what they used inside."""
        asked = self._ids or set()
        missed: set[str] = set()
        with_insides: set[str] = set()
        after: str | None = None
        while True:
            page = await request(
                ReadCheckpoints(instance_id=instance_id, after=after, limit=PAGE, ids_only=True)
            )
            for one in page.checkpoints:
                kind, of = own_record(one.checkpoint_id)
                if kind == "inside":
                    with_insides.add(of)
                named = users_id(one.checkpoint_id)
                if named is not None and asked.isdisjoint((named, one.checkpoint_id)):
                    missed.add(named)
            if not page.more:
                return missed, with_insides
            after = page.checkpoints[-1].checkpoint_id
