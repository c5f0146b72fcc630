"""``Operator``: what people and their tools do to instances, over the same seam."""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

import msgspec

from ..backend import Backend
from ..clock import Seconds, check_seconds
from ..codec import JSON, Codec, encode, encode_sent
from ..errors import ConfigError
from ..ids import (
    check_checkpoint_id,
    check_instance_id,
    check_name_of,
    check_tenant_id,
    check_text,
)
from ..messages import (
    AuditPage,
    CheckpointPage,
    CountInstances,
    EventPage,
    Fork,
    InstancePage,
    ListAudit,
    ListEvents,
    ListInstances,
    ListOpenSteps,
    ListSteps,
    ListWaits,
    Prune,
    ReadCheckpoints,
    Rerun,
    SendCustomSignal,
    SendMessage,
    SendSignal,
    ShowInstance,
    SignalAnswer,
    Vacuum,
    Vacuumed,
    Waits,
)
from ..types import InstanceDetails, InstanceStatus, SignalType, StepInfo
from .filters import Filters, checked, checked_statuses
from .fleet import Fleet
from .many import Many

PRUNE_BATCH = 500
STEPS_PAGE = 10_000
"""Steps of one answer: each sorts all of them."""


class Operator(Fleet, Many):
    """Signals and questions, for web handlers as for the command line.

    Args:
      backend: an open one (:func:`open_backend`); programs may run on it at the same time.
      codec: encodes the payloads of :meth:`send_signal`.
      who: who acts; what they do is noted in the audit then. None: nothing is.

    Every method raises :class:`StoreError` where the store cannot be used.
    """

    def __init__(self, backend: Backend, *, codec: Codec = JSON, who: str | None = None) -> None:
        self._backend = backend
        self._codec = codec
        self._who = None if who is None else check_text("who", who)

    async def cancel(self, instance_id: str, payload: bytes = b"") -> SignalAnswer:
        """Cancel an instance; nothing takes a cancel back.

        A running instance is told, and ends by itself. An instance that does not run is
        cancelled at once. So are its children, and theirs.

        Raises:
          SignalRefused: unknown or finished.
        """
        return await self._signal(SignalType.CANCEL, instance_id, payload)

    async def pause(
        self, instance_id: str, payload: bytes = b"", *, tree: bool = False
    ) -> SignalAnswer:
        """Suspend an instance at its next boundary; its program goes on when started again.

        A worker's run is out of its queue until a resume. Its children go on, unless ``tree``
        takes them along, and theirs.

        Raises:
          SignalRefused: unknown, finished, or a cancel stands.
        """
        return await self._signal(SignalType.PAUSE, instance_id, payload, tree=tree)

    async def resume(
        self, instance_id: str, payload: bytes = b"", *, tree: bool = False
    ) -> SignalAnswer:
        """Take back a pause that has not stopped the instance yet.

        A worker's run that is paused or parked is ready again. To go on with another suspended
        instance, start its program; the answer says so. ``tree``: its children, too, and theirs.

        Raises:
          SignalRefused: unknown, finished, or a cancel stands.
        """
        return await self._signal(SignalType.RESUME, instance_id, payload, tree=tree)

    async def send_signal(
        self, instance_id: str, checkpoint_id: str, payload: Any = b"", *, replace: bool = False
    ) -> None:
        """Send a payload to whoever waits, now or later, for this id of an instance.

        The same payload twice is one signal. A text is sent as its UTF-8, as the command line
        sends it, anything else by the codec.

        Args:
          instance_id: the instance that gets it.
          checkpoint_id: the id that it waits for, path included.
          payload: bytes, a text, or a value.
          replace: instead of a signal that nobody has taken yet, or one that was not of the
            type that was waited for.

        Raises:
          SignalRefused: unknown or finished; the id has or had a different signal; with
            ``replace``, that one was handed out.
        """
        await self._request(
            SendCustomSignal(
                instance_id=check_instance_id(instance_id),
                checkpoint_id=check_checkpoint_id(checkpoint_id),
                payload=encode_sent(self._codec, "payload", payload),
                replace=replace,
            )
        )

    async def send_message(self, instance_id: str, name: str, payload: Any = b"") -> None:
        """Send a message to an instance that receives under ``name``, now or later, also before its
        first start. Any number may wait; they are handed out in the order in which they were sent.

        Args:
          payload: bytes, a text, or a value; see :meth:`send_signal`.

        Raises:
          SignalRefused: unknown or finished.
        """
        await self._request(
            SendMessage(
                instance_id=check_instance_id(instance_id),
                name=check_name_of("name", name),
                payload=encode_sent(self._codec, "payload", payload),
            )
        )

    async def rerun(self, instance_id: str) -> None:
        """Make a finished instance of a workflow pending again: it goes on from its checkpoints.

        Attempts, the deaths of its workers and its timeout begin anew, and saved failures are
        forgotten. Its failed and cancelled children are pending again in the same commit.

        Raises:
          SdkError: unknown, not finished, no workflow's, or a child of a parent that has not ended.
        """
        await self._request(Rerun(instance_ids=(check_instance_id(instance_id),)))

    async def fork(
        self,
        instance_id: str,
        new_id: str,
        *,
        until: str | None = None,
        args: Sequence[Any] | None = None,
    ) -> None:
        """Make a new pending instance with the checkpoints of another; the history of each names
        the other. It has its own children.

        Args:
          until: the last checkpoint to be copied, in the order in which they were saved. None: all.
          args: other arguments of the workflow. None: the same.

        Raises:
          SdkError: ``new_id`` exists; the other is unknown, no workflow's, or has no such
            checkpoint.
        """
        data = None
        if args is not None:
            data = encode(self._codec, f"the arguments of {new_id!r}", [*args])
        await self._request(
            Fork(
                instance_id=check_instance_id(instance_id),
                new_id=check_instance_id(new_id),
                until=None if until is None else check_text("until", until),
                input=data,
            )
        )

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
        """How many instances a :meth:`list` of the same would have. From ``most`` on it need not
        count any further, and may say any number from there."""
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
        """All about one instance. Raises ServerError where it does not exist."""
        return await self._request(ShowInstance(instance_id=check_instance_id(instance_id)))

    async def events(self, instance_id: str, *, after: int = 0, limit: int = 1000) -> EventPage:
        """The history, oldest first: what follows the event with the id ``after``."""
        return await self._request(
            ListEvents(
                instance_id=check_instance_id(instance_id),
                after=_check_number("after", after),
                limit=_check_limit(limit),
            )
        )

    async def checkpoints(
        self, instance_id: str, *, prefix: str = "", after: str | None = None, limit: int = 1000
    ) -> CheckpointPage:
        """Stored checkpoints in the order of their ids: what follows the id ``after``."""
        return await self._request(
            ReadCheckpoints(
                instance_id=check_instance_id(instance_id),
                prefix=check_text("prefix", prefix),
                after=None if after is None else check_text("after", after),
                limit=_check_limit(limit),
            )
        )

    async def steps(self, instance_id: str) -> tuple[StepInfo, ...]:
        """What an instance did and does, in the order in which it began: steps with their times,
        attempts and the runs that they were in, and its children. Of what was saved without a
        history only the end is known.

        Raises:
          ServerError: there is no such instance.
        """
        message = ListSteps(instance_id=check_instance_id(instance_id), limit=STEPS_PAGE)
        found: list[StepInfo] = []
        while True:
            page = await self._request(message)
            found += page.steps
            if page.next is None:
                return tuple(found)
            message = msgspec.structs.replace(message, after=page.next)

    async def open_steps(self, instance_ids: Iterable[str]) -> tuple[tuple[str, StepInfo], ...]:
        """What some instances do and wait for: (instance id, step), the oldest first."""
        ids = tuple(check_instance_id(one) for one in instance_ids)
        return (await self._request(ListOpenSteps(instance_ids=ids))).steps

    async def waits(self, *, after: tuple[int, str, str] | None = None, limit: int = 100) -> Waits:
        """The waits for signals that nobody has answered, the oldest first; ``page.next`` is the
        ``after`` of the next page. Without a history (``SdkConfig.history``) none are known."""
        message = ListWaits(limit=_check_limit(limit))
        if after is not None:
            message = msgspec.structs.replace(message, after=after)
        return await self._request(message)

    async def audit(
        self, *, instance_id: str | None = None, before: int | None = None, limit: int = 100
    ) -> AuditPage:
        """What people have done with the command line and the console, the newest first;
        ``page.next`` is the ``before`` of the next page.

        Args:
          instance_id: only to this one; None: to all.
        """
        return await self._request(
            ListAudit(
                instance_id=None if instance_id is None else check_instance_id(instance_id),
                before=None if before is None else _check_number("before", before),
                limit=_check_limit(limit),
            )
        )

    async def prune(
        self, older_than: Seconds, *, progress: Callable[[int], object] | None = None
    ) -> int:
        """Remove the instances that finished more than ``older_than`` seconds ago.

        Returns the number of removed instances. They are removed in batches, and ``progress``
        is called after each batch with the number so far. The backend's clock says what is now.
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
        """Remove these instances, with all that is stored of them; those that have not ended are
        left. Returns how many were removed."""
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

    async def _signal(
        self, kind: SignalType, instance_id: str, payload: bytes, *, tree: bool = False
    ) -> SignalAnswer:
        if not isinstance(payload, builtins.bytes):
            raise ConfigError(f"payload must be bytes, not {type(payload).__name__}")
        return await self._request(
            SendSignal(
                instance_id=check_instance_id(instance_id),
                type=kind,
                # A token of its own, so that an acknowledgement means this very signal.
                payload=encode(JSON, "payload", payload) or secrets.token_hex(8).encode(),
                tree=tree,
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
