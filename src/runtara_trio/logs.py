"""What is logged: one table of events.

A record of an event has the attribute ``event``, its name, and one attribute for each of
its fields, so that a structured handler needs no parsing. Neither states nor payloads nor
outputs nor a program's own exceptions are logged; ids and the names of owners are. A worker
alone logs what a run raised, with its traceback: there is nobody whom it could be raised to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from logging import DEBUG, ERROR, INFO, WARNING, Logger, getLogger

import msgspec

FIELDS = {
    "instance_id": "the instance",
    "tenant_id": "whom it belongs to",
    "lease": "the number of its lease",
    "resumed": "whether it was there before this start",
    "taken_from": "the dead or expired owner whose lease was taken over",
    "schedule": "the name of the schedule",
    "skipped": "how many slots were not run",
    "checkpoint_id": "the id of the checkpoint, the sleep or the wait",
    "found": "whether it was stored already",
    "signal": "cancel, pause or resume",
    "running": "how many steps a pause still waits for",
    "cause": "cancel, stop or lost",
    "outcome": "as in `sdk.outcome`",
    "recorded": "the status that was recorded",
    "unvisited": "the ids, at most ten of them",
    "count": "how many there are",
    "attempt": "the attempt, from 1",
    "seconds": "how long",
    "interval": "seconds between two heartbeats",
    "task": "which service or request",
    "worker": "the worker's name",
    "workflow": "the name of the workflow",
    "call": "the call of the instance protocol",
    "server": "the server's URL, without its parameters",
    "error": "what the backend said; of a retry, the type of the exception",
}
"""Every field, and what it holds."""

span_ids: Callable[[], Mapping[str, str]] = dict
"""The fields ``trace_id`` and ``span_id`` of the calling task, where it has a span."""


class LogEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. Called with its fields, it logs a record.

    It never raises: a filter, a handler or a record factory of the program's own may, and
    what is logged here happens in the middle of decisions that must be carried out.
    """

    name: str
    logger: Logger
    level: int
    text: str
    fields: tuple[str, ...]

    def __call__(self, *, exc_info: BaseException | None = None, **fields: object) -> None:
        if not self.logger.isEnabledFor(self.level):
            return
        shown = {name: _in_a_line(value) for name, value in fields.items()}
        # A factory that sets an attribute of the same name makes extra an error.
        for extra in ({"event": self.name, **span_ids(), **fields}, None):
            with contextlib.suppress(Exception):
                self.logger.log(
                    self.level, self.text, shown, exc_info=exc_info, extra=extra, stacklevel=2
                )
                return


class Outage:
    """Something that fails again and again: said once, and once more when it works again."""

    def __init__(self, event: LogEvent, task: str) -> None:
        self._event = event
        self._task = task
        self._on = False

    def goes_on(self, error: str) -> None:
        """It has failed."""
        if not self._on:
            self._on = True
            self._event(error=f"{self._task}: {error}; it is tried again")

    def over(self) -> None:
        """It has worked."""
        if self._on:
            self._on = False
            works_again(task=self._task)


def _in_a_line(value: object) -> object:
    """Somebody's id must not look like a record of its own."""
    return value if not isinstance(value, str) or value.isprintable() else ascii(value)[1:-1]


def _event(name: str, part: str, level: int, text: str, fields: str) -> LogEvent:
    return LogEvent(
        name=name,
        logger=getLogger(f"runtara_trio.{part}"),
        level=level,
        text=text,
        fields=tuple(fields.split()),
    )


registered = _event(
    "registered",
    "instance",
    INFO,
    "registered %(instance_id)s",
    "instance_id tenant_id lease resumed",
)
taken_over = _event(
    "taken_over",
    "instance",
    INFO,
    "took %(instance_id)s over from %(taken_from)s",
    "instance_id lease taken_from",
)
signal = _event(
    "signal", "instance", INFO, "%(signal)s of %(instance_id)s came", "instance_id signal"
)
not_acknowledged = _event(
    "not_acknowledged",
    "instance",
    DEBUG,
    "%(signal)s of %(instance_id)s was not acknowledged: its lease is gone",
    "instance_id signal",
)
lease_lost = _event(
    "lease_lost", "instance", WARNING, "the lease of %(instance_id)s was lost", "instance_id lease"
)
ended = _event(
    "ended", "instance", INFO, "%(instance_id)s ended: %(outcome)s", "instance_id outcome"
)
not_recorded = _event("not_recorded", "instance", ERROR, "%(error)s", "instance_id error")
recorded_late = _event(
    "recorded_late",
    "instance",
    INFO,
    "%(instance_id)s was recorded after all: %(recorded)s",
    "instance_id recorded",
)
unvisited = _event(
    "unvisited",
    "instance",
    WARNING,
    "%(instance_id)s is completed, but this run never asked for %(count)d of its stored "
    "ids: %(unvisited)s. Where the program has changed, its work under them may have been "
    "done again",
    "instance_id count unvisited",
)
checkpoint = _event(
    "checkpoint",
    "boundary",
    DEBUG,
    "checkpoint %(checkpoint_id)r of %(instance_id)s, found: %(found)s",
    "instance_id checkpoint_id found",
)
sleeping = _event(
    "sleeping",
    "boundary",
    DEBUG,
    "%(instance_id)s sleeps for %(seconds).3f s: %(checkpoint_id)r",
    "instance_id checkpoint_id seconds",
)
waiting = _event(
    "waiting",
    "boundary",
    DEBUG,
    "%(instance_id)s waits for the signal %(checkpoint_id)r",
    "instance_id checkpoint_id",
)
parked = _event(
    "parked",
    "boundary",
    DEBUG,
    "a task of %(instance_id)s parks for a pause; steps that run: %(running)d",
    "instance_id running",
)
settled = _event(
    "settled",
    "boundary",
    INFO,
    "the pause of %(instance_id)s has settled: nothing is half done",
    "instance_id",
)
retrying = _event(
    "retrying",
    "boundary",
    WARNING,
    "%(checkpoint_id)r of %(instance_id)s failed with %(error)s, attempt %(attempt)d of "
    "%(count)s; the next in %(seconds).3f s",
    "instance_id checkpoint_id error attempt count seconds",
)
failure_changes = _event(
    "failure_changes",
    "boundary",
    WARNING,
    "%(checkpoint_id)r of %(instance_id)s failed with %(error)s, which a replay cannot raise as it "
    "is: it has its text alone, or is a DurableError; give it texts and numbers, by "
    "Exception.__init__",
    "instance_id checkpoint_id error",
)
held = _event(
    "held",
    "boundary",
    INFO,
    "%(instance_id)s is held: suspended until a resume, its tasks parked",
    "instance_id",
)
hold_ended = _event(
    "hold_ended", "boundary", INFO, "%(instance_id)s runs again after a hold", "instance_id"
)
grace_over = _event(
    "grace_over",
    "boundary",
    WARNING,
    "the pause of %(instance_id)s was not settled within its grace: steps may have been cut off",
    "instance_id",
)
scope_cancelled = _event(
    "scope_cancelled",
    "boundary",
    INFO,
    "the scope of %(instance_id)s is cancelled: %(cause)s",
    "instance_id cause",
)
service_failed = _event(
    "service_failed", "services", ERROR, "%(task)s failed, trying again: %(error)s", "task error"
)
request_failed = _event(
    "request_failed", "services", WARNING, "%(task)s failed: %(error)s", "task error"
)
loop_blocked = _event(
    "loop_blocked",
    "services",
    WARNING,
    "the Trio loop was blocked for %(seconds).2f s, heartbeats are due every "
    "%(interval).2f s; move what blocks into trio.to_thread.run_sync",
    "seconds interval",
)
asyncio_error = _event("asyncio_error", "services", ERROR, "asyncio: %(error)s", "error")
asyncio_stuck = _event(
    "asyncio_stuck",
    "services",
    WARNING,
    "%(count)d asyncio tasks that were left behind do not end when cancelled, and are let go",
    "count",
)
poll_failed = _event("poll_failed", "store", WARNING, "%(error)s", "error")
renewal_failed = _event("renewal_failed", "store", WARNING, "%(error)s", "error")
works_again = _event("works_again", "store", INFO, "%(task)s works again", "task")
batch_failed = _event(
    "batch_failed", "store", ERROR, "a batch of %(count)d requests failed", "count"
)

worker_started = _event(
    "worker_started", "worker", INFO, "worker %(worker)s runs %(workflow)s", "worker workflow"
)
worker_drains = _event(
    "worker_drains",
    "worker",
    INFO,
    "worker %(worker)s drains %(count)d runs, %(cause)s",
    "worker count cause",
)
run_failed = _event(
    "run_failed",
    "worker",
    ERROR,
    "attempt %(attempt)d of %(workflow)s failed in %(instance_id)s: %(error)s",
    "instance_id workflow attempt error",
)
recovered = _event(
    "recovered", "worker", INFO, "%(count)d runs of dead workers are ready again", "count"
)
run_parked = _event(
    "run_parked",
    "worker",
    ERROR,
    "%(instance_id)s is parked: its worker died again and again; 'resume' tries it again",
    "instance_id",
)
claim_failed = _event("claim_failed", "worker", WARNING, "%(error)s", "error")

slots_run = _event(
    "slots_run",
    "worker",
    INFO,
    "the schedule %(schedule)s has started %(count)d runs; %(skipped)d slots were skipped",
    "schedule count skipped",
)
slot_taken = _event(
    "slot_taken",
    "worker",
    WARNING,
    "the schedule %(schedule)s skips a slot: %(instance_id)s is another's instance",
    "schedule instance_id",
)

connected = _event("connected", "quic", INFO, "connected to %(server)s", "server")
disconnected = _event(
    "disconnected", "quic", WARNING, "lost the connection to %(server)s: %(error)s", "server error"
)
connection_failed = _event(
    "connection_failed", "quic", ERROR, "a QUIC connection failed: %(error)s", "error"
)
call_failed = _event(
    "call_failed", "quic", WARNING, "%(call)s, which has no answer, failed: %(error)s", "call error"
)

EVENTS = tuple(event for event in list(globals().values()) if isinstance(event, LogEvent))
"""The table, in the order of a run."""
