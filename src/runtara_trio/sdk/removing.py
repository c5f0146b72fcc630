"""Removing what has ended, and giving its room back."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..clock import Seconds, check_seconds
from ..ids import check_instance_id
from ..messages import Prune, Vacuum, Vacuumed
from .asking import Asking

PRUNE_BATCH = 500
"""Instances that one commit removes."""


class Removing(Asking):
    """Verbs by which a store gets smaller."""

    async def prune(
        self, older_than: Seconds, *, progress: Callable[[int], object] | None = None
    ) -> int:
        """Remove the instances that finished long ago, in batches. Returns how many were removed.

        Args:
          older_than: seconds, or a ``timedelta``, since they finished, by the backend's clock.
          progress: called after each batch with the number so far.
        """
        seconds = check_seconds("older_than", older_than)
        before = int((self._now() - seconds) * 1000)
        removed = 0
        while True:  # in batches, so that programs get their turn
            batch = await self._request(Prune(before_ms=before, limit=PRUNE_BATCH))
            removed += batch.removed
            if progress is not None:
                progress(removed)
            if batch.removed < PRUNE_BATCH:
                return removed

    async def remove(self, instance_ids: Iterable[str]) -> int:
        """Remove instances, with all that is stored of them. Returns how many were removed.

        Args:
          instance_ids: which ones; those that have not ended are left.
        """
        ids = tuple(check_instance_id(one) for one in instance_ids)
        now_ms = int(self._now() * 1000) + 1000  # the end of one is known by the second
        message = Prune(before_ms=now_ms, limit=max(1, len(ids)), instance_ids=ids)
        return (await self._request(message)).removed

    async def vacuum(self) -> Vacuumed:
        """Give back to the disk what :meth:`prune` has removed. Returns both sizes of the store.

        On a file nobody else can write meanwhile: programs wait for up to 10 s, and then get a
        :class:`StoreError`. On PostgreSQL nobody waits; room in the middle of a table
        stays with the table, for new rows.
        """
        return await self._request(Vacuum())
