"""The port: what an answer asks of a database.

``answers`` decides, and a database holds no decision: an operation here reads rows or writes
them, in the transaction of one message. PostgreSQL's operations wait for the server; those of
SQLite never suspend, and its thread drives an answer in one go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..messages import (
    AuditPage,
    CheckpointPage,
    CountInstances,
    EventPage,
    ListAudit,
    ListEvents,
    ListInstances,
    ListOpenSteps,
    ListSteps,
    ListWaits,
    OpenSteps,
    ReadCheckpoints,
    StepNote,
    Steps,
    Trace,
    Waits,
)
from ..types import (
    InstanceInfo,
    Signal,
)
from .fleet_tables import FleetTables
from .structs import (
    Custom,
    Details,
    End,
    Holder,
    Kind,
    Listed,
    Row,
)


class Doubtful(Exception):
    """It cannot be told yet whether an owner lives: undo the transaction and try again soon."""


class Tables(FleetTables, Protocol):
    """One transaction."""

    @property
    def version(self) -> int:
        """The version of the signals that this message sees; see ``messages``."""

    @property
    def again(self) -> bool:
        """The message was sent before, and the answer to that was lost."""

    # ---- instances

    async def lock(self, instance_id: str) -> Row | None:
        """An instance, which nobody else changes until the transaction ends."""

    async def exists(self, instance_id: str) -> bool:
        """Whether there is such an instance."""

    async def insert(self, instance_id: str, tenant_id: str) -> bool:
        """Add an instance, unless somebody else was faster: then False."""

    async def set_running(
        self, instance_id: str, checkpoint_id: str | None, *, wakes: bool
    ) -> None:
        """A start of ours: status, time and event. ``wakes``: what it slept is over."""

    async def set_suspended(self, instance_id: str) -> None:
        """Its status is suspended."""

    async def set_cancelled(self, instance_id: str) -> None:
        """Its status is cancelled, from now on."""

    async def set_sleep(self, instance_id: str, checkpoint_id: str, wake_at_ms: int) -> None:
        """It sleeps until then, Unix ms; this is its newest checkpoint."""

    async def record_end(self, end: End) -> None:
        """Write an outcome: the status, an event where core has one, and the lease is free."""

    async def clear_end(self, instance_id: str) -> None:
        """Remove what a finished instance ended with, and its pending signal."""

    # ---- leases

    async def holder(self, owner: str) -> Holder:
        """Who an owner is, and whether it lives, as far as one reading can tell."""

    async def settled_holder(self, owner: str) -> Holder:
        """The same, for certain. Raises Doubtful where one reading cannot tell."""

    async def take_lease(self, instance_id: str, dead: Holder | None) -> int:
        """Give the lease to this store under a new epoch. ``dead``: from whom it is taken."""

    async def free_lease(self, instance_id: str, lease: int) -> None:
        """Give a lease to nobody, if exactly it still stands.

        Its row stays: without it a running instance would be a runtara-core's.
        """

    async def drop_lease(self, instance_id: str) -> None:
        """Remove a lease: whoever comes back with it is fenced."""

    async def claim_start(self, instance_id: str) -> None:
        """The last start counts as ours from now on; when it was stays."""

    def has_unheard(self, instance_id: str, row: Row) -> bool:
        """Whether this store took the lease in a transaction whose answer was lost."""

    # ---- checkpoints

    async def stored(self, instance_id: str, checkpoint_id: str) -> bytes | None:
        """What is stored under an id; None: nothing."""

    async def save(self, instance_id: str, *states: tuple[str, bytes]) -> None:
        """Store states under ids, but where there is one already."""

    async def save_attempt(
        self, instance_id: str, checkpoint_id: str, attempt: int, error: str | None
    ) -> None:
        """Record an attempt at a step, unless it is recorded already."""

    async def ids_with(self, instance_id: str, *texts: str) -> list[str]:
        """The stored ids that hold one of these texts."""

    async def remove(self, instance_id: str, checkpoint_ids: Iterable[str]) -> None:
        """Remove checkpoints."""

    async def rewrite(self, instance_id: str, states: Sequence[tuple[str, bytes]]) -> None:
        """Replace checkpoints, of an instance that nobody has run yet."""

    async def read_checkpoints(self, message: ReadCheckpoints) -> CheckpointPage:
        """A page of them."""

    # ---- history

    async def write_steps(self, instance_id: str, lease: int, steps: Sequence[StepNote]) -> None:
        """Note steps of the run that has this lease; of one that has lost it, nothing."""

    async def lose_steps(self, instance_ids: Sequence[str]) -> None:
        """The runs of these are over: what is noted as running there is lost."""

    async def open_steps(self, instance_id: str, limit: int) -> Steps:
        """The first of those that run."""

    async def open_steps_of(self, message: ListOpenSteps) -> OpenSteps:
        """Those of several instances."""

    async def read_steps(self, message: ListSteps) -> Steps:
        """A page of an instance's steps; of those that nobody noted, the end."""

    async def write_traces(self, runs: Sequence[tuple[str, int, str]]) -> None:
        """Note the contexts of those of the runs, (instance, lease, context), that have these
        leases."""

    async def traces(self, instance_ids: Sequence[str]) -> dict[str, Trace]:
        """What is known of the traces of instances."""

    async def read_waits(self, message: ListWaits) -> Waits:
        """A page of the waits that nobody has answered."""

    async def write_audit(
        self, who: str, what: str, instance_ids: Sequence[str | None], detail: str | None
    ) -> None:
        """Note what somebody does now; a row each."""

    async def read_audit(self, message: ListAudit) -> AuditPage:
        """A page of that."""

    # ---- signals

    async def pending(self, instance_id: str) -> Signal | None:
        """The pending cancel, pause or resume."""

    async def put_signal(self, instance_id: str, signal: Signal) -> None:
        """Leave a signal, in place of the one that waits, and tell whoever listens."""

    async def drop_signal(self, instance_id: str, signal: Signal | None = None) -> None:
        """Remove the pending signal: any, or only exactly this one."""

    async def custom_signal(self, instance_id: str, checkpoint_id: str) -> Custom:
        """What is known of the custom signal for an id."""

    async def put_custom_signal(self, instance_id: str, checkpoint_id: str, payload: bytes) -> None:
        """Leave a custom signal, in place of the one that waits, and tell whoever listens."""

    async def first_message(self, instance_id: str, prefix: str) -> str | None:
        """The first of the ids, in their order, that begin so and that a custom signal waits
        for."""

    async def last_message(self, instance_id: str, prefix: str) -> str | None:
        """The last of them."""

    async def take_custom_signal(self, instance_id: str, checkpoint_id: str) -> bytes | None:
        """Remove the custom signal that waits, and return its payload."""

    # ---- history and lists

    async def add_event(
        self, instance_id: str, kind: str, payload: bytes = b"", subtype: str | None = None
    ) -> None:
        """Add a row to the history."""

    async def read_events(self, message: ListEvents) -> EventPage:
        """A page of the history."""

    async def info(self, instance_id: str) -> InstanceInfo | None:
        """The status of an instance."""

    async def list_instances(
        self, message: ListInstances, kinds: Sequence[Kind] | None
    ) -> tuple[list[Listed], str | None]:
        """A page of instances, and where the next one begins.

        ``kinds``: only ready runs of these.
        """

    async def count_instances(self, message: CountInstances, kinds: Sequence[Kind] | None) -> int:
        """How many there are."""

    async def ready_kinds(self) -> list[Kind]:
        """Of which kinds there are ready runs."""

    async def listed(self, instance_id: str) -> Listed | None:
        """One instance, as a list has it."""

    async def details(self, instance_id: str) -> Details:
        """What else there is of an instance that exists."""

    async def unread(self, instance_id: str, limit: int) -> list[str]:
        """The ids that a custom signal waits for, in order."""

    async def living(self) -> set[str]:
        """The owners that live."""

    # ---- upkeep

    async def heartbeat(self, instance_ids: tuple[str, ...]) -> None:
        """Say that the program of these instances lives."""

    async def prune(
        self, before_ms: int, limit: int, instance_ids: Sequence[str] | None = None
    ) -> int:
        """Remove finished instances that ended before then, Unix ms. How many were removed."""

    async def size(self) -> int:
        """Bytes that the store takes on the disk. Outside of any transaction."""

    async def vacuum(self) -> None:
        """Give back to the disk what was removed. Outside of any transaction."""
