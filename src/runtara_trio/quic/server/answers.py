"""What a server answers to each call of the protocol, over any backend.

The behaviour is runtara-core 1.4.1's where a stock client can see it; beyond it stand the
guards of our stores: a finished instance is ended by no second event, a custom signal is
saved before it is handed out, and who has lost an instance is told so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ... import logs
from ...backend import Backend
from ...clock import ms_of
from ...codec import MAX_STATE
from ...errors import ConfigError, InstanceBusy, LeaseLost, SdkError, ServerError
from ...ids import check_instance_id, check_stored_id, check_subtype, check_tenant_id, check_text
from ...messages import (
    AcknowledgeSignal,
    Checkpoint,
    GetCheckpoint,
    GetStatus,
    Heartbeats,
    Hold,
    PollSignals,
    RecordEvent,
    RecordOutcome,
    RecordRetry,
    TakeSignal,
)
from ...remote.names import (
    BUSY,
    HOLD,
    LEASE_LOST,
    outcome_of,
    signal_number,
    signal_type,
    status_number,
)
from ...serving.leases import Client, ClientLeases
from ...types import EventType, InstanceStatus, Signal, SignalType
from ...wire import calls, mapping
from ...wire.calls import Answer, Call


class Answers:
    """Answers the calls of a server's clients."""

    def __init__(self, backend: Backend, leases: ClientLeases) -> None:
        self.backend = backend
        self.leases = leases
        self._acknowledging: dict[str, list[trio.Event]] = {}

    def begin(self, call: Call | None) -> None:
        """A call has come; :meth:`answer` follows. What came first counts first where that
        matters: a stock client does not wait for the end of an acknowledgement."""
        if isinstance(call, calls.SignalAck):
            self._acknowledging.setdefault(call.instance_id, []).append(trio.Event())

    async def answer(
        self, client: Client, call: Call | None, patience: trio.CancelScope
    ) -> bytes | None:
        """The payload of the reply to a call; None: it ends without one.

        ``patience`` is around a call that only waits: cancelled, when nobody waits for it.
        """
        answer: Answer | None
        if isinstance(call, calls.Sleep):
            # Only waits, as runtara-core's does; a durable sleep is its client's work.
            with patience:
                await trio.sleep(call.duration_ms / 1000)
            answer = calls.SleepAnswer()
        else:
            answer = await self._answered(client, call)
        return None if answer is None else mapping.encode_answer(answer)

    async def _answered(self, client: Client, call: Call | None) -> Answer | None:
        if call is None:
            return calls.RpcError("EMPTY_REQUEST", "the request asks nothing")
        name = mapping.CALL_NAMES[type(call)]
        try:
            return await _HANDLERS[type(call)](self, client, call)
        except LeaseLost as exc:
            error = calls.RpcError(LEASE_LOST, str(exc))
        except ServerError as exc:
            error = calls.RpcError(f"{name.upper()}_ERROR", exc.message)
        except SdkError as exc:
            error = calls.RpcError(f"{name.upper()}_ERROR", str(exc))
        if isinstance(call, calls.UNANSWERED):
            logs.call_failed(call=name, error=error.message)
            return None
        return error

    async def acknowledged(self, instance_id: str) -> None:
        """Wait for the acknowledgements of an instance that came before."""
        for event in tuple(self._acknowledging.get(instance_id, ())):
            await event.wait()

    def end_acknowledgement(self, instance_id: str) -> None:
        events = self._acknowledging[instance_id]
        events.pop(0).set()
        if not events:
            del self._acknowledging[instance_id]


async def _register(answers: Answers, client: Client, call: calls.RegisterInstance) -> Answer:
    try:
        await answers.leases.register(
            client,
            check_instance_id(call.instance_id),
            tenant_id=check_tenant_id(call.tenant_id),
            checkpoint_id=(
                None if call.checkpoint_id is None else check_stored_id(call.checkpoint_id)
            ),
        )
    except InstanceBusy as exc:
        return calls.RegisterInstanceAnswer(False, f"{BUSY} {exc.holder}")
    except SdkError as exc:
        return calls.RegisterInstanceAnswer(False, str(exc))
    return calls.RegisterInstanceAnswer(True)


async def _checkpoint(answers: Answers, client: Client, call: calls.Checkpoint) -> Answer:
    check_stored_id(call.checkpoint_id)
    _check_size("state", call.state)
    reply = await answers.leases.write(
        client,
        call.instance_id,
        lambda lease: Checkpoint(
            instance_id=call.instance_id,
            lease=lease,
            checkpoint_id=call.checkpoint_id,
            state=call.state,
        ),
    )
    custom = reply.custom_signal
    return calls.CheckpointAnswer(
        found=reply.found,
        state=reply.state,
        pending_signal=_signal(call.instance_id, reply.pending_signal),
        custom_signal=(
            None if custom is None else calls.CustomSignal(custom.checkpoint_id, custom.payload)
        ),
    )


async def _get_checkpoint(answers: Answers, client: Client, call: calls.GetCheckpoint) -> Answer:
    message = GetCheckpoint(instance_id=call.instance_id, checkpoint_id=call.checkpoint_id)
    reply = await answers.backend.request(message)
    return calls.GetCheckpointAnswer(reply.found, reply.state)


async def _instance_event(answers: Answers, client: Client, call: calls.InstanceEvent) -> Answer:
    instance, payload = call.instance_id, call.payload
    _check_size("payload", payload)
    outcome = outcome_of(call.event_type)
    if outcome is not None:
        await answers.acknowledged(instance)
    if outcome is InstanceStatus.SUSPENDED and call.subtype == HOLD:
        await answers.leases.write(
            client,
            instance,
            lambda lease: Hold(instance_id=instance, lease=lease, signal=None, reason=payload),
        )
        return calls.InstanceEventAnswer(True)
    if outcome is not None:
        await answers.leases.write(
            client,
            instance,
            lambda lease: RecordOutcome(
                instance_id=instance, lease=lease, status=outcome, payload=payload
            ),
            ends=True,
            suspended=True,
        )
        return calls.InstanceEventAnswer(True)
    custom = call.event_type == calls.InstanceEventType.CUSTOM
    subtype = None if call.subtype is None else check_subtype(call.subtype)
    await answers.leases.write(
        client,
        instance,
        lambda lease: RecordEvent(
            instance_id=instance,
            lease=lease,
            # Of a type that nobody knows it is a heartbeat, to runtara-core too.
            type=EventType.CUSTOM if custom else EventType.HEARTBEAT,
            subtype=subtype,
            payload=payload,
        ),
    )
    return calls.InstanceEventAnswer(True)


async def _event_batch(answers: Answers, client: Client, call: calls.InstanceEventBatch) -> None:
    """Heartbeats are the automatic ones, which add no rows; the others are events."""
    beats = [one for one in call.events if one.event_type == calls.InstanceEventType.HEARTBEAT]
    if beats:
        await answers.backend.request(
            Heartbeats(instance_ids=tuple(one.instance_id for one in beats))
        )
    for event in call.events:
        if event.event_type != calls.InstanceEventType.HEARTBEAT:
            await answers._answered(client, event)


async def _status(answers: Answers, client: Client, call: calls.GetInstanceStatus) -> Answer:
    info = await answers.backend.request(GetStatus(instance_id=call.instance_id))
    return calls.GetInstanceStatusAnswer(
        instance_id=call.instance_id,
        status=status_number(info.status),
        checkpoint_id=info.checkpoint_id,
        started_at_ms=ms_of(info.started_at) or 0,
        finished_at_ms=ms_of(info.finished_at),
        output=info.output,
        error=info.error,
    )


async def _poll(answers: Answers, client: Client, call: calls.PollSignals) -> Answer:
    instance = call.instance_id
    checkpoint_id = call.checkpoint_id
    custom = None
    if checkpoint_id is not None:
        check_stored_id(checkpoint_id)
        info = await answers.backend.request(GetStatus(instance_id=instance))
        if info.status is InstanceStatus.RUNNING:
            taken = await answers.leases.write(
                client,
                instance,
                lambda lease: TakeSignal(
                    instance_id=instance, lease=lease, checkpoint_id=checkpoint_id
                ),
            )
            if taken.payload is not None:
                custom = calls.CustomSignal(checkpoint_id, taken.payload)
    pending = await answers.backend.request(PollSignals(instance_id=instance))
    return calls.PollSignalsAnswer(_signal(instance, pending.signal), custom)


async def _ack(answers: Answers, client: Client, call: calls.SignalAck) -> None:
    try:
        await _acknowledge(answers, client, call)
    finally:
        answers.end_acknowledgement(call.instance_id)


async def _acknowledge(answers: Answers, client: Client, call: calls.SignalAck) -> None:
    instance, kind = call.instance_id, signal_type(call.signal_type)
    if not call.acknowledged or kind is None:
        return
    pending = (await answers.backend.request(PollSignals(instance_id=instance))).signal
    signal = pending if pending is not None and pending.type is kind else None
    if kind is SignalType.CANCEL:
        await answers.leases.write(
            client,
            instance,
            lambda lease: RecordOutcome(
                instance_id=instance, lease=lease, status=InstanceStatus.CANCELLED, signal=signal
            ),
            ends=True,
            suspended=True,
        )
    elif signal is not None:
        await answers.leases.write(
            client,
            instance,
            lambda lease: AcknowledgeSignal(instance_id=instance, lease=lease, signal=signal),
        )


async def _retry(answers: Answers, client: Client, call: calls.RetryAttempt) -> None:
    check_stored_id(call.checkpoint_id)
    error = call.error_message
    await answers.leases.write(
        client,
        call.instance_id,
        lambda lease: RecordRetry(
            instance_id=call.instance_id,
            lease=lease,
            checkpoint_id=call.checkpoint_id,
            attempt=call.attempt_number,
            error=None if error is None else check_text("error_message", error),
        ),
    )


def _signal(instance_id: str, signal: Signal | None) -> calls.Signal | None:
    if signal is None:
        return None
    return calls.Signal(instance_id, signal_number(signal.type), signal.payload)


def _check_size(name: str, data: bytes) -> None:
    if len(data) > MAX_STATE:
        raise ConfigError(f"{name} has {len(data)} bytes, at most {MAX_STATE} are stored")


_HANDLERS: dict[type[Call], Callable[[Answers, Client, Any], Awaitable[Answer | None]]] = {
    calls.RegisterInstance: _register,
    calls.Checkpoint: _checkpoint,
    calls.GetCheckpoint: _get_checkpoint,
    calls.InstanceEvent: _instance_event,
    calls.InstanceEventBatch: _event_batch,
    calls.GetInstanceStatus: _status,
    calls.PollSignals: _poll,
    calls.SignalAck: _ack,
    calls.RetryAttempt: _retry,
}
"""Which function answers which call."""
