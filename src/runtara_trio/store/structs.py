"""What rows say, on their way between a database and the answers."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ..types import InstanceStatus, Queue, RunInfo, RunState, Signal, SignalType


class Awaited(msgspec.Struct, frozen=True):
    """The children that a run waits for, while it is not loaded."""

    children: tuple[str, ...] = ()
    """Ids; the end of each one makes it ready."""
    blocks: tuple[str, ...] = ()
    """Blocks: the end of the last child in each one does."""
    failing: tuple[str, ...] = ()
    """Blocks: the first child that fails does."""


class ChildEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A child has ended."""

    instance_id: str
    parent_id: str
    block: str
    failed: bool
    """It has failed its parent."""


class Run(msgspec.Struct, frozen=True):
    """Where the run of a workflow stands."""

    state: RunState
    waiting_for: tuple[str, ...] = ()
    """The ids of the signals that make it ready."""
    awaited: Awaited | None = None
    """The children whose end does."""
    parent_id: str | None = None
    block: str | None = None
    """Of children, the one that it is in."""
    by_parent: bool = False
    """The block of its parent cancels it."""
    children: int = 0
    """How many it has had."""
    has_turn: bool = False
    """It has the turn of its key."""
    keyed: bool = False
    """It has a key: others may wait for its end."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What decides about an instance."""

    tenant_id: str
    status: InstanceStatus
    epoch: int | None
    """Of its lease."""
    owner: str | None
    """Of its lease, living or not."""
    ours: bool
    """Started last by a register of ours."""
    signal: Signal | None
    output: bytes | None
    error: str | None
    ended: int | None = None
    """The lease under which an outcome was recorded last, where the database keeps it."""
    run: Run | None = None
    """Where a client has started it."""


class Holder(msgspec.Struct, frozen=True):
    """The owner that an instance's lease names."""

    owner: str
    who: str
    """Host and process."""
    alive: bool
    until: datetime | None
    """When the lease runs out without a renewal; None where that has no meaning."""


class Placing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run is put."""

    state: RunState
    due_ms: int | None = None
    after_ms: int | None = None
    """It is due after that, instead of at a time."""
    waiting_for: tuple[str, ...] = ()
    awaited: Awaited | None = None
    counts: bool = False
    """An attempt has failed: the next one is counted."""
    anew: bool = False
    """It goes behind those that are ready; else it keeps the place of its first claim."""
    forgives: bool = False
    """The deaths of its workers are forgotten."""

    @property
    def frees_turn(self) -> bool:
        """Whether others of its key may come first."""
        out = (RunState.ENDED, RunState.PAUSED, RunState.PARKED)
        return self.state in out or self.counts


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was locked to be claimed."""

    instance_id: str
    row: Row
    workflow: str
    version: int
    input: bytes
    attempt: int
    recoveries: int
    resumed: bool
    """It was started before, or is a copy of one that was."""
    begins: bool
    """No worker has begun it: it counts for the rate of its queue."""
    lane: Lane
    waited_ms: int
    """Since it was ready first."""


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is made with."""

    instance_id: str
    block: str
    depth: int
    """Of the child: 1 below an instance that has no parent."""


class Lane(msgspec.Struct, frozen=True):
    """Runs that are taken in one order: of a queue, or of a tenant in it, or of a key of that."""

    queue: str
    tenant_id: str | None = None
    key: str | None = None


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A queue, as it is stored."""

    queue: Queue
    paused: bool


class Kind(msgspec.Struct, frozen=True):
    """What a worker serves or does not serve."""

    queue: str
    workflow: str
    version: int
    but_for: tuple[str, ...] = ()
    """Tenants of whom it serves this all the same."""


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose owner is dead."""

    instance_id: str
    waits: bool
    """It held no slot."""
    recoveries: int
    progress: int
    """Its newest checkpoint, as a number, when its worker died before."""
    newest: int
    """The same now."""
    checkpoint_id: str | None
    """The id of the newest one."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome, as rows have it."""

    instance_id: str
    lease: int
    status: InstanceStatus
    payload: bytes
    """Of its event."""
    output: bytes | None
    error: str | None
    signal: Signal | None
    """The pending signal that goes with it."""
    run: Placing | None = None
    """Where its run stands from then on, if a client has started it."""
    has_children: bool = False
    """The ends of children may change where it stands at the same time."""


class Custom(msgspec.Struct, frozen=True):
    """What is known of the custom signal for an id."""

    waiting: bytes | None
    """The payload of one that nobody has taken."""
    taken: bytes | None
    """The record of one that was handed out, or of a wait that timed out."""
    refused: bool
    """That one was not of the type that was waited for."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One instance in an operator's list."""

    instance_id: str
    tenant_id: str
    status: InstanceStatus
    owner: str | None
    """Of its lease, living or not."""
    ours: bool
    checkpoint_id: str | None
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    sleep_until: datetime | None
    signal: SignalType | None
    run: RunInfo | None = None


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What else there is of one instance."""

    input: bytes | None
    output: bytes | None
    error: str | None
    checkpoints: int
    events: int
    termination_reason: str | None = None
    exit_code: int | None = None


class TableVersions(msgspec.Struct, frozen=True, kw_only=True):
    """How far the tables of a store are."""

    core: bool = False
    """runtara-core's are there."""
    ours: bool = False
    """Ours for instances are there."""
    workflows: int = 0
    """The version of those of workflows; 0: they are not there."""
    newest: int
    """Their version that this runtara-trio needs."""

    @property
    def is_current(self) -> bool:
        """Whether nothing is missing."""
        return self.core and self.ours and self.workflows == self.newest
