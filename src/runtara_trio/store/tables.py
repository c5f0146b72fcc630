"""The port: what an answer asks of a database.

``answers`` decides, and a database holds no decision: an operation here reads rows or writes
them, in the transaction of one message. PostgreSQL's operations wait for the server; those of
SQLite never suspend, and its thread drives an answer in one go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from ..messages import (
    CheckpointPage,
    CountInstances,
    Ends,
    EndsSince,
    EventPage,
    Existing,
    ListEvents,
    ListInstances,
    LookForWork,
    NewRun,
    ReadCheckpoints,
    Result,
    Work,
)
from ..types import (
    InstanceInfo,
    Queue,
    QueueInfo,
    RunState,
    Signal,
    WorkerInfo,
)
from .structs import (
    Awaited,
    ChildEnd,
    Custom,
    Details,
    End,
    Holder,
    Kind,
    Lane,
    Listed,
    Orphan,
    Parent,
    Placing,
    Ready,
    Row,
    Stored,
)


class Doubtful(Exception):
    """It cannot be told yet whether an owner lives: undo the transaction and try again soon."""


class Tables(Protocol):
    """One transaction."""

    @property
    def version(self) -> int:
        """The version of the signals that this message sees; see ``messages``."""

    @property
    def again(self) -> bool:
        """The message was sent before, and the answer to that was lost."""

    child_ends: list[ChildEnd]
    """The children that have ended in this transaction; see ``answers.set_off``."""
    runs_changed: bool
    """Whether runs are ready, due or ended now that were not, or places free."""
    turns_freed: list[str]
    """The runs that have given up the turn of their key in it."""

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

    async def read_checkpoints(self, message: ReadCheckpoints) -> CheckpointPage:
        """A page of them."""

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

    # ---- runs of workflows

    async def insert_runs(
        self, tenant_id: str, runs: Sequence[NewRun], parent: Parent | None = None
    ) -> list[Existing | None]:
        """Make pending instances and their runs; for each what had the id already, or None."""

    async def promote(self) -> int | None:
        """Make ready what is due. Milliseconds until the next run is due after that."""

    async def sublanes(
        self,
        lanes: Sequence[tuple[Lane, str]],
        workflows: Sequence[tuple[str, int]],
        limit: int,
    ) -> list[Lane]:
        """The tenants of queues, or the keys of tenants, that have something ready: of each lane
        up to ``limit``, those behind the given name first."""

    async def ready_in(
        self, lanes: Sequence[Lane], workflows: Sequence[tuple[str, int]], limit: int
    ) -> list[list[str]]:
        """The next ready ids of each lane of a key."""

    async def suspects(
        self, queues: Sequence[str], workflows: Sequence[tuple[str, int]], limit: int
    ) -> list[str]:
        """Ids of runs that are to be taken alone."""

    async def strays(self) -> list[str]:
        """Running runs that this owner has taken in a transaction whose answer was lost."""

    async def lock_ready(self, instance_ids: Sequence[str], *, suspect: bool) -> list[Ready]:
        """Lock those that are still ready and that nobody else has locked."""

    async def take_runs(
        self, taken: Sequence[tuple[str, Holder | None]], placed: Collection[str]
    ) -> dict[str, int]:
        """Lease runs, set them running, and add that to their histories: id to lease.

        ``placed``: those that hold a place of their queue now.
        """

    async def place_run(self, instance_id: str, placing: Placing) -> None:
        """Put a run somewhere."""

    async def orphans(self, owner: str, limit: int) -> list[Orphan]:
        """The running runs of an owner, locked; of ``""``: of nobody."""

    async def recover(
        self, orphans: Sequence[tuple[Orphan, RunState, int]], reasons: dict[str, str]
    ) -> None:
        """Place orphans, with their number of recoveries; parked ones are suspended."""

    async def mark_runs(self, waiting: Sequence[str], working: Sequence[str]) -> None:
        """Note which of this owner's runs wait, and which work again."""

    async def look(self, message: LookForWork) -> Work:
        """What there is to do, by one statement."""

    async def announce(self, info: WorkerInfo) -> None:
        """Write this owner's worker."""

    async def retire(self, name: str) -> None:
        """Remove this owner's worker of that name."""

    async def workers(self) -> list[WorkerInfo]:
        """All workers, living or not."""

    async def ends_since(self, message: EndsSince) -> Ends:
        """A page of ends."""

    async def results(self, instance_ids: Sequence[str]) -> dict[str, Result]:
        """What instances ended with."""

    async def set_attributes(
        self, instance_id: str, attributes: Mapping[str, str | int | float | bool]
    ) -> int:
        """Set attributes of a run. How many it has then."""

    async def copy(
        self, instance_id: str, new_id: str, until: str | None, input: bytes | None
    ) -> bool:
        """Make a pending run with the checkpoints of another, up to and with that of an id.

        False: there is no such checkpoint, and nothing was done.
        """

    # ---- queues

    async def lock_queues(self, names: Iterable[str]) -> dict[str, Stored]:
        """Those of these queues that are stored. Where they allow something less than everything,
        nobody else claims from them until the transaction ends."""

    async def places(self, queues: Sequence[str]) -> dict[str, tuple[int, int]]:
        """By queue, how many runs hold a place, and how many want one."""

    async def begun_since(self, queue: str, per: float) -> tuple[int, int | None]:
        """How many have begun in so many seconds, and milliseconds until the first of them is
        older than that. What is older is forgotten."""

    async def note_begins(self, queues: Sequence[str]) -> None:
        """A run begins in each of these queues."""

    async def turns(self, lanes: Sequence[Lane]) -> dict[Lane, int]:
        """How many runs have the turn of these keys."""

    async def put_behind(self, lane: Lane) -> None:
        """Ready runs of a key that has no turn for them wait for it, so that no claim looks
        through them; not all at once, where there are many."""

    async def free_turns(self, instance_ids: Sequence[str]) -> list[Lane]:
        """Runs give up the turn of their key; where others wait for it."""

    async def advance(self, lane: Lane, count: int) -> None:
        """Make ready the next of a key that wait for its turn."""

    async def queues_of(self, instance_ids: Sequence[str]) -> dict[str, str]:
        """The queues of runs of this owner that hold no place."""

    async def want_places(self, instance_ids: Sequence[str]) -> None:
        """Runs want a place, ahead of those that have not begun."""

    async def set_queues(self, queues: Sequence[Queue]) -> None:
        """Store queues, and what follows for the runs that there are."""

    async def pause_queue(self, name: str, *, paused: bool) -> None:
        """Have a queue stand still, or go on."""

    async def list_queues(self) -> list[QueueInfo]:
        """Those that are stored or have something ready."""

    # ---- children

    async def depth_of(self, instance_id: str) -> tuple[int, int]:
        """How deep an instance is below one without a parent, and how many children it has had."""

    async def lock_many(self, instance_ids: Iterable[str]) -> dict[str, Row]:
        """Lock those that exist, in the order in which all lock them."""

    async def lock_runs(self, instance_ids: Iterable[str]) -> None:
        """Nobody else changes where these runs stand. After their instances are locked, never
        before."""

    async def awaited_by(self, instance_ids: Iterable[str]) -> dict[str, Awaited]:
        """The children that those of these runs wait for that are not loaded."""

    async def is_there(self, instance_id: str, awaited: Awaited) -> bool:
        """Whether some of what a run waits for of its children has come."""

    async def unended_below(self, instance_id: str, block: str | None) -> list[str]:
        """The descendants that have not ended; ``block``: only children in it, and theirs."""

    async def failed_below(self, instance_id: str) -> list[str]:
        """The descendants that have failed or were cancelled, under parents that did as well."""

    async def mark_by_parent(self, instance_id: str, block: str) -> None:
        """Note of the unended children in a block that it cancels them."""

    async def cancel_many(self, told: Sequence[str], ended: Sequence[str]) -> None:
        """Leave a cancel for those that run, and end the others as cancelled."""

    async def run_again(self, instance_ids: Sequence[str]) -> None:
        """Make finished instances pending: ends, signals and numbers of attempts go."""

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
