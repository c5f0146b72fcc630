"""What clients and workers ask: starting runs of workflows, claiming them, their ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from ..types import InstanceStatus, Signal, WorkerInfo
from .base import Action, Done, Request

# ---- starting


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run that is to be started."""

    instance_id: str
    workflow: str
    version: int
    queue: str
    input: bytes
    """The arguments, as the codec encodes a list of them."""
    priority: int = 0
    key: str = ""
    """Empty: it has no key."""
    delay_ms: int = 0
    at_ms: int | None = None
    """When it is ready, Unix ms; else after the delay."""
    attributes: Mapping[str, str | int | float | bool] = {}
    trace: str | None = None
    """The context of the trace in which it is started."""


class Starter(msgspec.Struct, frozen=True, kw_only=True):
    """The running instance that starts others."""

    instance_id: str
    lease: int
    block: str | None = None
    """Of children: the block of them that they are in. None: they are instances of their own
    right."""
    saved_as: str | None = None
    """Of the latter: the checkpoint that says that they were started."""


class Existing(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that had the id already."""

    tenant_id: str
    workflow: str | None
    """None: no client has started it."""
    input: bytes
    parent_id: str | None = None


class Started(msgspec.Struct, frozen=True, kw_only=True):
    existing: tuple[Existing | None, ...]
    """For each run, in order. None: it was made now."""
    before: tuple[str, ...] = ()
    """The ids of those that an earlier run of the instance that asks has started."""


class StartRuns(Action[Started], frozen=True, kw_only=True):
    """Make pending instances of a tenant, for workers to run. All of them in one commit."""

    verb: ClassVar[str] = "start"
    makes: ClassVar[bool] = True
    tenant_id: str
    runs: tuple[NewRun, ...]
    by: Starter | None = None
    """None: a client. Else refused with LeaseLost, TooManyChildren."""

    @property
    def instance_id(self) -> str | None:
        return None if self.by is None else self.by.instance_id


class CancelChildren(Request[Done], frozen=True, kw_only=True):
    """Cancel the children in a block that have not ended, and theirs."""

    verb: ClassVar[str] = "cancel"
    instance_id: str
    lease: int
    block: str


# ---- claiming


class ClaimedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that a worker has taken: registered, under a lease."""

    instance_id: str
    tenant_id: str
    workflow: str
    version: int
    input: bytes
    lease: int
    signal: Signal | None
    """What waited for the start."""
    resumed: bool
    """Whether it ran before."""
    taken_from: str | None
    """The dead owner whose lease was taken over."""
    attempt: int
    """Of the whole function, from 1."""
    recoveries: int
    parent_id: str | None
    children: bool
    """It has had children."""
    queue: str
    waited_ms: int | None
    """Since it was ready; None: it has begun before, and was not for all of that time."""
    limited: bool
    """Once it has waited, it goes on where its queue has a place for it."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    runs: tuple[ClaimedRun, ...]
    turns: Mapping[tuple[str, ...], str]
    """Whose turn was the last; goes into the next claim."""
    version: int
    """Of the signals; see ``messages``."""
    more: bool
    """Others may be ready as well."""
    due_in_ms: int | None
    """Milliseconds until the next run is ready by its time, by the store's clock."""


class ClaimRuns(Request[Claimed], frozen=True, kw_only=True):
    """Take ready runs and set them running, in turns between queues, tenants and keys."""

    verb: ClassVar[str] = "claim"
    takes: ClassVar[bool] = True
    makes: ClassVar[bool] = True
    listens: ClassVar[bool] = True
    queues: tuple[str, ...]
    workflows: tuple[tuple[str, int], ...]
    """Names and versions."""
    tenant_ids: tuple[str, ...] | None = None
    """None: every tenant's."""
    limit: int
    lost: bool = False
    """The answer to an earlier claim was lost: what it took is ready again."""
    suspect: bool = False
    """Take one whose workers died twice in a row."""
    turns: Mapping[tuple[str, ...], str] = {}
    working: Mapping[str, int] = {}
    """By queue, how many runs this worker has that hold a place, or want one."""


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to do."""

    ready: bool
    suspect: bool
    dead: tuple[str, ...]
    """Owners that have leases and may be dead."""
    due_in_ms: int | None
    """As of :class:`Claimed`; not positive: some are ready now."""


class LookForWork(Request[Work], frozen=True, kw_only=True):
    """One cheap look, for whoever was not told."""

    verb: ClassVar[str] = "look"
    writes: ClassVar[bool] = False
    listens: ClassVar[bool] = True
    queues: tuple[str, ...]
    workflows: tuple[tuple[str, int], ...]
    tenant_ids: tuple[str, ...] | None = None
    """Whose suspects are told of; None: everybody's."""


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    count: int
    """How many runs are ready again."""
    parked: tuple[str, ...]
    """The ids of those that were parked."""


class RecoverRuns(Request[Recovered], frozen=True, kw_only=True):
    """Make the runs of dead owners ready again, or park them."""

    verb: ClassVar[str] = "recover"
    takes: ClassVar[bool] = True
    dead: tuple[str, ...]
    max_recoveries: int
    limit: int = 500


class Marked(msgspec.Struct, frozen=True, kw_only=True):
    refused: tuple[str, ...] = ()
    """Those that may not work again yet: their queue has no place."""


class MarkRuns(Request[Marked], frozen=True, kw_only=True):
    """Note which loaded runs wait, and which want to work again.

    A death of their worker counts for the latter only, and they alone hold places of queues.
    """

    verb: ClassVar[str] = "mark"
    waiting: tuple[str, ...] = ()
    working: tuple[str, ...] = ()
    held: Mapping[str, int] = {}
    """By queue, how many places this worker holds."""


# ---- workers


class AnnounceWorker(Request[Done], frozen=True, kw_only=True):
    """Say that a worker lives, and what it does."""

    verb: ClassVar[str] = "announce"
    takes: ClassVar[bool] = True
    makes: ClassVar[bool] = True
    info: WorkerInfo
    """Without its owner and its holder: the store knows them."""
    leaves: bool = False
    """It ends: its row goes."""


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    workers: tuple[WorkerInfo, ...]


class ListWorkers(Request[Workers], frozen=True, kw_only=True):
    """All workers that live."""

    verb: ClassVar[str] = "workers"
    writes: ClassVar[bool] = False


# ---- ends


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    last: int
    """The number of the newest end that is committed."""
    ended: tuple[tuple[int, str], ...]
    """Number and instance id, in order."""


class EndsSince(Request[Ends], frozen=True, kw_only=True):
    """Which runs have ended after the end of this number; None: only the newest number."""

    verb: ClassVar[str] = "ends"
    writes: ClassVar[bool] = False
    makes: ClassVar[bool] = True
    listens: ClassVar[bool] = True
    after: int | None
    limit: int = 1000


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance ended with; or, not ended, its status alone."""

    status: InstanceStatus
    tenant_id: str
    workflow: str | None
    output: bytes | None
    error: str | None
    number: int | None = None
    """Of its end, in the order of ends."""
    ended_ms: int | None = None
    """When that was, Unix ms."""
    by_parent: bool = False
    """The block of its parent has cancelled it."""

    @property
    def failed(self) -> bool:
        """Whether it failed its parent: not where that has cancelled it."""
        return self.status is not InstanceStatus.COMPLETED and not self.by_parent


class Results(msgspec.Struct, frozen=True, kw_only=True):
    results: Mapping[str, Result]
    """By instance id; unknown ones are left out."""


class GetResults(Request[Results], frozen=True, kw_only=True):
    verb: ClassVar[str] = "result"
    writes: ClassVar[bool] = False
    makes: ClassVar[bool] = True
    instance_ids: tuple[str, ...]
