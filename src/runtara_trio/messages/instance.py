"""What an instance asks: its life, its checkpoints, its signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from ..types import (
    CheckpointRecord,
    CustomSignal,
    EventType,
    InstanceInfo,
    InstanceStatus,
    RunState,
    Signal,
)
from .base import Done, Request
from .history import StepNote

# ---- an instance's life


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    lease: int
    """Goes into every writing message; 0 where the backend knows no leases."""
    signal: Signal | None
    """What waited for the start: delivered before the program runs."""
    version: int
    resumed: bool
    """Whether the instance was there before."""
    taken_from: str | None
    """The dead or expired owner whose lease was taken over."""
    generation: int = 0
    """How often it was revived by a backend that cannot remove saved failures."""


class Register(Request[Registered], frozen=True, kw_only=True):
    """Take the instance and set it running.

    Refused with RegistrationError, InstanceFinished or InstanceBusy.
    """

    verb: ClassVar[str] = "register"
    makes: ClassVar[bool] = True
    takes: ClassVar[bool] = True
    instance_id: str
    tenant_id: str
    checkpoint_id: str | None = None
    """A resume point, which must exist."""
    revive: bool = False
    """Run a finished instance again. Its checkpoints and unread custom signals stay; a pending
    signal, recorded attempts and saved failures go."""
    replaces: int = 0
    """A lease of the one who asks: it does not stand in the way."""


class OutcomeReply(msgspec.Struct, frozen=True, kw_only=True):
    cancel: Signal | None
    """Not recorded, because this cancel stands and ``unless_cancelled`` was asked."""


class Next(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a worker's run that is suspended; see ``types.RunState``."""

    state: RunState
    """READY, TIMED, WAITING or PAUSED."""
    due_ms: int | None = None
    """When it is ready in any case, Unix ms."""
    waiting_for: tuple[str, ...] = ()
    """The ids of the signals that make it ready."""
    children: tuple[str, ...] = ()
    """The ids of the children whose end does."""
    blocks: tuple[str, ...] = ()
    """Blocks of children: the end of the last one in each does."""
    failing: tuple[str, ...] = ()
    """Blocks of children: the first one that fails does."""
    counts: bool = False
    """An attempt has failed: the next one is counted, and saved failures are forgotten."""


class RecordOutcome(Request[OutcomeReply], frozen=True, kw_only=True):
    """End the run and release the lease, in one step.

    ``status`` is COMPLETED (payload: output), FAILED (error text), SUSPENDED (reason) or
    CANCELLED. ``signal`` is acknowledged with it; signals that cannot be carried out any
    more are declined. A pause that nobody acknowledged stays with a suspended instance.
    """

    verb: ClassVar[str] = "record_outcome"
    instance_id: str
    lease: int
    status: InstanceStatus
    payload: bytes = b""
    signal: Signal | None = None
    unless_cancelled: bool = False
    next: Next | None = None
    """Of a suspended run of a workflow. None: it waits for a resume."""
    children: bool = False
    """It may have children that have not ended."""
    steps: tuple[StepNote, ...] = ()
    """What is noted with it."""

    @property
    def concerns_children(self) -> bool:
        """Whether they are cancelled with it, tried again, or waited for."""
        ends = self.status in (InstanceStatus.FAILED, InstanceStatus.CANCELLED)
        waits = self.next is not None and (self.next.children or self.next.blocks)
        tried_again = self.next is not None and self.next.counts
        return bool(waits or (self.children and (ends or tried_again)))

    @property
    def asked(self) -> str:
        return self.status.value


class Hold(Request[Done], frozen=True, kw_only=True):
    """Suspend an instance that a pause holds: its program waits, and its lease stays.

    ``signal``, the pause, is acknowledged with it, unless it was before. :class:`GoOn`
    ends it.
    """

    verb: ClassVar[str] = "pause"
    instance_id: str
    lease: int
    signal: Signal | None
    reason: bytes = b""


class GoOn(Request[Done], frozen=True, kw_only=True):
    """A held instance runs again: registered with the lease that it has kept.

    InstanceFinished where it was ended meanwhile, LeaseLost or InstanceBusy where it is
    another's.
    """

    verb: ClassVar[str] = "resume"
    instance_id: str
    tenant_id: str
    lease: int


class GetStatus(Request[InstanceInfo], frozen=True, kw_only=True):
    verb: ClassVar[str] = "get_instance_status"
    writes: ClassVar[bool] = False
    instance_id: str


class Heartbeats(Request[Done], frozen=True, kw_only=True):
    """The automatic heartbeat of all instances of a backend."""

    verb: ClassVar[str] = "heartbeat"
    instance_ids: tuple[str, ...]


class RecordEvent(Request[Done], frozen=True, kw_only=True):
    """Add a HEARTBEAT or CUSTOM row to the history."""

    verb: ClassVar[str] = "custom_event"
    instance_id: str
    lease: int
    type: EventType
    subtype: str | None = None
    payload: bytes = b""

    @property
    def asked(self) -> str:
        return "heartbeat" if self.type is EventType.HEARTBEAT else self.verb

    @property
    def counts_twice(self) -> bool:
        return True


class RecordRetry(Request[Done], frozen=True, kw_only=True):
    """Record attempt ``attempt`` (from 1) at a step; the same attempt twice counts once."""

    verb: ClassVar[str] = "record_retry_attempt"
    instance_id: str
    lease: int
    checkpoint_id: str
    attempt: int
    error: str | None = None


class LeaseTaken(msgspec.Struct, frozen=True, kw_only=True):
    lease: int


class TakeLease(Request[LeaseTaken], frozen=True, kw_only=True):
    """Go on with a started instance whose lease is free, without a register.

    For a server, whose clients come back after its restart, or on another connection, and
    write. LeaseLost where a living owner has it under another lease than ``replaces``.
    """

    verb: ClassVar[str] = "take_lease"
    makes: ClassVar[bool] = True
    takes: ClassVar[bool] = True
    instance_id: str
    replaces: int = 0
    suspended: bool = False
    """Also of a suspended instance, to record how it ended after all."""


class FreeLease(Request[Done], frozen=True, kw_only=True):
    """Let go of a lease, the instance being what it is: whoever asks next may take it."""

    verb: ClassVar[str] = "free_lease"
    instance_id: str
    lease: int


# ---- checkpoints


class CheckpointReply(msgspec.Struct, frozen=True, kw_only=True):
    found: bool
    state: bytes
    """What stands under the id where it was found, else empty."""
    pending_signal: Signal | None = None
    version: int = 0
    custom_signal: CustomSignal | None = None
    """A signal for this id, which the answer has saved."""


class Checkpoint(Request[CheckpointReply], frozen=True, kw_only=True):
    """Save ``state``, or get what stands under the id: the first writer wins."""

    verb: ClassVar[str] = "checkpoint"
    saves: ClassVar[bool] = True
    instance_id: str
    lease: int
    checkpoint_id: str
    state: bytes
    steps: tuple[StepNote, ...] = ()
    """What is noted with it."""


class Transact(Request[CheckpointReply], frozen=True, kw_only=True):
    """Run a function in a transaction that saves what it returns under the id, unless something
    stands there: then that is the answer, and what the function wrote is undone.

    Refused with LeaseLost, SdkError where the function has ended the transaction, TooSlowError;
    and whatever the function raises.
    """

    verb: ClassVar[str] = "transact"
    instance_id: str
    lease: int
    checkpoint_id: str
    run: Callable[[Any], bytes]
    """Called in a thread, with a connection of the database's ordinary driver."""
    limit: float
    """Seconds, where nobody else can write meanwhile."""
    note: StepNote | None = None
    """Of the step that it is, as it runs; its end is noted with what is saved."""


class StoredInput(msgspec.Struct, frozen=True, kw_only=True):
    input: bytes | None
    """None: it was started without one."""


class GetInput(Request[StoredInput], frozen=True, kw_only=True):
    """What an instance was started with. An unknown instance is a ServerError."""

    verb: ClassVar[str] = "input"
    writes: ClassVar[bool] = False
    instance_id: str


class StoredState(msgspec.Struct, frozen=True, kw_only=True):
    found: bool
    state: bytes


class GetCheckpoint(Request[StoredState], frozen=True, kw_only=True):
    """Read one checkpoint, in any status. An unknown instance is a ServerError."""

    verb: ClassVar[str] = "get_checkpoint"
    writes: ClassVar[bool] = False
    instance_id: str
    checkpoint_id: str


class CheckpointPage(msgspec.Struct, frozen=True, kw_only=True):
    checkpoints: tuple[CheckpointRecord, ...]
    """In the order of their ids' UTF-8 bytes."""
    more: bool


class ReadCheckpoints(Request[CheckpointPage], frozen=True, kw_only=True):
    """Read many: ids that begin with ``prefix`` and come after ``after``."""

    verb: ClassVar[str] = "checkpoints"
    writes: ClassVar[bool] = False
    instance_id: str
    prefix: str = ""
    after: str | None = None
    limit: int = 1000
    most_bytes: int | None = None
    """Fewer than ``limit``, once their states have this many; one at least."""
    ids_only: bool = False
    """States are answered empty and times as None."""


class SleepReply(msgspec.Struct, frozen=True, kw_only=True):
    wake_at_ms: int
    """Unix ms that stand: the first sleep under the id decided."""
    pending_signal: Signal | None = None
    version: int = 0


class Sleep(Request[SleepReply], frozen=True, kw_only=True):
    """Save a wake time and a state before the wait; nobody waits in the backend."""

    verb: ClassVar[str] = "sleep"
    instance_id: str
    lease: int
    checkpoint_id: str
    wake_at_ms: int
    state: bytes = b""


# ---- attributes


class SetAttributes(Request[Done], frozen=True, kw_only=True):
    """Set attributes of the instance, once: ``saved_as`` says that it was done."""

    verb: ClassVar[str] = "set_attributes"
    instance_id: str
    lease: int
    saved_as: str
    attributes: Mapping[str, str | int | float | bool]
