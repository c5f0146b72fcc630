"""An instance's life in calls: it is registered, held, and ends."""

from __future__ import annotations

import contextlib

import msgspec
import trio

from ..backend import Handlers
from ..errors import (
    InstanceBusy,
    InstanceFinished,
    LeaseLost,
    RegistrationError,
    ServerError,
    Unreachable,
)
from ..ids import exit_id, revived_id
from ..messages import (
    Done,
    GoOn,
    Hold,
    OutcomeReply,
    RecordOutcome,
    Register,
    Registered,
)
from ..types import InstanceStatus, Signal, SignalType
from ..wire import calls
from .instances import Instances
from .names import BUSY, HOLD, event_type, signal_number, status_of

READ_BACK = 0.05
"""Seconds between two checks that a cancel's acknowledgement was carried out."""


async def register(client: Instances, message: Register) -> Registered:
    instance = message.instance_id
    before = await _register(
        client, instance, message.tenant_id, message.checkpoint_id, revive=message.revive
    )
    status = status_of(before.status)
    resumed = _was_there(before)
    client.enter(instance, resumed=resumed)
    try:
        generation = await _generation(client, instance, resumed, revived=status.finished)
        pending = await client.poll(instance)
    except BaseException:
        client.leave(instance)  # whoever registered will not hear of it
        raise
    return Registered(
        lease=0,
        signal=pending.signal,
        version=pending.version,
        resumed=resumed,
        taken_from=None,
        generation=generation,
    )


def _was_there(before: calls.GetInstanceStatusAnswer) -> bool:
    """Whether an instance has run before. What an environment starts for the first time is called
    running already."""
    match status_of(before.status):
        case InstanceStatus.UNKNOWN | InstanceStatus.PENDING:
            return False
        case InstanceStatus.RUNNING:
            return before.checkpoint_id is not None
    return True


async def _generation(client: Instances, instance: str, resumed: bool, *, revived: bool) -> int:
    """How often the instance was revived: a core removes no failures, so those of before must
    not count."""
    number = 0
    while resumed and await client.read(instance, revived_id(number + 1)) is not None:
        number += 1
    if revived:
        number += 1
        await client.save(instance, revived_id(number), b"")
    return number


async def _register(
    client: Instances, instance: str, tenant: str, checkpoint_id: str | None, *, revive: bool
) -> calls.GetInstanceStatusAnswer:
    """Register an instance; what it was before."""
    before = await client.status(instance)
    status = status_of(before.status)
    if status.finished and not revive:
        raise InstanceFinished(instance, status, before.output, before.error)
    call = calls.RegisterInstance(instance, tenant, checkpoint_id)
    answer, _ = await client.ask(call, calls.RegisterInstanceAnswer)
    if not answer.success:
        if answer.error.startswith(BUSY):
            raise InstanceBusy(instance, answer.error.removeprefix(BUSY).strip(), None)
        raise RegistrationError(answer.error)
    return before


async def record_outcome(client: Instances, message: RecordOutcome) -> OutcomeReply:
    instance, status = message.instance_id, message.status
    if message.unless_cancelled:
        signal = (await client.poll(instance)).signal
        if signal is not None and signal.type is SignalType.CANCEL:
            return OutcomeReply(cancel=signal)
    if not await _recorded_already(client, instance, status):
        if message.signal is not None:
            await note_acknowledged(client, instance, message.signal)
        if status is InstanceStatus.CANCELLED:
            await _record_cancelled(client, instance)
        else:
            await _record_end(client, message)
    client.leave(instance)
    return OutcomeReply(cancel=None)


async def _record_end(client: Instances, message: RecordOutcome) -> None:
    """Record an end; of a program that has ended while it sleeps with the time to wake."""
    due_ms = None if message.next is None else message.next.due_ms
    if message.status is not InstanceStatus.SUSPENDED or due_ms is None or not client.wakes:
        await _record_event(client, message.instance_id, message.status, message.payload)
        return
    await _record_event(
        client,
        message.instance_id,
        message.status,
        msgspec.json.encode({"wake_at_ms": due_ms, "state": b""}),
        checkpoint_id=exit_id(due_ms),
    )


async def _recorded_already(client: Instances, instance: str, status: InstanceStatus) -> bool:
    """Whether this outcome was sent before, and had arrived."""
    sent = client.sent.get(instance)
    client.sent[instance] = status
    return sent is status and status_of((await client.status(instance)).status) is status


async def note_acknowledged(
    client: Instances, instance: str, signal: Signal, *, tells: bool = True
) -> None:
    """Save that a signal is acknowledged, for the server may deliver it again; then tell it, where
    what that does is meant."""
    # Where something else ended the instance, nothing is left to be acknowledged.
    with contextlib.suppress(ServerError):
        await client.acknowledged(instance).add(signal, client.next_version)
    if tells and signal.type is not SignalType.CANCEL:
        await client.tell(calls.SignalAck(instance, signal_number(signal.type), True))


async def _record_cancelled(client: Instances, instance: str) -> None:
    """Acknowledge a cancel. The call has no answer: it is read back."""
    while True:
        await client.tell(calls.SignalAck(instance, calls.SignalType.CANCEL, True))
        status = status_of((await client.status(instance)).status)
        if status is InstanceStatus.CANCELLED:
            return
        if status.finished:  # by somebody else, and a server of ours keeps that
            raise LeaseLost(instance)
        await trio.sleep(READ_BACK)


async def _record_event(
    client: Instances,
    instance: str,
    status: InstanceStatus,
    payload: bytes,
    *,
    subtype: str | None = None,
    checkpoint_id: str | None = None,
) -> None:
    event = calls.InstanceEvent(
        instance_id=instance,
        event_type=event_type(status),
        checkpoint_id=checkpoint_id,
        payload=payload,
        timestamp_ms=client.now_ms(),
        subtype=subtype,
    )
    while True:
        try:
            answer, _ = await client.ask(event, calls.InstanceEventAnswer, resend=False)
        except Unreachable:
            now = status_of((await client.status(instance)).status)
            if now is status:
                return
        else:
            check(answer)
            return


def check(answer: calls.InstanceEventAnswer) -> None:
    """Raises ServerError where an event was refused."""
    if not answer.success:
        raise ServerError("instance_event", "", answer.error or "refused")


async def hold(client: Instances, message: Hold) -> Done:
    """Like the end of a paused run, but the client goes on polling for signals."""
    instance = message.instance_id
    if not await _recorded_already(client, instance, InstanceStatus.SUSPENDED):
        if message.signal is not None:
            await note_acknowledged(client, instance, message.signal)
        await _record_event(
            client, instance, InstanceStatus.SUSPENDED, message.reason, subtype=HOLD
        )
    client.held.add(instance)
    return Done()


async def go_on(client: Instances, message: GoOn) -> Done:
    instance = message.instance_id
    client.held.discard(instance)
    client.sent.pop(instance, None)
    await _register(client, instance, message.tenant_id, None, revive=False)
    return Done()


HANDLERS: Handlers[Instances] = {
    Register: register,
    RecordOutcome: record_outcome,
    Hold: hold,
    GoOn: go_on,
}
"""Which function sends which message."""
