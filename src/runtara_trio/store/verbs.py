"""The answers to an instance's messages."""

from __future__ import annotations

import math

from ..backend import Handlers
from ..errors import (
    InstanceBusy,
    InstanceFinished,
    LeaseLost,
    RegistrationError,
    SdkError,
    StoreError,
)
from ..ids import FAILURES, TIMED_OUT, retry_id, signal_payload, wake_id
from ..messages import (
    AcknowledgeSignal,
    Checkpoint,
    CheckpointPage,
    Done,
    FreeLease,
    GetCheckpoint,
    GetStatus,
    GoOn,
    Heartbeats,
    Hold,
    LeaseTaken,
    OutcomeReply,
    PendingSignal,
    PollSignals,
    ReadCheckpoints,
    RecordEvent,
    RecordOutcome,
    RecordRetry,
    Register,
    Registered,
    SignalTaken,
    Sleep,
    SleepReply,
    StopWaiting,
    StoredState,
    TakeLease,
    TakeSignal,
)
from ..types import (
    CheckpointRecord,
    InstanceInfo,
    InstanceStatus,
    SignalType,
)
from . import rules
from .leases import Holder
from .saving import check_held, checkpoint, save, stored, take
from .schema import parse_time, started_text, time_text
from .transaction import (
    Row,
    Transaction,
    add_event,
    as_bytes,
    check_known,
    check_running,
    delete_signal,
    read_row,
    status_of,
    unknown,
)


def register(tx: Transaction, message: Register) -> Registered:
    instance = message.instance_id
    row = read_row(tx, instance)
    holder = tx.leases.holder(tx.db, instance, tx.now)
    if row is not None:
        output, error = tx.db.execute(
            "SELECT output, error FROM instances WHERE instance_id = ?", (instance,)
        ).fetchone()
        rules.check_register(
            instance,
            message.tenant_id,
            row.tenant_id,
            row.status,
            output,
            error,
            revive=message.revive,
        )
    kept = row is not None and row.epoch == message.replaces
    if holder is not None and holder.alive and not kept:
        raise InstanceBusy(instance, holder.who, holder.until)
    if message.checkpoint_id is not None and stored(tx, instance, message.checkpoint_id) is None:
        raise RegistrationError(
            f"instance {instance!r} has no checkpoint {message.checkpoint_id!r} to resume from"
        )
    if row is None:
        tx.db.execute(
            "INSERT INTO instances (instance_id, tenant_id, status, created_at)"
            " VALUES (?, ?, 'running', ?)",
            (instance, message.tenant_id, tx.now_text),
        )
    else:  # what it slept is over, or is said again
        tx.db.execute("UPDATE instances SET sleep_until = NULL WHERE instance_id = ?", (instance,))
    revived = row is not None and row.status.finished
    if revived:
        _forget_the_end(tx, instance)
    epoch = tx.leases.take(tx.db, instance)
    _set_running(tx, instance, message.checkpoint_id)
    _bury(tx, None if kept else holder)
    tx.held.append((instance, epoch))
    return Registered(
        lease=epoch,
        signal=None if row is None or revived else row.signal,
        look=tx.look,
        resumed=row is not None,
        taken_from=None if holder is None or kept else holder.who,
    )


def _bury(tx: Transaction, holder: Holder | None) -> None:
    """What is left of the owner whose lease was taken over, if it is dead."""
    if holder is not None:
        dead_file = tx.leases.bury(tx.db, holder.owner)
        if dead_file is not None:
            tx.dead_files.append(dead_file)


def _forget_the_end(tx: Transaction, instance: str) -> None:
    tx.db.execute(
        "UPDATE instances SET finished_at = NULL, output = NULL, error = NULL"
        " WHERE instance_id = ?",
        (instance,),
    )
    tx.db.execute("DELETE FROM pending_signals WHERE instance_id = ?", (instance,))
    tx.db.execute(
        "DELETE FROM checkpoints WHERE instance_id = ? AND (substr(checkpoint_id, 1, ?) = ?"
        " OR checkpoint_id GLOB '*::retry::[0-9]*'"
        " AND checkpoint_id NOT GLOB '*::retry::*[^0-9]*')",
        (instance, len(FAILURES), FAILURES),
    )


def record_outcome(tx: Transaction, message: RecordOutcome) -> OutcomeReply:
    instance, status, payload = message.instance_id, message.status, message.payload
    row = read_row(tx, instance)
    pending = None if row is None else row.signal
    cancel = rules.decide_outcome(message, None if row is None else row.epoch, pending)
    if cancel is not None:
        return OutcomeReply(cancel=cancel)
    tx.db.execute(
        "UPDATE instances SET status = ?, finished_at = ?, output = ?, error = ?,"
        " sleep_until = CASE WHEN ? THEN NULL ELSE sleep_until END WHERE instance_id = ?",
        (
            status.value,
            tx.now_text if status.finished else None,
            payload if status is InstanceStatus.COMPLETED and payload else None,
            rules.error_text(message),
            status.finished,
            instance,
        ),
    )
    if status is not InstanceStatus.CANCELLED:  # core's history has no row for it
        add_event(tx, instance, status.value, payload)
    done = rules.carried_out(message, pending)
    if done is not None:
        delete_signal(tx, instance, done)
    tx.db.execute("DELETE FROM runtara_trio_leases WHERE instance_id = ?", (instance,))
    tx.held.append((instance, None))
    return OutcomeReply(cancel=None)


def hold(tx: Transaction, message: Hold) -> Done:
    instance = message.instance_id
    _running(tx, "instance_event", instance, message.lease)
    tx.db.execute("UPDATE instances SET status = 'suspended' WHERE instance_id = ?", (instance,))
    add_event(tx, instance, "suspended", message.reason)
    if message.signal is not None:
        delete_signal(tx, instance, message.signal)
    return Done()


def go_on(tx: Transaction, message: GoOn) -> Done:
    instance = message.instance_id
    row = _held(tx, instance, message.lease)
    if row.status.finished:  # by a runtara-core: our stores take the lease with it
        info = get_status(tx, GetStatus(instance_id=instance))
        raise InstanceFinished(instance, info.status, info.output, info.error)
    _set_running(tx, instance, None)
    return Done()


def _set_running(tx: Transaction, instance: str, checkpoint_id: str | None) -> None:
    tx.db.execute("UPDATE instances SET status = 'running' WHERE instance_id = ?", (instance,))
    tx.leases.mark_ours(tx.db, instance, started_text(tx.now))
    add_event(tx, instance, "started", checkpoint_id=checkpoint_id)


def take_lease(tx: Transaction, message: TakeLease) -> LeaseTaken:
    instance = message.instance_id
    row = read_row(tx, instance)
    if row is None:
        raise unknown(message.call, instance)
    if not (message.suspended and row.status is InstanceStatus.SUSPENDED):
        check_running(message.call, instance, row.status)
    holder = tx.leases.holder(tx.db, instance, tx.now)
    kept = row.epoch == message.replaces
    if holder is not None and holder.alive and not kept:
        raise LeaseLost(instance)
    epoch = tx.leases.take(tx.db, instance)
    if not row.ours:  # a runtara-core's until now, and when it started stays
        (started,) = tx.db.execute(
            "SELECT started_at FROM instances WHERE instance_id = ?", (instance,)
        ).fetchone()
        tx.leases.mark_ours(tx.db, instance, started or started_text(tx.now))
    _bury(tx, None if kept else holder)
    tx.held.append((instance, epoch))
    return LeaseTaken(lease=epoch)


def free_lease(tx: Transaction, message: FreeLease) -> Done:
    if tx.leases.let_go(tx.db, message.instance_id, message.lease):
        tx.held.append((message.instance_id, None))
    return Done()


def get_status(tx: Transaction, message: GetStatus) -> InstanceInfo:
    found = tx.db.execute(
        "SELECT status, checkpoint_id, started_at, finished_at, output, error"
        " FROM instances WHERE instance_id = ?",
        (message.instance_id,),
    ).fetchone()
    if found is None:
        return InstanceInfo(
            instance_id=message.instance_id,
            status=InstanceStatus.UNKNOWN,
            error="Instance not found",
        )
    status, checkpoint_id, started_at, finished_at, output, error = found
    return InstanceInfo(
        instance_id=message.instance_id,
        status=status_of(status),
        checkpoint_id=checkpoint_id,
        started_at=parse_time(started_at),
        finished_at=parse_time(finished_at),
        output=output,
        error=error,
    )


def heartbeats(tx: Transaction, message: Heartbeats) -> Done:
    # One row an owner and no event: on SQLite nobody counts them. It says that the Trio
    # loop lives; that the process does, its lease says.
    tx.db.execute(
        "UPDATE runtara_trio_owners SET heartbeat_at = ? WHERE owner = ?",
        (tx.now_text, tx.leases.owner),
    )
    return Done()


def record_event(tx: Transaction, message: RecordEvent) -> Done:
    _running(tx, "instance_event", message.instance_id, message.lease)
    add_event(tx, message.instance_id, message.type.value, message.payload, message.subtype)
    return Done()


def record_retry(tx: Transaction, message: RecordRetry) -> Done:
    _running(tx, "retry_attempt", message.instance_id, message.lease)
    attempt = retry_id(message.checkpoint_id, message.attempt)
    save(tx, message.instance_id, attempt, (message.error or "").encode())
    return Done()


def get_checkpoint(tx: Transaction, message: GetCheckpoint) -> StoredState:
    found = tx.db.execute(
        "SELECT c.state, c.id FROM instances i LEFT JOIN checkpoints c"
        " ON c.instance_id = i.instance_id AND c.checkpoint_id = ? WHERE i.instance_id = ?",
        (message.checkpoint_id, message.instance_id),
    ).fetchone()
    if found is None:
        raise unknown("get_checkpoint", message.instance_id)
    return StoredState(found=found[1] is not None, state=as_bytes(found[0]))


def read_checkpoints(tx: Transaction, message: ReadCheckpoints) -> CheckpointPage:
    # Ids alone are read from the index, and no page of a state is touched.
    wanted = "x'', NULL" if message.ids_only else "state, created_at"
    rows = tx.db.execute(
        f"SELECT checkpoint_id, {wanted} FROM checkpoints WHERE instance_id = ?"
        " AND checkpoint_id >= ? AND checkpoint_id IS NOT ?"
        " AND substr(checkpoint_id, 1, ?) = ? ORDER BY checkpoint_id LIMIT ?",
        (
            message.instance_id,
            max(message.prefix, message.after or ""),  # where the index is entered
            message.after,
            len(message.prefix),
            message.prefix,
            message.limit + 1,
        ),
    )
    found: list[CheckpointRecord] = []
    size, more = 0, False
    most = math.inf if message.most_bytes is None else message.most_bytes
    for name, state, created_at in rows:
        if len(found) == message.limit or (found and size >= most):
            more = True
            break
        record = CheckpointRecord(
            checkpoint_id=name, state=as_bytes(state), created_at=parse_time(created_at)
        )
        found.append(record)
        size += len(record.state)
    rows.close()
    if not found:
        check_known(tx, "checkpoints", message.instance_id)
    return CheckpointPage(checkpoints=tuple(found), more=more)


def sleep(tx: Transaction, message: Sleep) -> SleepReply:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    row = _running(tx, "sleep", instance, message.lease)
    wake = stored(tx, instance, wake_id(checkpoint_id))
    if wake is not None and len(wake) != 8:
        raise StoreError(
            f"the wake time of {checkpoint_id!r} of instance {instance!r} has {len(wake)} "
            f"bytes, not 8; remove the checkpoint {wake_id(checkpoint_id)!r}"
        )
    wake_at = message.wake_at_ms if wake is None else int.from_bytes(wake, "big")
    if wake is None:
        save(tx, instance, wake_id(checkpoint_id), wake_at.to_bytes(8, "big"))
    save(tx, instance, checkpoint_id, message.state)
    tx.db.execute(
        "UPDATE instances SET checkpoint_id = ?, sleep_until = ? WHERE instance_id = ?",
        (checkpoint_id, _wake_text(wake_at), instance),
    )
    return SleepReply(wake_at_ms=wake_at, pending_signal=row.signal, look=tx.look)


def _wake_text(wake_at_ms: int) -> str:
    last = 253402300799  # 9999-12-31 23:59:59, the last time that a text can show
    return time_text(min(-(-wake_at_ms // 1000), last))


def poll_signals(tx: Transaction, message: PollSignals) -> PendingSignal:
    row = read_row(tx, message.instance_id)
    return PendingSignal(signal=None if row is None else row.signal, look=tx.look)


def acknowledge_signal(tx: Transaction, message: AcknowledgeSignal) -> Done:
    if message.signal.type is SignalType.CANCEL:
        raise SdkError("a cancel is acknowledged by recording the outcome 'cancelled'")
    _held(tx, message.instance_id, message.lease)
    delete_signal(tx, message.instance_id, message.signal)
    return Done()


def take_signal(tx: Transaction, message: TakeSignal) -> SignalTaken:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    _running(tx, "poll_signals", instance, message.lease)
    record = take(tx, instance, checkpoint_id, give_up=message.give_up)
    return SignalTaken(payload=signal_payload(record), timed_out=record == TIMED_OUT)


def stop_waiting(tx: Transaction, message: StopWaiting) -> Done:
    return Done()  # a store's hints are the rows themselves: nobody keeps a list


def _held(tx: Transaction, instance: str, lease: int) -> Row:
    """The instance, whose lease must be this one."""
    row = read_row(tx, instance)
    if row is None:
        raise LeaseLost(instance)
    check_held(instance, lease, row.epoch)
    return row


def _running(tx: Transaction, call: str, instance: str, lease: int) -> Row:
    row = _held(tx, instance, lease)
    check_running(call, instance, row.status)
    return row


HANDLERS: Handlers[Transaction] = {
    Register: register,
    RecordOutcome: record_outcome,
    Hold: hold,
    GoOn: go_on,
    TakeLease: take_lease,
    FreeLease: free_lease,
    GetStatus: get_status,
    Heartbeats: heartbeats,
    RecordEvent: record_event,
    RecordRetry: record_retry,
    Checkpoint: checkpoint,
    GetCheckpoint: get_checkpoint,
    ReadCheckpoints: read_checkpoints,
    Sleep: sleep,
    PollSignals: poll_signals,
    AcknowledgeSignal: acknowledge_signal,
    TakeSignal: take_signal,
    StopWaiting: stop_waiting,
}
"""Which function answers which message."""
