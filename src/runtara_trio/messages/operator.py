"""What an operator asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import ClassVar

import msgspec

from ..types import (
    Event,
    InstanceDetails,
    InstanceStatus,
    InstanceSummary,
    SignalType,
)
from .base import Action, Done, Request


class SignalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    status: InstanceStatus
    """The instance's status after it."""
    text: str
    """What became of the signal, for a person."""


class SendSignal(Action[SignalAnswer], frozen=True, kw_only=True):
    """Cancel, pause or resume an instance. Refused with SignalRefused."""

    verb: ClassVar[str] = "send_signal"
    instance_id: str
    type: SignalType
    payload: bytes
    tree: bool = False
    """A pause or resume goes to its children and theirs, too; a cancel always does."""

    @property
    def counts_twice(self) -> bool:
        return self.type is not SignalType.CANCEL

    @property
    def asked(self) -> str:
        return self.type.value


class Acted(msgspec.Struct, frozen=True, kw_only=True):
    count: int
    """Of how many instances something became."""
    instance_ids: tuple[str, ...] = ()
    """Of which, where a store tells it."""


class SendCustomSignal(Action[Done], frozen=True, kw_only=True):
    """Send a payload to a checkpoint id. Refused with SignalRefused."""

    verb: ClassVar[str] = "signal"
    instance_id: str
    checkpoint_id: str
    payload: bytes
    replace: bool = False
    """Instead of a signal that was not handed out: not taken, or marked as refused."""


class SignalMany(Action[Acted], frozen=True, kw_only=True):
    """Cancel, pause or resume many instances, in one commit. Those that refuse it are left."""

    verb: ClassVar[str] = "send_signal"
    instance_ids: tuple[str, ...]
    type: SignalType
    payload: bytes


class Rerun(Action[Acted], frozen=True, kw_only=True):
    """Make finished instances of workflows pending again, with their failed children.

    ``each``: those that cannot be are left; else the first one is refused with SdkError.
    """

    verb: ClassVar[str] = "rerun"
    makes: ClassVar[bool] = True
    instance_ids: tuple[str, ...]
    each: bool = False


class Fork(Action[Done], frozen=True, kw_only=True):
    """Make a pending instance with the checkpoints of another. Refused with SdkError."""

    verb: ClassVar[str] = "fork"
    makes: ClassVar[bool] = True
    instance_id: str
    new_id: str
    until: str | None = None
    """The last of the checkpoints, in the order in which they were saved; None: all."""
    input: bytes | None = None
    """Other arguments; None: the same."""
    copied: Callable[[str | None, bytes], bytes] | None = None
    """What becomes of what is stored under a checkpoint id, where it may not be copied as it is;
    of None, what becomes of the arguments."""


class SendMessage(Action[Done], frozen=True, kw_only=True):
    """Leave a message under a name; any number may wait there. Refused with SignalRefused."""

    verb: ClassVar[str] = "send_message"
    instance_id: str
    name: str
    payload: bytes

    @property
    def counts_twice(self) -> bool:
        return True


class InstancePage(msgspec.Struct, frozen=True, kw_only=True):
    instances: tuple[InstanceSummary, ...]
    """The newest first."""
    next: str | None
    """The ``before`` of the next page, whatever it says; None where this is the last."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which instances are meant, beside their status and tenant. None, False: all."""

    workflow: str | None = None
    version: int | None = None
    """Of a workflow that is given."""
    queue: str | None = None
    """The same."""
    parent_id: str | None = None
    id_prefix: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    waiting_for: str | None = None
    """The id of a signal."""
    no_live_worker: bool = False
    """Ready runs that no living worker takes."""
    parked: bool = False
    attributes: Mapping[str, str | int | float | bool] = {}
    """All of these, equal."""

    @property
    def of_runs(self) -> bool:
        """Whether only what a client has started can be meant."""
        runs = (self.workflow, self.version, self.queue, self.parent_id)
        given = any(one is not None for one in runs)
        return given or self.no_live_worker or self.parked or bool(self.attributes)


class ListInstances(Request[InstancePage], frozen=True, kw_only=True):
    verb: ClassVar[str] = "list"
    writes: ClassVar[bool] = False
    statuses: frozenset[InstanceStatus] | None = None
    tenant_id: str | None = None
    before: str | None = None
    limit: int = 100
    filter: Filter = Filter()


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    count: int


class CountInstances(Request[Counted], frozen=True, kw_only=True):
    """How many a list of the same would have; ``most``: it need not count any further."""

    verb: ClassVar[str] = "count"
    writes: ClassVar[bool] = False
    statuses: frozenset[InstanceStatus] | None = None
    tenant_id: str | None = None
    filter: Filter = Filter()
    most: int | None = None


class ShowInstance(Request[InstanceDetails], frozen=True, kw_only=True):
    """All about one instance. An unknown one is a ServerError."""

    verb: ClassVar[str] = "show"
    writes: ClassVar[bool] = False
    instance_id: str


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    events: tuple[Event, ...]
    more: bool


class ListEvents(Request[EventPage], frozen=True, kw_only=True):
    """The history of an instance, oldest first, after the row ``after``."""

    verb: ClassVar[str] = "events"
    writes: ClassVar[bool] = False
    instance_id: str
    after: int = 0
    limit: int = 1000


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    removed: int


class Vacuumed(msgspec.Struct, frozen=True, kw_only=True):
    bytes_before: int
    """What the store took on the disk."""
    bytes_after: int


class Vacuum(Action[Vacuumed], frozen=True, kw_only=True):
    """Give back to the disk what was removed. Outside of any transaction; it takes its time."""

    verb: ClassVar[str] = "vacuum"


class Prune(Action[Pruned], frozen=True, kw_only=True):
    """Remove up to ``limit`` finished instances that ended before ``before_ms``."""

    verb: ClassVar[str] = "prune"
    before_ms: int
    limit: int = 1000
    instance_ids: tuple[str, ...] | None = None
    """Only of these."""

    @property
    def counts_twice(self) -> bool:
        return True
