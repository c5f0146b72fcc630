"""Acting on many instances: all that a filter finds, in batches."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Unpack

from ..clock import Seconds, check_seconds
from ..errors import ConfigError
from ..ids import check_tenant_id
from ..messages import Acted, CountInstances, ListInstances, Prune, Rerun, SignalMany
from ..types import FINISHED, InstanceStatus, SignalType
from .asking import Asking
from .filters import Filters, checked, checked_statuses

BATCH = 500
"""Instances that one commit is about."""

Progress = Callable[[int, int], object]
"""Called with how many were looked at so far, and how many there are."""

_UNFINISHED = frozenset(InstanceStatus) - FINISHED - {InstanceStatus.UNKNOWN}

MEANT = {
    "cancel": _UNFINISHED,
    "pause": _UNFINISHED,
    "resume": _UNFINISHED,
    "rerun": FINISHED - {InstanceStatus.COMPLETED},
    "prune": FINISHED,
}
"""The statuses of those that a verb is about, where nobody names some."""


class Many(Asking):
    """Verbs on a filter. Each counts first, works from the newest in batches of one commit each,
    and may be stopped and repeated: what has been done is left.

    Arguments of all: ``statuses``, ``tenant_id`` and the filters of :meth:`Operator.list`, of which
    one at least is needed; ``progress``, called after each batch with how many were looked at, and
    how many there are. They return of how many something became.
    """

    async def cancel_many(
        self,
        *,
        statuses: Iterable[InstanceStatus] | None = None,
        tenant_id: str | None = None,
        progress: Progress | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """:meth:`Operator.cancel` all that have not ended."""
        each = self._signal_each(SignalType.CANCEL)
        return await self._each(each, MEANT["cancel"], statuses, tenant_id, progress, filters)

    async def pause_many(
        self,
        *,
        statuses: Iterable[InstanceStatus] | None = None,
        tenant_id: str | None = None,
        progress: Progress | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """:meth:`Operator.pause` all that have not ended."""
        each = self._signal_each(SignalType.PAUSE)
        return await self._each(each, MEANT["pause"], statuses, tenant_id, progress, filters)

    async def resume_many(
        self,
        *,
        statuses: Iterable[InstanceStatus] | None = None,
        tenant_id: str | None = None,
        progress: Progress | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """:meth:`Operator.resume` all that have not ended."""
        each = self._signal_each(SignalType.RESUME)
        return await self._each(each, MEANT["resume"], statuses, tenant_id, progress, filters)

    async def rerun_many(
        self,
        *,
        statuses: Iterable[InstanceStatus] | None = None,
        tenant_id: str | None = None,
        progress: Progress | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """:meth:`Operator.rerun` all that have failed or were cancelled, unless ``statuses`` says
        otherwise; children of a parent that has not ended are left to it."""

        async def each(ids: tuple[str, ...]) -> Acted:
            return await self._request(Rerun(instance_ids=ids, each=True))

        return await self._each(each, MEANT["rerun"], statuses, tenant_id, progress, filters)

    async def prune_many(
        self,
        older_than: Seconds,
        *,
        statuses: Iterable[InstanceStatus] | None = None,
        tenant_id: str | None = None,
        progress: Progress | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """:meth:`Operator.prune` all that have ended more than ``older_than`` seconds ago."""
        seconds = check_seconds("older_than", older_than)
        before_ms = int((self._now() - seconds) * 1000)

        async def each(ids: tuple[str, ...]) -> Acted:
            message = Prune(before_ms=before_ms, limit=len(ids), instance_ids=ids)
            return Acted(count=(await self._request(message)).removed)

        return await self._each(each, MEANT["prune"], statuses, tenant_id, progress, filters)

    def _signal_each(self, kind: SignalType) -> Callable[[tuple[str, ...]], Awaitable[Acted]]:
        async def each(ids: tuple[str, ...]) -> Acted:
            token = secrets.token_hex(8).encode()
            return await self._request(SignalMany(instance_ids=ids, type=kind, payload=token))

        return each

    async def _each(
        self,
        act: Callable[[tuple[str, ...]], Awaitable[Acted]],
        default: frozenset[InstanceStatus],
        statuses: Iterable[InstanceStatus] | None,
        tenant_id: str | None,
        progress: Progress | None,
        filters: Any,
    ) -> int:
        if statuses is None and tenant_id is None and not filters:
            raise ConfigError("give a filter, a tenant_id or statuses: else all would be meant")
        meant = CountInstances(
            statuses=checked_statuses(statuses) or default,
            tenant_id=None if tenant_id is None else check_tenant_id(tenant_id),
            filter=checked(filters),
        )
        total = (await self._request(meant)).count
        acted = seen = 0
        before: str | None = None
        while True:
            page = await self._request(
                ListInstances(
                    statuses=meant.statuses,
                    tenant_id=meant.tenant_id,
                    filter=meant.filter,
                    before=before,
                    limit=BATCH,
                )
            )
            ids = tuple(one.instance_id for one in page.instances)
            if ids:
                acted += (await act(ids)).count
                seen += len(ids)
                if progress is not None:
                    progress(seen, max(seen, total))
            before = page.next
            if before is None:
                return acted
