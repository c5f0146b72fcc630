"""The answers to an instance's messages on PostgreSQL, each in a transaction of its own.

They are those of ``verbs``, which knows the reasons; what may be done in which state both
ask of ``rules``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..backend import Handlers
from ..errors import (
    InstanceBusy,
    InstanceFinished,
    LeaseLost,
    RegistrationError,
    SdkError,
    StoreError,
)
from ..ids import FAILURES, TIMED_OUT, retry_id, signal_id, signal_payload, signal_record, wake_id
from ..messages import (
    AcknowledgeSignal,
    CheckpointPage,
    Done,
    FreeLease,
    GetStatus,
    GoOn,
    Heartbeats,
    Hold,
    LeaseTaken,
    PendingSignal,
    PollSignals,
    ReadCheckpoints,
    RecordEvent,
    RecordRetry,
    Register,
    Registered,
    SignalTaken,
    Sleep,
    SleepReply,
    TakeLease,
    TakeSignal,
)
from ..types import CheckpointRecord, InstanceInfo, InstanceStatus, Signal, SignalType
from . import rules
from .pg_connection import Connection
from .pg_liveness import Liveness
from .pg_owner import Owner
from .pg_rows import Stand, from_ms, held, holder, lock, running
from .pg_schema import NEXT_EPOCH
from .transaction import check_running, signal_of, status_of, unknown


class Doubtful(Exception):
    """The holder of an instance may be dead or not: that is decided soon."""


class Work(msgspec.Struct, kw_only=True):
    """What an answer works with."""

    connection: Connection
    owner: Owner
    liveness: Liveness
    losses: int
    """How many connections the store has lost."""
    look: int
    again: bool = False
    """It was sent before, and its answer was lost."""
    announce: bool = False
    """Once it has committed, those who listen for signals are told."""
    held: list[tuple[str, int | None]] = msgspec.field(default_factory=list)
    """Leases taken, and given up (None), once it has committed."""

    async def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return await self.connection.run(statement, *parameters)


async def register(work: Work, message: Register) -> Registered:
    instance = message.instance_id
    stand = None
    while stand is None:  # it may be pruned in between
        inserted = await work.run(
            "INSERT INTO instances (instance_id, tenant_id, status) VALUES ($1, $2, 'running')"
            " ON CONFLICT DO NOTHING RETURNING 1",
            instance,
            message.tenant_id,
        )
        stand = await lock(work.connection, instance)
    there = None if inserted else stand
    taken_from = None
    if there is not None:
        rules.check_register(
            instance,
            message.tenant_id,
            there.tenant_id,
            there.status,
            there.output,
            there.error,
            revive=message.revive,
        )
        taken_from = await _taken_from(work, instance, there, message.replaces)
    if (
        message.checkpoint_id is not None
        and await _stored(work, instance, message.checkpoint_id) is None
    ):
        raise RegistrationError(
            f"instance {instance!r} has no checkpoint {message.checkpoint_id!r} to resume from"
        )
    revived = there is not None and there.status.finished
    if revived:
        await _forget_the_end(work, instance)
    epoch = await _take(work, instance)
    await work.run("UPDATE instances SET sleep_until = NULL WHERE instance_id = $1", instance)
    await _set_running(work, instance, message.checkpoint_id)
    return Registered(
        lease=epoch,
        signal=None if there is None or revived else there.signal,
        look=work.look,
        resumed=there is not None,
        taken_from=taken_from,
    )


async def _taken_from(work: Work, instance: str, stand: Stand, replaces: int) -> str | None:
    """The dead owner whose lease is taken over; None: it has none. Raises InstanceBusy."""
    if stand.owner is None or stand.epoch == replaces:
        return None
    lost_answer = work.again and stand.owner == work.owner.name
    if lost_answer and work.owner.held.get(instance) != stand.epoch:
        return None  # the first sending of this very register
    found = await holder(work.connection, stand.owner, work.owner.name, work.owner.who)
    if found.alive and found.certain:
        work.liveness.holds(stand.owner)
        raise InstanceBusy(instance, found.who, found.until)
    if found.alive and not work.liveness.is_dead(stand.owner, losses=work.losses):
        raise Doubtful(instance)
    return found.who


async def _take(work: Work, instance: str) -> int:
    ((epoch,),) = await work.run(f"SELECT {NEXT_EPOCH}")
    await work.run(
        "INSERT INTO runtara_trio_leases (instance_id, owner, epoch) VALUES ($1, $2, $3)"
        " ON CONFLICT (instance_id) DO UPDATE"
        " SET owner = excluded.owner, epoch = excluded.epoch",
        instance,
        work.owner.name,
        epoch,
    )
    work.held.append((instance, epoch))
    return int(epoch)


async def _set_running(work: Work, instance: str, checkpoint_id: str | None) -> None:
    await work.run(
        "WITH started AS (UPDATE instances SET status = 'running',"
        " started_at = now() WHERE instance_id = $1 RETURNING instance_id, started_at),"
        " event AS (INSERT INTO instance_events (instance_id, event_type, checkpoint_id)"
        " VALUES ($1, 'started', $2))"
        " INSERT INTO runtara_trio_starts (instance_id, started_at) SELECT * FROM started"
        " ON CONFLICT (instance_id) DO UPDATE SET started_at = excluded.started_at",
        instance,
        checkpoint_id,
    )


async def _forget_the_end(work: Work, instance: str) -> None:
    await work.run(
        "UPDATE instances SET finished_at = NULL, output = NULL, error = NULL"
        " WHERE instance_id = $1",
        instance,
    )
    await work.run("DELETE FROM pending_signals WHERE instance_id = $1", instance)
    await work.run(
        "DELETE FROM checkpoints WHERE instance_id = $1"
        " AND (starts_with(checkpoint_id, $2) OR checkpoint_id ~ '::retry::[0-9]+$')",
        instance,
        FAILURES,
    )


async def hold(work: Work, message: Hold) -> Done:
    instance = message.instance_id
    if work.again:
        before = await held(work.connection, instance, message.lease)
        if before.status is InstanceStatus.SUSPENDED:
            return Done()
    await running(work.connection, "instance_event", instance, message.lease)
    await work.run("UPDATE instances SET status = 'suspended' WHERE instance_id = $1", instance)
    await _add_event(work, instance, "suspended", message.reason)
    if message.signal is not None:
        await delete_signal(work, instance, message.signal)
    return Done()


async def go_on(work: Work, message: GoOn) -> Done:
    stand = await held(work.connection, message.instance_id, message.lease)
    if stand.status.finished:
        raise InstanceFinished(message.instance_id, stand.status, stand.output, stand.error)
    await _set_running(work, message.instance_id, None)
    return Done()


async def take_lease(work: Work, message: TakeLease) -> LeaseTaken:
    instance = message.instance_id
    stand = await lock(work.connection, instance)
    if stand is None:
        raise unknown(message.call, instance)
    if not (message.suspended and stand.status is InstanceStatus.SUSPENDED):
        check_running(message.call, instance, stand.status)
    try:
        await _taken_from(work, instance, stand, message.replaces)
    except InstanceBusy as exc:
        raise LeaseLost(instance) from exc
    epoch = await _take(work, instance)
    if not stand.ours:  # a runtara-core's until now, and when it started stays
        await work.run(
            "INSERT INTO runtara_trio_starts (instance_id, started_at)"
            " SELECT instance_id, COALESCE(started_at, now()) FROM instances"
            " WHERE instance_id = $1 ON CONFLICT (instance_id) DO UPDATE"
            " SET started_at = excluded.started_at",
            instance,
        )
    return LeaseTaken(lease=epoch)


async def free_lease(work: Work, message: FreeLease) -> Done:
    found = await work.run(
        "UPDATE runtara_trio_leases SET owner = '' WHERE instance_id = $1 AND epoch = $2"
        " RETURNING 1",
        message.instance_id,
        message.lease,
    )
    if found:
        work.held.append((message.instance_id, None))
    return Done()


async def get_status(work: Work, message: GetStatus) -> InstanceInfo:
    found = await work.run(
        "SELECT status::text, checkpoint_id, started_at, finished_at, output, error"
        " FROM instances WHERE instance_id = $1",
        message.instance_id,
    )
    if not found:
        return InstanceInfo(
            instance_id=message.instance_id,
            status=InstanceStatus.UNKNOWN,
            error="Instance not found",
        )
    ((status, checkpoint_id, started_at, finished_at, output, error),) = found
    return InstanceInfo(
        instance_id=message.instance_id,
        status=status_of(status),
        checkpoint_id=checkpoint_id,
        started_at=started_at,
        finished_at=finished_at,
        output=output,
        error=error,
    )


async def heartbeats(work: Work, message: Heartbeats) -> Done:
    """Where a runtara-environment works, one fresh event an instance, which it looks for."""
    await work.run(
        "WITH beating AS (SELECT instance_id FROM instances"
        " WHERE to_regclass('container_registry') IS NOT NULL"
        " AND instance_id = ANY ($1::text[]) AND status = 'running'),"
        " old AS (SELECT e.instance_id, max(e.id) AS id FROM instance_events e"
        " JOIN beating USING (instance_id) WHERE e.event_type = 'heartbeat'"
        " AND e.subtype = 'runtara_trio' GROUP BY e.instance_id),"
        " fresh AS (UPDATE instance_events e SET created_at = now() FROM old"
        " WHERE e.id = old.id RETURNING e.instance_id),"
        " first AS (INSERT INTO instance_events (instance_id, event_type, subtype)"
        " SELECT instance_id, 'heartbeat', 'runtara_trio' FROM beating"
        " WHERE instance_id NOT IN (SELECT instance_id FROM old))"
        " UPDATE runtara_trio_owners SET heartbeat_at = now() WHERE owner = $2",
        list(message.instance_ids),
        work.owner.name,
    )
    return Done()


async def record_event(work: Work, message: RecordEvent) -> Done:
    await running(work.connection, "instance_event", message.instance_id, message.lease)
    await _add_event(
        work, message.instance_id, message.type.value, message.payload, message.subtype
    )
    return Done()


async def record_retry(work: Work, message: RecordRetry) -> Done:
    instance = message.instance_id
    await running(work.connection, "retry_attempt", instance, message.lease)
    await work.run(
        "INSERT INTO checkpoints (instance_id, checkpoint_id, state, is_retry_attempt,"
        " attempt_number, error_message) VALUES ($1, $2, $3, true, $4::bigint, $5)"
        " ON CONFLICT (instance_id, checkpoint_id) DO NOTHING",
        instance,
        retry_id(message.checkpoint_id, message.attempt),
        (message.error or "").encode(),
        message.attempt,
        message.error,
    )
    return Done()


async def read_checkpoints(work: Work, message: ReadCheckpoints) -> CheckpointPage:
    rows = await work.run(
        _IDS if message.ids_only else _STATES,
        message.instance_id,
        message.prefix,
        message.after,
        message.limit + 1,
        *(() if message.ids_only else (message.most_bytes,)),
    )
    if not rows:
        await check_known(work, "checkpoints", message.instance_id)
    found = [row for row in rows[: message.limit] if row[1] is not None]
    return CheckpointPage(
        checkpoints=tuple(
            CheckpointRecord(checkpoint_id=name, state=state, created_at=created_at)
            for name, state, created_at in found
        ),
        more=len(rows) > len(found),
    )


_PAGE = """
    FROM checkpoints WHERE instance_id = $1 AND checkpoint_id COLLATE "C" >= $2
    AND ($3::text IS NULL OR checkpoint_id COLLATE "C" > $3)
    AND left(checkpoint_id, length($2)) = $2
    ORDER BY checkpoint_id COLLATE "C" LIMIT $4
"""
_IDS = f"SELECT checkpoint_id, ''::bytea, NULL::timestamptz {_PAGE}"
_STATES = f"""
WITH page AS (SELECT id, checkpoint_id, octet_length(state) AS size {_PAGE}), sized AS (
    SELECT *, sum(size) OVER (ORDER BY checkpoint_id COLLATE "C") - size AS before FROM page
)
SELECT s.checkpoint_id, c.state, c.created_at FROM sized s LEFT JOIN checkpoints c
ON c.id = s.id AND ($5::bigint IS NULL OR s.before < $5) ORDER BY s.checkpoint_id COLLATE "C"
"""
"""States of no more than so many bytes, and the first in any case; the rest without theirs."""


async def sleep(work: Work, message: Sleep) -> SleepReply:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    stand = await running(work.connection, "sleep", instance, message.lease)
    await work.run(
        "INSERT INTO checkpoints (instance_id, checkpoint_id, state)"
        " VALUES ($1, $2, $3), ($1, $4, $5) ON CONFLICT DO NOTHING",
        instance,
        wake_id(checkpoint_id),
        message.wake_at_ms.to_bytes(8, "big"),
        checkpoint_id,
        message.state,
    )
    wake = await _stored(work, instance, wake_id(checkpoint_id))
    if wake is None or len(wake) != 8:
        raise StoreError(
            f"the wake time of {checkpoint_id!r} of instance {instance!r} has {len(wake or b'')} "
            f"bytes, not 8; remove the checkpoint {wake_id(checkpoint_id)!r}"
        )
    wake_at = int.from_bytes(wake, "big")
    await work.run(
        "UPDATE instances SET checkpoint_id = $2, sleep_until = $3::text::timestamptz"
        " WHERE instance_id = $1",
        instance,
        checkpoint_id,
        from_ms(wake_at),
    )
    return SleepReply(wake_at_ms=wake_at, pending_signal=stand.signal, look=work.look)


async def poll_signals(work: Work, message: PollSignals) -> PendingSignal:
    found = await work.run(
        "SELECT signal_type::text, payload FROM pending_signals"
        " WHERE instance_id = $1 AND acknowledged_at IS NULL",
        message.instance_id,
    )
    return PendingSignal(signal=signal_of(*found[0]) if found else None, look=work.look)


async def acknowledge_signal(work: Work, message: AcknowledgeSignal) -> Done:
    if message.signal.type is SignalType.CANCEL:
        raise SdkError("a cancel is acknowledged by recording the outcome 'cancelled'")
    await held(work.connection, message.instance_id, message.lease)
    await delete_signal(work, message.instance_id, message.signal)
    return Done()


async def take_signal(work: Work, message: TakeSignal) -> SignalTaken:
    await running(work.connection, "poll_signals", message.instance_id, message.lease)
    record = await take(work, message.instance_id, message.checkpoint_id, give_up=message.give_up)
    return SignalTaken(payload=signal_payload(record), timed_out=record == TIMED_OUT)


async def take(
    work: Work, instance: str, checkpoint_id: str, *, give_up: bool = False
) -> bytes | None:
    """The record of the custom signal for an id, as ``saving.take``."""
    record = await _stored(work, instance, signal_id(checkpoint_id))
    if record is not None:
        return record
    waiting = await work.run(
        "DELETE FROM pending_checkpoint_signals WHERE instance_id = $1 AND checkpoint_id = $2"
        " RETURNING payload",
        instance,
        checkpoint_id,
    )
    if not waiting and not give_up:
        return None
    record = signal_record(waiting[0][0] or b"") if waiting else TIMED_OUT
    await work.run(
        "INSERT INTO checkpoints (instance_id, checkpoint_id, state) VALUES ($1, $2, $3)",
        instance,
        signal_id(checkpoint_id),
        record,
    )
    return record


async def check_known(work: Work, call: str, instance: str) -> None:
    """Raises ServerError where there is no such instance."""
    if not await work.run("SELECT 1 FROM instances WHERE instance_id = $1", instance):
        raise unknown(call, instance)


async def delete_signal(work: Work, instance: str, signal: Signal) -> None:
    await work.run(
        "DELETE FROM pending_signals WHERE instance_id = $1 AND signal_type::text = $2"
        " AND COALESCE(payload, ''::bytea) = $3",
        instance,
        signal.type.value,
        signal.payload,
    )


async def _add_event(
    work: Work, instance: str, kind: str, payload: bytes, subtype: str | None = None
) -> None:
    await work.run(
        "INSERT INTO instance_events (instance_id, event_type, payload, subtype)"
        " VALUES ($1, $2::text::instance_event_type, $3, $4)",
        instance,
        kind,
        payload or None,
        subtype,
    )


async def _stored(work: Work, instance: str, checkpoint_id: str) -> bytes | None:
    found = await work.run(
        "SELECT state FROM checkpoints WHERE instance_id = $1 AND checkpoint_id = $2",
        instance,
        checkpoint_id,
    )
    return found[0][0] if found else None


HANDLERS: Handlers[Work] = {
    Register: register,
    Hold: hold,
    GoOn: go_on,
    TakeLease: take_lease,
    FreeLease: free_lease,
    GetStatus: get_status,
    Heartbeats: heartbeats,
    RecordEvent: record_event,
    RecordRetry: record_retry,
    ReadCheckpoints: read_checkpoints,
    Sleep: sleep,
    PollSignals: poll_signals,
    AcknowledgeSignal: acknowledge_signal,
    TakeSignal: take_signal,
}
"""Which function answers which message; checkpoints and their reads are ``pg_saving``'s, outcomes
``pg_outcomes``'s."""
