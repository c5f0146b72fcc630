"""The part of the port that is about many instances: runs of workflows, queues, schedules,
parents and children. See ``tables``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from ..messages import (
    Ends,
    EndsSince,
    Existing,
    LookForWork,
    NewRun,
    Result,
    Work,
)
from ..types import (
    Queue,
    QueueInfo,
    RunState,
    ScheduleInfo,
    WorkerInfo,
)
from .structs import (
    Awaited,
    ChildEnd,
    Holder,
    Lane,
    Orphan,
    Parent,
    Placing,
    Ready,
    Row,
    Stored,
)


class FleetTables(Protocol):
    """One transaction, as to many instances."""

    child_ends: list[ChildEnd]
    """The children that have ended in this transaction; see ``answers.set_off``."""
    runs_changed: bool
    """Whether runs are ready, due or ended now that were not, or places free."""
    turns_freed: list[str]
    """The runs that have given up the turn of their key in it."""

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
        self,
        queues: Sequence[str],
        workflows: Sequence[tuple[str, int]],
        tenant_ids: Sequence[str] | None,
        limit: int,
    ) -> list[str]:
        """Ids of runs that are to be taken alone; ``tenant_ids`` None: of all tenants."""

    async def strays(self) -> list[tuple[str, int]]:
        """Ids and leases of running runs that this owner has taken in a transaction whose answer
        was lost."""

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
        """Runs are not before others of their key any more: the turns that they have are free.
        Where others may wait."""

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

    # ---- schedules

    async def schedule(self, name: str) -> ScheduleInfo | None:
        """A schedule, which nobody else changes until the transaction ends."""

    async def write_schedule(self, schedule: ScheduleInfo) -> None:
        """Store one, in place of what is stored under its name."""

    async def remove_schedule(self, name: str) -> bool:
        """Whether there was one."""

    async def schedules(self) -> list[ScheduleInfo]:
        """All of them, by name."""

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
