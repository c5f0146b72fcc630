"""What messages about signals are answered, the instance's and the operator's."""

from __future__ import annotations

from contextlib import suppress

from ...backend import Handlers
from ...errors import SdkError, SignalRefused
from ...ids import (
    TIMED_OUT,
    message_id,
    numbered_message_id,
    refused_id,
    signal_id,
    signal_payload,
    signal_record,
)
from ...messages import (
    AcknowledgeSignal,
    Done,
    PendingSignal,
    PollSignals,
    SendCustomSignal,
    SendMessage,
    SendSignal,
    SignalAnswer,
    SignalTaken,
    TakeMessage,
    TakeSignal,
)
from ...types import InstanceStatus, RunState, Signal, SignalType
from ..structs import Placing, Row
from ..tables import Tables
from . import children, rules
from .checks import leased, running
from .rules import Action, CustomAction

# ---- the instance's side


async def poll_signals(tx: Tables, message: PollSignals) -> PendingSignal:
    return PendingSignal(signal=await tx.pending(message.instance_id), version=tx.version)


async def acknowledge_signal(tx: Tables, message: AcknowledgeSignal) -> Done:
    if message.signal.type is SignalType.CANCEL:
        raise SdkError("a cancel is acknowledged by recording the outcome 'cancelled'")
    await leased(tx, message.instance_id, message.lease)
    await tx.drop_signal(message.instance_id, message.signal)
    return Done()


async def take_signal(tx: Tables, message: TakeSignal) -> SignalTaken:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    await running(tx, message.asked, instance, message.lease)
    record = await take(tx, instance, checkpoint_id, give_up=message.give_up)
    return SignalTaken(payload=signal_payload(record), timed_out=record == TIMED_OUT)


async def take_message(tx: Tables, message: TakeMessage) -> SignalTaken:
    instance = message.instance_id
    await running(tx, message.asked, instance, message.lease)
    record = await tx.stored(instance, message.checkpoint_id)
    if record is None:
        first = await tx.first_message(instance, message_id(message.name))
        if first is None and not message.give_up:
            return SignalTaken(payload=None)
        payload = None if first is None else await tx.take_custom_signal(instance, first)
        record = TIMED_OUT if payload is None else signal_record(payload)
        await tx.save(instance, (message.checkpoint_id, record))
    return SignalTaken(payload=signal_payload(record), timed_out=record == TIMED_OUT)


async def take(
    tx: Tables, instance_id: str, checkpoint_id: str, *, give_up: bool = False
) -> bytes | None:
    """The record of the custom signal for an id: handed out before, or now, saved and removed
    in one transaction. None: there is none; with ``give_up`` that is recorded instead."""
    record = await tx.stored(instance_id, signal_id(checkpoint_id))
    if record is not None:
        return record
    waiting = await tx.take_custom_signal(instance_id, checkpoint_id)
    if waiting is None and not give_up:
        return None
    record = TIMED_OUT if waiting is None else signal_record(waiting)
    await tx.save(instance_id, (signal_id(checkpoint_id), record))
    return record


# ---- the operator's side


async def send_signal(tx: Tables, message: SendSignal) -> SignalAnswer:
    instance = message.instance_id
    row = await _known(tx, instance)
    status, text = await signalled(tx, instance, message.type, message.payload, row)
    if message.tree and message.type is not SignalType.CANCEL:  # a cancel goes to all of them
        below = await tx.unended_below(instance, None)
        for one, its_row in (await tx.lock_many(below)).items():
            with suppress(SignalRefused):  # it has ended, or is to be cancelled
                await signalled(tx, one, message.type, message.payload, its_row)
    return SignalAnswer(status=status, text=text)


async def signalled(
    tx: Tables, instance: str, asked: SignalType, payload: bytes, row: Row
) -> tuple[InstanceStatus, str]:
    """What becomes of a signal to one instance: its status, and the words of the answer."""
    status = row.status
    if tx.again and asked is SignalType.CANCEL and status is InstanceStatus.CANCELLED:
        return status, "cancelled"  # the answer to it was lost
    alive = row.ours and row.owner is not None and (await tx.holder(row.owner)).alive
    pending = None if row.signal is None else row.signal.type
    stands = rules.standing(status, alive=alive, ours=row.ours, run=row.run)
    action, text = rules.decide_signal(instance, asked, stands, status, pending)
    if action in (Action.DELIVER, Action.WAIT, Action.MARK) and pending is not asked:
        await tx.put_signal(instance, Signal(asked, payload))
    if action in (Action.CARRY_OUT, Action.MARK):
        status = InstanceStatus.CANCELLED
        await children.cascade(tx, instance)
        await tx.set_cancelled(instance)
        await tx.lose_steps([instance])
        children.note_end(tx, instance, row.run, status)
    if action is Action.CARRY_OUT:
        await tx.drop_lease(instance)
    if action in (Action.CARRY_OUT, Action.WITHDRAW, Action.PUT_BACK):
        await tx.drop_signal(instance)
    placing = rules.PLACED_BY.get(action)
    if row.run is not None and placing is not None:
        await tx.place_run(instance, placing)
        if row.run.keyed and placing.frees_turn:
            tx.turns_freed.append(instance)
    return status, text


async def send_message(tx: Tables, message: SendMessage) -> Done:
    instance, prefix = message.instance_id, message_id(message.name)
    row = await _known(tx, instance)
    if row.status.finished:
        raise SignalRefused(f"instance {instance!r} is {row.status}: it receives no message")
    last = await tx.last_message(instance, prefix)
    number = 0 if last is None else int(last.removeprefix(prefix)) + 1
    await tx.put_custom_signal(instance, numbered_message_id(message.name, number), message.payload)
    if row.run is not None and prefix in row.run.waiting_for:
        await tx.place_run(instance, Placing(state=RunState.READY))
    return Done()


async def send_custom_signal(tx: Tables, message: SendCustomSignal) -> Done:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    row = await _known(tx, instance)
    known = await tx.custom_signal(instance, checkpoint_id)
    action = rules.decide_custom_signal(
        message, row.status, known.waiting, known.taken, refused=known.refused
    )
    if action is CustomAction.STORE_AGAIN:
        await tx.remove(instance, (signal_id(checkpoint_id), refused_id(checkpoint_id)))
    if action is not CustomAction.NOTHING:
        await tx.put_custom_signal(instance, checkpoint_id, message.payload)
        if row.run is not None and checkpoint_id in row.run.waiting_for:
            await tx.place_run(instance, Placing(state=RunState.READY))
    return Done()


async def _known(tx: Tables, instance_id: str) -> Row:
    row = await tx.lock(instance_id)
    if row is None:
        raise rules.no_receiver(instance_id)
    return row


ANSWERS: Handlers[Tables] = {
    PollSignals: poll_signals,
    AcknowledgeSignal: acknowledge_signal,
    TakeSignal: take_signal,
    TakeMessage: take_message,
    SendSignal: send_signal,
    SendCustomSignal: send_custom_signal,
    SendMessage: send_message,
}
