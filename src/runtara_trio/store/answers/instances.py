"""What an instance's own messages are answered: its life, its work, its history."""

from __future__ import annotations

import msgspec

from ...backend import Handlers
from ...errors import (
    InstanceBusy,
    InstanceFinished,
    LeaseLost,
    RegistrationError,
    SdkError,
    StoreError,
)
from ...ids import MESSAGES, wake_id
from ...messages import (
    Done,
    FreeLease,
    GoOn,
    Heartbeats,
    Hold,
    LeaseTaken,
    OutcomeReply,
    RecordEvent,
    RecordOutcome,
    RecordRetry,
    Register,
    Registered,
    SetAttributes,
    Sleep,
    SleepReply,
    TakeLease,
)
from ...types import InstanceStatus, RunState
from ..structs import End, Holder, Placing, Row
from ..tables import Tables
from . import children, rules
from .checks import leased, running

MOST_ATTRIBUTES = 20


async def register(tx: Tables, message: Register) -> Registered:
    instance = message.instance_id
    while True:
        row = await tx.lock(instance)
        dead = await _check_register(tx, message, row)
        if row is not None or await tx.insert(instance, message.tenant_id):
            break
    revived = row is not None and row.status.finished
    if revived:
        await _forget_the_end(tx, instance)
    lease = await tx.take_lease(instance, dead)
    if row is not None:
        await tx.lose_steps([instance])
    await tx.set_running(instance, message.checkpoint_id, wakes=True)
    if row is not None and row.run is not None:  # out of its queue for as long as it runs here
        await tx.place_run(instance, Placing(state=RunState.RUNNING))
        if row.run.keyed:  # others of its key need not wait for it
            tx.turns_freed.append(instance)
    return Registered(
        lease=lease,
        signal=None if row is None or revived else row.signal,
        version=tx.version,
        resumed=row is not None,
        taken_from=None if dead is None else dead.who,
    )


async def _check_register(tx: Tables, message: Register, row: Row | None) -> Holder | None:
    """Raises what is wrong with a register; returns whom the lease is taken from."""
    instance, resume = message.instance_id, message.checkpoint_id
    dead = None
    if row is not None:
        rules.check_register(
            instance,
            message.tenant_id,
            row.tenant_id,
            row.status,
            row.output,
            row.error,
            revive=message.revive,
        )
        dead = await _dead_holder(tx, instance, row, message.replaces)
    if resume is not None and (row is None or await tx.stored(instance, resume) is None):
        raise RegistrationError(
            f"instance {instance!r} has no checkpoint {resume!r} to resume from"
        )
    return dead


async def _dead_holder(tx: Tables, instance: str, row: Row, replaces: int) -> Holder | None:
    """The dead owner whose lease is to be taken; None: nobody's. Raises InstanceBusy."""
    if row.owner is None or row.epoch == replaces or tx.has_unheard(instance, row):
        return None
    holder = await tx.settled_holder(row.owner)
    if holder.alive:
        raise InstanceBusy(instance, holder.who, holder.until)
    return holder


async def _forget_the_end(tx: Tables, instance: str) -> None:
    """What a revive removes: the end, the pending signal, recorded attempts, saved failures."""
    await tx.clear_end(instance)
    await children.forget_failures(tx, instance)


async def record_outcome(tx: Tables, message: RecordOutcome) -> OutcomeReply:
    row = await tx.lock(message.instance_id)
    if tx.again and row is not None and row.ended == message.lease:
        return OutcomeReply(cancel=None)
    pending = None if row is None else row.signal
    cancel = rules.decide_outcome(message, None if row is None else row.epoch, pending)
    if cancel is None:
        assert row is not None
        if message.steps:
            await tx.write_steps(message.instance_id, message.lease, message.steps)
        end = rules.end_of(message, pending, row.run)
        if end.run is not None:
            end = await _past_what_waits(tx, end)
        if end.run is not None and end.run.counts:
            await children.forget_failures(tx, end.instance_id)
            await children.run_children_again(tx, end.instance_id)
        elif message.concerns_children and end.status.finished:
            await children.cascade(tx, end.instance_id)
        await tx.record_end(end)
        if row.run is not None and row.run.keyed and end.run and end.run.frees_turn:
            tx.turns_freed.append(end.instance_id)
        children.note_end(tx, end.instance_id, row.run, end.status)
    return OutcomeReply(cancel=cancel)


async def _past_what_waits(tx: Tables, end: End) -> End:
    """What a run waits for may have come while it was unloaded: then it is ready at once."""
    assert end.run is not None
    for checkpoint_id in end.run.waiting_for:
        if checkpoint_id.startswith(MESSAGES):
            is_there = await tx.first_message(end.instance_id, checkpoint_id) is not None
        else:
            known = await tx.custom_signal(end.instance_id, checkpoint_id)
            is_there = known.waiting is not None or known.taken is not None
        if is_there:
            return msgspec.structs.replace(end, run=Placing(state=RunState.READY))
    if end.run.awaited is not None:
        await tx.lock_runs([end.instance_id])  # who ends a child comes before or behind this
        if await tx.is_there(end.instance_id, end.run.awaited):
            return msgspec.structs.replace(end, run=Placing(state=RunState.READY))
    return end


async def hold(tx: Tables, message: Hold) -> Done:
    instance = message.instance_id
    row = await leased(tx, instance, message.lease)
    if tx.again and row.status is InstanceStatus.SUSPENDED:
        return Done()
    rules.check_running(message.asked, instance, row.status)
    await tx.set_suspended(instance)
    await tx.add_event(instance, InstanceStatus.SUSPENDED.value, message.reason)
    if message.signal is not None:
        await tx.drop_signal(instance, message.signal)
    return Done()


async def go_on(tx: Tables, message: GoOn) -> Done:
    row = await leased(tx, message.instance_id, message.lease)
    if row.status.finished:  # by a runtara-core: our stores take the lease with it
        raise InstanceFinished(message.instance_id, row.status, row.output, row.error)
    await tx.set_running(message.instance_id, None, wakes=False)
    return Done()


async def take_lease(tx: Tables, message: TakeLease) -> LeaseTaken:
    instance = message.instance_id
    row = await tx.lock(instance)
    if row is None:
        raise rules.unknown(message.asked, instance)
    if not (message.suspended and row.status is InstanceStatus.SUSPENDED):
        rules.check_running(message.asked, instance, row.status)
    try:
        dead = await _dead_holder(tx, instance, row, message.replaces)
    except InstanceBusy as exc:
        raise LeaseLost(instance) from exc
    lease = await tx.take_lease(instance, dead)
    await tx.lose_steps([instance])
    if not row.ours:  # a runtara-core's until now
        await tx.claim_start(instance)
    return LeaseTaken(lease=lease)


async def free_lease(tx: Tables, message: FreeLease) -> Done:
    await tx.free_lease(message.instance_id, message.lease)
    return Done()


async def set_attributes(tx: Tables, message: SetAttributes) -> Done:
    instance = message.instance_id
    row = await running(tx, message.asked, instance, message.lease)
    if await tx.stored(instance, message.saved_as) is not None:
        return Done()
    if row.run is None:
        raise SdkError(
            f"instance {instance!r} is no workflow's; attributes are of those that a client starts"
        )
    await tx.save(instance, (message.saved_as, b""))
    count = await tx.set_attributes(instance, message.attributes)
    if count > MOST_ATTRIBUTES:
        raise SdkError(
            f"instance {instance!r} would have {count} attributes, at most "
            f"{MOST_ATTRIBUTES} are kept"
        )
    return Done()


async def heartbeats(tx: Tables, message: Heartbeats) -> Done:
    await tx.heartbeat(message.instance_ids)
    return Done()


async def record_event(tx: Tables, message: RecordEvent) -> Done:
    await running(tx, message.asked, message.instance_id, message.lease)
    await tx.add_event(message.instance_id, message.type.value, message.payload, message.subtype)
    return Done()


async def record_retry(tx: Tables, message: RecordRetry) -> Done:
    await running(tx, message.asked, message.instance_id, message.lease)
    await tx.save_attempt(
        message.instance_id, message.checkpoint_id, message.attempt, message.error
    )
    return Done()


async def sleep(tx: Tables, message: Sleep) -> SleepReply:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    row = await running(tx, message.asked, instance, message.lease)
    wake = await tx.stored(instance, wake_id(checkpoint_id))
    if wake is None:
        wake = message.wake_at_ms.to_bytes(8, "big")
    elif len(wake) != 8:
        raise StoreError(
            f"the wake time of {checkpoint_id!r} of instance {instance!r} has {len(wake)} "
            f"bytes, not 8; remove the checkpoint {wake_id(checkpoint_id)!r}"
        )
    wake_at_ms = int.from_bytes(wake, "big")
    await tx.save(instance, (wake_id(checkpoint_id), wake), (checkpoint_id, message.state))
    await tx.set_sleep(instance, checkpoint_id, wake_at_ms)
    return SleepReply(wake_at_ms=wake_at_ms, pending_signal=row.signal, version=tx.version)


ANSWERS: Handlers[Tables] = {
    Register: register,
    RecordOutcome: record_outcome,
    Hold: hold,
    GoOn: go_on,
    TakeLease: take_lease,
    FreeLease: free_lease,
    Heartbeats: heartbeats,
    RecordEvent: record_event,
    RecordRetry: record_retry,
    Sleep: sleep,
    SetAttributes: set_attributes,
}
