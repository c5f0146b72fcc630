"""Plain values that users and backends share."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime

import msgspec


class InstanceStatus(enum.StrEnum):
    """What the database says of an instance; the values of runtara-core."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Completed, failed or cancelled; only ``revive=True`` runs it again."""
        return self in FINISHED


FINISHED = frozenset({InstanceStatus.COMPLETED, InstanceStatus.FAILED, InstanceStatus.CANCELLED})


class RunState(enum.StrEnum):
    """Where a run of a workflow stands among those that workers take."""

    READY = "ready"
    """The next free worker takes it."""
    BEHIND = "behind"
    """Ready once its key has a turn for it."""
    SUSPECT = "suspect"
    """Ready, but its workers died twice in a row: it is taken alone."""
    TIMED = "timed"
    """Ready at a time, or before that at a signal."""
    WAITING = "waiting"
    """Ready at a signal."""
    RUNNING = "running"
    """A worker has it, or had it when it died."""
    PAUSED = "paused"
    """Until a resume."""
    PARKED = "parked"
    """Its workers died again and again: until a resume."""
    ENDED = "ended"


class Outcome(enum.StrEnum):
    """How a block ended (``sdk.outcome``); the table is in ``engine/outcome.py``."""

    COMPLETED = "completed"
    FAILED = "failed"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    LOST = "lost"


class SignalType(enum.StrEnum):
    """What an operator can ask of an instance."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"


class EventType(enum.StrEnum):
    """The kinds of rows in an instance's history."""

    STARTED = "started"
    HEARTBEAT = "heartbeat"
    COMPLETED = "completed"
    FAILED = "failed"
    SUSPENDED = "suspended"
    CUSTOM = "custom"


class Signal(msgspec.Struct, frozen=True):
    """A cancel, pause or resume that waits for an instance.

    ``payload`` is the operator's, or a token of its own that tells one signal from the
    next of the same type.
    """

    type: SignalType
    payload: bytes = b""


class CustomSignal(msgspec.Struct, frozen=True):
    """A payload sent to one checkpoint id of an instance."""

    checkpoint_id: str
    payload: bytes


class InstanceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The status of an instance. Times are aware, in UTC.

    An instance that nobody ever registered has the status UNKNOWN and no times.
    """

    instance_id: str
    status: InstanceStatus
    checkpoint_id: str | None = None
    """The checkpoint that was saved last."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    output: bytes | None = None
    error: str | None = None


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What workers know of an instance: its workflow, and where its run stands."""

    workflow: str
    version: int
    queue: str
    key: str | None
    priority: int
    state: RunState
    due_at: datetime | None = None
    """When it is ready in any case; aware, in UTC."""
    waiting_for: tuple[str, ...] = ()
    """The ids of the signals that it waits for, while it is not loaded."""
    recoveries: int = 0
    """How often in a row its worker died without a new checkpoint."""
    parent_id: str | None = None
    """The instance that it is a child of."""
    waiting_for_children: bool = False
    """It waits for the end of children, while it is not loaded."""
    waits: bool = False
    """All of its tasks wait, while it is loaded; known a second later."""
    wants_place: bool = False
    """It has waited, and goes on where its queue has a place for it."""
    children: int = 0
    """How many children it has had."""
    attempt: int = 1
    """Of its whole function."""
    attributes: Mapping[str, str | int | float | bool] = {}


class StepKind(enum.StrEnum):
    """What a step of an instance is."""

    CALL = "call"
    """Of a durable function."""
    STEP = "step"
    """An ``sdk.step`` with an id."""
    SLEEP = "sleep"
    SIGNAL = "signal"
    """A wait for one."""
    MESSAGE = "message"
    """A wait for one."""
    CHILD = "child"
    DEADLINE = "deadline"
    """The work under one."""
    TRANSACTION = "transaction"
    CHECKPOINT = "checkpoint"
    """Of which only the end is known, as of all steps that 0.1 has saved."""


class StepOutcome(enum.StrEnum):
    """How a step ended."""

    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Its run ended before it did, or a scope around it was cancelled."""
    LOST = "lost"
    """Its run's process died, or lost the instance to another."""
    UNLOADED = "unloaded"
    """A wait that goes on, while its run is in no process."""


class StepInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A step of an instance, in one run of it. Times are aware, in UTC."""

    step: str
    kind: StepKind
    run: int
    """The lease under which it ran; 0: not known."""
    worker: str
    """The name of the worker, or host and process; empty: not known."""
    started_at: datetime | None
    ended_at: datetime | None
    """None: it runs, or its outcome says why not."""
    outcome: StepOutcome | None
    """None: it runs."""
    attempts: tuple[tuple[datetime, str], ...] = ()
    """When an attempt failed, and how; the last 50."""
    parent: str | None = None
    """The step that it is inside of."""
    summary: str | None = None
    """What ``@durable(summary=...)`` says of the call."""
    asks: str | None = None
    """Of a wait for a signal: the JSON schema of what it is decoded to, if it has one."""


class WaitInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A wait for a signal that nobody has answered. Times are aware, in UTC."""

    instance_id: str
    tenant_id: str
    checkpoint_id: str
    workflow: str | None
    """None: the instance is no workflow's."""
    since: datetime
    asks: str | None
    """The JSON schema of the type that is waited for, if it has one."""


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has done to an instance, a queue or a schedule. It outlives a prune."""

    id: int
    at: datetime
    """Aware, in UTC."""
    who: str
    what: str
    instance_id: str | None
    """None: it was about none in particular."""
    detail: str | None


class Rate(msgspec.Struct, frozen=True):
    """So many in any window of so many seconds: ``Rate(100, per=60.0)``."""

    count: int
    per: float


class Queue(msgspec.Struct, frozen=True):
    """What a queue allows. None: as many as there are.

    Of runs that wait for longer than a second nothing is counted but the turn of their key.
    """

    name: str
    limit: int | None = None
    """Runs at once, over all workers."""
    per_worker: int | None = None
    """Runs at once in each worker."""
    rate: Rate | None = None
    """Runs that begin; one that goes on is not counted again."""
    key_limit: int | None = None
    """Runs at once of each key of each tenant; 1: one after the other, in the order of their
    starts."""

    @property
    def has_places(self) -> bool:
        """Whether a run that has waited must ask before it goes on."""
        return self.limit is not None or self.per_worker is not None


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A queue, and what there is in it."""

    queue: Queue
    stored: bool
    """Somebody has said what it allows; else it allows everything."""
    paused: bool
    """Nothing is claimed from it."""
    ready: int
    """Runs that a worker may take, up to 10,000."""
    behind: int
    """Runs that wait for the turn of their key, up to 10,000."""
    working: int
    """Runs that hold a place; counted where it has a ``limit`` or a ``per_worker``."""
    wanting: int
    """Runs that have waited, and want a place to go on."""
    ready_since: datetime | None = None
    """When the one that is ready longest began to wait for a worker; None: nothing is ready."""


class ScheduleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule, as it is stored."""

    name: str
    tenant_id: str
    workflow: str
    version: int
    queue: str
    input: bytes
    """The arguments, as they are stored."""
    cron: str | None
    every: int | None
    """Seconds, counted from the Unix epoch."""
    timezone: str
    overlap: str
    """What a slot does while the run of the last one has not ended: allow, skip or cancel."""
    catch_up: float
    """Seconds: slots that were missed for longer are skipped."""
    next_ms: int
    """The next slot, Unix ms."""
    paused: bool = False
    skipped: int = 0
    """Slots that were not run: missed for too long, or for the overlap."""
    last_id: str | None = None
    """The instance of the last slot that was run."""
    declared: bool = False
    """A living worker declares it."""


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that lives. Times are aware, in UTC."""

    owner: str
    name: str
    holder: str
    """Host and process."""
    workflows: tuple[tuple[str, int], ...]
    """The names and versions that it runs."""
    queues: tuple[str, ...]
    tenant_ids: tuple[str, ...] | None
    """None: every tenant's."""
    slots: int
    working: int
    """Runs that hold a slot."""
    loaded: int
    """Runs in its memory, those that wait among them."""
    last_look: datetime
    """When it last looked for work."""
    oldest_boundary: datetime | None
    """Since when its oldest run has not reached a boundary; None: nothing works."""
    draining: bool = False
    schedules: tuple[str, ...] = ()
    """The names of those that it declares."""


class InstanceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of an operator's list. Times are aware, in UTC."""

    instance_id: str
    tenant_id: str
    status: InstanceStatus
    held: bool
    """A living process holds its lease; running, ours and not held means that it died."""
    ours: bool
    """Started last by this package, not by a runtara-core."""
    checkpoint_id: str | None
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    sleep_until: datetime | None
    signal: SignalType | None
    """The signal that waits for it, if any."""
    run: RunInfo | None = None
    """Of an instance that a client has started."""


class InstanceDetails(msgspec.Struct, frozen=True, kw_only=True):
    """All that an operator can know about one instance."""

    summary: InstanceSummary
    holder: str | None
    """Host and process of the living owner."""
    input: bytes | None
    """The arguments, as they are stored; None: it was not started by a client."""
    output: bytes | None
    error: str | None
    checkpoints: int
    """How many checkpoints are stored, the SDK's own among them."""
    events: int
    termination_reason: str | None = None
    """Why it does not run any more, in runtara's words; None: it runs, or nobody keeps that: only
    the tables of a runtara-core 1.6 have a column for it."""
    exit_code: int | None = None
    unread_signals: tuple[str, ...] = ()
    """Checkpoint ids that a signal was sent to and that nobody has asked for yet."""
    open_steps: tuple[StepInfo, ...] = ()
    """What it does and what it waits for, oldest first; up to 100. A step is noted once it has
    taken a second."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One row of an instance's history, oldest first by ``id``."""

    id: int
    type: EventType | str
    subtype: str | None
    checkpoint_id: str | None
    payload: bytes
    created_at: datetime | None


class CheckpointRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One stored checkpoint."""

    checkpoint_id: str
    state: bytes
    created_at: datetime | None
