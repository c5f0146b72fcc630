"""What may be done in which state, without a database: tables and pure functions.

runtara-core lets a finished instance be run again, a tenant be changed and a cancel be
overwritten. These are the guards that it lacks; every store asks them.
"""

from __future__ import annotations

import enum

from ...errors import (
    InstanceFinished,
    LeaseLost,
    RegistrationError,
    ServerError,
    SignalRefused,
)
from ...ids import TIMED_OUT, signal_record, storable, users_id
from ...messages import Existing, NewRun, Next, RecordOutcome, SendCustomSignal
from ...types import InstanceStatus, RunState, Signal, SignalType
from ..structs import Awaited, End, Orphan, Placing, Run

CANCEL, PAUSE, RESUME = SignalType.CANCEL, SignalType.PAUSE, SignalType.RESUME


class Standing(enum.Enum):
    """Where an instance stands when an operator's signal comes."""

    ALIVE = "running or held by a pause, its lease alive"
    DEAD = "running, its lease dead: a register could take it now"
    IDLE = "suspended and not held by a pause, or pending"
    QUEUED = "a run that a worker takes, now or at a time or a signal"
    OUT = "a run out of its queue: paused, or parked"
    CORE_RUNNING = "running in a runtara-core"
    CORE_SUSPENDED = "suspended by a runtara-core"
    FINISHED = "finished"


class Action(enum.Enum):
    """What a store does with the signal."""

    DELIVER = "a row that the program takes"
    WAIT = "a row that the next start takes"
    CARRY_OUT = "the instance is cancelled at once, its lease taken"
    MARK = "a row, and the instance is cancelled at once"
    WITHDRAW = "a waiting pause is removed"
    TAKE_OUT = "the run leaves its queue"
    PUT_BACK = "the run is ready again"
    NOTHING = "it is so already"


SIGNALS: dict[tuple[SignalType, Standing], tuple[Action, str]] = {
    (CANCEL, Standing.ALIVE): (Action.DELIVER, "cancel delivered"),
    (CANCEL, Standing.DEAD): (Action.CARRY_OUT, "cancelled: its process had died"),
    (CANCEL, Standing.IDLE): (Action.CARRY_OUT, "cancelled"),
    (CANCEL, Standing.QUEUED): (Action.CARRY_OUT, "cancelled"),
    (CANCEL, Standing.OUT): (Action.CARRY_OUT, "cancelled"),
    (CANCEL, Standing.CORE_RUNNING): (Action.DELIVER, "cancel left for its runtara-core"),
    (CANCEL, Standing.CORE_SUSPENDED): (Action.MARK, "cancelled"),
    (PAUSE, Standing.ALIVE): (
        Action.DELIVER,
        "pause delivered; it stops at its next boundary",
    ),
    (PAUSE, Standing.DEAD): (
        Action.WAIT,
        "its process has died; the next start stops at its first boundary",
    ),
    (PAUSE, Standing.IDLE): (
        Action.WAIT,
        "not running; the next start stops at its first boundary",
    ),
    (PAUSE, Standing.QUEUED): (Action.TAKE_OUT, "paused: no worker takes it until a resume"),
    (PAUSE, Standing.OUT): (Action.NOTHING, "paused already"),
    (PAUSE, Standing.CORE_RUNNING): (Action.DELIVER, "pause left for its runtara-core"),
    (PAUSE, Standing.CORE_SUSPENDED): (Action.WAIT, "pause left for its runtara-core"),
    (RESUME, Standing.ALIVE): (Action.DELIVER, "resume delivered"),
    (RESUME, Standing.DEAD): (
        Action.WITHDRAW,
        "the pause is taken back; its process has died: start its program to go on",
    ),
    (RESUME, Standing.IDLE): (
        Action.WITHDRAW,
        "the pause is taken back; start its program to go on",
    ),
    (RESUME, Standing.QUEUED): (Action.WITHDRAW, "no pause waits; a worker goes on with it"),
    (RESUME, Standing.OUT): (Action.PUT_BACK, "resumed: the next free worker goes on with it"),
    (RESUME, Standing.CORE_RUNNING): (Action.DELIVER, "resume left for its runtara-core"),
    (RESUME, Standing.CORE_SUSPENDED): (Action.DELIVER, "resume left for its runtara-core"),
}
"""What becomes of a signal; a finished instance refuses every one."""


def standing(
    status: InstanceStatus, *, alive: bool, ours: bool, run: Run | None = None
) -> Standing:
    """Where an instance stands.

    Args:
      status: what its row says.
      alive: its lease is a living owner's.
      ours: its last start was a register of ours, not one of a runtara-core.
      run: where its run stands, if a client has started it.
    """
    if status.finished:
        return Standing.FINISHED
    if alive:
        return Standing.ALIVE
    if run is not None and run.state in OUT_OF_QUEUE:
        return Standing.OUT
    if run is not None and run.state in IN_QUEUE and (ours or status is InstanceStatus.PENDING):
        return Standing.QUEUED
    if status is InstanceStatus.RUNNING:
        return Standing.DEAD if ours else Standing.CORE_RUNNING
    if status is InstanceStatus.SUSPENDED and not ours:
        return Standing.CORE_SUSPENDED
    return Standing.IDLE


def decide_signal(
    instance_id: str,
    asked: SignalType,
    stands: Standing,
    status: InstanceStatus,
    pending: SignalType | None,
) -> tuple[Action, str]:
    """What to do with an operator's signal, and the words of the answer.

    Raises:
      SignalRefused: the instance is finished, or a cancel stands already.
    """
    if stands is Standing.FINISHED:
        raise SignalRefused(f"instance {instance_id!r} is {status}: it cannot be {_PAST[asked]}")
    if pending is CANCEL and asked is not CANCEL:
        raise SignalRefused(
            f"instance {instance_id!r} has a cancel, which no later {asked} takes back"
        )
    action, text = SIGNALS[asked, stands]
    held = stands is Standing.ALIVE and status is InstanceStatus.SUSPENDED
    if asked is RESUME and pending is not PAUSE and not held:
        text = _NO_PAUSE.get(stands, text)
    return action, text


_NO_PAUSE = {
    Standing.ALIVE: "resume delivered, though no pause waits",
    Standing.DEAD: "no pause waits; its process has died: start its program to go on",
    Standing.IDLE: "no pause waits; start its program to go on",
}
_PAST = {CANCEL: "cancelled", PAUSE: "paused", RESUME: "resumed"}


IN_QUEUE = frozenset(
    {RunState.READY, RunState.BEHIND, RunState.SUSPECT, RunState.TIMED, RunState.WAITING}
)
"""States in which a worker takes a run by itself."""

OUT_OF_QUEUE = frozenset({RunState.PAUSED, RunState.PARKED})
"""States that a resume ends."""


PLACED_BY = {
    Action.CARRY_OUT: Placing(state=RunState.ENDED),
    Action.MARK: Placing(state=RunState.ENDED),
    Action.TAKE_OUT: Placing(state=RunState.PAUSED),
    Action.PUT_BACK: Placing(state=RunState.READY, anew=True, forgives=True),
}
"""Where a run is put by what is done with a signal."""


def place_after(
    status: InstanceStatus, next_: Next | None, pending: Signal | None, run: Run | None
) -> Placing | None:
    """Where a run is put whose run has ended so; None: it is no workflow's."""
    if run is None:
        return None
    if status.finished:
        return Placing(state=RunState.ENDED)
    if pending is not None and pending.type is PAUSE:
        return Placing(state=RunState.PAUSED)
    if next_ is None and pending is not None and pending.type is RESUME:
        return Placing(state=RunState.READY, anew=True)  # it came while the pause ended the run
    if next_ is None:
        return Placing(state=RunState.PAUSED)
    return Placing(
        state=next_.state,
        due_ms=next_.due_ms,
        waiting_for=next_.waiting_for,
        awaited=_awaited(next_),
        counts=next_.counts,
        anew=next_.counts,
    )


def _awaited(next_: Next) -> Awaited | None:
    awaited = Awaited(next_.children, next_.blocks, next_.failing)
    return None if awaited == Awaited() else awaited


SUSPECT = 2
"""Deaths of its workers in a row after which a run is taken alone."""


def after_death(orphan: Orphan, most: int) -> tuple[RunState, int]:
    """Where a run is put whose worker died, and its number of deaths in a row.

    Counted are those in which it worked and that no checkpoint came before.
    """
    if orphan.waits:
        return RunState.READY, orphan.recoveries
    recoveries = orphan.recoveries + 1 if orphan.newest == orphan.progress else 1
    if recoveries >= most:
        return RunState.PARKED, recoveries
    return (RunState.SUSPECT if recoveries >= SUSPECT else RunState.READY), recoveries


def parked_text(recoveries: int, checkpoint_id: str | None) -> str:
    """What the history says of a run that was parked behind a checkpoint, if it has one."""
    after = "" if checkpoint_id is None else f" after {users_id(checkpoint_id)}"
    return f"parked: its worker died {recoveries} times in a row{after}"


def is_same(existing: Existing, tenant_id: str, run: NewRun) -> bool:
    """Whether an instance is what a start would have made."""
    return (existing.tenant_id, existing.workflow, existing.input) == (
        tenant_id,
        run.workflow,
        run.input,
    )


class CustomAction(enum.Enum):
    """What a store does with a custom signal."""

    NOTHING = "this very one is there already"
    STORE = "a row that whoever waits takes, in place of one that waits"
    STORE_AGAIN = "the record of the one that was refused goes, then as STORE"


def decide_custom_signal(
    message: SendCustomSignal,
    status: InstanceStatus,
    waiting: bytes | None,
    taken: bytes | None,
    *,
    refused: bool,
) -> CustomAction:
    """What to do with a custom signal.

    Args:
      message: the signal.
      status: of the instance.
      waiting: the payload under the id that nobody has taken.
      taken: the record of the one that was taken.
      refused: that one was not of the type that was waited for.

    Raises:
      SignalRefused: finished, or another signal has or had the id.
    """
    replaces = message.replace and (refused if taken is not None else waiting is not None)
    named = f"{message.checkpoint_id!r} of instance {message.instance_id!r}"
    if status.finished and not replaces:
        raise SignalRefused(f"instance {message.instance_id!r} is {status}: it waits for no signal")
    if taken is not None:
        if taken == signal_record(message.payload):
            return CustomAction.NOTHING
        if replaces:
            return CustomAction.STORE_AGAIN
        what = "timed out" if taken == TIMED_OUT else "was answered"
        raise SignalRefused(
            f"{named} {what} already; a second, different signal would change the replay"
        )
    if waiting == message.payload:
        return CustomAction.NOTHING
    if waiting is not None and not replaces:
        raise SignalRefused(
            f"{named} has another signal already, which nobody has taken; replace it with "
            "replace=True, on the command line --replace"
        )
    return CustomAction.STORE


def decide_outcome(
    message: RecordOutcome, epoch: int | None, pending: Signal | None
) -> Signal | None:
    """The cancel that stands against an outcome; None: it is to be recorded.

    Args:
      message: the outcome.
      epoch: of the instance's lease; None: it has none.
      pending: the signal that waits for the instance.

    Raises:
      LeaseLost: the lease of the message is not the instance's.
    """
    check_lease(message.instance_id, message.lease, epoch)
    if message.unless_cancelled and pending is not None and pending.type is CANCEL:
        return pending
    return None


def end_of(message: RecordOutcome, pending: Signal | None, run: Run | None = None) -> End:
    """What an outcome writes.

    Args:
      message: the outcome.
      pending: the signal that waits for the instance.
      run: where its run stands, if a client has started it.
    """
    status, payload = message.status, message.payload
    output = error = None
    if status is InstanceStatus.COMPLETED:
        output = payload or None
    if status is InstanceStatus.FAILED:
        told = payload.decode(errors="replace")
        error = storable(told, len(told)) or "Unknown error"  # as runtara-core
    # Nothing is left to cancel or to resume, or it is acknowledged.
    gone = pending is not None and (
        status.finished or pending.type is RESUME or message.signal == pending
    )
    placing = place_after(status, message.next, pending, run)
    return End(
        instance_id=message.instance_id,
        lease=message.lease,
        status=status,
        payload=payload,
        output=output,
        error=error,
        signal=pending if gone or _is_carried_out(placing, pending) else None,
        run=placing,
        has_children=run is not None and run.children > 0,
    )


def _is_carried_out(placing: Placing | None, pending: Signal | None) -> bool:
    """Whether a pause is: the run leaves its queue."""
    return (
        placing is not None
        and placing.state is RunState.PAUSED
        and pending is not None
        and pending.type is PAUSE
    )


def check_lease(instance_id: str, lease: int, epoch: int | None) -> None:
    """Raises LeaseLost where a message's lease is not the instance's; None: it has none."""
    if epoch != lease:
        raise LeaseLost(instance_id)


def check_running(asked: str, instance_id: str, status: str) -> None:
    """Raises ServerError where another program changed the status: a core, an environment."""
    if status != InstanceStatus.RUNNING:
        raise ServerError(asked, "", f"instance {instance_id!r} is {status}, not running")


def unknown(asked: str, instance_id: str) -> ServerError:
    """The error of a message about an instance that does not exist."""
    return ServerError(asked, "", f"no instance {instance_id!r}")


def no_receiver(instance_id: str) -> SignalRefused:
    """The error of a signal to an instance that does not exist."""
    return SignalRefused(f"there is no instance {instance_id!r}; 'list' shows those there are")


def check_register(
    instance_id: str,
    tenant_id: str,
    row_tenant: str,
    status: InstanceStatus,
    output: bytes | None,
    error: str | None,
    *,
    revive: bool,
) -> None:
    """Whether an existing row may be run (again).

    Raises:
      RegistrationError: it belongs to another tenant.
      InstanceFinished: it ended, and ``revive`` was not asked.
    """
    if row_tenant != tenant_id:
        raise RegistrationError(
            f"instance {instance_id!r} belongs to tenant {row_tenant!r}, not {tenant_id!r}; "
            "choose another instance_id, or give its tenant_id"
        )
    if status.finished and not revive:
        raise InstanceFinished(instance_id, status, output, error)
