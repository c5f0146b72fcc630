"""What each message of the engine is in calls of the instance protocol.

What the protocol lacks is done here: a durable sleep is a checkpoint with the wake time, an
outcome whose answer was lost is looked up before it is sent again, and what has no answer
is read back where it matters.
"""

from __future__ import annotations

import contextlib
from typing import Any

import trio

from ..backend import Handlers
from ..clock import time_of
from ..errors import (
    ServerError,
    Unreachable,
)
from ..ids import (
    TIMED_OUT,
    retry_id,
    signal_id,
    signal_payload,
    signal_record,
    wake_id,
)
from ..messages import (
    AcknowledgeSignal,
    AnnounceWorker,
    CancelChildren,
    Checkpoint,
    CheckpointReply,
    ClaimRuns,
    CountInstances,
    Done,
    EndsSince,
    FireSchedule,
    Fork,
    GetCheckpoint,
    GetInput,
    GetResults,
    GetStatus,
    Heartbeats,
    ListEvents,
    ListInstances,
    ListQueues,
    ListSchedules,
    ListWorkers,
    LookForWork,
    MarkRuns,
    PauseQueue,
    PauseSchedule,
    PendingSignal,
    PollSignals,
    Prune,
    ReadCheckpoints,
    RecordEvent,
    RecordRetry,
    RecoverRuns,
    RemoveSchedule,
    Request,
    Rerun,
    SendCustomSignal,
    SendMessage,
    SendSignal,
    SetAttributes,
    SetQueues,
    SetSchedules,
    ShowInstance,
    SignalMany,
    SignalTaken,
    Sleep,
    SleepReply,
    StartRuns,
    StopWaiting,
    StoredInput,
    StoredState,
    TakeMessage,
    TakeSignal,
    Transact,
    Vacuum,
)
from ..types import CustomSignal, EventType, InstanceInfo, InstanceStatus, SignalType
from ..wire import calls
from . import life
from .instances import Instances
from .names import status_of
from .polling import Wait


async def get_status(client: Instances, message: GetStatus) -> InstanceInfo:
    found = await client.status(message.instance_id)
    return InstanceInfo(
        instance_id=message.instance_id,
        status=status_of(found.status),
        checkpoint_id=found.checkpoint_id,
        started_at=time_of(found.started_at_ms),
        finished_at=time_of(found.finished_at_ms),
        output=found.output,
        error=found.error,
    )


async def get_input(client: Instances, message: GetInput) -> StoredInput:
    return StoredInput(input=await client.input(message.instance_id))


async def heartbeats(client: Instances, message: Heartbeats) -> Done:
    now = client.now_ms()
    events = tuple(
        calls.InstanceEvent(instance, calls.InstanceEventType.HEARTBEAT, timestamp_ms=now)
        for instance in message.instance_ids
    )
    with contextlib.suppress(Unreachable):  # the session has said so, and the next one is due
        await client.tell(calls.InstanceEventBatch(events), resend=False)
    return Done()


async def record_event(client: Instances, message: RecordEvent) -> Done:
    kind = calls.InstanceEventType
    event = calls.InstanceEvent(
        instance_id=message.instance_id,
        event_type=kind.HEARTBEAT if message.type is EventType.HEARTBEAT else kind.CUSTOM,
        payload=message.payload,
        timestamp_ms=client.now_ms(),
        subtype=message.subtype,
    )
    answer, _ = await client.ask(event, calls.InstanceEventAnswer, resend=False)
    life.check(answer)
    return Done()


async def record_retry(client: Instances, message: RecordRetry) -> Done:
    """The call has no answer, and attempts must be counted: it is read back."""
    attempt = calls.RetryAttempt(
        instance_id=message.instance_id,
        checkpoint_id=message.checkpoint_id,
        attempt_number=message.attempt,
        timestamp_ms=client.now_ms(),
        error_message=message.error,
    )
    stored = retry_id(message.checkpoint_id, message.attempt)
    while True:
        await client.tell(attempt)
        if await client.read(message.instance_id, stored) is not None:
            return Done()
        status = status_of((await client.status(message.instance_id)).status)
        if status is not InstanceStatus.RUNNING:  # or it is sent for ever
            text = f"instance {message.instance_id!r} is {status}, not running"
            raise ServerError(message.verb, "", text)
        await trio.sleep(life.READ_BACK)


# ---- checkpoints


async def checkpoint(client: Instances, message: Checkpoint) -> CheckpointReply:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    version = client.next_version()
    answer, again = await client.ask(
        calls.Checkpoint(instance, checkpoint_id, message.state),
        calls.CheckpointAnswer,
        orphaned=lambda answer: client.rescue(message, answer),
    )
    # Sent twice and answered with our own state: the first one had arrived.
    found = answer.found and not (again and answer.state == message.state)
    with trio.CancelScope(shield=True):  # it is saved: who asked is told so
        pending = await client.fresh(instance, answer.pending_signal, version)
        custom = await _custom_signal(client, message, answer)
    return CheckpointReply(
        found=found,
        state=answer.state if found else b"",
        pending_signal=pending,
        version=version,
        custom_signal=custom,
    )


async def _custom_signal(
    client: Instances, message: Checkpoint, answer: calls.CheckpointAnswer
) -> CustomSignal | None:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    if answer.custom_signal is not None:
        payload = await client.carried_through(
            client.keep, instance, checkpoint_id, answer.custom_signal.payload
        )
        return None if payload is None else CustomSignal(checkpoint_id, payload)
    if answer.found:  # a replay: the signal of the first time, if there was one
        payload = signal_payload(await client.read(instance, signal_id(checkpoint_id)))
        if payload is not None:
            return CustomSignal(checkpoint_id, payload)
    return None


async def get_checkpoint(client: Instances, message: GetCheckpoint) -> StoredState:
    answer, _ = await client.ask(
        calls.GetCheckpoint(message.instance_id, message.checkpoint_id), calls.GetCheckpointAnswer
    )
    return StoredState(found=answer.found, state=answer.state)


async def sleep(client: Instances, message: Sleep) -> SleepReply:
    """The server's own sleep stores nothing: the wake time is a checkpoint."""
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    wake = await client.save(
        instance, wake_id(checkpoint_id), message.wake_at_ms.to_bytes(8, "big")
    )
    if len(wake) != 8:
        raise ServerError(
            "sleep",
            "BAD_WAKE_TIME",
            f"the checkpoint {wake_id(checkpoint_id)!r} has {len(wake)} bytes, not 8",
        )
    version = client.next_version()
    answer, _ = await client.ask(
        calls.Checkpoint(instance, checkpoint_id, message.state), calls.CheckpointAnswer
    )
    return SleepReply(
        wake_at_ms=int.from_bytes(wake, "big"),
        pending_signal=await client.fresh(instance, answer.pending_signal, version),
        version=version,
    )


# ---- signals


async def poll_signals(client: Instances, message: PollSignals) -> PendingSignal:
    return await client.poll(message.instance_id)


async def acknowledge_signal(client: Instances, message: AcknowledgeSignal) -> Done:
    instance = message.instance_id
    if (await client.poll(instance)).signal == message.signal:
        carried_out = not (client.acks_suspend and message.signal.type is SignalType.PAUSE)
        await life.note_acknowledged(client, instance, message.signal, tells=carried_out)
    return Done()


async def take_signal(client: Instances, message: TakeSignal) -> SignalTaken:
    taken: SignalTaken = await client.carried_through(_take, client, message)
    return taken


async def _take(client: Instances, message: TakeSignal) -> SignalTaken:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    wait: Wait = (instance, checkpoint_id)
    taken = client.taken.setdefault(instance, set())
    if wait not in client.polls or checkpoint_id in taken:  # else this run has asked in vain before
        record = await client.read(instance, signal_id(checkpoint_id))
        if record is not None:
            return _taken(record)
    version = client.next_version()
    answer, _ = await client.ask(
        calls.PollSignals(instance, checkpoint_id), calls.PollSignalsAnswer
    )
    record = None
    if answer.custom_signal is not None:
        record = signal_record(answer.custom_signal.payload)
    elif message.give_up:
        record = TIMED_OUT
    if record is not None:
        record = await client.save(instance, signal_id(checkpoint_id), record)
        taken.add(checkpoint_id)
        client.polls.remove(wait)
    else:
        client.polls.add(wait)
    if client.tells_all:
        signal = await client.fresh(instance, answer.signal, version)
        await client.publish_signal(instance, signal, version)
    return SignalTaken(payload=None) if record is None else _taken(record)


def _taken(record: bytes) -> SignalTaken:
    return SignalTaken(payload=signal_payload(record), timed_out=record == TIMED_OUT)


async def stop_waiting(client: Instances, message: StopWaiting) -> Done:
    client.polls.remove((message.instance_id, message.checkpoint_id))
    return Done()


async def _of_operators(client: Instances, message: Request[Any]) -> Any:
    return await client.operate(message)


HANDLERS: Handlers[Instances] = {
    **life.HANDLERS,
    GetStatus: get_status,
    GetInput: get_input,
    Heartbeats: heartbeats,
    RecordEvent: record_event,
    RecordRetry: record_retry,
    Checkpoint: checkpoint,
    GetCheckpoint: get_checkpoint,
    Sleep: sleep,
    PollSignals: poll_signals,
    AcknowledgeSignal: acknowledge_signal,
    TakeSignal: take_signal,
    StopWaiting: stop_waiting,
    ReadCheckpoints: _of_operators,
    SendSignal: _of_operators,
    SendCustomSignal: _of_operators,
    ListInstances: _of_operators,
    CountInstances: _of_operators,
    ShowInstance: _of_operators,
    ListEvents: _of_operators,
    Prune: _of_operators,
    Vacuum: _of_operators,
    StartRuns: _of_operators,
    ClaimRuns: _of_operators,
    LookForWork: _of_operators,
    RecoverRuns: _of_operators,
    MarkRuns: _of_operators,
    AnnounceWorker: _of_operators,
    ListWorkers: _of_operators,
    EndsSince: _of_operators,
    GetResults: _of_operators,
    CancelChildren: _of_operators,
    SetQueues: _of_operators,
    PauseQueue: _of_operators,
    ListQueues: _of_operators,
    Transact: _of_operators,
    SetSchedules: _of_operators,
    FireSchedule: _of_operators,
    PauseSchedule: _of_operators,
    RemoveSchedule: _of_operators,
    ListSchedules: _of_operators,
    TakeMessage: _of_operators,
    SetAttributes: _of_operators,
    SignalMany: _of_operators,
    Rerun: _of_operators,
    Fork: _of_operators,
    SendMessage: _of_operators,
}
"""Which function answers which message."""
