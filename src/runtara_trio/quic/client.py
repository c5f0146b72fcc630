"""A runtara-core, or ``runtara-trio serve``, as a backend.

The engine's messages become calls of the instance protocol, and what the protocol lacks is
done here: a durable sleep is a checkpoint with the wake time, a custom signal is saved
before it is handed on, an outcome whose answer was lost is looked up before it is sent
again, a cancel's acknowledgement is read back, and signals are polled for.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import outcome
import trio

from ..backend import Handlers, SignalBatch, dispatch_async
from ..clock import Clock
from ..config import SdkConfig
from ..errors import (
    InstanceBusy,
    InstanceFinished,
    LeaseLost,
    NotSupported,
    RegistrationError,
    SdkError,
    ServerError,
    Unreachable,
)
from ..ids import retry_id, signal_id, signal_record, wake_id
from ..messages import (
    AcknowledgeSignal,
    Checkpoint,
    CheckpointReply,
    Done,
    GetCheckpoint,
    GetStatus,
    Heartbeats,
    ListEvents,
    ListInstances,
    OutcomeReply,
    PendingSignal,
    PollSignals,
    Prune,
    ReadCheckpoints,
    RecordEvent,
    RecordOutcome,
    RecordRetry,
    Register,
    Registered,
    ReplyT,
    Request,
    SendCustomSignal,
    SendSignal,
    ShowInstance,
    SignalTaken,
    Sleep,
    SleepReply,
    StopWaiting,
    StoredState,
    TakeSignal,
)
from ..types import CustomSignal, EventType, InstanceInfo, InstanceStatus, Signal, SignalType
from ..wire import calls
from .acknowledged import Acknowledged
from .asking import Asking, read_answer
from .location import Server
from .names import BUSY, event_type, signal_number, signal_of, status_of
from .polling import Polls, Wait
from .session import OpenLink, Session

READ_BACK = 0.05
"""Seconds between two looks whether a cancel's acknowledgement was carried out."""


class QuicClient:
    """A backend on a server; open it with :func:`open_quic`."""

    def __init__(
        self, session: Session, config: SdkConfig, clock: Clock, nursery: trio.Nursery
    ) -> None:
        timeout = config.request_timeout_ms / 1000
        self.server = session.server
        self._asking = Asking(session, timeout)
        self.ask = self._asking.ask
        self.tell = self._asking.tell
        self.now_ms: Callable[[], int] = lambda: int(clock.now() * 1000)
        self.next_look = itertools.count(1).__next__
        self.polls = Polls(config.signal_poll_interval_ms / 1000)
        self._nursery = nursery
        self._acknowledged: dict[str, Acknowledged] = {}
        self._sent: dict[str, InstanceStatus] = {}
        self._news, self._batches = trio.open_memory_channel[SignalBatch](1000)

    async def request(self, message: Request[ReplyT], /) -> ReplyT:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return await dispatch_async(HANDLERS, self, message)
        except LeaseLost as exc:
            self.leave(exc.instance_id)  # another's now: nothing of it is polled for here
            raise

    async def signals(self) -> AsyncIterator[SignalBatch]:
        async for batch in self._batches:
            yield batch

    # ---- what an instance has here

    def enter(self, instance_id: str, *, resumed: bool) -> None:
        """It was registered: its signals are looked for from now on."""
        self._acknowledged[instance_id] = Acknowledged(instance_id, self, resumed=resumed)
        self._sent.pop(instance_id, None)
        self.polls.add((instance_id, None))

    def leave(self, instance_id: str) -> None:
        """It has ended, or is another's."""
        self._acknowledged.pop(instance_id, None)
        self._sent.pop(instance_id, None)
        self.polls.remove((instance_id, None))

    def acknowledged(self, instance_id: str) -> Acknowledged:
        known = self._acknowledged.get(instance_id)
        return Acknowledged(instance_id, self) if known is None else known

    async def fresh(self, instance_id: str, found: calls.Signal | None, look: int) -> Signal | None:
        """What a look found, if it is news."""
        self.polls.answered((instance_id, None))
        return await self.acknowledged(instance_id).fresh(signal_of(found), look)

    # ---- pieces of answers

    async def read(self, instance_id: str, checkpoint_id: str, /) -> bytes | None:
        """What is stored under an id."""
        call = calls.GetCheckpoint(instance_id, checkpoint_id)
        answer, _ = await self.ask(call, calls.GetCheckpointAnswer)
        return answer.state if answer.found else None

    async def save(self, instance_id: str, checkpoint_id: str, state: bytes, /) -> bytes:
        """Store a state, or get the one that is there."""
        call = calls.Checkpoint(instance_id, checkpoint_id, state)
        answer, _ = await self.ask(call, calls.CheckpointAnswer)
        return answer.state if answer.found else state

    async def status(self, instance_id: str) -> calls.GetInstanceStatusAnswer:
        call = calls.GetInstanceStatus(instance_id)
        return (await self.ask(call, calls.GetInstanceStatusAnswer))[0]

    async def poll(self, instance_id: str) -> PendingSignal:
        look = self.next_look()
        answer, _ = await self.ask(calls.PollSignals(instance_id), calls.PollSignalsAnswer)
        return PendingSignal(signal=await self.fresh(instance_id, answer.signal, look), look=look)

    async def keep(self, instance_id: str, checkpoint_id: str, payload: bytes) -> bytes:
        """Save a custom signal that was handed out: the server has deleted it. What stands."""
        record = signal_record(payload)
        return (await self.save(instance_id, signal_id(checkpoint_id), record))[1:]

    async def carried_through(self, function: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """Run a function to its end, also where its caller is cancelled meanwhile."""
        done = trio.Event()
        results: list[outcome.Outcome[Any]] = []

        async def run() -> None:
            try:
                results.append(await outcome.acapture(function, *args))
            finally:
                done.set()

        self._nursery.start_soon(run)
        await done.wait()
        if not results:
            raise Unreachable(f"the client of {self.server.name} was closed meanwhile")
        return results[0].unwrap()

    def rescue(self, message: Checkpoint, payload: bytes) -> None:
        """The reply to a checkpoint whose caller was cancelled: a signal in it must be kept."""
        with contextlib.suppress(ServerError):
            match read_answer("checkpoint", payload):
                case calls.CheckpointAnswer(custom_signal=calls.CustomSignal() as signal):
                    self._nursery.start_soon(
                        self._keep_quietly,
                        message.instance_id,
                        signal.checkpoint_id,
                        signal.payload,
                    )

    async def _keep_quietly(self, *what: Any) -> None:
        with contextlib.suppress(SdkError):
            await self.keep(*what)

    # ---- the watch

    async def watch(self) -> None:
        """Poll for signals. Runs until cancelled."""
        await self.polls.run(self._look)

    async def _look(self, wait: Wait) -> None:
        instance, checkpoint_id = wait
        if checkpoint_id is not None:  # the one who waits takes it
            await self.publish(SignalBatch(hints=((instance, checkpoint_id),)))
            return
        try:
            found = await self.poll(instance)
        except SdkError:
            return  # the next one is due soon enough, and a lost lease is told to who writes
        await self.publish_signal(instance, found.signal, found.look)

    async def publish_signal(self, instance: str, signal: Signal | None, look: int) -> None:
        if signal is not None:
            await self.publish(SignalBatch(signals=((instance, signal),), look=look))

    async def publish(self, batch: SignalBatch) -> None:
        await self._news.send(batch)


# ---- an instance's life


async def register(client: QuicClient, message: Register) -> Registered:
    instance = message.instance_id
    before = await client.status(instance)
    status = status_of(before.status)
    if status.finished and not message.revive:
        raise InstanceFinished(instance, status, before.output, before.error)
    call = calls.RegisterInstance(instance, message.tenant_id, message.checkpoint_id)
    answer, _ = await client.ask(call, calls.RegisterInstanceAnswer)
    if not answer.success:
        if answer.error.startswith(BUSY):
            raise InstanceBusy(instance, answer.error.removeprefix(BUSY).strip(), None)
        raise RegistrationError(answer.error)
    resumed = status not in (InstanceStatus.UNKNOWN, InstanceStatus.PENDING)
    client.enter(instance, resumed=resumed)
    try:
        pending = await client.poll(instance)
    except BaseException:
        client.leave(instance)  # whoever registered will not hear of it
        raise
    return Registered(
        lease=0, signal=pending.signal, look=pending.look, resumed=resumed, taken_from=None
    )


async def record_outcome(client: QuicClient, message: RecordOutcome) -> OutcomeReply:
    instance, status = message.instance_id, message.status
    if message.unless_cancelled:
        signal = (await client.poll(instance)).signal
        if signal is not None and signal.type is SignalType.CANCEL:
            return OutcomeReply(cancel=signal)
    if not await _recorded_already(client, instance, status):
        if message.signal is not None:
            await _note_acknowledged(client, instance, message.signal)
        if status is InstanceStatus.CANCELLED:
            await _record_cancelled(client, instance)
        else:
            await _record_event(client, message)
    client.leave(instance)
    return OutcomeReply(cancel=None)


async def _recorded_already(client: QuicClient, instance: str, status: InstanceStatus) -> bool:
    """Whether this outcome was sent before, and had arrived."""
    sent = client._sent.get(instance)
    client._sent[instance] = status
    return sent is status and status_of((await client.status(instance)).status) is status


async def _note_acknowledged(client: QuicClient, instance: str, signal: Signal) -> None:
    # Where something else ended the instance, nothing is left to be acknowledged.
    with contextlib.suppress(ServerError):
        await client.acknowledged(instance).add(signal, client.next_look)
    if signal.type is not SignalType.CANCEL:
        await client.tell(calls.SignalAck(instance, signal_number(signal.type), True))


async def _record_cancelled(client: QuicClient, instance: str) -> None:
    """Acknowledge a cancel. The call has no answer: it is read back."""
    while True:
        await client.tell(calls.SignalAck(instance, calls.SignalType.CANCEL, True))
        status = status_of((await client.status(instance)).status)
        if status is InstanceStatus.CANCELLED:
            return
        if status.finished:  # by somebody else, and a server of ours keeps that
            raise LeaseLost(instance)
        await trio.sleep(READ_BACK)


async def _record_event(client: QuicClient, message: RecordOutcome) -> None:
    event = calls.InstanceEvent(
        instance_id=message.instance_id,
        event_type=event_type(message.status),
        payload=message.payload,
        timestamp_ms=client.now_ms(),
    )
    while True:
        try:
            answer, _ = await client.ask(event, calls.InstanceEventAnswer, resend=False)
        except Unreachable:
            now = status_of((await client.status(message.instance_id)).status)
            if now is message.status:
                return
        else:
            _check(answer)
            return


def _check(answer: calls.InstanceEventAnswer) -> None:
    if not answer.success:
        raise ServerError("instance_event", "INSTANCE_EVENT_ERROR", answer.error or "refused")


async def get_status(client: QuicClient, message: GetStatus) -> InstanceInfo:
    found = await client.status(message.instance_id)
    return InstanceInfo(
        instance_id=message.instance_id,
        status=status_of(found.status),
        checkpoint_id=found.checkpoint_id,
        started_at=_time(found.started_at_ms),
        finished_at=_time(found.finished_at_ms),
        output=found.output,
        error=found.error,
    )


def _time(ms: int | None) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None


async def heartbeats(client: QuicClient, message: Heartbeats) -> Done:
    now = client.now_ms()
    events = tuple(
        calls.InstanceEvent(instance, calls.InstanceEventType.HEARTBEAT, timestamp_ms=now)
        for instance in message.instance_ids
    )
    with contextlib.suppress(Unreachable):  # the session has said so, and the next one is due
        await client.tell(calls.InstanceEventBatch(events), resend=False)
    return Done()


async def record_event(client: QuicClient, message: RecordEvent) -> Done:
    kind = calls.InstanceEventType
    event = calls.InstanceEvent(
        instance_id=message.instance_id,
        event_type=kind.HEARTBEAT if message.type is EventType.HEARTBEAT else kind.CUSTOM,
        payload=message.payload,
        timestamp_ms=client.now_ms(),
        subtype=message.subtype,
    )
    answer, _ = await client.ask(event, calls.InstanceEventAnswer, resend=False)
    _check(answer)
    return Done()


async def record_retry(client: QuicClient, message: RecordRetry) -> Done:
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
        await trio.sleep(READ_BACK)


# ---- checkpoints


async def checkpoint(client: QuicClient, message: Checkpoint) -> CheckpointReply:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    look = client.next_look()
    answer, again = await client.ask(
        calls.Checkpoint(instance, checkpoint_id, message.state),
        calls.CheckpointAnswer,
        orphaned=lambda payload: client.rescue(message, payload),
    )
    # Sent twice and answered with our own state: the first one had arrived.
    found = answer.found and not (again and answer.state == message.state)
    return CheckpointReply(
        found=found,
        state=answer.state if found else b"",
        pending_signal=await client.fresh(instance, answer.pending_signal, look),
        look=look,
        custom_signal=await _custom_signal(client, message, answer),
    )


async def _custom_signal(
    client: QuicClient, message: Checkpoint, answer: calls.CheckpointAnswer
) -> CustomSignal | None:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    if answer.custom_signal is not None:
        payload = await client.carried_through(
            client.keep, instance, checkpoint_id, answer.custom_signal.payload
        )
        return CustomSignal(checkpoint_id, payload)
    if answer.found:  # a replay: the signal of the first time, if there was one
        record = await client.read(instance, signal_id(checkpoint_id))
        if record is not None and record[:1] == b"\1":
            return CustomSignal(checkpoint_id, record[1:])
    return None


async def get_checkpoint(client: QuicClient, message: GetCheckpoint) -> StoredState:
    answer, _ = await client.ask(
        calls.GetCheckpoint(message.instance_id, message.checkpoint_id), calls.GetCheckpointAnswer
    )
    return StoredState(found=answer.found, state=answer.state)


async def sleep(client: QuicClient, message: Sleep) -> SleepReply:
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
    look = client.next_look()
    answer, _ = await client.ask(
        calls.Checkpoint(instance, checkpoint_id, message.state), calls.CheckpointAnswer
    )
    return SleepReply(
        wake_at_ms=int.from_bytes(wake, "big"),
        pending_signal=await client.fresh(instance, answer.pending_signal, look),
        look=look,
    )


# ---- signals


async def poll_signals(client: QuicClient, message: PollSignals) -> PendingSignal:
    return await client.poll(message.instance_id)


async def acknowledge_signal(client: QuicClient, message: AcknowledgeSignal) -> Done:
    instance = message.instance_id
    if (await client.poll(instance)).signal == message.signal:
        await _note_acknowledged(client, instance, message.signal)
    return Done()


async def take_signal(client: QuicClient, message: TakeSignal) -> SignalTaken:
    taken: SignalTaken = await client.carried_through(_take, client, message)
    return taken


async def _take(client: QuicClient, message: TakeSignal) -> SignalTaken:
    instance, checkpoint_id = message.instance_id, message.checkpoint_id
    wait: Wait = (instance, checkpoint_id)
    if wait not in client.polls:  # else this run has found none before
        record = await client.read(instance, signal_id(checkpoint_id))
        if record is not None:
            return SignalTaken(payload=record[1:])
    look = client.next_look()
    answer, _ = await client.ask(
        calls.PollSignals(instance, checkpoint_id), calls.PollSignalsAnswer
    )
    payload = None
    if answer.custom_signal is not None:
        payload = await client.keep(instance, checkpoint_id, answer.custom_signal.payload)
        client.polls.remove(wait)
    else:
        client.polls.add(wait)
    signal = await client.fresh(instance, answer.signal, look)
    await client.publish_signal(instance, signal, look)
    return SignalTaken(payload=payload)


async def stop_waiting(client: QuicClient, message: StopWaiting) -> Done:
    client.polls.remove((message.instance_id, message.checkpoint_id))
    return Done()


async def _of_a_store(client: QuicClient, message: Request[Any]) -> Any:
    raise NotSupported(
        f"{type(message).__name__} is no call of the instance protocol: {client.server.name} does "
        "not answer it; give the URL of the server's database as the store"
    )


HANDLERS: Handlers[QuicClient] = {
    Register: register,
    RecordOutcome: record_outcome,
    GetStatus: get_status,
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
    ReadCheckpoints: _of_a_store,
    SendSignal: _of_a_store,
    SendCustomSignal: _of_a_store,
    ListInstances: _of_a_store,
    ShowInstance: _of_a_store,
    ListEvents: _of_a_store,
    Prune: _of_a_store,
}
"""Which function answers which message."""


@asynccontextmanager
async def open_quic(
    server: Server, *, config: SdkConfig, clock: Clock, open_link: OpenLink | None = None
) -> AsyncIterator[QuicClient]:
    """Open a client. The first request connects."""
    timeout = config.connect_timeout_ms / 1000
    session = Session(server, timeout) if open_link is None else Session(server, timeout, open_link)
    async with trio.open_nursery() as nursery:
        client = QuicClient(session, config, clock, nursery)
        nursery.start_soon(session.run)
        nursery.start_soon(client.watch)
        yield client
        nursery.cancel_scope.cancel()
