"""``Operator``: what people and their tools do to instances, over the same seam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

import msgspec

from ..backend import Backend
from ..codec import JSON, Codec
from ..errors import ConfigError
from ..ids import (
    check_instance_id,
    check_tenant_id,
    check_text,
)
from ..messages import (
    AuditPage,
    CheckpointPage,
    CountInstances,
    EventPage,
    InstancePage,
    ListAudit,
    ListEvents,
    ListInstances,
    ListOpenSteps,
    ListSteps,
    ListWaits,
    ReadCheckpoints,
    ShowInstance,
    Waits,
)
from ..types import InstanceDetails, InstanceStatus, StepInfo
from . import revealing
from .filters import Filters, checked, checked_statuses
from .fleet import Fleet
from .many import Many
from .removing import Removing
from .steering import Steering

STEPS_PAGE = 10_000
"""Steps of one answer: each sorts all of them."""


class Operator(Steering, Many, Fleet, Removing):
    """Signals and questions, for web handlers as for the command line.

    Args:
      backend: an open one (:func:`open_backend`); programs may run on it at the same time.
      codec: that of the programs: encodes what is sent, and decodes what is shown; what it cannot
        read is shown as it is stored.
      who: who acts; what they do is noted in the audit then. None: nothing is.

    Every method raises :class:`StoreError` where the store cannot be used.
    """

    def __init__(self, backend: Backend, *, codec: Codec = JSON, who: str | None = None) -> None:
        self._backend = backend
        self._codec = codec
        self._who = None if who is None else check_text("who", who)

    async def list(
        self,
        *,
        statuses: Iterable[InstanceStatus] | None = None,
        tenant_id: str | None = None,
        before: str | None = None,
        limit: int = 100,
        **filters: Unpack[Filters],
    ) -> InstancePage:
        """Instances, the newest first; ``page.next`` is the ``before`` of the next page.

        Args:
          statuses: of these; None: of any.
          tenant_id: of this tenant.
          before: where the page begins.
          limit: of the page, 1 to 100,000.
          filters: see :class:`~runtara_trio.sdk.filters.Filters`.

        Raises:
          ConfigError: an invalid argument, a ``before`` that no page gave as its ``next``, or a
            filter that no index answers.
        """
        return await self._request(
            ListInstances(
                statuses=checked_statuses(statuses),
                tenant_id=None if tenant_id is None else check_tenant_id(tenant_id),
                before=None if before is None else check_text("before", before),
                limit=_check_limit(limit),
                filter=checked(filters),
            )
        )

    async def count(
        self,
        *,
        statuses: Iterable[InstanceStatus] | None = None,
        tenant_id: str | None = None,
        most: int | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """How many instances a :meth:`list` of the same would have.

        Args:
          statuses: of these; None: of any.
          tenant_id: of this tenant; None: of any.
          most: from here on it need not count any further, and may say any number from there.
          filters: see :class:`~runtara_trio.sdk.filters.Filters`.
        """
        counted = await self._request(
            CountInstances(
                statuses=checked_statuses(statuses),
                tenant_id=None if tenant_id is None else check_tenant_id(tenant_id),
                filter=checked(filters),
                most=None if most is None else _check_limit(most),
            )
        )
        return counted.count

    async def show(self, instance_id: str) -> InstanceDetails:
        """All about one instance.

        Args:
          instance_id: which one.

        Raises:
          ServerError: it does not exist.
        """
        message = ShowInstance(instance_id=check_instance_id(instance_id))
        return revealing.details(self._codec, await self._request(message))

    async def events(self, instance_id: str, *, after: int = 0, limit: int = 1000) -> EventPage:
        """The history, oldest first.

        Args:
          instance_id: of which one.
          after: the id of an event; the page is what follows it. 0: from the first.
          limit: of the page, 1 to 100,000.
        """
        page = await self._request(
            ListEvents(
                instance_id=check_instance_id(instance_id),
                after=_check_number("after", after),
                limit=_check_limit(limit),
            )
        )
        shown = tuple(revealing.event(self._codec, instance_id, one) for one in page.events)
        return msgspec.structs.replace(page, events=shown)

    async def checkpoints(
        self, instance_id: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> CheckpointPage:
        """Stored checkpoints, in the order of their ids.

        Args:
          instance_id: of which one.
          prefix: only ids that begin with it.
          after: an id; the page is what follows it. None: from the first.
          limit: of the page, 1 to 100,000.
        """
        page = await self._request(
            ReadCheckpoints(
                instance_id=check_instance_id(instance_id),
                prefix=check_text("prefix", prefix),
                after=None if after is None else check_text("after", after),
                limit=_check_limit(limit),
            )
        )
        shown = tuple(
            revealing.checkpoint(self._codec, instance_id, one) for one in page.checkpoints
        )
        return msgspec.structs.replace(page, checkpoints=shown)

    async def steps(self, instance_id: str) -> tuple[StepInfo, ...]:
        """What an instance did and does, in the order in which it began: steps with their times,
        attempts and the runs that they were in, and its children. Of what was saved without a
        history only the end is known.

        Args:
          instance_id: which one.

        Raises:
          ServerError: there is no such instance.
        """
        message = ListSteps(instance_id=check_instance_id(instance_id), limit=STEPS_PAGE)
        found: list[StepInfo] = []
        while True:
            page = await self._request(message)
            found += (revealing.step(self._codec, instance_id, one) for one in page.steps)
            if page.next is None:
                return tuple(found)
            message = msgspec.structs.replace(message, after=page.next)

    async def open_steps(self, instance_ids: Iterable[str]) -> tuple[tuple[str, StepInfo], ...]:
        """What some instances do and wait for: (instance id, step), the oldest first.

        Args:
          instance_ids: which ones; what is unknown has no steps.
        """
        ids = tuple(check_instance_id(one) for one in instance_ids)
        found = (await self._request(ListOpenSteps(instance_ids=ids))).steps
        return tuple((id, revealing.step(self._codec, id, one)) for id, one in found)

    async def waits(self, *, after: tuple[int, str, str] | None = None, limit: int = 100) -> Waits:
        """The waits for signals that nobody has answered, the oldest first. Without a history
        (``SdkConfig.history``) none are known.

        Args:
          after: the ``next`` of the page before. None: from the first.
          limit: of the page, 1 to 100,000.
        """
        message = ListWaits(limit=_check_limit(limit))
        if after is not None:
            message = msgspec.structs.replace(message, after=after)
        return await self._request(message)

    async def audit(
        self, *, instance_id: str | None = None, before: int | None = None, limit: int = 100
    ) -> AuditPage:
        """What people have done with the command line and the console, the newest first.

        Args:
          instance_id: only to this one; None: to all.
          before: the ``next`` of the page before. None: from the newest.
          limit: of the page, 1 to 100,000.
        """
        return await self._request(
            ListAudit(
                instance_id=None if instance_id is None else check_instance_id(instance_id),
                before=None if before is None else _check_number("before", before),
                limit=_check_limit(limit),
            )
        )


def _check_number(name: str, value: int) -> int:
    """The number of a row, from an earlier page."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ConfigError(f"{name} must be a number from an earlier page, not {value!r}")
    return value


def _check_limit(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 100_000:
        raise ConfigError(f"limit must be between 1 and 100000, not {limit!r}")
    return limit
