"""What rows say, on their way between a database and the answers."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ..types import InstanceStatus, RunInfo, RunState, Signal, SignalType


class Run(msgspec.Struct, frozen=True):
    """Where the run of a workflow stands."""

    state: RunState
    waiting_for: tuple[str, ...] = ()
    """The ids of the signals that make it ready."""


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
    counts: bool = False
    """An attempt has failed: the next one is counted."""
    anew: bool = False
    """It goes behind those that are ready; else it keeps the place of its first claim."""
    forgives: bool = False
    """The deaths of its workers are forgotten."""


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
    """It was started before."""


class Lane(msgspec.Struct, frozen=True):
    """Runs that are taken in one order: of a queue, or of a tenant in it, or of a key of that."""

    queue: str
    tenant_id: str | None = None
    key: str | None = None


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

    output: bytes | None
    error: str | None
    checkpoints: int
    events: int
