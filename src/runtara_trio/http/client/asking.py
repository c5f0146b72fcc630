"""Calls over HTTP: each a request or a few, and an answer as what it says.

What a runtara-core 1.6 does not say, or says wrongly, is found out here: an end is believed once
``/status`` tells it, and an empty state, which ``/checkpoint`` takes for a question, is saved by a
sleep of no time.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import msgspec
import trio

from ...config import SdkConfig
from ...errors import LeaseLost, NotSupported, ServerError
from ...ids import signal_id, signal_record
from ...messages import Request
from ...remote.asking import Asking, Orphaned
from ...remote.names import HOLD, LEASE_LOST
from ...wire import calls
from .. import bodies
from .call import Call, Input, checkpoint_answer, custom_of, signal_of
from .connection import Response
from .operators import HANDLERS, Operators
from .pool import Pool

_EVENTS = {
    calls.InstanceEventType.HEARTBEAT: "heartbeat",
    calls.InstanceEventType.CUSTOM: "custom",
    calls.InstanceEventType.COMPLETED: "completed",
    calls.InstanceEventType.FAILED: "failed",
    calls.InstanceEventType.SUSPENDED: "suspended",
}
_ENDS = ("completed", "failed", "suspended")
_NOT_RUNNING = (calls.InstanceStatus.SUSPENDED, calls.InstanceStatus.PENDING)
_STATUSES = {one.name.lower(): one for one in calls.InstanceStatus}
_SUSPENDED = b"got 'suspended'"
"""How a refusal ends of what only a running instance may."""


class HttpAsking(Asking):
    """Makes calls to a runtara-core over HTTP."""

    acks_suspend = True
    wakes = True
    tells_all = False

    def __init__(self, pool: Pool, config: SdkConfig, operators: Operators | None = None) -> None:
        super().__init__(pool.server.name, config.request_timeout_ms / 1000)
        self._operators = operators
        self.pool = pool
        self.tenants: dict[str, str] = {}
        """Of what was registered, and has not ended."""
        self._brief: dict[str, trio.Lock] = {}
        token = "" if config.token is None else f"Authorization: Bearer {config.token}\r\n"
        self.head = (
            f"Host: {pool.server.authority}\r\nAccept: application/json\r\n"
            f"{bodies.CLIENT.decode()}: {secrets.token_hex(8)}\r\n{token}"
        )

    def trouble(self) -> str | None:
        return self.pool.trouble()

    async def input(self, instance_id: str) -> bytes | None:
        deadline = trio.current_time() + self._timeout
        one = Call(self, Input(instance_id), deadline, resend=True, orphaned=None)
        response = await one.send("/input")
        _check(one, response)
        return one.read(response, bodies.Input).input

    async def operate(self, message: Request[Any]) -> Any:
        if self._operators is None or type(message) not in HANDLERS:
            return await super().operate(message)
        return await self._operators.request(message)

    @asynccontextmanager
    async def briefly_running(self, instance_id: str) -> AsyncIterator[None]:
        """One that is held runs for a moment, once at a time: what lets it go on waits."""
        async with self._brief.setdefault(instance_id, trio.Lock()):
            with trio.CancelScope(shield=True):
                yield

    async def until_settled(self, instance_id: str) -> None:
        """Wait for such a moment to be over."""
        if instance_id in self._brief:
            async with self._brief.pop(instance_id):
                pass

    def registration(self, instance_id: str) -> bodies.Register:
        """What registers an instance again."""
        return bodies.Register(tenant_id=self.tenants.get(instance_id, ""))

    async def answer(
        self, call: calls.Call, deadline: float, *, resend: bool, orphaned: Orphaned | None
    ) -> tuple[calls.Answer, bool]:
        one = Call(self, call, deadline, resend=resend, orphaned=orphaned)
        answer = await _ASK[type(call)](one)
        return answer, one.resent

    async def carry(self, call: calls.Call, deadline: float, *, resend: bool) -> None:
        await _TELL[type(call)](Call(self, call, deadline, resend=resend, orphaned=None))


# ---- registering


async def _register(one: Call) -> calls.Answer:
    call: calls.RegisterInstance = one.call
    body = bodies.Register(tenant_id=call.tenant_id, checkpoint_id=call.checkpoint_id)
    await one.asking.until_settled(call.instance_id)
    response = await one.send("/register", body)
    if response.status in (200, 201):
        one.asking.tenants[call.instance_id] = call.tenant_id
        return calls.RegisterInstanceAnswer(one.read(response, bodies.Done).success)
    return calls.RegisterInstanceAnswer(False, one.refusal(response).message)


async def _status(one: Call) -> calls.Answer:
    response = await one.send("/status")
    if response.status != 200:
        return one.refusal(response)
    found = one.read(response, bodies.Status)
    known = found.found and found.status in _STATUSES
    return calls.GetInstanceStatusAnswer(
        instance_id=one.call.instance_id,
        status=_STATUSES[found.status] if known else calls.InstanceStatus.UNKNOWN,
        checkpoint_id=found.checkpoint_id,
        output=found.output,
        error=found.error if found.found else None,
    )


# ---- checkpoints


async def _checkpoint(one: Call) -> calls.Answer:
    call: calls.Checkpoint = one.call
    body = bodies.Checkpoint(checkpoint_id=call.checkpoint_id, state=call.state)
    response = await one.send("/checkpoint", body, late=True)
    if (
        response.status != 200
        and call.instance_id in one.asking.held
        and _SUSPENDED in response.body
    ):
        response = await _while_held(one, body)
    if response.status != 200:
        return one.refusal(response)
    answer = checkpoint_answer(one, response)
    return answer if call.state or answer.found else await _save_nothing(one, body)


async def _save_nothing(one: Call, question: bodies.Checkpoint) -> calls.Answer:
    """Save an empty state, which was not there; then what comes with it."""
    if not question.checkpoint_id:
        raise NotSupported(
            f"{one.asking.name} saves no empty state under an empty id: choose another id"
        )
    nothing = bodies.Sleep(duration_ms=0, checkpoint_id=question.checkpoint_id, state=b"")
    response = await one.send("/sleep", nothing)
    if response.status == 200:
        response = await one.send("/checkpoint", question, late=True)
    if response.status != 200:
        return one.refusal(response)
    return msgspec.structs.replace(checkpoint_answer(one, response), found=False)


async def _while_held(one: Call, body: bodies.Checkpoint) -> Response:
    """Save something of an instance that is held: only what runs may, so it runs for a moment."""
    instance = one.call.instance_id
    async with one.asking.briefly_running(instance):
        await one.send("/register", one.asking.registration(instance))
        response = await one.send("/checkpoint", body, late=True)
        if instance in one.asking.held:
            await one.send("/events", bodies.Event(event_type="suspended", subtype=HOLD))
    return response


async def _get_checkpoint(one: Call) -> calls.Answer:
    """An empty state asks. A signal that waits under the id comes along, and is gone: it is kept as
    whoever takes it would."""
    call: calls.GetCheckpoint = one.call
    question = bodies.Checkpoint(checkpoint_id=call.checkpoint_id, state=b"")
    response = await one.send("/checkpoint", question)
    if response.status != 200:
        refusal = one.refusal(response)  # what was asked is no checkpoint
        return msgspec.structs.replace(refusal, code=f"{one.name.upper()}_ERROR")
    answer = checkpoint_answer(one, response)
    if answer.custom_signal is not None:
        stored_as = signal_id(answer.custom_signal.checkpoint_id)
        record = bodies.Checkpoint(
            checkpoint_id=stored_as, state=signal_record(answer.custom_signal.payload)
        )
        response = await one.send("/checkpoint", record)
        if response.status != 200:
            return one.refusal(response)
        one.asking.kept(call.instance_id, answer.custom_signal.checkpoint_id)
    return calls.GetCheckpointAnswer(answer.found, answer.state)


# ---- signals


async def _poll(one: Call) -> calls.Answer:
    call: calls.PollSignals = one.call
    path = "/signals"
    if call.checkpoint_id is not None:
        if call.checkpoint_id in ("", "ack"):
            raise NotSupported(
                f"a signal for {call.checkpoint_id!r} cannot be asked for at {one.asking.name}: "
                "choose another id"
            )
        path = f"/signals/{quote(call.checkpoint_id, safe='')}"
    response = await one.send(path)
    if response.status != 200:
        return one.refusal(response)
    found = one.read(response, bodies.Signals)
    return calls.PollSignalsAnswer(
        signal=signal_of(one, found.signal),
        custom_signal=custom_of(found.custom_signal),
    )


async def _acknowledge(one: Call) -> None:
    call: calls.SignalAck = one.call
    kind = calls.SignalType(call.signal_type).name.lower()
    _check(one, await one.send("/signals/ack", bodies.Ack(signal_type=kind)))
    if call.signal_type == calls.SignalType.CANCEL:
        one.asking.tenants.pop(call.instance_id, None)


# ---- events and ends


async def _event(one: Call) -> calls.Answer:
    call: calls.InstanceEvent = one.call
    kind = _EVENTS[calls.InstanceEventType(call.event_type)]
    if kind not in _ENDS:
        return await _posted(one, kind)
    now = await _ended(one, kind)
    if isinstance(now, calls.GetInstanceStatusAnswer) and now.status in _NOT_RUNNING:
        # An acknowledged pause has suspended it: only what runs can end.
        await one.send("/register", one.asking.registration(call.instance_id))
        now = await _ended(one, kind)
    if not isinstance(now, calls.GetInstanceStatusAnswer):
        return now
    status = calls.InstanceStatus(now.status).name.lower()
    told = f"instance {call.instance_id!r} is {status}, not {kind}"
    return calls.InstanceEventAnswer(False, told)


async def _ended(one: Call, kind: str) -> calls.Answer:
    """The answer to an end; where the instance has another status then, that."""
    answer = await _posted(one, kind)
    if isinstance(answer, calls.RpcError):
        return answer
    now = await _status(one)
    if isinstance(now, calls.GetInstanceStatusAnswer) and now.status == _STATUSES[kind]:
        if one.call.subtype != HOLD:
            one.asking.tenants.pop(one.call.instance_id, None)
        return calls.InstanceEventAnswer(True)
    return now


async def _posted(one: Call, kind: str) -> calls.Answer:
    response = await one.send("/events", _event_body(one.call, kind))
    return calls.InstanceEventAnswer(True) if response.status == 200 else one.refusal(response)


def _event_body(call: calls.InstanceEvent, kind: str) -> bodies.Event:
    return bodies.Event(
        event_type=kind,
        checkpoint_id=call.checkpoint_id,
        payload=call.payload,
        subtype=call.subtype,
    )


async def _events(one: Call) -> None:
    """There is no batch."""
    batch: calls.InstanceEventBatch = one.call
    for event in batch.events:
        kind = _EVENTS[calls.InstanceEventType(event.event_type)]
        await one.send("/events", _event_body(event, kind), of=event.instance_id)


async def _retry(one: Call) -> None:
    call: calls.RetryAttempt = one.call
    body = bodies.Retry(
        checkpoint_id=call.checkpoint_id,
        attempt=call.attempt_number,
        error_message=call.error_message,
    )
    response = await one.send("/retry", body)
    if b"unique constraint" not in response.body.lower():  # it is recorded
        _check(one, response)


def _check(one: Call, response: Response) -> None:
    """Raises ServerError where a call that is answered by nothing else was refused."""
    if response.status != 200:
        refusal = one.refusal(response)
        if refusal.code == LEASE_LOST:
            raise LeaseLost(one.call.instance_id)
        raise ServerError(one.name, refusal.code, refusal.message)


_ASK: Mapping[type[calls.Call], Callable[[Call], Awaitable[calls.Answer]]] = {
    calls.RegisterInstance: _register,
    calls.GetInstanceStatus: _status,
    calls.Checkpoint: _checkpoint,
    calls.GetCheckpoint: _get_checkpoint,
    calls.PollSignals: _poll,
    calls.InstanceEvent: _event,
}
_TELL: Mapping[type[calls.Call], Callable[[Call], Awaitable[None]]] = {
    calls.SignalAck: _acknowledge,
    calls.InstanceEventBatch: _events,
    calls.RetryAttempt: _retry,
}
